"""Uploaded files on their short way: into a private folder while they arrive, judged, gone. Opens ZIP files too."""

import io
import re
import secrets
import shutil
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread
from starlette.requests import Request

from scp_node.console.multipart import MultipartError, PartBegins, PartData, display_name, read_parts
from scp_node.private_folder import PrivateFolder

_PREFIX = "scp-node-uploads-"
_WRITE_BYTES = 1 << 20
_MAXIMUM_RATIO = 200
"""An entry that unpacks to more than this many times its size is a bomb: radiographs compress to a third."""
_MAXIMUM_DIRECTORY_BYTES = 16 << 20
"""Of a ZIP file's list of what is in it: 100,000 files have half of that; it is read at once."""
_IGNORED = re.compile(r"(^|/)(__MACOSX/|\.|DICOMDIR$|Thumbs\.db$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One file to judge.

    Parameters
    ----------
    name
        As the sender calls it; for people only.
    problem
        Why it cannot be judged although it came; empty when it can.
    is_entry
        Whether it came inside a ZIP file.
    """

    name: str
    file: Path
    size_bytes: int
    problem: str = ""
    is_entry: bool = False


class UploadError(Exception):
    """What comes cannot be kept until it is judged."""


class Uploads:
    """The folder of uploads of one process; gone with the process, at the latest when another one begins."""

    def __init__(self, *, maximum_files: int, maximum_bytes: int) -> None:
        self._maximum_files = maximum_files
        self._maximum_bytes = maximum_bytes
        self._folder = PrivateFolder(_PREFIX)
        self.root = self._folder.path

    def close(self) -> None:
        """Remove everything."""
        self._folder.close()

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A private folder that is gone afterwards, whatever happens."""
        folder = self.root / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def receive(self, request: Request, folder: Path) -> list[Upload]:
        """Write the files of a form into a folder while they arrive.

        Raises
        ------
        MultipartError
            No form with files.
        UploadError
            They cannot be written.
        """
        uploads: list[Upload] = []
        name: str | None = None
        path = folder / "none"
        buffer = bytearray()
        size = 0
        async for event in read_parts(request, subtype="form-data", maximum_parts=self._maximum_files + 8):
            if isinstance(event, PartBegins):
                name = (event.file_name or "file") if event.name == "file" else None
                path, size = folder / f"{len(uploads)}.upload", 0
                buffer.clear()
            elif name is None:
                continue
            elif isinstance(event, PartData):
                buffer += event.content
                size += len(event.content)
                if len(buffer) >= _WRITE_BYTES:
                    await _append(path, buffer)
            else:
                await _append(path, buffer)
                uploads.append(Upload(name=name, file=path, size_bytes=size))
        if not uploads:
            raise MultipartError("the form has no file: name its field 'file'")
        return uploads

    async def expand(self, uploads: list[Upload], folder: Path) -> AsyncIterator[Upload]:
        """Yield the uploads, and of ZIP files what is in them, one at a time; each is removed when the next comes."""
        for upload in uploads:
            if not await anyio.to_thread.run_sync(_is_zip, upload.file):
                yield upload
                upload.file.unlink(missing_ok=True)
                continue
            entries = self._entries(upload, folder)
            while (entry := await anyio.to_thread.run_sync(lambda: next(entries, None))) is not None:  # noqa: B023 - awaited here
                yield entry
                entry.file.unlink(missing_ok=True)

    def _entries(self, upload: Upload, folder: Path) -> Iterator[Upload]:
        try:
            with _Archive(io.FileIO(upload.file)) as file, zipfile.ZipFile(file) as archive:
                infos = [one for one in archive.infolist() if not one.is_dir() and not _IGNORED.search(one.filename)]
                if not infos:
                    yield Upload(name=upload.name, file=folder / "none", size_bytes=0, problem="the ZIP file is empty")
                left = self._maximum_bytes
                for number, info in enumerate(infos):
                    entry = self._extract(archive, info, folder / f"{number}.entry", left)
                    if number >= self._maximum_files:
                        rest = len(infos) - number
                        problem = f"{rest} more files in the ZIP file: at most {self._maximum_files} are taken"
                        yield Upload(name=upload.name, file=folder / "none", size_bytes=0, problem=problem)
                        return
                    left -= entry.size_bytes
                    yield entry
        except _TooManyFilesError:
            problem = "the ZIP file holds far more files than are taken"
            yield Upload(name=upload.name, file=folder / "none", size_bytes=0, problem=problem)
        except (zipfile.BadZipFile, OSError, ValueError):
            yield Upload(name=upload.name, file=folder / "none", size_bytes=0, problem="the ZIP file is damaged")

    def _extract(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, left: int) -> Upload:
        name = display_name(info.filename) or "file"

        def refused(problem: str, size: int = 0) -> Upload:
            target.unlink(missing_ok=True)
            return Upload(name=name, file=target, size_bytes=size, problem=problem, is_entry=True)

        if info.flag_bits & 1:
            return refused("is encrypted inside the ZIP file")
        size = 0
        try:
            # What the directory says of sizes is the sender's word: counted is what comes out.
            with archive.open(info) as packed, target.open("wb") as unpacked:
                while piece := packed.read(_WRITE_BYTES):
                    size += len(piece)
                    if size > left:
                        return refused("the files in the ZIP file are too large together", size)
                    if size > _WRITE_BYTES and size > _MAXIMUM_RATIO * max(1, info.compress_size):
                        return refused("unpacks to far more than its size, as no radiograph does", size)
                    unpacked.write(piece)
        except OSError as error:
            return refused(f"cannot be unpacked: {error.strerror or error}", size)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError):
            return refused("cannot be unpacked from the ZIP file", size)
        return Upload(name=name, file=target, size_bytes=size, is_entry=True)


class _TooManyFilesError(Exception):
    """The list of what is in a ZIP file is too long."""


class _Archive(io.BufferedReader):
    """An opened ZIP file: `zipfile` reads its list of files in one piece, however long, before it tells of any."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, but not so much at once."""
        if size is not None and size > _MAXIMUM_DIRECTORY_BYTES:
            raise _TooManyFilesError
        return super().read(size)


def _is_zip(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


async def _append(path: Path, buffer: bytearray) -> None:
    content = bytes(buffer)
    buffer.clear()
    try:
        await anyio.to_thread.run_sync(_write, path, content)
    except OSError as error:
        raise UploadError(f"what is uploaded cannot be kept: {error.strerror or error}") from error


def _write(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)
