"""One socket of the receiver: reads whole PDUs within a time limit, plain or through TLS, and can be woken.

With `upper_layer`, `association` and `acceptor` the only modules that touch pynetdicom's private parts. What is
overridden here, and why: the library reads in pieces of 4 KiB into new memory without a time limit, forgets to close a
socket whose peer closed first, and waits for data when all that has arrived is a message of TLS's own.
"""

import contextlib
import mmap
import socket
import ssl
import time
from typing import TYPE_CHECKING

from pynetdicom.transport import AssociationSocket

from scp_node.bell import Bell
from scp_node.scp.lobby import Visit

if TYPE_CHECKING:
    from scp_node.scp.association import ServedAssociation

_DROP_BYTES = 65536
_BUFFER_BYTES = 1 << 20
"""Eight PDUs of the size that is offered: what is done once for all of them is cheaper than for each, and the kernel
keeps what is written in large pieces in large pages. Memory is taken as bytes come in, and goes with the connection.
"""
_IN_TIME_S = 0.5
"""A PDU that takes no longer needs no limit of its own for each piece."""


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
        # Between the two: arrived, and not asked for yet.
        self._buffer = _memory(_BUFFER_BYTES)
        self._begin = self._end = 0
        self._limit_s: float | None = None
        self._bell = Bell()
        self._bell.watch(self._wire)

    def wait(self, timeout_s: float) -> bool:
        """Wait until bytes have arrived or somebody rings; return whether it is bytes (or the end of them)."""
        if self._begin < self._end:
            return True
        if self._wire.fileno() < 0:
            return False
        if isinstance(self._wire, ssl.SSLSocket) and self._wire.pending():
            # Decrypted and waiting: the descriptor knows nothing of it.
            return True
        if not self._bell.wait(timeout_s):
            return False
        return not isinstance(self._wire, ssl.SSLSocket) or self._is_data(self._wire)

    def ring(self) -> None:
        """End a `wait`; any thread may call this."""
        self._bell.ring()

    def close(self) -> None:
        """Close, with the farewell that TLS asks for (RFC 8446 6.1); called by the upper layer's thread."""
        if isinstance(self._wire, ssl.SSLSocket):
            # Not waiting for the peer's own: it may never come.
            with contextlib.suppress(OSError, ValueError):
                self._wire.settimeout(0)
                self._wire.unwrap()
        super().close()

    def close_for_good(self) -> None:
        """Release descriptors and memory; only when nobody reads any more."""
        self._shutdown_socket()
        self._bell.close()
        # Now, and not when the garbage collector finds the circle that an association is.
        self._buffer, self._begin, self._end = memoryview(b""), 0, 0

    def arrived(self, wanted: int) -> memoryview:
        """Return all that has arrived and was not taken; waits until it is as much as `wanted`.

        Less when the peer closes; TimeoutError when it is too slow.

        Returns
        -------
        memoryview
            Of memory that the next call uses again.
        """
        if self._end - self._begin < wanted:
            self._fill(wanted)
        return self._buffer[self._begin : self._end]

    def take(self, count: int) -> None:
        """Take so many bytes of what has arrived; their memory is used again."""
        self._begin += count

    def _fill(self, wanted: int) -> None:
        """Read until as much is there, and within an association what else has arrived."""
        if self._begin:
            # Less than a PDU is left: the next read has room for many.
            left = self._end - self._begin
            self._buffer[:left] = self._buffer[self._begin : self._end]
            self._begin, self._end = 0, left
        if wanted > len(self._buffer):
            before = self._buffer[: self._end]
            self._buffer = _memory(wanted)
            self._buffer[: len(before)] = before
        # Who is nobody yet fills no more memory than the request needs.
        end = len(self._buffer) if self.assoc.is_established else wanted
        limit_s = self.assoc.read_limit_s
        deadline = time.monotonic() + limit_s
        self._set_limit(limit_s)
        while self._end - self._begin < wanted:
            count = self.socket.recv_into(self._buffer[self._end : end])
            if not count:
                break
            self._end += count
            self.received_bytes += count
            if self._end - self._begin < wanted:
                # Not per piece: a peer that sends a byte now and then would stay for ever.
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError
                if limit_s - left_s > _IN_TIME_S:
                    self._set_limit(left_s)
        self._set_limit(limit_s)

    def _set_limit(self, limit_s: float) -> None:
        """Set how long the socket may wait, in reading and in writing; a system call each time it changes."""
        if limit_s != self._limit_s:
            self.socket.settimeout(limit_s)
            self._limit_s = limit_s

    def hang_up(self) -> None:
        """End the connection; any thread may call this."""
        self._visit.hang_up()

    def drop_waiting(self) -> bool:
        """Read and forget what has arrived; False when nothing has, or the peer has closed."""
        if self._begin < self._end:
            self._begin = self._end
            return True
        try:
            # Not decrypted: nobody will read it.
            return bool(socket.socket.recv(self._wire, _DROP_BYTES, socket.MSG_DONTWAIT))
        except OSError:
            return False

    def _is_data(self, wire: ssl.SSLSocket) -> bool:
        """Whether there is application data, or the end of the connection; a whole record may not have arrived yet.

        The buffer is empty.
        """
        try:
            wire.settimeout(0)
            self._limit_s = None
            count = wire.recv_into(self._buffer)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except (OSError, ValueError):
            # Reading it fails once more, where that is dealt with.
            return True
        finally:
            with contextlib.suppress(OSError):
                self._set_limit(self.assoc.read_limit_s)
        self._begin, self._end = 0, count
        self.received_bytes += count
        return True

    def _shutdown_socket(self) -> None:
        # The library's leaves the socket open when the peer was first to close.
        self.hang_up()
        self._wire.close()


def _memory(size_bytes: int) -> memoryview:
    # Not from the allocator: what hundreds of short connections used and left lies between what others still use.
    return memoryview(mmap.mmap(-1, size_bytes))
