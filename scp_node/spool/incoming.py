"""One object on its way from the network to the disk; knows files and bytes, nothing of DICOM."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from scp_node.errors import SpoolFullError
from scp_node.spool.writeback import begin_writing

HEAD_BYTES = 16384
"""How much of the content is kept in memory, for whoever must know what it is before it is complete."""
_BLOCK_BYTES = 4096
"""Writes end where blocks do: what begins or ends within one costs the kernel half as much again for all of it."""
_STEP_BYTES = 2 << 20
"""After so much the kernel is told to begin: at the end there is less to wait for."""
_PIECES = 64
"""More than these are put together before they are written."""
_DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextlib.contextmanager
def full_disk_is_spool_full() -> Iterator[None]:
    """Turn the operating system's "no space" and "quota exceeded" into `SpoolFullError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_IS_FULL:
            raise SpoolFullError(f"the disk refused a write: {os.strerror(error.errno or 0)}") from error
        raise


def open_private(path: Path) -> int:
    """Create a file that only its owner can read, whatever the umask; the descriptor is for writing.

    Raises
    ------
    FileExistsError
        The name is taken; nothing is ever opened a second time, and no symbolic link is followed.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


class IncomingFile:
    """A temporary file that hashes what is written to it.

    Parameters
    ----------
    path
        New file; created here with mode 0600.
    header
        Bytes put in front of the content; they count neither in `size_bytes` nor in `sha256`.

    Raises
    ------
    SpoolFullError
        The disk refused a write, here or in any method.
    """

    def __init__(self, path: Path, header: bytes = b"") -> None:
        self.path = path
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._head = bytearray()
        # Not written yet, less than a block.
        self._rest = b""
        self._written_bytes = self._begun_bytes = 0
        self._descriptor: int | None = None
        with full_disk_is_spool_full():
            self._descriptor = open_private(path)
        try:
            self._append([header])
        except BaseException:
            self.discard()
            raise

    @property
    def head(self) -> bytes:
        """The first `HEAD_BYTES` of the content."""
        return bytes(self._head)

    @property
    def sha256(self) -> str:
        """Digest of the content so far, 64 hexadecimal digits."""
        return self._digest.hexdigest()

    def write(self, *contents: bytes | memoryview) -> None:
        """Append to the content."""
        for content in contents:
            if len(self._head) < HEAD_BYTES:
                self._head += content[: HEAD_BYTES - len(self._head)]
            self._digest.update(content)
            self.size_bytes += len(content)
        self._append(contents if len(contents) <= _PIECES else [b"".join(contents)])

    def close(self) -> None:
        """Hand everything to the operating system. Not yet durable: that is `Spool.adopt`."""
        with full_disk_is_spool_full():
            if self._rest:
                self._put([self._rest], len(self._rest))
                self._rest = b""
            self._release()

    def discard(self) -> None:
        """Close, and remove the file if it is still there; never fails on a full disk."""
        with contextlib.suppress(OSError):
            self._release()
        self.path.unlink(missing_ok=True)

    def _append(self, contents: Sequence[bytes | memoryview]) -> None:
        """Write up to the end of a block, and keep what is left."""
        pieces = [self._rest, *contents] if self._rest else list(contents)
        size = sum(map(len, pieces))
        left = size % _BLOCK_BYTES
        if left == size:
            self._rest = b"".join(pieces)
            return
        rest = b""
        while left > len(rest):
            last = pieces.pop()
            cut = max(len(last) - left + len(rest), 0)
            rest = bytes(last[cut:]) + rest
            if cut:
                pieces.append(last[:cut])
        self._rest = rest
        with full_disk_is_spool_full():
            self._put(pieces, size - left)

    def _put(self, pieces: Sequence[bytes | memoryview], size: int) -> None:
        if self._descriptor is None:
            raise ValueError("the file is closed")
        written = os.writev(self._descriptor, pieces)
        if written < size:
            # A disk that is about to be full takes a part, and says so the next time.
            rest = memoryview(b"".join(pieces))[written:]
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        self._written_bytes += size
        if (waiting := self._written_bytes - self._begun_bytes) >= _STEP_BYTES:
            begin_writing(self._descriptor, self._begun_bytes, waiting)
            self._begun_bytes = self._written_bytes

    def _release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
