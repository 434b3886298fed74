"""What is uploaded: ZIP files with endless lists, and what a killed process has left behind."""

import errno
import io
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import anyio
import httpx
import pytest

from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.console import uploads as uploads_module
from scp_node.console.explorer import Explorer
from scp_node.console.server import Server
from scp_node.console.uploads import Upload, Uploads
from scp_node.jobs import database


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = Uploads(maximum_files=10, maximum_bytes=1_000_000)
    yield made
    made.close()


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A client of a console without a node."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    settings = NodeSettings(
        database=DatabaseSettings(url=f"sqlite:///{tmp_path}/none.sqlite"), spool=SpoolSettings(folder=tmp_path)
    )
    engine = database.open_engine(settings.database.url)
    server = Server(settings, engine, port=0)
    server.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as made:
        yield made
    server.stop(10)
    engine.dispose()


def entries(uploads, file):
    """What the ZIP file is expanded to."""

    async def expand():
        with uploads.folder() as folder:
            upload = Upload(name="study.zip", file=file, size_bytes=file.stat().st_size)
            return [one async for one in uploads.expand([upload], folder)]

    return anyio.run(expand)


@pytest.mark.parametrize("is_zip64", [False, True])
def test_a_zip_file_of_endless_many_files_is_not_even_listed(uploads, tmp_path, is_zip64):
    """Each file in the list costs ten times the memory of its line; 500 MB of them would end the node."""
    line = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, *[0] * 7, 1, *[0] * 6) + b"a"
    number = (17 << 20) // len(line)
    size = number * len(line)
    first = struct.pack("<4s5H3I2H", b"PK\3\4", 20, *[0] * 7, 1, 0) + b"a"
    where = len(first)
    ends = [struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, size, where, 0)]
    if is_zip64:
        # What the last record says does not count when there is a ZIP64 one.
        ends = [
            struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, number, number, size, where),
            struct.pack("<4sIQI", b"PK\6\7", 0, where + size, 1),
            struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 0, 0, 0),
        ]
    file = tmp_path / "study.zip"
    file.write_bytes(first + line * number + b"".join(ends))
    [found] = entries(uploads, file)
    assert found.problem == "the ZIP file holds far more files than are taken"


def test_what_a_killed_process_leaves_behind_is_removed_by_the_next(uploads, tmp_path):
    script = (
        "import os, signal\n"
        "from scp_node.console.uploads import Uploads\n"
        "made = Uploads(maximum_files=1, maximum_bytes=1)\n"
        "with made.folder() as folder:\n"
        "    (folder / '0.upload').write_bytes(b'a radiograph')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], env={"TMPDIR": str(tmp_path)}, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.rglob("*.upload"))) == 1
    other = Uploads(maximum_files=1, maximum_bytes=1)
    assert list(tmp_path.rglob("*.upload")) == []
    # Those of processes that live stay.
    assert uploads.root.is_dir()
    other.close()
    assert list(tmp_path.iterdir()) == [uploads.root]


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_a_large_batch_has_pictures_of_its_first_files_only(client, monkeypatch, accept):
    """A megabyte each: five hundred of them fill the memory of the node, and of the page."""
    sizes = []

    def analyse(_explorer, _file, _name, *, picture_size=0):
        sizes.append(picture_size)
        return {"outcome": "unreadable", "predictions": [], "objects": []}

    monkeypatch.setattr(Explorer, "analyse", analyse)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(62):
            archive.writestr(f"{number}.png", b"x")
    answer = client.post("/api/v1/analyze?pictures=true", files={"file": packed.getvalue()}, headers={"accept": accept})
    assert answer.status_code == 200
    assert [size > 0 for size in sizes] == [True] * 60 + [False] * 2


@pytest.fixture
def full_disk(monkeypatch):
    """Nothing more can be written among the uploads."""

    def refuse(*_args, **_values):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(uploads_module, "_write", refuse)
    monkeypatch.setattr(zipfile.ZipExtFile, "read", refuse)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_no_error_of_the_program(client):
    answer = client.post("/api/v1/analyze", files={"file": b"x"})
    assert answer.status_code == 503
    assert answer.json() == {"detail": "what is uploaded cannot be kept: No space left on device"}


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_no_damage_to_a_zip_file(uploads, tmp_path):
    file = tmp_path / "study.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.dcm", b"x")
        archive.writestr("b.dcm", b"x")
    problem = "cannot be unpacked: No space left on device"
    assert [(one.name, one.problem) for one in entries(uploads, file)] == [("a.dcm", problem), ("b.dcm", problem)]


def test_an_upload_that_is_given_up_is_no_error(client, caplog):
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(
            b"POST /api/v1/analyze HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc'
        )
        wait_for(folders, "the upload has begun")
    wait_for(lambda: not folders(), "its folder is gone")
    client.get("/health/live")
    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == []


def folders():
    """What lies in the folder of the console."""
    return list(Path(tempfile.gettempdir()).glob("scp-node-uploads-*/*"))


def wait_for(condition, words):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, words
        time.sleep(0.02)
