"""Makes the pictures of the console in this folder: a node of its own, real radiographs, a real browser.

Run from the repository: ``.venv/bin/python docs/images/make_console.py``. Needs Chromium.
"""

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pydicom
from playwright.sync_api import Page, sync_playwright
from pydicom.data import get_testdata_file

from scp_node.demo.phantoms import cr, dx

HERE = Path(__file__).parent
LIMIT_S = 600.0
SHOTS = (
    ("worklist", "/worklist"),
    ("instance", "/instances/1"),
    ("operations", "/operations"),
    ("findings", "/findings"),
    ("models", "/models"),
    ("configuration", "/configuration"),
    ("record", "/activity"),
)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """A node with one destination that answers and one that does not; the address of its console."""
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(3)]
    config = folder / "node.toml"
    config.write_text(
        f"""
        [receiver]
        port = {ports[0]}
        [console]
        port = {ports[1]}
        [analysis]
        runtime = "torch"
        [spool]
        folder = "{folder}/spool"
        minimum_free_bytes = 1_000_000
        [database]
        url = "sqlite:///{folder}/node.sqlite"
        [[destinations]]
        name = "archive"
        kind = "folder"
        folder = "{folder}/archive"
        [[destinations]]
        name = "pacs"
        kind = "dicom"
        ae_title = "PACS"
        host = "127.0.0.1"
        port = {ports[2]}
        """,
        encoding="utf-8",
    )
    program = Path(sys.executable).with_name("scp-node")
    process = subprocess.Popen([program, "serve", "--config", config], stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        yield f"http://127.0.0.1:{ports[1]}"
    finally:
        process.terminate()
        process.wait(60)


def fill(client: httpx.Client, folder: Path) -> None:
    """Send radiographs of several kinds, and wait until nothing is left to do but deliveries."""
    radiograph = pydicom.dcmread(str(get_testdata_file("RG1_UNCR.dcm")))
    sources = [radiograph, *(cr(seed=seed) for seed in range(4)), *(dx(seed=seed) for seed in range(10, 13))]
    lateral = dx(seed=20)
    lateral.ViewPosition = "LL"
    damaged = cr(seed=21)
    damaged.PixelData = damaged.PixelData[:1000]
    for number, dataset in enumerate([*sources, lateral, damaged]):
        file = folder / f"{number}.dcm"
        dataset.save_as(file, enforce_file_format=True)
        body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + file.read_bytes() + b"\r\n--b--\r\n"
        kind = {"content-type": 'multipart/related; type="application/dicom"; boundary=b'}
        client.post("/dicom-web/studies", content=body, headers=kind).raise_for_status()
    deadline = time.monotonic() + LIMIT_S
    while any(client.get("/api/v1/queues").json()["instances"][state] for state in ("received", "analysing")):
        if time.monotonic() > deadline:
            raise TimeoutError("the node does not finish")
        time.sleep(0.5)
    client.post("/api/v1/destinations/pacs/echo")


def explorer(page: Page, address: str, folder: Path) -> None:
    """The explorer: empty, with one radiograph, with several."""
    page.goto(f"{address}/explorer")
    shoot(page, "explorer-empty")
    radiograph = str(get_testdata_file("RG1_UNCR.dcm"))
    page.set_input_files("#files", [radiograph])
    page.locator("#panels canvas[data-drawn]").first.wait_for()
    shoot(page, "explorer")
    page.locator("#colormap").select_option("cividis")
    page.locator('#views [data-view="densenet121"]').click()
    page.locator("#alpha").fill("60")
    page.locator('#panels canvas[data-drawn="cividis 0.6"]').first.wait_for()
    shoot(page, "explorer-single")
    page.locator('#views [data-view="compare"]').click()
    files = [str(folder / name) for name in ("2.dcm", "5.dcm", "8.dcm", "9.dcm")]
    page.set_input_files("#files", [*files, str(HERE.parent.parent / "README.md")])
    page.locator("#list .state", has_text="not judged").nth(2).wait_for()
    page.locator("#table").click()
    shoot(page, "explorer-batch")
    page.locator("#list li").nth(3).get_by_role("button").click()
    shoot(page, "explorer-not-judged")


def shoot(page: Page, name: str) -> None:
    """One picture; not longer than two screens."""
    page.wait_for_load_state("networkidle") if "explorer" not in name else None
    height = min(page.evaluate("document.documentElement.scrollHeight"), 1700)
    size = page.viewport_size or {"width": 1280, "height": 860}
    page.set_viewport_size({"width": size["width"], "height": max(height, 600)})
    page.screenshot(path=HERE / f"console-{name}.png")
    page.set_viewport_size(size)


def main() -> None:
    """Make all pictures."""
    with tempfile.TemporaryDirectory() as name, running(Path(name)) as address, sync_playwright() as playwright:
        folder = Path(name)
        with httpx.Client(base_url=address, timeout=LIMIT_S) as client:
            deadline = time.monotonic() + LIMIT_S
            while True:
                with contextlib.suppress(httpx.TransportError):
                    client.get("/health/live")
                    break
                if time.monotonic() > deadline:
                    raise TimeoutError("the node does not start")
                time.sleep(0.2)
            fill(client, folder)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(LIMIT_S * 1000)
        for shot, path in SHOTS:
            page.goto(f"{address}{path}")
            shoot(page, shot)
        explorer(page, address, folder)
        cookies = [("scp-node-theme", "light"), ("scp-node-language", "ko")]
        page.context.add_cookies([{"name": key, "value": value, "url": address} for key, value in cookies])
        page.goto(f"{address}/worklist")
        shoot(page, "worklist-light-korean")
        page.set_viewport_size({"width": 390, "height": 844})
        page.goto(f"{address}/operations")
        shoot(page, "operations-phone")
        browser.close()


if __name__ == "__main__":
    main()
