"""A folder for files that are nobody else's business; what a killed process has left behind is removed by the next."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path


class PrivateFolder:
    """A new folder under the system's one for temporary files, locked until it is closed or this process has ended.

    Parameters
    ----------
    prefix
        Of its name; folders of this prefix that nobody holds are removed first.
    """

    def __init__(self, prefix: str) -> None:
        _remove_left_behind(prefix)
        self.path, self._lock = _make(prefix)

    def close(self) -> None:
        """Remove it, with all that is in it."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = None


def _make(prefix: str) -> tuple[Path, int | None]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # another process has just taken it for one that was left behind
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return folder, lock
        os.close(lock)


def _remove_left_behind(prefix: str) -> None:
    """Remove folders that nobody holds any more: the lock of a process ends with it, however it ends."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # gone by now, or somebody else's
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)
