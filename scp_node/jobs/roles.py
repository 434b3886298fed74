"""What a process of the node does: the one place where a role is added."""

import importlib
import socket
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import Protocol, cast, runtime_checkable

import sqlalchemy as sa

from config.settings import NodeSettings
from scp_node.errors import StartError
from scp_node.jobs.queues import Jobs
from scp_node.security.events import Sink
from scp_node.spool.store import Spool


class Role(StrEnum):
    """One task that a process can have; a process can have several, and several processes the same."""

    WORKER = "worker"
    """Analyses and delivers."""
    RECEIVER = "receiver"
    """Accepts associations, and files what comes in."""
    CONSOLE = "console"
    """Health, metrics, web pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all parts of a process share.

    Parameters
    ----------
    engine
        Fails at once when the database is away.
    receiver_port
        Listen here instead of on ``settings.receiver.port``; 0 lets the operating system choose.
    listeners
        Sockets that listen already, for the plain and the TLS port, instead of those of ``settings.receiver``.
    analyser
        ``module:function`` that the children load, see `scp_node.jobs.children.ChildPool`.
    roles
        Of this process.
    sink
        Takes security events; None: no audit trail is kept.
    """

    settings: NodeSettings
    engine: sa.Engine
    jobs: Jobs
    spool: Spool
    receiver_port: int | None
    analyser: str
    roles: tuple[Role, ...] = ()
    sink: Sink | None = None
    listeners: tuple[socket.socket | None, socket.socket | None] = (None, None)


class Part(Protocol):
    """A role at work; made with `Shared` as its only argument."""

    def start(self) -> None:
        """Begin; what could not begin is stopped again before an error leaves."""

    def stop(self, timeout_s: float) -> None:
        """Take nothing new, let running work end within the limit, end."""


@runtime_checkable
class WithCertificates(Protocol):
    """A part that listens with certificates of its own."""

    def refresh_certificates(self) -> bool:
        """Read them now; False when they cannot be used, and the former stay in use."""


_PARTS: dict[Role, tuple[str, str]] = {
    # In this order they start, and in reverse they stop: no association is accepted before the jobs of a predecessor
    # are taken over.
    Role.WORKER: ("scp_node.jobs.working", "Working"),
    Role.RECEIVER: ("scp_node.jobs.receiving", "Receiving"),
    Role.CONSOLE: ("scp_node.console.part", "Console"),
}


def installed_roles() -> tuple[Role, ...]:
    """Return the roles that this installation has the program for, in the order in which they start."""
    return tuple(role for role, (module, _) in _PARTS.items() if _is_installed(module))


def open_part(role: Role, shared: Shared) -> Part:
    """Make, not start, the part of a role.

    Raises
    ------
    StartError
        This installation has no such part.
    """
    module, name = _PARTS[role]
    if not _is_installed(module):
        raise StartError(f"there is no {role.value} in this installation ({module} is missing): leave the role out")
    return cast("Part", getattr(importlib.import_module(module), name)(shared))


def _is_installed(module: str) -> bool:
    package = module.rpartition(".")[0]
    return find_spec(package) is not None and find_spec(module) is not None
