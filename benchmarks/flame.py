"""Draws docs/images/flame.svg: what the time of a loaded node goes to, its own process and one child, by py-spy.

python -m benchmarks.flame [--images 24]; needs py-spy (``pip install py-spy``) and the right to look into processes.
"""

import argparse
import html
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks import load, servers
from benchmarks.contest import ROOT
from benchmarks.end_to_end import _Arrivals

WIDTH, ROW = 1200.0, 15
_SMALLEST = 1.5
"""Narrower frames cannot be read, and make the file large."""
_DEEPEST = 26
_WAITING = re.compile(r"(_worker \(concurrent|readinto \(socket|recv|select \(|wait \(threading|poll|accept)")


@dataclass(slots=True)
class _Frame:
    name: str
    samples: int = 0
    inner: dict[str, "_Frame"] = field(default_factory=dict)

    def add(self, stack: list[str], samples: int) -> None:
        self.samples += samples
        if stack:
            self.inner.setdefault(stack[0], _Frame(stack[0])).add(stack[1:], samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        whole = _record(Path(name), args.images)
    (ROOT / "docs" / "images" / "flame.svg").write_text("".join(_svg(whole)), encoding="utf-8")


def _record(folder: Path, images: int) -> _Frame:
    source = load.Source(load.template(folder / "template.dcm"), folder / "sent")
    with servers.running(servers.tuned_storescp(folder / "pacs")) as destination:
        arrivals = _Arrivals(folder / "pacs" / "stored")
        peer = {"name": "pacs", "kind": "dicom", "ae_title": destination.ae_title, "host": "127.0.0.1"}
        settings = {
            "SCP_NODE__DESTINATIONS": json.dumps([peer | {"port": destination.port}]),
            "SCP_NODE__RESULTS__SECONDARY_CAPTURE__TRANSFER_SYNTAX": "jpeg",
        }
        with servers.running(servers.node(folder / "server", **settings)) as server:
            warm = source.write(2)
            load.closed(server.port, server.ae_title, list(warm.values()), associations=1)
            arrivals.wait(list(warm), 6)
            node = psutil.Process(server.process.pid)
            # In the node's own process many threads wait: who holds the interpreter is who works. A child's work is
            # done by libraries that let go of it.
            watched = {"the node's own process": (node.pid, ["--gil"])}
            watched["a child process"] = (node.children()[0].pid, [])
            spies = {title: _spy(pid, folder / f"{pid}.txt", options) for title, (pid, options) in watched.items()}
            files = source.write(images)
            load.closed(server.port, server.ae_title, list(files.values()), associations=2)
            arrivals.wait(list(files), 6)
            whole = _Frame("a loaded node, JPEG pictures")
            for title, spy in spies.items():
                spy.send_signal(signal.SIGINT)
                spy.wait()
                for stack, samples in _stacks(folder / f"{watched[title][0]}.txt"):
                    whole.add([title, *stack], samples)
    return whole


def _spy(pid: int, target: Path, options: list[str]) -> subprocess.Popen:
    command = [str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(pid), "--output", str(target)]
    command += ["--format", "raw", "--rate", "200", "--duration", "600", *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _stacks(file: Path) -> Iterator[tuple[list[str], int]]:
    for line in file.read_text().splitlines():
        text, _, samples = line.rpartition(" ")
        frames = [re.sub(r":\d+\)$", ")", frame) for frame in text.split(";")]
        if not _WAITING.search(frames[-1]):
            own = [frame for frame in frames if not re.search(r"runpy|threading\.py|^<module>", frame)]
            yield own[:_DEEPEST], int(samples)


def _svg(whole: _Frame) -> Iterator[str]:
    height = (_depth(whole) + 1) * ROW
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height}" font-family="monospace" '
    yield 'font-size="10">'
    yield from _boxes(whole, 0.0, 0, WIDTH / whole.samples, whole.samples)
    yield "</svg>\n"


def _depth(frame: _Frame) -> int:
    return 1 + max((_depth(inner) for inner in frame.inner.values()), default=0)


def _boxes(frame: _Frame, left: float, depth: int, scale: float, total: int) -> Iterator[str]:
    width = frame.samples * scale
    if width < _SMALLEST:
        return
    hue = 20 + sum(map(ord, frame.name.rpartition("(")[2])) % 35
    name = html.escape(frame.name)
    yield f'<g><title>{name}, {100 * frame.samples / total:.1f} %</title><rect x="{left:.1f}" y="{depth * ROW}" '
    yield f'width="{width:.1f}" height="{ROW - 1}" fill="hsl({hue},75%,68%)"/>'
    if (letters := int(width / 6.2)) > 3:
        yield f'<text x="{left + 2:.1f}" y="{depth * ROW + 11}">{html.escape(frame.name[:letters])}</text>'
    yield "</g>"
    for inner in sorted(frame.inner.values(), key=lambda one: one.name):
        yield from _boxes(inner, left, depth + 1, scale, total)
        left += inner.samples * scale


if __name__ == "__main__":
    main()
