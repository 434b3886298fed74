"""Counts connections that have no association yet, and makes room for newcomers when there are too many."""

import contextlib
import socket
import threading
from collections import Counter


class Visit:
    """One connection, from being accepted to being closed.

    Attributes
    ----------
    accepted
        The socket as it was accepted.
    wire
        The socket in use: another one as soon as TLS begins.
    """

    def __init__(self, wire: socket.socket, address: str) -> None:
        self.accepted = wire
        self.wire = wire
        self.address = address
        self.is_turned_away = False

    def hang_up(self) -> None:
        """End the connection; any thread may call this. The descriptor stays, lest its number be given to another."""
        self.is_turned_away = True
        # Not the method of an SSLSocket, which takes the encryption away from under another thread's read.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.wire, socket.SHUT_RDWR)


class Lobby:
    """One per port.

    A peer that means it sends its A-ASSOCIATE-RQ at once. So when more connections than `capacity` wait for theirs, or
    for the end of their TLS handshake, the one that has waited longest goes, of the address that has the most: silent
    connections can fill the lobby, and still nobody else has to wait outside.

    Parameters
    ----------
    capacity
        Connections without an association.
    maximum
        Connections of all kinds: each costs threads and descriptors.
    """

    def __init__(self, capacity: int, maximum: int) -> None:
        self._capacity = capacity
        self._maximum = maximum
        # In order of arrival.
        self._waiting: dict[Visit, None] = {}
        self._all: dict[socket.socket, Visit] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Open connections of all kinds."""
        return len(self._all)

    @property
    def waiting(self) -> list[Visit]:
        """Connections without an association."""
        with self._lock:
            return list(self._waiting)

    def enter(self, wire: socket.socket, address: str) -> tuple[bool, Visit | None]:
        """Count a connection; return whether it may stay, and who had to go for it."""
        with self._lock:
            if len(self._all) >= self._maximum:
                return False, None
            sent_away = self._longest_waiting() if len(self._waiting) >= self._capacity else None
            if sent_away is not None:
                del self._waiting[sent_away]
            visit = Visit(wire, address)
            self._waiting[visit] = None
            self._all[wire] = visit
        if sent_away is not None:
            sent_away.hang_up()
        return True, sent_away

    def visit(self, wire: socket.socket) -> Visit:
        """Return what `enter` made for this socket."""
        with self._lock:
            return self._all[wire]

    def seat(self, visit: Visit) -> None:
        """It has an association and waits no more."""
        with self._lock:
            self._waiting.pop(visit, None)

    def leave(self, visit: Visit) -> None:
        """Its connection has ended; no error when it was forgotten before."""
        with self._lock:
            self._waiting.pop(visit, None)
            self._all.pop(visit.accepted, None)

    def _longest_waiting(self) -> Visit:
        counts = Counter(visit.address for visit in self._waiting)
        most = max(counts.values())
        return next(visit for visit in self._waiting if counts[visit.address] == most)
