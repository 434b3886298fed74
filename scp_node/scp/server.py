"""The receiver: a Verification and Storage SCP that starts, listens, and stops without losing what is under way."""

import contextlib
import errno
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Sequence

import structlog
from pynetdicom.ae import ApplicationEntity

from config.receiver import ReceiverSettings
from scp_node.scp.acceptor import AcceptorServer, Address
from scp_node.scp.contexts import supported_contexts
from scp_node.scp.gate import Gate
from scp_node.scp.handlers import Accept, Handlers
from scp_node.scp.notices import Notify
from scp_node.scp.part10 import Implementation
from scp_node.scp.statuses import Answer
from scp_node.security.credentials import ServerCredentials
from scp_node.security.events import EventKind, SecurityEvent, Sink, reporting
from scp_node.spool.store import Spool

_log = structlog.get_logger(__name__)

_BACKLOG = 128
"""Connections that wait to be accepted; a burst beyond it is delayed by a second per retry."""
_POLL_S = 0.1
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_WATCH_S = 10.0
"""Certificates that were renewed are used this much later at most."""
_RELOADABLE = (
    "callers",
    "maximum_associations",
    "maximum_associations_per_address",
    "maximum_associations_per_title",
)
"""Settings that can change while associations are open."""
_LAST_WORDS_S = 2.0
"""For the A-ABORTs of associations that were still open when the time to stop was over."""


def listen(bind: str, port: int) -> socket.socket:
    """Return a listening socket. Several acceptor processes can share one that was made before they started.

    Parameters
    ----------
    bind
        ``localhost``, or an IPv4 or IPv6 address.
    port
        0 lets the operating system choose.

    Raises
    ------
    OSError
        The address is not of this machine, or the port is taken.
    """
    address = "127.0.0.1" if bind == "localhost" else bind
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


class _Port(AcceptorServer):
    """A port that neither spins nor ends when descriptors or memory run out."""

    _is_short = False

    def get_request(self) -> tuple[socket.socket, Address]:
        """Accept a connection; when there is no room for any, wait: the one that asks stays in the queue."""
        try:
            accepted = super().get_request()
        except OSError as error:
            if error.errno in _SHORTAGES:
                if not self._is_short:
                    _log.warning("no connection can be accepted for now", error=str(error))
                self._is_short = True
                time.sleep(_POLL_S)
            raise
        self._is_short = False
        return accepted

    def verify_request(self, request: socket.socket, client_address: Address) -> bool:
        """Close a connection that cannot be counted; the library would let the error end the accepting thread."""
        try:
            return super().verify_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
            return False

    def handle_error(self, request: socket.socket, client_address: Address) -> None:
        """Log, and count a connection no more whose thread was not started."""
        super().handle_error(request, client_address)
        with contextlib.suppress(KeyError):
            self.lobby.leave(self.lobby.visit(request))


class Receiver:
    """The Storage SCP of one process.

    Parameters
    ----------
    accept
        Called with each complete object, by the thread of its association; makes it durable before it returns. Then
        success is answered; what it raises is answered with a failure.
    transfer_syntaxes
        UIDs that are accepted for all SOP Classes.
    implementation
        What this product calls itself.
    port
        Listen here instead of on ``settings.port``; 0 lets the operating system choose.
    listener
        A socket made by `listen` for the plain port, instead of one of its own; closed by `stop`.
    tls_port, tls_listener
        The same for the TLS port; only used with ``settings.tls.enabled``.
    notify
        Called with each N-EVENT-REPORT; without it Storage Commitment is not accepted at all.
    sink
        Told of whom was turned away and why; everything is logged in any case.
    """

    def __init__(
        self,
        settings: ReceiverSettings,
        spool: Spool,
        accept: Accept,
        transfer_syntaxes: Sequence[str],
        *,
        implementation: Implementation,
        port: int | None = None,
        listener: socket.socket | None = None,
        tls_port: int | None = None,
        tls_listener: socket.socket | None = None,
        sink: Sink | None = None,
        notify: Notify | None = None,
        refused: Callable[[Answer], None] = lambda _answer: None,
    ) -> None:
        self._settings = settings
        self._port = settings.port if port is None else port
        self._listener = listener
        self._tls_port = settings.tls.port if tls_port is None else tls_port
        self._tls_listener = tls_listener
        self._sink = reporting(sink)
        self._contexts = supported_contexts(transfer_syntaxes, with_commitment=notify is not None)
        self._implementation = implementation
        self._gate = Gate(settings, self._sink)
        self._handlers = Handlers(
            spool=spool,
            accept=accept,
            implementation=implementation,
            maximum_object_bytes=settings.maximum_object_bytes,
            notify=notify or (lambda _notice: False),
            refused=refused,
            urgent_on_request=settings.urgent_on_request,
        )
        self._credentials: ServerCredentials | None = None
        self._plain: AcceptorServer | None = None
        self._tls: AcceptorServer | None = None
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    @property
    def port(self) -> int:
        """The plain port that it listens on; only while it runs, and has one."""
        return _port_of(self._plain)

    @property
    def tls_port(self) -> int:
        """The TLS port that it listens on; only while it runs, and has one."""
        return _port_of(self._tls)

    @property
    def connections(self) -> int:
        """Open connections, with and without an association."""
        return sum(len(server.lobby) for server in self._servers)

    @property
    def _servers(self) -> list[AcceptorServer]:
        return [server for server in (self._plain, self._tls) if server is not None]

    def start(self) -> None:
        """Listen, and accept associations from now on; returns at once.

        Raises
        ------
        OSError
            The address is not of this machine, or a port is taken.
        CredentialsError
            Certificate, key or authorities cannot be used.
        """
        if self._servers:
            raise RuntimeError("the receiver is running")
        settings = self._settings
        self._stopping.clear()
        try:
            if settings.tls.enabled:
                self._credentials = ServerCredentials(settings.tls, self._sink)
                self._tls = self._server(self._tls_listener or listen(settings.bind, self._tls_port), self._credentials)
            if not settings.tls.only:
                self._plain = self._server(self._listener or listen(settings.bind, self._port), None)
        except BaseException:
            for server in self._servers:
                server.server_close()
            self._plain = self._tls = None
            raise
        for server in self._servers:
            self._spawn("receiver", self._serve, server)
        if self._credentials is not None:
            self._spawn("certificates", self._credentials.follow, self._stopping, _WATCH_S)
        _log.info(
            "receiver started",
            ae_title=settings.ae_title,
            bind=settings.bind,
            port=None if self._plain is None else self.port,
            tls_port=None if self._tls is None else self.tls_port,
        )

    def reload(self, settings: ReceiverSettings) -> bool:
        """Decide by other callers and limits from now on, and read certificates again; open associations go on.

        Titles, ports and the names of files stay as they were at the start.

        Returns
        -------
        bool
            False: the certificates cannot be used, and the former stay in use.
        """
        changed = {name: getattr(settings, name) for name in _RELOADABLE}
        self._gate.apply(self._settings.model_copy(update=changed))
        self._sink(
            SecurityEvent(kind=EventKind.CALLERS_RELOADED, reason=f"{len(settings.callers)} callers are configured")
        )
        return self._credentials is None or self._credentials.refresh(is_forced=True)

    def stop(self, timeout_s: float = 30.0) -> None:
        """Accept nothing more, let open associations end within the limit, abort the rest; nothing is left running.

        An object that was not answered when its association was aborted leaves no file; its sender has to repeat it.
        """
        servers = self._servers
        if not servers:
            return
        self._stopping.set()
        self._gate.drain()
        for server in servers:
            server.shutdown()
        for thread in self._threads:
            thread.join()
        for server in servers:
            for visit in server.lobby.waiting:
                visit.hang_up()
        ended = self._gate.wait_until_empty(timeout_s)
        associations = [association for server in servers for association in server.associations]
        for association in associations:
            association.abort(block=False)
        deadline = time.monotonic() + _LAST_WORDS_S
        for association in associations:
            association.join(timeout=max(deadline - time.monotonic(), 0.0))
            association.hang_up()
        self._plain = self._tls = self._credentials = None
        self._threads.clear()
        _log.info("receiver stopped", aborted=not ended)

    def _server(self, listener: socket.socket, credentials: ServerCredentials | None) -> AcceptorServer:
        return _Port(
            self._application_entity(),
            listener,
            settings=self._settings,
            contexts=self._contexts,
            handlers=self._handlers,
            gate=self._gate,
            sink=self._sink,
            credentials=credentials,
        )

    def _spawn(self, name: str, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _serve(self, server: AcceptorServer) -> None:
        """Accept connections until `stop`."""
        is_over = False
        while not is_over:
            try:
                server.serve_forever(_POLL_S)
                is_over = True
            except Exception:  # top of a thread: a port that has gone quiet would look like a node that is well
                _log.exception("accepting failed and goes on")
                is_over = self._stopping.wait(_POLL_S)

    def _application_entity(self) -> ApplicationEntity:
        settings = self._settings
        entity = ApplicationEntity(settings.ae_title)
        entity.acse_timeout = settings.acse_timeout_s
        entity.dimse_timeout = settings.dimse_timeout_s
        entity.network_timeout = settings.network_timeout_s
        entity.maximum_pdu_size = settings.maximum_pdu_bytes
        # The gate counts; the library would count connections that never asked for an association.
        entity.maximum_associations = 2**31
        entity.implementation_class_uid = self._implementation.class_uid
        entity.implementation_version_name = self._implementation.version_name
        return entity


def _port_of(server: AcceptorServer | None) -> int:
    if server is None:
        raise RuntimeError("the receiver is not running, or has no such port")
    return int(server.server_address[1])
