"""The only owner of stored files: durable, private, and never named by anything that came from the network."""

import contextlib
import hashlib
import itertools
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import structlog

from config.storage import SpoolSettings
from scp_node.durability import synchronise
from scp_node.errors import SpoolFullError
from scp_node.spool.incoming import IncomingFile, full_disk_is_spool_full, open_private

_log = structlog.get_logger(__name__)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FOLDER_MODE = 0o700
_FAN_OUT_DEPTH = 3
"""``results/ab/cd``: these folders are never removed, those of objects neither; a results folder, one deeper, is."""
AREAS = ("objects", "results")
SHARDS = tuple(f"{number:02x}" for number in range(256))
"""Names of the folders in an area."""


class Spool:
    """Files of one node: ``incoming/`` (temporary), ``objects/`` (received) and ``results/``.

    Folders have mode 0700 and files 0600, whatever the umask. All three lie on one file system, so that a finished
    file appears by an atomic rename. Names are relative, ``/``-separated and the same on every machine that mounts the
    folder; the database holds these names.

    Several processes may use one spool at the same time.
    """

    def __init__(self, settings: SpoolSettings) -> None:
        self.folder = settings.folder.absolute()
        self._minimum_free_bytes = settings.minimum_free_bytes
        self._counter = itertools.count()
        # Names, not paths: there are 65,536 of them once a node has run for long.
        self._fan_out: set[str] = set()

    @property
    def incoming(self) -> Path:
        """Folder of temporary files."""
        return self.folder / "incoming"

    @property
    def results(self) -> Path:
        """Folder of results."""
        return self.folder / "results"

    def create(self) -> None:
        """Make the folders; those that exist become private again.

        Raises
        ------
        OSError
            The folder cannot be made, or belongs to somebody else.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self.incoming, self.folder / "objects", self.folder / "results"):
            _make_private_folder(folder)
            folder.chmod(_FOLDER_MODE)

    # --- receiving ---------------------------------------------------------------------------------------------------

    def open_incoming(self, header: bytes = b"") -> IncomingFile:
        """Open a temporary file for an object that begins to arrive.

        Raises
        ------
        SpoolFullError
            Free space is below the low-water mark.
        """
        self.require_space()
        return IncomingFile(self._temporary_path(), header)

    def adopt(self, temporary: Path, sha256: str) -> str:
        """Make a temporary file durable under the name of its content; return its relative name.

        When this returns, the file survives a power cut: it was synchronised, renamed, and its folder synchronised.
        A second call for the same content returns the same name and keeps the file that was there first.

        Parameters
        ----------
        temporary
            A complete file in `incoming`; gone afterwards. May be missing when an earlier call was interrupted after
            the rename.
        sha256
            Digest of the content, 64 hexadecimal digits.

        Raises
        ------
        SpoolFullError
            The disk refused a write.
        FileNotFoundError
            Neither the temporary nor the adopted file exists.
        """
        if temporary.parent != self.incoming:
            raise ValueError(f"{temporary.name} is not in the incoming folder")
        if not _SHA256.fullmatch(sha256):
            raise ValueError("sha256 must be 64 hexadecimal digits")
        # One level: with two nearly every object needed a new folder, and so two more synchronisations.
        relative = f"objects/{sha256[:2]}/{sha256}.dcm"
        target = self.path(relative)
        with full_disk_is_spool_full():
            self._make_durable_folder(target.parent)
            if target.exists():
                # Another process may have renamed it just now and not yet synchronised the folder: that is done below.
                temporary.unlink(missing_ok=True)
                # Young again: no sweeper takes it for a leftover of an older arrival.
                os.utime(target)
            else:
                synchronise(temporary)
                temporary.rename(target)
            synchronise(target.parent)
        return relative

    # --- results -----------------------------------------------------------------------------------------------------

    def results_folder(self, analysis_id: str) -> str:
        """Return the relative name of the folder for the results of one analysis.

        The identifier may hold anything (UIDs come from the network): only its digest becomes a name.
        """
        name = hashlib.sha256(analysis_id.encode()).hexdigest()[:40]
        return f"results/{name[:2]}/{name[2:4]}/{name}"

    def write_durably(self, relative: str, content: bytes | Callable[[BinaryIO], object]) -> str:
        """Write a file that is there completely or not at all, and survives a power cut; return `relative`.

        An existing file is replaced: a repeat of the same work writes the same thing.

        Parameters
        ----------
        relative
            Name below ``results/``, usually ``f"{spool.results_folder(analysis_id)}/{name}"``.
        content
            The bytes, or a function that writes them to the binary file it is given (seekable, write only).

        Raises
        ------
        SpoolFullError
            The disk refused a write.
        """
        target = self.path(relative)
        if not relative.startswith("results/"):
            raise ValueError(f"{relative!r} is not below results/")
        temporary = self._temporary_path()
        try:
            with full_disk_is_spool_full():
                with os.fdopen(open_private(temporary), "wb") as file:
                    if callable(content):
                        content(file)
                    else:
                        file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                self._make_durable_folder(target.parent)
                try:
                    temporary.replace(target)
                except FileNotFoundError:
                    # A sweeper found the folder empty, just now.
                    self._make_durable_folder(target.parent)
                    temporary.replace(target)
                synchronise(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
        return relative

    # --- reading, space, removing ------------------------------------------------------------------------------------

    def path(self, relative: str) -> Path:
        """Return where a relative name lies.

        Raises
        ------
        ValueError
            The name could lead out of the spool, or was not made here.
        """
        parts = relative.split("/")
        if parts[0] not in ("objects", "results") or not all(_PART.fullmatch(part) for part in parts):
            raise ValueError(f"{relative!r} is not a name in the spool")
        return self.folder.joinpath(*parts)

    def free_bytes(self) -> int:
        """Return the free space of the file system, in bytes, for a user who is not root."""
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    def is_short(self) -> bool:
        """Whether free space is below the low-water mark."""
        return self.free_bytes() < self._minimum_free_bytes

    def require_space(self) -> None:
        """Raise `SpoolFullError` when free space is below the low-water mark."""
        if self.is_short():
            raise SpoolFullError(f"less than {self._minimum_free_bytes} bytes are free")

    def remove(self, relative: str) -> None:
        """Remove an object, a result or a whole results folder; no error when it is gone already.

        Received objects are named by content: make sure in the database, before, that no row refers to the name.
        """
        path = self.path(relative)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def old_files(self, area: str, shard: str, older_than_s: float) -> list[str]:
        """Return the relative names of files last written more than `older_than_s` ago, of one of `SHARDS`.

        What has a name that is none of this node's is left out: NFS and FUSE keep files of their own (``.nfs...``).
        """
        limit = time.time() - older_than_s
        found = []
        for folder, folders, names in os.walk(self.folder / area / shard):
            folders[:] = filter(_PART.fullmatch, folders)
            for name in filter(_PART.fullmatch, names):
                path = Path(folder, name)
                if _modified(path) <= limit:
                    found.append(path.relative_to(self.folder).as_posix())
        return found

    def remove_old(self, relative: str, older_than_s: float) -> bool:
        """Remove a file unless it was written anew in the last `older_than_s` seconds; then its folder, if empty."""
        path = self.path(relative)
        if _modified(path) > time.time() - older_than_s:
            return False
        path.unlink(missing_ok=True)
        if len(path.parent.relative_to(self.folder).parts) > _FAN_OUT_DEPTH:
            with contextlib.suppress(OSError):
                path.parent.rmdir()
        return True

    def sweep_incoming(self, older_than_s: float) -> int:
        """Remove temporary files untouched for `older_than_s` seconds, which a crash left; return how many.

        With several processes on one spool, `older_than_s` must exceed the time that one object may take to arrive.
        What is no file of this node's stays, and one that cannot be removed ends neither a sweep nor a start.
        """
        limit = time.time() - older_than_s
        removed = 0
        for path in self.incoming.iterdir():
            if _PART.fullmatch(path.name) and _modified(path) <= limit:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    _log.warning("incoming file cannot be removed", file=path.name, error=str(error))
                else:
                    removed += 1
        return removed

    def _make_durable_folder(self, folder: Path) -> None:
        """Make a folder and those above it, so that the entry of each survives a power cut."""
        if folder == self.folder:
            return
        name = folder.relative_to(self.folder).as_posix()
        if name in self._fan_out:
            return
        self._make_durable_folder(folder.parent)
        _make_private_folder(folder)
        # Also when it was there: another process may have made it and not yet synchronised the entry.
        synchronise(folder.parent)
        if name.count("/") < _FAN_OUT_DEPTH:
            self._fan_out.add(name)

    def _temporary_path(self) -> Path:
        # Process and counter tell a reader whose it is; the random part keeps restarted containers apart (process 1).
        return self.incoming / f"{os.getpid()}-{next(self._counter)}-{secrets.token_hex(6)}.part"


def _modified(path: Path) -> float:
    """Return the time of the last write; the far future for what has gone meanwhile, or is no file to be removed."""
    try:
        status = path.lstat()
    except OSError:
        return float("inf")
    return status.st_mtime if stat.S_ISREG(status.st_mode) else float("inf")


def _make_private_folder(folder: Path) -> None:
    """Make one folder with mode 0700, whatever the umask; one that exists stays as it is."""
    try:
        folder.mkdir(mode=_FOLDER_MODE)
    except FileExistsError:
        return
    folder.chmod(_FOLDER_MODE)
