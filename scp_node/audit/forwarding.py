"""Sends the trail to a collector, in a thread of its own: the trail is the buffer, one number is the memory."""

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import structlog

from config.audit import SyslogSettings
from scp_node.audit.syslog import Collector, connect, frame
from scp_node.audit.trail import Trail
from scp_node.errors import NodeError

_log = structlog.get_logger(__name__)

_AT_ONCE = 50
_POLL_S = 1.0
"""Other processes may write to the trail too."""


class Forwarding:
    """Sends every entry once, and again what may have been lost when a connection broke.

    Several processes that write one trail may each have one of these: one sends, the others wait for it to end.

    Parameters
    ----------
    connect
        Opens the way to the collector.
    """

    def __init__(
        self, trail: Trail, settings: SyslogSettings, *, connect: Callable[[SyslogSettings], Collector] = connect
    ) -> None:
        self._trail = trail
        self._settings = settings
        self._connect = connect
        self._collector: Collector | None = None
        self._troubles: set[type[Exception]] = set()
        self._woken = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="audit forwarding", daemon=True)

    @property
    def sent_file(self) -> Path:
        """Holds the sequence of the last entry that was sent."""
        return self._trail.file.with_suffix(".sent")

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def wake(self) -> None:
        """There may be something new."""
        self._woken.set()

    def stop(self) -> None:
        """Send what is there if the collector takes it, and end."""
        self._is_stopping = True
        self._woken.set()
        self._thread.join(2 * self._settings.timeout_s)

    def sent(self) -> int:
        """Sequence of the last entry that was sent; 0 before the first."""
        try:
            return int(self.sent_file.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return 0

    def _run(self) -> None:
        with contextlib.ExitStack() as held:
            lock: BinaryIO | None = None
            has_lock = False
            while True:
                # Read before the work: what is written during it wakes again.
                is_last_round = self._is_stopping
                self._woken.clear()
                try:
                    if lock is None:
                        lock = held.enter_context(_open_private(self._trail.file.with_suffix(".lock"), os.O_RDWR))
                    has_lock = has_lock or _take(lock)
                    if has_lock:
                        self._send_all()
                    self._recover()
                except Exception as error:  # top of a thread: whatever ends it would silence the trail for good
                    self._fail(error)
                if is_last_round:
                    break
                self._woken.wait(self._settings.retry_s if self._troubles else _POLL_S)
            self._hang_up()

    def _send_all(self) -> None:
        sent = self.sent()
        newest = self._trail.newest()
        if newest is not None and sent > newest:
            sent = self._begin_anew(sent)
        elif sent == newest:
            return
        entries = self._trail.entries(after=sent)
        while batch := list(islice(entries, _AT_ONCE)):
            if self._collector is None:
                self._collector = self._connect(self._settings)
            self._collector.send([frame(entry.message, entry.at) for entry in batch])
            sent = batch[-1].sequence
            self._remember(sent)
            self._recover()

    def _begin_anew(self, sent: int) -> int:
        """What was sent is ahead of the trail: it was moved away, and nothing of the new one has been sent."""
        # Looked at again while nobody writes.
        with self._trail.writing() as writer:
            newest = writer.sequence
        if sent <= newest:
            return sent
        _log.warning("audit trail begins anew", sent=sent, newest=newest)
        self._remember(0)
        return 0

    def _fail(self, error: Exception) -> None:
        """Log each kind of trouble when it begins, not at each attempt while it lasts."""
        if type(error) not in self._troubles:
            is_known = isinstance(error, OSError | NodeError)
            _log.warning(
                "audit collector takes no messages; they wait in the file",
                error=str(error),
                exc_info=None if is_known else error,
            )
        self._troubles.add(type(error))
        self._hang_up()

    def _recover(self) -> None:
        if self._troubles:
            self._troubles.clear()
            _log.info("audit collector takes messages again", sent=self.sent())

    def _hang_up(self) -> None:
        collector, self._collector = self._collector, None
        if collector is not None:
            with contextlib.suppress(OSError):
                collector.close()

    def _remember(self, sent: int) -> None:
        # Not synchronised: after a power cut the collector gets some messages twice, never one message less.
        temporary = self.sent_file.with_suffix(".sent-new")
        with _open_private(temporary, os.O_RDWR | os.O_TRUNC) as file:
            file.write(str(sent).encode("ascii"))
        temporary.replace(self.sent_file)


def _open_private(file: Path, flags: int) -> BinaryIO:
    return os.fdopen(os.open(file, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+b")


def _take(lock: BinaryIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
