"""A running node with its console, a second console with users beside it, and a browser."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pydicom
import pytest
from pydicom.data import get_testdata_file

from config.console import ConsoleUser, Role
from config.load import load
from scp_node.console.access import hash_password
from scp_node.console.server import Server
from scp_node.jobs import database

CHROMIUM = shutil.which("chromium")
LIMIT_S = 600.0
PASSWORD = "a long enough password"  # noqa: S105 - of no user but these tests


@dataclass(frozen=True)
class Running:
    """A node on this machine.

    Parameters
    ----------
    address
        Of its console.
    """

    address: str
    receiver_port: int
    config: Path
    client: httpx.Client

    def wait_for(self, uid, *states):
        """The instance's number, once it is in one of these states."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            entries = self.client.get("/api/v1/instances", params={"uid": uid}).json()["entries"]
            if entries and entries[0]["instance"]["state"] in states:
                return entries[0]["instance"]["id"]
            assert time.monotonic() < deadline, entries
            time.sleep(0.2)

    def store(self, *files):
        """STOW-RS; the answer."""
        body = b"".join(
            b"--b\r\nContent-Type: application/dicom\r\n\r\n" + Path(one).read_bytes() + b"\r\n" for one in files
        )
        headers = {"content-type": 'multipart/related; type="application/dicom"; boundary=b'}
        return self.client.post("/dicom-web/studies", content=body + b"--b--\r\n", headers=headers)


@pytest.fixture(scope="session")
def radiograph() -> Path:
    return Path(get_testdata_file("RG1_UNCR.dcm"))


@pytest.fixture(scope="session")
def damaged(tmp_path_factory, radiograph) -> Path:
    """A radiograph whose pixels are cut short: taken, and given up."""
    dataset = pydicom.dcmread(radiograph)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.7"
    dataset.PixelData = dataset.PixelData[:100_000]
    file = tmp_path_factory.mktemp("damaged") / "damaged.dcm"
    dataset.save_as(file, enforce_file_format=True)
    return file


@pytest.fixture(scope="package")
def node(tmp_path_factory, radiograph, damaged, free_port):
    """A node with everything in one process; one radiograph delivered, one damaged one given up."""
    folder = tmp_path_factory.mktemp("node")
    receiver_port, console_port = free_port(), free_port()
    config = folder / "node.toml"
    config.write_text(
        f"""
        [receiver]
        port = {receiver_port}
        acse_timeout_s = 30
        [console]
        port = {console_port}
        [analysis]
        runtime = "torch"  # nothing to compile first
        [spool]
        folder = "{folder}/spool"
        minimum_free_bytes = 1_000_000
        [database]
        url = "sqlite:///{folder}/node.sqlite"
        [[destinations]]
        name = "archive"
        kind = "folder"
        folder = "{folder}/archive"
        """,
        encoding="utf-8",
    )
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [Path(sys.executable).with_name("scp-node"), "serve", "--config", str(config)],
        stderr=log,
        stdout=log,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    address = f"http://127.0.0.1:{console_port}"
    with httpx.Client(base_url=address, timeout=LIMIT_S) as client:
        try:
            _wait_alive(client, process, folder / "log")
            running = Running(address=address, receiver_port=receiver_port, config=config, client=client)
            assert running.store(radiograph, damaged).status_code == 200
            running.wait_for(pydicom.dcmread(radiograph).SOPInstanceUID, "delivered")
            running.wait_for(pydicom.dcmread(damaged).SOPInstanceUID, "dead_letter")
            yield running
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.close()


@pytest.fixture(scope="package")
def guarded(node):
    """A console with users beside the node, on the same database; its address."""
    hashed = hash_password(PASSWORD)
    users = tuple(ConsoleUser(name=role.value, role=role, password_hash=hashed) for role in Role)
    settings = load(node.config, {})
    settings = settings.model_copy(update={"console": settings.console.model_copy(update={"users": users})})
    engine = database.open_engine(settings.database.url)
    server = Server(settings, engine, port=0)
    server.start()
    yield f"http://127.0.0.1:{server.port}"
    server.stop(10)
    engine.dispose()


@pytest.fixture(scope="module")
def browser():
    """Chromium; closed with the module: while Playwright's event loop runs in this thread, a node's engine cannot."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture
def page(browser):
    """A new page."""
    with new_page(browser) as made:
        yield made


@pytest.fixture(scope="module")
def explored(browser, node, radiograph):
    """A page of the explorer with a radiograph that has been judged, for all tests that look at one."""
    with new_page(browser) as made:
        made.goto(f"{node.address}/explorer")
        made.set_input_files("#files", [str(radiograph)])
        # The explorer's models may have to be loaded first.
        made.locator("#panels canvas[data-drawn]").first.wait_for(timeout=LIMIT_S * 1000)
        yield made


@contextlib.contextmanager
def new_page(browser):
    """A page of a context of its own; afterwards the console of the browser must be empty."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    context.set_default_timeout(45_000)
    made = context.new_page()
    said = []
    made.on("pageerror", lambda error: said.append(str(error)))
    made.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    try:
        yield made
    finally:
        context.close()
    assert [one for one in said if "status of 4" not in one] == []


def _wait_alive(client, process, log):
    deadline = time.monotonic() + LIMIT_S
    while True:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/health/live").status_code == 200:
                return
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
        time.sleep(0.1)
