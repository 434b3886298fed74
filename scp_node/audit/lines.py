"""Lines at the end of a file of the audit trail: appended all or none, and read back after a crash."""

import os
from collections.abc import Sequence
from typing import BinaryIO

import structlog

from scp_node.audit.entries import NOTHING_BEFORE, Draft, Entry, digest

_log = structlog.get_logger(__name__)

_TAIL_BYTES = 256 * 1024
"""More than the longest line: JSON may write a character of a message in six."""


class Writer:
    """Appends while nobody else does; made by `Trail.writing`.

    Parameters
    ----------
    line
        The newest line; None in a new trail.

    Raises
    ------
    ValueError
        The line is no entry.
    """

    def __init__(self, file: BinaryIO, line: bytes | None) -> None:
        self._file = file
        self._sequence = 0 if line is None else Entry.from_line(line).sequence
        self._previous = NOTHING_BEFORE if line is None else digest(line)

    @property
    def sequence(self) -> int:
        """Of the newest entry; 0 in a new trail."""
        return self._sequence

    def append(self, drafts: Sequence[Draft]) -> None:
        """Write all of the messages or none, and wait until they are on the disk."""
        sequence, previous = self._sequence, self._previous
        lines = []
        for draft in drafts:
            sequence += 1
            entry = Entry(
                sequence=sequence,
                previous=previous,
                at=draft.at,
                record=draft.record,
                message=draft.message,
                user_action=draft.user_action,
            )
            lines.append(entry.to_line() + b"\n")
            previous = digest(lines[-1][:-1])
        _write(self._file, b"".join(lines))
        self._sequence, self._previous = sequence, previous


def _write(file: BinaryIO, content: bytes) -> None:
    """Append all or nothing."""
    start = file.seek(0, os.SEEK_END)
    try:
        view = memoryview(content)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())
    except OSError:
        file.truncate(start)
        raise


def cut_torn_line(file: BinaryIO) -> None:
    """Remove a line without an end: its writer died before it was on the disk, and promised nothing."""
    size = file.seek(0, os.SEEK_END)
    tail = _tail(file)
    if tail and not tail.endswith(b"\n"):
        torn = len(tail) - (tail.rfind(b"\n") + 1)
        _log.warning("torn line removed from the audit file", size_bytes=torn)
        file.truncate(size - torn)


def last_line(file: BinaryIO) -> bytes | None:
    """Return the last complete line."""
    lines, end, _ = _tail(file).rpartition(b"\n")
    return lines.rpartition(b"\n")[2] if end else None


def _tail(file: BinaryIO) -> bytes:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL_BYTES))
    return file.read(_TAIL_BYTES)
