"""pynetdicom's server with limits of our own: accepts connections, plain or TLS, and starts their associations.

With `upper_layer`, `association` and `connection` the only modules that touch pynetdicom's private parts. What is
overridden here, and why: the library's backlog is 5; it copies all presentation contexts for each connection, shakes
hands for TLS in the accepting thread, collects garbage every half minute, and counts connections that never ask for an
association.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Sequence
from socketserver import BaseServer

import structlog
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from config.receiver import ReceiverSettings
from scp_node.scp.association import ServedAssociation
from scp_node.scp.connection import Connection
from scp_node.scp.gate import Gate
from scp_node.scp.handlers import Handlers
from scp_node.scp.lobby import Lobby, Visit
from scp_node.security.certificates import Certificate, from_der
from scp_node.security.contexts import describe
from scp_node.security.credentials import ServerCredentials
from scp_node.security.events import EventKind, SecurityEvent, Sink

_log = structlog.get_logger(__name__)

_EXTRA_CONNECTIONS = 128
"""Connections without an association, beside those with one; as many again may be about to end."""
_LINGER_S = 1.0
"""For a peer to read why its handshake failed: closing with bytes unread would overtake the alert."""

Socket = socket.socket
"""The class below has an attribute of the module's name."""
Address = tuple[str, int] | tuple[str, int, int, int]


class _Request(RequestHandler):  # type: ignore[misc] # pynetdicom is untyped here
    """Turns a connection into an association, in a thread of its own: here a TLS handshake can take its time."""

    def handle(self) -> None:
        server = self.server
        visit = server.lobby.visit(self.request)
        try:
            is_secured, certificate = server.secure(visit)
            if is_secured:
                self._begin(visit, certificate)
        except BaseException:
            is_secured = False
            raise
        finally:
            if not is_secured:
                visit.hang_up()
                visit.wire.close()
                server.lobby.leave(visit)

    def _begin(self, visit: Visit, certificate: Certificate | None) -> None:
        server = self.server
        association = ServedAssociation(
            self.ae, server, visit, certificate=certificate, is_tls=server.credentials is not None
        )
        association.name = f"association of {self.client_address[0]}:{self.client_address[1]}"
        association.set_socket(Connection(association, visit))
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        # Not copied: negotiating makes new contexts and leaves these as they are.
        acceptor.supported_contexts = server.contexts
        association.requestor.address_info = self.remote
        server.remember(association)
        try:
            association.start()
        except RuntimeError:  # no more threads
            server.forget(association)
            raise


class AcceptorServer(ThreadedAssociationServer):  # type: ignore[misc] # pynetdicom is untyped here
    """Accepts connections on a socket that is listening already.

    Parameters
    ----------
    listener
        See `scp_node.scp.server.listen`; closed by `shutdown`.
    settings
        `maximum_associations` is enforced by the gate; here it limits the connections.
    credentials
        None: a plain port.
    """

    daemon_threads = True
    socket: Socket

    def __init__(
        self,
        ae: ApplicationEntity,
        listener: Socket,
        *,
        settings: ReceiverSettings,
        contexts: Sequence[PresentationContext],
        handlers: Handlers,
        gate: Gate,
        sink: Sink,
        credentials: ServerCredentials | None = None,
    ) -> None:
        self.settings = settings
        self.handlers = handlers
        self.gate = gate
        self.sink = sink
        self.credentials = credentials
        self.lobby = Lobby(_EXTRA_CONNECTIONS, settings.maximum_associations + 2 * _EXTRA_CONNECTIONS)
        self._listener = listener
        self._connections: set[ServedAssociation] = set()
        self._lock = threading.Lock()
        super().__init__(ae, listener.getsockname(), ae.ae_title, list(contexts), request_handler=_Request)

    @property
    def associations(self) -> list[ServedAssociation]:
        """All connections that have shaken hands, with and without an association."""
        with self._lock:
            return list(self._connections)

    def remember(self, association: ServedAssociation) -> None:
        """Count a connection."""
        with self._lock:
            self._connections.add(association)

    def forget(self, association: ServedAssociation) -> None:
        """Count a connection no more, and give its place at the gate back."""
        with self._lock:
            self._connections.discard(association)
        self.gate.leave(association)

    def secure(self, visit: Visit) -> tuple[bool, Certificate | None]:
        """Shake hands on a TLS port; return whether the connection may go on, and the certificate that was shown."""
        if self.credentials is None:
            return True, None
        wire = visit.wire
        try:
            wire.settimeout(self.settings.tls.handshake_timeout_s)
            # Raises for a peer that has hung up already, whose socket `ssl` would take over and not close.
            wire.getpeername()
            secured = self.credentials.context.wrap_socket(wire, server_side=True, do_handshake_on_connect=False)
            visit.wire = secured
            if visit.is_turned_away:
                return False, None
            secured.do_handshake()
            shown = secured.getpeercert(binary_form=True)
            certificate = None if shown is None else from_der(shown)
        except (OSError, ValueError) as error:
            if not visit.is_turned_away:
                self._tell(EventKind.TLS_FAILED, describe(error), visit.address)
                _linger(visit.wire)
            return False, None
        secured.settimeout(self.ae.network_timeout)
        return True, certificate

    def server_bind(self) -> None:
        """Take the listener instead of the socket that the base class has made."""
        self.socket.close()
        self.socket = self._listener
        # Several processes may wait on one listener: who comes too late must not block in accept.
        self.socket.setblocking(False)
        self.server_address = self.socket.getsockname()

    def server_activate(self) -> None:
        """Do nothing: it listens already."""

    def get_request(self) -> tuple[Socket, Address]:
        """Accept a connection."""
        connection, address = self.socket.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.settimeout(self.ae.network_timeout)
        return connection, address

    def verify_request(self, request: Socket, client_address: Address) -> bool:
        """Make room for a connection, or close it at once when there are too many about to end."""
        is_let_in, sent_away = self.lobby.enter(request, client_address[0])
        if sent_away is not None:
            self._tell(EventKind.LIMIT_REACHED, "too many connections without an association", sent_away.address)
        if not is_let_in:
            self._tell(EventKind.LIMIT_REACHED, "too many connections", client_address[0])
        return is_let_in

    def process_request(self, request: Socket, client_address: Address) -> None:
        """Start the thread of a connection."""
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads
            self.lobby.leave(self.lobby.visit(request))
            raise

    def handle_error(self, request: Socket, client_address: Address) -> None:
        """Log, where the base class prints."""
        del request
        _log.error("connection failed", peer_address=client_address[0], exc_info=True)

    def service_actions(self) -> None:
        """Do nothing: the library collects garbage here, which stops all threads of a process that holds models."""

    def shutdown(self) -> None:
        """Stop accepting, and close the listener; open associations go on."""
        # Not the library's, which expects the server to be in a list of its AE.
        BaseServer.shutdown(self)
        self.server_close()

    def _tell(self, kind: EventKind, reason: str, address: str) -> None:
        self.sink(SecurityEvent(kind=kind, reason=reason, address=address, is_tls=self.credentials is not None))


def _linger(wire: Socket) -> None:
    """Let the peer read the alert, and close first."""
    deadline = time.monotonic() + _LINGER_S
    # The methods of a plain socket: what still comes is not decrypted.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(wire, socket.SHUT_WR)
        while (left_s := deadline - time.monotonic()) > 0:
            wire.settimeout(left_s)
            if not socket.socket.recv(wire, 65536):
                return
