"""Who may open an association. Titles are names and not passwords, so a caller can be bound to addresses too."""

import ipaddress
from dataclasses import dataclass
from enum import StrEnum

from config.base import Priority
from config.receiver import Caller, ReceiverSettings


class Rejection(StrEnum):
    """The rule that rejects an association."""

    CALLED_AE_TITLE = "called_ae_title"
    """Somebody else is meant."""
    CALLING_AE_TITLE = "calling_ae_title"
    """No caller has this title."""
    ADDRESS = "address"
    """The title is known, the address is not its own. The stranger is told the same as for an unknown title."""
    APPLICATION_CONTEXT = "application_context"
    """Another application than DICOM, or none (PS3.8 A.2.1)."""
    LOCAL_LIMIT = "local_limit"
    """As many associations as configured are open."""
    STOPPING = "stopping"
    """This node is about to stop."""

    @property
    def codes(self) -> tuple[int, int, int]:
        """Result, source and reason of the A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""
        return _CODES[self]


_CODES = {
    Rejection.CALLED_AE_TITLE: (1, 1, 7),
    Rejection.CALLING_AE_TITLE: (1, 1, 3),
    Rejection.ADDRESS: (1, 1, 3),
    Rejection.APPLICATION_CONTEXT: (1, 1, 2),
    Rejection.LOCAL_LIMIT: (2, 3, 2),
    Rejection.STOPPING: (2, 3, 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who is at the other end of an accepted association.

    Parameters
    ----------
    calling_ae_title, called_ae_title
        As sent, without padding.
    address
        IP address as text.
    priority
        Of everything that this peer sends.
    """

    calling_ae_title: str
    called_ae_title: str
    address: str
    priority: Priority


def decide(
    settings: ReceiverSettings, *, called_ae_title: str, calling_ae_title: str, address: str
) -> Peer | Rejection:
    """Return who the requestor is, or the rule that keeps it out.

    Without configured callers everybody on this machine may come in, and nobody else, whatever `settings.bind` says.
    Titles are compared without leading and trailing blanks, which are not significant (PS3.5 6.2).
    """
    called, calling = called_ae_title.strip(), calling_ae_title.strip()
    if called != settings.ae_title.strip():
        return Rejection.CALLED_AE_TITLE
    source = _ip_address(address)
    if not settings.callers:
        if not (settings.is_loopback and source.is_loopback):
            return Rejection.CALLING_AE_TITLE
        return Peer(calling_ae_title=calling, called_ae_title=called, address=str(source), priority=Priority.ROUTINE)
    entries = [caller for caller in settings.callers if caller.ae_title.strip() == calling]
    if not entries:
        return Rejection.CALLING_AE_TITLE
    for caller in entries:
        if _covers(caller, source):
            return Peer(calling_ae_title=calling, called_ae_title=called, address=str(source), priority=caller.priority)
    return Rejection.ADDRESS


def _ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Parse an address; an IPv4 client of a socket that serves both families is an IPv4 address again."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _covers(caller: Caller, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if not caller.addresses:
        return True
    return any(address in ipaddress.ip_network(network, strict=False) for network in caller.addresses)
