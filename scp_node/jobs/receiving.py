"""The receiver of a process: objects in, files and jobs out. Runs no job and never launches the durable engine."""

import socket
from contextlib import ExitStack

from config.destinations import DicomDestination
from config.settings import NodeSettings
from inference.imaging.decoders import available_transfer_syntaxes
from scp_node import implementation
from scp_node.delivery.commitment import ReportError, decode_report
from scp_node.errors import StartError
from scp_node.jobs.acceptors import Acceptors
from scp_node.jobs.intake import Filing
from scp_node.jobs.refusals import Refusals
from scp_node.jobs.reports import Reports
from scp_node.jobs.roles import Shared
from scp_node.scp.notices import Notice, Notify
from scp_node.scp.part10 import Implementation
from scp_node.scp.server import Receiver, listen
from scp_node.security.events import SecurityEvent


class Receiving:
    """Accepts associations and files what they bring."""

    def __init__(self, shared: Shared) -> None:
        settings = self._settings = shared.settings
        self._shared = shared
        self._refusals = Refusals(shared.engine)
        self._acceptors: Acceptors | None = None
        self._running = ExitStack()
        self._filing = Filing(
            shared.engine,
            shared.jobs,
            shared.spool,
            models=settings.analysis.models,
            destinations=tuple(destination.name for destination in settings.destinations),
            limits=settings.spool,
        )
        self._receiver: Receiver | None = None
        self._stop_timeout_s = 0.0

    @property
    def port(self) -> int:
        """The port it listens on; only while it runs."""
        if self._receiver is None:
            raise RuntimeError("the receiver is not running")
        return self._receiver.port

    @property
    def acceptor_processes(self) -> tuple[int, ...]:
        """Process ids of those that accept beside this one."""
        return () if self._acceptors is None else self._acceptors.processes

    def start(self) -> None:
        """Listen.

        Raises
        ------
        StartError
            A port is taken, may not be used by this user, or the address is not of this machine.
        CredentialsError
            Certificate, key or authorities cannot be used.
        """
        with ExitStack() as started:
            self._refusals.start()
            started.callback(self._refusals.stop)
            try:
                plain, tls = self._listeners(started)
                receiver = self._open(plain, tls)
                receiver.start()
            except OSError as error:
                raise StartError(f"cannot listen on {self._places()}: {error.strerror or error}") from error
            started.callback(lambda: receiver.stop(self._stop_timeout_s))
            self._receiver = receiver
            if (acceptors := self._acceptors) is not None:
                acceptors.start()
                # The last to start and the first to stop: all processes let their associations end at the same time.
                started.callback(lambda: acceptors.drain(self._stop_timeout_s))
            self._running = started.pop_all()

    def reload(self, settings: NodeSettings) -> bool:
        """Decide by other callers, and read certificates again; False when these cannot be used."""
        if self._acceptors is not None:
            self._acceptors.reload(settings)
        return self._receiver is not None and self._receiver.reload(settings.receiver)

    def stop(self, timeout_s: float) -> None:
        """Accept nothing more, let open associations end within the limit."""
        self._stop_timeout_s = timeout_s
        self._running.close()
        self._receiver = self._acceptors = None

    def _places(self) -> str:
        settings = self._settings.receiver
        plain = settings.port if self._shared.receiver_port is None else self._shared.receiver_port
        ports = ([] if settings.tls.only else [plain]) + ([settings.tls.port] if settings.tls.enabled else [])
        return " or ".join(f"{settings.bind}:{port}" for port in ports)

    def _listeners(self, started: ExitStack) -> tuple[socket.socket | None, socket.socket | None]:
        """Return the sockets for this process; where there are to be more processes, made for all of them."""
        settings = self._settings.receiver
        if settings.processes == 1:
            return self._shared.listeners
        shared: list[socket.socket | None] = [None, None]
        own: list[socket.socket | None] = [None, None]
        port = settings.port if self._shared.receiver_port is None else self._shared.receiver_port
        for place, (is_wanted, number) in enumerate(
            ((not settings.tls.only, port), (settings.tls.enabled, settings.tls.port))
        ):
            if is_wanted:
                listener = shared[place] = listen(settings.bind, number)
                started.callback(listener.close)
                # Closed when this process stops accepting, while the others are still told to.
                own[place] = listener.dup()
        self._acceptors = acceptors = Acceptors(self._settings, shared, settings.processes - 1)
        started.callback(lambda: acceptors.stop(self._stop_timeout_s))
        return own[0], own[1]

    def _open(self, listener: socket.socket | None, tls_listener: socket.socket | None) -> Receiver:
        return Receiver(
            self._settings.receiver,
            self._shared.spool,
            self._filing.accept,
            available_transfer_syntaxes(),
            implementation=Implementation(
                class_uid=implementation.CLASS_UID, version_name=implementation.version_name()
            ),
            port=self._shared.receiver_port,
            listener=listener,
            tls_listener=tls_listener,
            sink=self._tell,
            notify=_notify(self._shared),
            refused=self._refusals.refused,
        )

    def _tell(self, event: SecurityEvent) -> None:
        self._refusals.tell(event)
        if self._shared.sink is not None:
            self._shared.sink(event)


def _notify(shared: Shared) -> Notify | None:
    """Return what takes Storage Commitment reports; None where no destination is asked for any."""
    destinations = shared.settings.destinations
    if not any(isinstance(one, DicomDestination) and one.storage_commitment for one in destinations):
        return None
    reports = Reports(shared.engine, shared.jobs, destinations)

    def notify(notice: Notice) -> bool:
        try:
            report = decode_report(notice.event_type_id, notice.content, notice.transfer_syntax_uid)
        except ReportError:
            return False
        return reports.accept(report)

    return notify
