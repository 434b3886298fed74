"""pynetdicom's server with limits of our own: accepts connections and starts their associations.

With `upper_layer` the only module that touches pynetdicom's private parts. What is overridden, and why: the library
reads in pieces of 4 KiB without a time limit and forgets to close a socket whose peer closed first; its backlog is 5;
it copies all presentation contexts for each connection, shakes hands for TLS in the accepting thread, collects garbage
every half minute, and counts connections that never ask for an association.
"""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Sequence
from socketserver import BaseServer

import structlog
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from scp_node.scp.gate import Gate
from scp_node.scp.handlers import Handlers
from scp_node.scp.upper_layer import ServedAssociation

_log = structlog.get_logger(__name__)

_EXTRA_CONNECTIONS = 128
"""Connections without an association, beside those with one."""

Socket = socket.socket
"""The class below has an attribute of the module's name."""
Address = tuple[str, int] | tuple[str, int, int, int]


class _Connection(AssociationSocket):  # type: ignore[misc] # pynetdicom is untyped here
    """A socket that reads whole PDUs within a time limit."""

    def __init__(self, assoc: ServedAssociation, client_socket: Socket) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._wire = client_socket
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._rope.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._poll.register(client_socket, select.POLLIN)

    def wait(self, timeout_s: float) -> bool:
        """Wait until bytes have arrived or somebody rings; return whether it is bytes (or the end of them)."""
        wire = self._wire.fileno()
        if wire < 0:
            return False
        ready = {descriptor for descriptor, _ in self._poll.poll(timeout_s * 1000)}
        if self._bell.fileno() in ready:
            with contextlib.suppress(OSError):
                self._bell.recv(4096)
        return wire in ready

    def ring(self) -> None:
        """End a `wait`; any thread may call this."""
        # Full or closed: it is ringing already, or there is nobody to hear it.
        with contextlib.suppress(OSError):
            self._rope.send(b"!")

    def close_for_good(self) -> None:
        """Release the descriptors; only when nobody reads any more."""
        self._shutdown_socket()
        self._bell.close()
        self._rope.close()

    def recv(self, nr_bytes: int) -> bytearray:
        """Read `nr_bytes`, or fewer when the peer closes; TimeoutError when it is too slow."""
        connection, limit_s = self.socket, self.assoc.read_limit_s
        buffer = bytearray(nr_bytes)
        deadline = time.monotonic() + limit_s
        received = 0
        connection.settimeout(limit_s)
        with memoryview(buffer) as view:
            while received < nr_bytes:
                count = connection.recv_into(view[received:])
                if not count:
                    break
                received += count
                if received < nr_bytes:
                    # Not per piece: a peer that sends a byte now and then would stay for ever.
                    connection.settimeout(max(deadline - time.monotonic(), 0.001))
        connection.settimeout(limit_s)
        del buffer[received:]
        return buffer

    def hang_up(self) -> None:
        """End the connection; any thread may call this. The descriptor stays, lest its number be given to another."""
        with contextlib.suppress(OSError):
            self._wire.shutdown(socket.SHUT_RDWR)

    def _shutdown_socket(self) -> None:
        # The library's leaves the socket open when the peer was first to close.
        self.hang_up()
        self._wire.close()

    def drop_waiting(self) -> bool:
        """Read and forget what has arrived; False when the peer has closed."""
        try:
            return bool(self.socket.recv(65536))
        except OSError:
            return False


class _Request(RequestHandler):  # type: ignore[misc] # pynetdicom is untyped here
    """Turns a connection into an association, in a thread of its own: here a TLS handshake could take its time."""

    def handle(self) -> None:
        association = ServedAssociation(self.ae, self.server, self.client_address[0])
        association.name = f"association of {self.client_address[0]}:{self.client_address[1]}"
        association.set_socket(_Connection(association, self.request))
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
