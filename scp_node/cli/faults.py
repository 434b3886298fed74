"""What a start would refuse of a configuration that can be read: models, TLS files, ports; loads no network.

Imported by the commands that ask for it, since reading certificates takes longer than reading a configuration.
"""

import ipaddress
from collections.abc import Iterator
from itertools import combinations

from config.settings import NodeSettings
from inference.errors import CheckpointError
from inference.models.checkpoint import default_folder, read_manifest, verify_weights
from scp_node.security.contexts import unusable


def faults(settings: NodeSettings) -> Iterator[str]:
    """Each as a sentence."""
    yield from clashes(settings)
    yield from (f"TLS of {used_for}: {sentence}" for used_for, sentence in unusable(settings))
    folder = settings.analysis.checkpoints or default_folder()
    for name in settings.analysis.models:
        try:
            verify_weights(folder / name, read_manifest(folder / name))
        except CheckpointError as error:
            yield str(error)


def clashes(settings: NodeSettings) -> Iterator[str]:
    """Ports that two listeners of this node want at the same address; of the receiver's own two its settings tell."""
    receiver, console = settings.receiver, settings.console
    listeners = [("console.port", console.bind, console.port)]
    if receiver.tls.enabled:
        listeners.insert(0, ("receiver.tls.port", receiver.bind, receiver.tls.port))
    if not receiver.tls.only:
        listeners.insert(0, ("receiver.port", receiver.bind, receiver.port))
    for (one, here, port), (other, there, same) in combinations(listeners, 2):
        if port == same and _overlap(here, there):
            yield f"{one} and {other} are both {port}, and only one of them can listen there"


def _overlap(one: str, other: str) -> bool:
    addresses = {_address(one), _address(other)}
    if len(addresses) == 1:
        return True
    # A wildcard takes every address of its kind; a host name may stand for any.
    kinds = {address.version for address in addresses if not isinstance(address, str)}
    return len(kinds) == 1 and any(not isinstance(one, str) and one.is_unspecified for one in addresses)


def _address(bind: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | str:
    try:
        return ipaddress.ip_address("127.0.0.1" if bind == "localhost" else bind)
    except ValueError:
        return bind
