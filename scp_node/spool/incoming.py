"""One object on its way from the network to the disk; knows files and bytes, nothing of DICOM."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from scp_node.errors import SpoolFullError

HEAD_BYTES = 16384
"""How much of the content is kept in memory, for whoever must know what it is before it is complete."""
_BUFFER_BYTES = 64 * 1024
"""Less than a fragment of the PDU size that is offered: such a one is written without being copied before."""
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
        with full_disk_is_spool_full():
            self._file = os.fdopen(open_private(path), "wb", buffering=_BUFFER_BYTES)
        try:
            with full_disk_is_spool_full():
                self._file.write(header)
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

    def write(self, content: bytes | memoryview) -> None:
        """Append to the content."""
        if len(self._head) < HEAD_BYTES:
            self._head += content[: HEAD_BYTES - len(self._head)]
        self._digest.update(content)
        self.size_bytes += len(content)
        with full_disk_is_spool_full():
            self._file.write(content)

    def close(self) -> None:
        """Hand everything to the operating system. Not yet durable: that is `Spool.adopt`."""
        with full_disk_is_spool_full():
            self._file.close()

    def discard(self) -> None:
        """Close, and remove the file if it is still there; never fails on a full disk."""
        with contextlib.suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)
