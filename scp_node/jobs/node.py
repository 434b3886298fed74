"""One process of a node: the database and the spool, and on them the parts of its roles, stopped in reverse order."""

import socket
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Self

import sqlalchemy as sa

from config.settings import NodeSettings
from inference.errors import InferenceError
from scp_node.audit.auditor import Auditor
from scp_node.audit.trail import AuditError
from scp_node.errors import DatabaseError, StartError
from scp_node.jobs import database, queues, spool_identity
from scp_node.jobs.auditing import open_auditor
from scp_node.jobs.migrations import migrate
from scp_node.jobs.queues import Jobs
from scp_node.jobs.receiving import Receiving
from scp_node.jobs.roles import Part, Role, Shared, WithCertificates, installed_roles, open_part
from scp_node.jobs.working import Working
from scp_node.spool.store import Spool

_STALE_INCOMING_S = 86400.0
"""Longer than any object takes to arrive: other receivers may share the spool."""

_one_per_process = threading.Lock()


class Node:
    """Does what its roles say until it is stopped; one per process, since the durable engine is one.

    Parameters
    ----------
    settings
        The whole configuration.
    roles
        What this process does; None: all that is installed.
    receiver_port
        Listen here instead of on ``settings.receiver.port``; 0 lets the operating system choose, for tests and demos.
    listeners
        Sockets that listen already, for the plain and the TLS port; closed by `stop`.
    analyser
        ``module:function`` that the children load, see `ChildPool`; for tests of what surrounds it.
    """

    def __init__(
        self,
        settings: NodeSettings,
        *,
        roles: Iterable[Role] | None = None,
        receiver_port: int | None = None,
        listeners: tuple[socket.socket | None, socket.socket | None] = (None, None),
        analyser: str = "scp_node.jobs.analyse:open_analyser",
    ) -> None:
        wanted = set(installed_roles() if roles is None else roles)
        self.roles = tuple(role for role in Role if role in wanted)
        self._settings = settings
        self._receiver_port = receiver_port
        self._listeners = listeners
        self._analyser = analyser
        self._running = ExitStack()
        self._parts: dict[Role, Part] = {}
        self._stop_timeout_s = settings.service.stop_timeout_s

    @property
    def port(self) -> int:
        """The port the receiver listens on; only while it runs."""
        match self._parts.get(Role.RECEIVER):
            case Receiving() as part:
                return part.port
        raise RuntimeError("no receiver runs in this process")

    @property
    def acceptor_processes(self) -> tuple[int, ...]:
        """Process ids of those that accept beside this one."""
        part = self._parts.get(Role.RECEIVER)
        return part.acceptor_processes if isinstance(part, Receiving) else ()

    @property
    def child_processes(self) -> tuple[int, ...]:
        """Process ids of the children that have loaded."""
        part = self._parts.get(Role.WORKER)
        return part.child_processes if isinstance(part, Working) else ()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all parts; returns when associations are accepted. Models may still be loading.

        Raises
        ------
        StartError
            Something is not as configured, or another node runs in this process; whatever had started is stopped again.
        """
        if not _one_per_process.acquire(blocking=False):
            raise StartError("a node runs in this process already")
        with ExitStack() as started:
            started.callback(_one_per_process.release)
            try:
                self._start(started)
            except sa.exc.DBAPIError as error:
                raise StartError(database.unusable(error)) from error
            except (OSError, InferenceError, DatabaseError, AuditError) as error:
                raise StartError(str(error)) from error
            self._running = started.pop_all()

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until the models are loaded, if this process has any; False when that takes longer.

        Raises
        ------
        StartError
            They cannot be loaded.
        """
        if not self._parts:
            raise RuntimeError("the node is not running")
        part = self._parts.get(Role.WORKER)
        return part.wait_ready(timeout_s) if isinstance(part, Working) else True

    def reload(self, settings: NodeSettings) -> bool:
        """Let other callers in from now on and read certificates again, ending nothing; all else needs a new start.

        Returns
        -------
        bool
            False: the certificates cannot be used, and the former stay in use.
        """
        is_good = True
        for part in self._parts.values():
            if isinstance(part, Receiving):
                is_good &= part.reload(settings)
            elif isinstance(part, WithCertificates):
                is_good &= part.refresh_certificates()
        return is_good

    def stop(self, timeout_s: float | None = None) -> None:
        """Accept nothing more, let running work end within the limit, leave the rest to others or the next start.

        Parameters
        ----------
        timeout_s
            For each part; None: ``service.stop_timeout_s``.
        """
        if timeout_s is not None:
            self._stop_timeout_s = timeout_s
        self._running.close()
        self._parts = {}

    def _start(self, started: ExitStack) -> None:
        settings = self._settings
        spool = Spool(settings.spool)
        engine = database.open_engine(settings.database.url)
        started.callback(engine.dispose)
        migrate(engine)
        spool_identity.settle(engine, spool)
        spool.sweep_incoming(_STALE_INCOMING_S)
        queues.migrate(settings.database.url)
        jobs = Jobs(engine)
        started.callback(jobs.close)
        auditor: Auditor | None = None
        if settings.audit.enabled:
            auditor = open_auditor(settings, engine, spool)
            auditor.start()
            started.callback(auditor.stop)
        shared = Shared(
            settings=settings,
            engine=engine,
            jobs=jobs,
            spool=spool,
            receiver_port=self._receiver_port,
            listeners=self._listeners,
            analyser=self._analyser,
            roles=self.roles,
            sink=auditor.tell if auditor else None,
        )
        parts: dict[Role, Part] = {}
        for role in self.roles:
            part = parts[role] = open_part(role, shared)
            part.start()
            started.callback(self._stop_part, part)
        self._parts = parts

    def _stop_part(self, part: Part) -> None:
        part.stop(self._stop_timeout_s)
