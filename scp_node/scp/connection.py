"""One socket of the receiver: reads whole PDUs within a time limit, plain or through TLS, and can be woken.

With `upper_layer`, `association` and `acceptor` the only modules that touch pynetdicom's private parts. What is
overridden here, and why: the library reads in pieces of 4 KiB without a time limit, forgets to close a socket whose
peer closed first, and waits for data when all that has arrived is a message of TLS's own.
"""

import contextlib
import select
import socket
import ssl
import time
from typing import TYPE_CHECKING

from pynetdicom.transport import AssociationSocket

from scp_node.scp.lobby import Visit

if TYPE_CHECKING:
    from scp_node.scp.association import ServedAssociation

_HEADER_BYTES = 6
_DROP_BYTES = 65536


class Connection(AssociationSocket):  # type: ignore[misc] # pynetdicom is untyped here
    """A socket that reads whole PDUs within a time limit.

    Attributes
    ----------
    received_bytes
        Read so far.
    """

    def __init__(self, assoc: "ServedAssociation", visit: Visit) -> None:
        super().__init__(assoc, client_socket=visit.wire)
        self.received_bytes = 0
        self._visit = visit
        self._wire = visit.wire
        # Read already, to find out whether what has arrived is data at all: TLS has messages of its own.
        self._ahead = bytearray()
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._rope.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._poll.register(self._wire, select.POLLIN)

    def wait(self, timeout_s: float) -> bool:
        """Wait until bytes have arrived or somebody rings; return whether it is bytes (or the end of them)."""
        wire = self._wire.fileno()
        if wire < 0:
            return False
        if isinstance(self._wire, ssl.SSLSocket) and self._wire.pending():
            # Decrypted and waiting: the descriptor knows nothing of it.
            return True
        ready = {descriptor for descriptor, _ in self._poll.poll(timeout_s * 1000)}
        if self._bell.fileno() in ready:
            with contextlib.suppress(OSError):
                self._bell.recv(4096)
        if wire not in ready:
            return False
        return not isinstance(self._wire, ssl.SSLSocket) or self._is_data(self._wire)

    def ring(self) -> None:
        """End a `wait`; any thread may call this."""
        # Full or closed: it is ringing already, or there is nobody to hear it.
        with contextlib.suppress(OSError):
            self._rope.send(b"!")

    def close(self) -> None:
        """Close, with the farewell that TLS asks for (RFC 8446 6.1); called by the upper layer's thread."""
        if isinstance(self._wire, ssl.SSLSocket):
            # Not waiting for the peer's own: it may never come.
            with contextlib.suppress(OSError, ValueError):
                self._wire.settimeout(0)
                self._wire.unwrap()
        super().close()

    def close_for_good(self) -> None:
        """Release the descriptors; only when nobody reads any more."""
        self._shutdown_socket()
        self._bell.close()
        self._rope.close()

    def recv(self, nr_bytes: int) -> bytearray:
        """Read `nr_bytes`, or fewer when the peer closes; TimeoutError when it is too slow."""
        connection, limit_s = self.socket, self.assoc.read_limit_s
        buffer = bytearray(nr_bytes)
        received = min(len(self._ahead), nr_bytes)
        buffer[:received] = self._ahead[:received]
        del self._ahead[:received]
        deadline = time.monotonic() + limit_s
        connection.settimeout(limit_s)
        with memoryview(buffer) as view:
            while received < nr_bytes:
                count = connection.recv_into(view[received:])
                if not count:
                    break
                received += count
                self.received_bytes += count
                if received < nr_bytes:
                    # Not per piece: a peer that sends a byte now and then would stay for ever.
                    connection.settimeout(max(deadline - time.monotonic(), 0.001))
        connection.settimeout(limit_s)
        del buffer[received:]
        return buffer

    def hang_up(self) -> None:
        """End the connection; any thread may call this."""
        self._visit.hang_up()

    def drop_waiting(self) -> bool:
        """Read and forget what has arrived; False when nothing has, or the peer has closed."""
        try:
            # Not decrypted: nobody will read it.
            return bool(socket.socket.recv(self._wire, _DROP_BYTES, socket.MSG_DONTWAIT))
        except OSError:
            return False

    def _is_data(self, wire: ssl.SSLSocket) -> bool:
        """Whether there is application data, or the end of the connection; a whole record may not have arrived yet."""
        limit_s = wire.gettimeout()
        try:
            wire.settimeout(0)
            self._ahead += wire.recv(_HEADER_BYTES)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except (OSError, ValueError):
            # Reading it fails once more, where that is dealt with.
            return True
        finally:
            with contextlib.suppress(OSError):
                wire.settimeout(limit_s)
        self.received_bytes += len(self._ahead)
        return True

    def _shutdown_socket(self) -> None:
        # The library's leaves the socket open when the peer was first to close.
        self.hang_up()
        self._wire.close()
