"""pynetdicom's server with limits of our own: accepts connections and starts their associations.

With `upper_layer` the only module that touches pynetdicom's private parts. What is overridden, and why: the backlog of
the library is 5, it copies all presentation contexts for each connection, shakes hands for TLS in the accepting thread,
collects garbage every half minute, and counts connections that never ask for an association.
"""

import socket
import threading
from collections.abc import Sequence
from socketserver import BaseServer

import structlog
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from scp_node.scp.gate import Gate
from scp_node.scp.handlers import Handlers
from scp_node.scp.upper_layer import Connection, ServedAssociation

_log = structlog.get_logger(__name__)

_EXTRA_CONNECTIONS = 128
"""Connections without an association, beside those with one."""

Socket = socket.socket
"""The class below has an attribute of the module's name."""
Address = tuple[str, int] | tuple[str, int, int, int]


class _Request(RequestHandler):  # type: ignore[misc] # pynetdicom is untyped here
    """Turns a connection into an association, in a thread of its own: here a TLS handshake could take its time."""

    def handle(self) -> None:
        association = ServedAssociation(self.ae, self.server, self.client_address[0])
        association.name = f"association of {self.client_address[0]}:{self.client_address[1]}"
        association.set_socket(Connection(association, self.request))
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = self.server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        # Not copied: negotiating makes new contexts and leaves these as they are.
        acceptor.supported_contexts = self.server.contexts
        association.requestor.address_info = self.remote
        self.server.remember(association)
        association.start()


class AcceptorServer(ThreadedAssociationServer):  # type: ignore[misc] # pynetdicom is untyped here
    """Accepts connections on a socket that is listening already.

    Parameters
    ----------
    listener
        See `scp_node.scp.server.listen`; closed by `shutdown`.
    maximum_associations
        The gate enforces it; here it limits the connections.
    """

    daemon_threads = True
    socket: Socket

    def __init__(
        self,
        ae: ApplicationEntity,
        listener: Socket,
        *,
        contexts: Sequence[PresentationContext],
        handlers: Handlers,
        gate: Gate,
        maximum_associations: int,
    ) -> None:
        self.handlers = handlers
        self.gate = gate
        self._listener = listener
        self._maximum_connections = maximum_associations + _EXTRA_CONNECTIONS
        self._connections: set[ServedAssociation] = set()
        self._lock = threading.Lock()
        super().__init__(ae, listener.getsockname(), ae.ae_title, list(contexts), request_handler=_Request)

    @property
    def associations(self) -> list[ServedAssociation]:
        """All connections, with and without an association."""
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
        """Close a connection at once when there are too many."""
        del request
        if len(self._connections) < self._maximum_connections:
            return True
        _log.warning("connection closed", reason="too many connections", peer_address=client_address[0])
        return False

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
