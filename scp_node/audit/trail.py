"""The file of the audit trail: one JSON object a line, appended to, each line naming the digest of the one before it.

Several processes may write to one trail. Closed files stay beside it as ``audit-<first sequence>.jsonl``. The trail is
also the buffer of what a collector has not taken yet, so that nothing is kept twice.
"""

import fcntl
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import structlog

from scp_node.audit.entries import Draft, Entry, digest
from scp_node.audit.lines import Writer, cut_torn_line, last_line
from scp_node.durability import synchronise
from scp_node.errors import NodeError

_log = structlog.get_logger(__name__)


class AuditError(NodeError):
    """The audit trail cannot be written or read."""


class Trail:
    """An audit trail in a folder of its own.

    Parameters
    ----------
    file
        The file that is appended to.
    maximum_file_bytes
        A larger one is closed and renamed.
    keep_files
        Closed files that are kept.
    """

    def __init__(self, file: Path, *, maximum_file_bytes: int, keep_files: int) -> None:
        self.file = file.absolute()
        self._maximum_file_bytes = maximum_file_bytes
        self._keep_files = keep_files
        self._is_growing_on = False

    def create(self) -> None:
        """Make folder and file, private to this user.

        Raises
        ------
        AuditError
            They cannot be made, or are open to others and belong to somebody else.
        """
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._open():
                pass
        except OSError as error:
            raise AuditError(f"audit.file {self.file}: {error.strerror or error}") from error

    def append(self, drafts: Sequence[Draft]) -> None:
        """Write messages in this order and wait until they are on the disk.

        Raises
        ------
        AuditError
            The disk refused them; none counts as written.
        """
        with self.writing() as writer:
            writer.append(drafts)

    @contextmanager
    def writing(self) -> Iterator["Writer"]:
        """Keep other writers, of other processes too, out until the block ends.

        Raises
        ------
        AuditError
            The file cannot be opened or written, or ends with something that this node did not write.
        """
        try:
            with self._open() as file:
                cut_torn_line(file)
                line = last_line(file) or self._last_closed_line()
                yield Writer(file, line)
                if file.seek(0, os.SEEK_END) > self._maximum_file_bytes:
                    self._try_to_close_file(file)
        except OSError as error:
            raise AuditError(f"audit.file {self.file}: {error.strerror or error}") from error
        except ValueError as error:
            raise AuditError(f"audit.file {self.file}: its last line is none of this node's; move the file") from error

    def files(self) -> list[Path]:
        """All files of the trail, oldest first."""
        closed = re.compile(re.escape(self.file.stem) + r"-(\d{12})" + re.escape(self.file.suffix))
        found = sorted(path for path in self.file.parent.iterdir() if closed.fullmatch(path.name))
        return [*found, self.file]

    def lines(self, after: int = 0) -> Iterator[bytes]:
        """Yield the complete lines of all files, oldest first, from about `after` on: whole files are left out."""
        files = self.files()
        while len(files) > 1 and _first_sequence(files[1], self.file) <= after + 1:
            files.pop(0)
        for path in files:
            try:
                with path.open("rb") as file:
                    yield from (line[:-1] for line in file if line.endswith(b"\n"))
            except FileNotFoundError:
                # Closed, or removed as the oldest, since it was listed.
                continue

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield the entries with a sequence above `after`; lines that are none are left out, see `faults`."""
        seen = after
        for line in self.lines(after):
            try:
                entry = Entry.from_line(line)
            except ValueError:
                continue
            if entry.sequence > seen:
                seen = entry.sequence
                yield entry

    def newest(self) -> int | None:
        """Return the sequence of the newest entry; 0 in a new trail, None when its last line is no entry.

        Keeps no writer waiting: what is being written at this moment may not count yet.
        """
        line = None
        # Missing: closed just now, and the next not yet begun.
        with suppress(FileNotFoundError), self.file.open("rb") as file:
            line = last_line(file)
        line = line or self._last_closed_line()
        try:
            return 0 if line is None else Entry.from_line(line).sequence
        except ValueError:
            return None

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with the trail: lines changed, missing or foreign. None: it is as it was written.

        Whoever can write the files can also make a new, consistent trail, or cut its end off: only the collector's copy
        shows that.
        """
        previous: str | None = None
        sequence: int | None = None
        for number, line in enumerate(self.lines(), 1):
            try:
                entry = Entry.from_line(line)
            except ValueError:
                yield f"line {number}: no entry of an audit trail"
            else:
                if sequence is not None and entry.sequence != sequence + 1:
                    yield f"line {number}: sequence {entry.sequence} after {sequence}"
                if previous is not None and entry.previous != previous:
                    yield f"line {number}: sequence {entry.sequence} does not follow from the line before it"
                sequence = entry.sequence
            previous = digest(line)

    def _open(self) -> BinaryIO:
        """Open for appending, locked until it is closed, and surely the file that has this name now."""
        while True:
            file = os.fdopen(self._descriptor(), "r+b", buffering=0)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                status = os.fstat(file.fileno())
                # Another process may have closed and renamed it while this one waited.
                if self.file.exists() and self.file.stat().st_ino == status.st_ino:
                    if stat.S_IMODE(status.st_mode) != 0o600:
                        os.fchmod(file.fileno(), 0o600)
                    return file
            except BaseException:
                file.close()
                raise
            file.close()

    def _descriptor(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(self.file, flags, 0o600)
        except PermissionError:
            if not self._is_half_closed():
                raise
            self.file.chmod(0o600)
            return os.open(self.file, flags, 0o600)

    def _is_half_closed(self) -> bool:
        """Whether it is as an earlier version left it when it was killed: read-only, and not yet renamed."""
        status = self.file.lstat()
        return stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o400 and status.st_uid == os.geteuid()

    def _last_closed_line(self) -> bytes | None:
        closed = self.files()[:-1]
        if not closed:
            return None
        with closed[-1].open("rb") as file:
            return last_line(file)

    def _try_to_close_file(self, file: BinaryIO) -> None:
        """Close it, or go on with it: what was appended is safe, and must not be appended again."""
        try:
            self._close_file(file)
        except OSError as error:
            if not self._is_growing_on:
                _log.warning("audit file cannot be closed and grows on", error=str(error))
            self._is_growing_on = True
        else:
            self._is_growing_on = False

    def _close_file(self, file: BinaryIO) -> None:
        file.seek(0)
        first = Entry.from_line(file.readline().rstrip(b"\n"))
        name = f"{self.file.stem}-{first.sequence:012d}{self.file.suffix}"
        # In this order: under its former name nobody could write to a file that is read-only.
        self.file.rename(self.file.with_name(name))
        os.fchmod(file.fileno(), 0o400)
        synchronise(self.file.parent)
        for path in self.files()[: -1 - self._keep_files]:
            _log.warning("audit file removed", file=path.name, kept=self._keep_files)
            path.unlink(missing_ok=True)


def _first_sequence(path: Path, current: Path) -> int:
    """First sequence of a file, from its name; of the current one, from its first line."""
    if path != current:
        return int(path.stem.rpartition("-")[2])
    try:
        with path.open("rb") as file:
            return Entry.from_line(file.readline().rstrip(b"\n")).sequence
    except (OSError, ValueError):
        # New and still empty: everything before it may matter.
        return 2**62
