"""Associations that stay open between two attempts at one destination, while more wait for it."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from config.destinations import DicomDestination
from scp_node.delivery.association import Connection, connect

LONGEST_S = 30.0
"""Then an association is released even though more waits: a peer that serves one at a time has others to serve."""
_CLOSE_S = 5.0
"""For all releases together at the end; a peer that does not answer then keeps no node from ending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An association for one attempt.

    Parameters
    ----------
    is_kept
        It was open already: the peer may just have ended it without this node having noticed.
    """

    connection: Connection
    calling_ae_title: str
    proposed: frozenset[tuple[str, str]]
    opened_at: float
    is_kept: bool = False


class Associations:
    """The associations of a process that are open and used by nobody at the moment; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, list[tuple[Opened, threading.Timer]]] = {}
        self._is_closed = False

    @contextmanager
    def open(
        self,
        destination: DicomDestination,
        calling_ae_title: str,
        proposed: Sequence[tuple[str, str]],
        *,
        is_more: Callable[[], bool],
        is_fresh: bool = False,
    ) -> Iterator[Opened]:
        """Take an association that is open or open another one, or raise NoAssociationError.

        Parameters
        ----------
        is_more
            Asked at the end: whether more waits for this destination, so that it is kept for the next.
        is_fresh
            Take none that was open already.
        """
        opened = None if is_fresh else self._take(destination, calling_ae_title, frozenset(proposed))
        if opened is None:
            opened = Opened(
                connection=connect(destination, calling_ae_title, proposed),
                calling_ae_title=calling_ae_title,
                proposed=frozenset(proposed),
                opened_at=time.monotonic(),
            )
        is_kept = False
        try:
            yield opened
            is_young = time.monotonic() - opened.opened_at < LONGEST_S
            if destination.keep_open_s and is_young and opened.connection.is_usable and is_more():
                is_kept = self._keep(destination, opened)
        finally:
            if not is_kept:
                opened.connection.close()

    def close(self) -> None:
        """Release all that nobody uses, and keep none from now on."""
        with self._lock:
            self._is_closed = True
            kept = [one for ones in self._kept.values() for one in ones]
            self._kept.clear()
        closing = [threading.Thread(target=opened.connection.close, daemon=True) for opened, _ in kept]
        for _, timer in kept:
            timer.cancel()
        for thread in closing:
            thread.start()
        deadline = time.monotonic() + _CLOSE_S
        for thread in closing:
            thread.join(max(deadline - time.monotonic(), 0.0))

    def _take(
        self, destination: DicomDestination, calling_ae_title: str, proposed: frozenset[tuple[str, str]]
    ) -> Opened | None:
        while True:
            with self._lock:
                kept = self._kept.get(destination.name)
                if not kept:
                    return None
                opened, timer = kept.pop()
            timer.cancel()
            is_fit = proposed <= opened.proposed and calling_ae_title == opened.calling_ae_title
            if is_fit and opened.connection.is_usable:
                return Opened(
                    connection=opened.connection,
                    calling_ae_title=calling_ae_title,
                    proposed=opened.proposed,
                    opened_at=opened.opened_at,
                    is_kept=True,
                )
            # Closed before another is opened: the peer may count them.
            opened.connection.close()

    def _keep(self, destination: DicomDestination, opened: Opened) -> bool:
        with self._lock:
            if self._is_closed:
                return False
            timer = threading.Timer(destination.keep_open_s, self._expire, (destination.name, opened.connection))
            timer.daemon = True
            self._kept.setdefault(destination.name, []).append((opened, timer))
            timer.start()
            return True

    def _expire(self, name: str, connection: Connection) -> None:
        with self._lock:
            kept = self._kept.get(name, [])
            found = [one for one in kept if one[0].connection is connection]
            self._kept[name] = [one for one in kept if one[0].connection is not connection]
        for opened, _ in found:
            opened.connection.close()
