"""The socket of an association that this node opens: pynetdicom's, with limits.

pynetdicom's waits without limit for the rest of a PDU, and for a peer that takes nothing. Whoever ends the association
waits for the thread that does so, and then for ever too: a delivery, the question whether a destination is back, a node
that stops. And a message of TLS's own (a session ticket, say) it takes for a PDU, and sends nothing until one comes.

tests/unit/scp/test_pynetdicom_contract.py fails when a release changes what this relies on.
"""

import ssl
import time

from pynetdicom.transport import T_CONNECT, AssociationSocket

MAXIMUM_PDU_BYTES = 131072
"""What this node offers to take at once."""
_LONGEST_PDU_BYTES = 2 * MAXIMUM_PDU_BYTES
"""Some peers do not count headers, and an A-ASSOCIATE-AC has no maximum."""
_PIECE_BYTES = 2**18


class Wire(AssociationSocket):  # type: ignore[misc]  # pynetdicom is untyped here
    """A socket that neither reads nor writes for ever.

    Attributes
    ----------
    progressed_at
        When the peer has last taken something, in the seconds of ``time.monotonic``.
    """

    progressed_at = 0.0
    _first = b""
    _trouble: OSError | None = None

    def connect(self, primitive: T_CONNECT) -> None:
        """Connect as the base, and wait from then on no longer than for an answer."""
        super().connect(primitive)
        if self.socket is not None:
            self.socket.settimeout(self._limit_s)

    @property
    def ready(self) -> bool:
        """Whether there is a byte of a PDU, or the end of the connection."""
        if not super().ready:
            return False
        wire = self.socket
        if not isinstance(wire, ssl.SSLSocket) or wire.pending() or self._first:
            return True
        try:
            wire.settimeout(0)
            try:
                self._first = wire.recv(1)
            finally:
                wire.settimeout(self._limit_s)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError as error:
            # Raised where it is dealt with; reading again would say something else.
            self._trouble = error
        return True

    def recv(self, nr_bytes: int) -> bytearray:
        """Read so many bytes, less when the peer closes.

        Raises
        ------
        OSError
            It has not sent them within the limit, or says that it will send too many.
        """
        if self._trouble is not None:
            raise self._trouble
        if nr_bytes > _LONGEST_PDU_BYTES:
            raise ConnectionError("a PDU that is too long")
        content = bytearray(self._first)
        self._first = b""
        # Not per piece: a peer that sends a byte now and then would hold this thread for ever.
        deadline = time.monotonic() + self._limit_s
        while len(content) < nr_bytes:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("a PDU that does not end")
            self.socket.settimeout(left_s)
            piece = self.socket.recv(nr_bytes - len(content))
            if not piece:
                break
            content += piece
        self.socket.settimeout(self._limit_s)
        return content

    def send(self, bytestream: bytes) -> None:
        """Send a PDU; as the base, the state machine hears of a peer that has gone, or takes nothing any more."""
        left = memoryview(bytestream)
        try:
            while left:
                left = left[self.socket.send(left[:_PIECE_BYTES]) :]
                self.progressed_at = time.monotonic()
        except Exception:  # as the base has it: whatever it is, the connection is of no use any more
            self.event_queue.put("Evt17")

    @property
    def _limit_s(self) -> float:
        return float(self.assoc.network_timeout)
