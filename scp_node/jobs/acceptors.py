"""More acceptor processes on the same listening sockets; they are started, told what to do, and replaced when they die.

Each is a process of the role receiver with interpreter, threads and limits of its own. The operating system gives a
connection to whoever comes first, so a process that is busy gets fewer.
"""

import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Sequence

import structlog

from config.settings import NodeSettings
from scp_node.jobs.child_process import start_module

_log = structlog.get_logger(__name__)

_PAUSE_S = 1.0
"""Between the end of a process and the start of the next in its place."""
_LAST_WORDS_S = 10.0
"""For a process that was told to stop, beyond the time that its associations have."""


class _Acceptor:
    """One process, and the socket over which it takes orders."""

    def __init__(self, settings: NodeSettings, listeners: Sequence[socket.socket | None]) -> None:
        ours, theirs = socket.socketpair()
        descriptors = [one.fileno() for one in listeners if one is not None]
        # Ours stays open as a file; without one, because no process could be started, it is closed.
        with ours, theirs:
            self.process = start_module(
                "scp_node.jobs.acceptor",
                str(theirs.fileno()),
                *("-" if one is None else str(one.fileno()) for one in listeners),
                descriptors=[theirs.fileno(), *descriptors],
            )
            self._lines = ours.makefile("rw", encoding="utf-8")
        self.tell(settings.model_dump(mode="json"))

    def tell(self, order: object) -> None:
        """Give an order; one that has died hears nothing."""
        with contextlib.suppress(OSError, ValueError):
            self._lines.write(json.dumps(order) + "\n")
            self._lines.flush()

    def end(self, timeout_s: float) -> None:
        """Wait until it has ended, or end it."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        # What it was not told any more cannot be told now.
        with contextlib.suppress(OSError):
            self._lines.close()


class Acceptors:
    """The processes beside this one.

    Parameters
    ----------
    settings
        Of the node.
    listeners
        For the plain and the TLS port, None where there is none; closed by `stop`.
    count
        How many.
    """

    def __init__(self, settings: NodeSettings, listeners: Sequence[socket.socket | None], count: int) -> None:
        self._settings = _for_one(settings)
        self._listeners = listeners
        self._count = count
        self._running: list[_Acceptor] = []
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="acceptors", daemon=True)

    @property
    def processes(self) -> tuple[int, ...]:
        """Their process ids."""
        with self._lock:
            return tuple(acceptor.process.pid for acceptor in self._running)

    def start(self) -> None:
        """Start them; returns at once, they accept when they have loaded."""
        with self._lock:
            self._running = [self._one() for _ in range(self._count)]
        self._thread.start()

    def reload(self, settings: NodeSettings) -> None:
        """Pass on what can change while associations are open."""
        with self._lock:
            self._settings = _for_one(settings)
            for acceptor in self._running:
                acceptor.tell(self._settings.model_dump(mode="json"))

    def drain(self, timeout_s: float) -> None:
        """Tell them to stop within the limit; returns at once."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for acceptor in self._running:
            acceptor.tell({"stop": timeout_s})

    def stop(self, timeout_s: float) -> None:
        """Wait for their end, and close the listeners."""
        self.drain(timeout_s)
        deadline = time.monotonic() + timeout_s + _LAST_WORDS_S
        for acceptor in self._running:
            acceptor.end(max(deadline - time.monotonic(), 0.0))
        self._running = []
        for listener in self._listeners:
            if listener is not None:
                listener.close()

    def _one(self) -> _Acceptor:
        return _Acceptor(self._settings, self._listeners)

    def _watch(self) -> None:
        is_failing = False
        while not self._stopping.wait(_PAUSE_S):
            try:
                self._replace_ended()
                is_failing = False
            except Exception:  # top of a thread: without descriptors or memory now, but perhaps in the next second
                if not is_failing:
                    _log.warning("acceptor cannot be replaced now", exc_info=True)
                is_failing = True

    def _replace_ended(self) -> None:
        for place, acceptor in enumerate(self._running):
            if acceptor.process.poll() is not None:
                acceptor.end(0)
                with self._lock:
                    self._running[place] = self._one()
                _log.warning("acceptor ended", pid=acceptor.process.pid, code=acceptor.process.returncode)


def _for_one(settings: NodeSettings) -> NodeSettings:
    """The settings for a process that starts no others."""
    return settings.model_copy(update={"receiver": settings.receiver.model_copy(update={"processes": 1})})
