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
        self._is_failing = False
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
            lock = held.enter_context(_open_private(self._trail.file.with_suffix(".lock"), os.O_RDWR))
            has_lock = False
            while True:
                # Read before the work: what is written during it wakes again.
                is_last_round = self._is_stopping
                self._woken.clear()
                has_lock = has_lock or _take(lock)
                if has_lock:
                    self._send_all()
                if is_last_round:
                    break
                self._woken.wait(self._settings.retry_s if self._is_failing else _POLL_S)
            if self._collector is not None:
                self._collector.close()

    def _send_all(self) -> None:
        try:
            sent = self.sent()
            entries = self._trail.entries(after=sent)
            while batch := list(islice(entries, _AT_ONCE)):
                if self._collector is None:
                    self._collector = self._connect(self._settings)
                self._collector.send([frame(entry.message, entry.at) for entry in batch])
                sent = batch[-1].sequence
                self._remember(sent)
                if self._is_failing:
                    self._is_failing = False
                    _log.info("audit collector takes messages again", sent=sent)
        except (OSError, NodeError) as error:
            if not self._is_failing:
                _log.warning("audit collector takes no messages; they wait in the file", error=str(error))
            self._is_failing = True
            if self._collector is not None:
                self._collector.close()
                self._collector = None

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
