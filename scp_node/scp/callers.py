"""Who may open an association. Titles are names and not passwords, so a caller can be bound to addresses too."""

import ipaddress
from dataclasses import dataclass
from enum import StrEnum

from config.base import Priority
from config.receiver import Caller, ReceiverSettings
from scp_node.security.certificates import Certificate

_IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Rejection(StrEnum):
    """The rule that rejects an association."""

    CALLED_AE_TITLE = "called_ae_title"
    """Somebody else is meant."""
    CALLING_AE_TITLE = "calling_ae_title"
    """No caller has this title."""
    ADDRESS = "address"
    """The title is known, the address is not its own. The stranger is told the same as for an unknown title."""
    CERTIFICATE = "certificate"
    """The title and address are known, but the caller is bound to a certificate that was not shown."""
    APPLICATION_CONTEXT = "application_context"
    """Another application than DICOM, or none (PS3.8 A.2.1)."""
    LOCAL_LIMIT = "local_limit"
    """As many associations as configured are open."""
    ADDRESS_LIMIT = "address_limit"
    """As many from this address."""
    TITLE_LIMIT = "title_limit"
    """As many with this calling title."""
    STOPPING = "stopping"
    """This node is about to stop."""

    @property
    def is_limit(self) -> bool:
        """Whether the requestor is welcome and only comes too often."""
        return self in (Rejection.LOCAL_LIMIT, Rejection.ADDRESS_LIMIT, Rejection.TITLE_LIMIT)

    @property
    def codes(self) -> tuple[int, int, int]:
        """Result, source and reason of the A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""
        return _CODES[self]


_CODES = {
    Rejection.CALLED_AE_TITLE: (1, 1, 7),
    Rejection.CALLING_AE_TITLE: (1, 1, 3),
    Rejection.ADDRESS: (1, 1, 3),
    Rejection.CERTIFICATE: (1, 1, 3),
    Rejection.APPLICATION_CONTEXT: (1, 1, 2),
    Rejection.LOCAL_LIMIT: (2, 3, 2),
    Rejection.ADDRESS_LIMIT: (2, 3, 2),
    Rejection.TITLE_LIMIT: (2, 3, 2),
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
    settings: ReceiverSettings,
    *,
    called_ae_title: str,
    calling_ae_title: str,
    address: str,
    certificate: Certificate | None = None,
) -> Peer | Rejection:
    """Return who the requestor is, or the rule that keeps it out.

    Parameters
    ----------
    certificate
        What the requestor has shown, verified; None without TLS or without one.

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
    caller = _caller(settings, calling, source, certificate)
    if isinstance(caller, Rejection):
        return caller
    return Peer(calling_ae_title=calling, called_ae_title=called, address=str(source), priority=caller.priority)


def _caller(
    settings: ReceiverSettings, title: str, address: _IpAddress, certificate: Certificate | None
) -> Caller | Rejection:
    entries = [caller for caller in settings.callers if caller.ae_title.strip() == title]
    if not entries:
        return Rejection.CALLING_AE_TITLE
    entries = [caller for caller in entries if _covers(caller, address)]
    if not entries:
        return Rejection.ADDRESS
    return next((caller for caller in entries if _fits(caller, certificate)), Rejection.CERTIFICATE)


def _ip_address(text: str) -> _IpAddress:
    """Parse an address; an IPv4 client of a socket that serves both families is an IPv4 address again."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _covers(caller: Caller, address: _IpAddress) -> bool:
    if not caller.addresses:
        return True
    return any(address in ipaddress.ip_network(network, strict=False) for network in caller.addresses)


def _fits(caller: Caller, certificate: Certificate | None) -> bool:
    if not caller.is_bound_to_certificate:
        return True
    if certificate is None:
        return False
    names = {name.lower() for name in caller.certificate_names}
    return certificate.sha256 in caller.certificate_sha256 or not names.isdisjoint(certificate.names)
