"""The whole job: an 18 MB CR in, four pictures and reports out to a Storage SCP; the node against everything inline."""

import json
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import load, servers

TITLE = "End to end: 18 MB CR in, four Secondary Captures and reports out"
PEER = "inline in the handler"


class _Arrivals:
    """Watches the folder of the destination: how many objects of each study are there, and when the last one came."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: set[str] = set()
        self.counts: dict[str, int] = {}
        self.last: dict[str, float] = {}

    def look(self) -> None:
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError

        for file in self._folder.iterdir():
            if file.name in self._known:
                continue
            try:
                study = str(dcmread(file, stop_before_pixels=True, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
            except (OSError, AttributeError, ValueError, TypeError, InvalidDicomError):
                continue  # still being written
            self._known.add(file.name)
            self.counts[study] = self.counts.get(study, 0) + 1
            self.last[study] = max(self.last.get(study, 0.0), file.stat().st_mtime)

    def wait(self, studies: list[str], objects: int, limit_s: float = 900) -> None:
        deadline = time.monotonic() + limit_s
        while any(self.counts.get(study, 0) < objects for study in studies):
            if time.monotonic() > deadline:
                raise RuntimeError(f"results are missing: {self.counts}")
            time.sleep(0.05)
            self.look()


def measure(*, images: int, variants: tuple[str, ...] = ("inline", "node", "jpeg")) -> list[dict]:
    """Throughput of a burst, then latency at half that rate, for each variant in turn.

    Latency is from the start of the sender to the last result written by the destination: the inline way answers the
    C-STORE when all is done, the node at once.
    """
    found = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        source = load.Source(load.template(folder / "template.dcm"), folder / "sent")
        for variant in variants:
            with ExitStack() as stack:
                found.append(_one(variant, folder / variant, source, images, stack))
    return found


def _one(variant: str, folder: Path, source: load.Source, images: int, stack: ExitStack) -> dict:
    destination = stack.enter_context(servers.running(servers.tuned_storescp(folder / "pacs")))
    arrivals = _Arrivals(folder / "pacs" / "stored")
    if variant == "inline":
        server, objects = servers.inline_example(folder / "server", destination), 5
    else:
        peer = {"name": "pacs", "kind": "dicom", "ae_title": destination.ae_title, "host": "127.0.0.1"}
        peer["port"] = destination.port
        settings = {
            "SCP_NODE__ANALYSIS__PROCESSES": "2",
            "SCP_NODE__ANALYSIS__THREADS": "1",
            "SCP_NODE__RESULTS__SECONDARY_CAPTURE__TRANSFER_SYNTAX": "jpeg" if variant == "jpeg" else "explicit",
            "SCP_NODE__DESTINATIONS": json.dumps([peer]),
        }
        title = "scp-node, JPEG pictures" if variant == "jpeg" else "scp-node"
        server, objects = servers.node(folder / "server", title=title, **settings), 6
    stack.enter_context(servers.running(server))
    warm = source.write(2)
    load.closed(server.port, server.ae_title, list(warm.values()), associations=1)
    arrivals.wait(list(warm), objects)

    stop = threading.Event()
    sampler = threading.Thread(target=lambda: [server.sample() for _ in iter(lambda: stop.wait(0.5), True)])
    sampler.start()
    burst = source.write(images)
    cpu, began = server.cpu_s(), time.time()
    load.closed(server.port, server.ae_title, list(burst.values()), associations=2)
    arrivals.wait(list(burst), objects)
    duration = max(arrivals.last[study] for study in burst) - began
    cpu_ms = 1000 * (server.cpu_s() - cpu) / images
    steady = source.write(images)
    sent = load.open_arrival(server.port, server.ae_title, steady, per_s=0.5 * images / duration)
    arrivals.wait(list(steady), objects)
    stop.set()
    sampler.join()
    latencies = sorted(max(0.0, arrivals.last[study] - sent[study]) for study in steady)
    for file in (*warm.values(), *burst.values(), *steady.values()):
        file.unlink()
    return {
        "title": server.title,
        "studies_per_s": images / duration,
        "cpu_ms": cpu_ms,
        "p50_s": statistics.median(latencies),
        "p95_s": latencies[min(len(latencies) - 1, int(0.95 * len(latencies)))],
        "peak_mb": server.peak_mb,
        "objects": objects,
    }
