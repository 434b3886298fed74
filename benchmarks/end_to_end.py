"""The whole job: an 18 MB CR in, four pictures and reports out to a Storage SCP; the node against everything inline.

All contestants run at the same time and take turns: within a round each gets a burst of images over two associations
(studies per second) while the others rest; ratios are taken within a round. Then each gets images at random moments, at
half the rate that it has shown (latency).

python -m benchmarks.end_to_end [--variants jpeg] [--images 24] [--rounds 3] measures some of them, or one alone on the
machine, and prints JSON; ratios are to the first. With --one-by-one N radiographs come one at a time to a node that has
nothing else to do: seconds from the end of the sender to the last result written.
"""

import argparse
import json
import math
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import load, servers

TITLE = "End to end: 18 MB CR in, four Secondary Captures and reports out"
PEER = "inline in the handler"
VARIANTS = ("inline", "node", "jpeg", "bfloat16")
_SETTINGS = {
    "node": ("scp-node", {}),
    "jpeg": ("scp-node, JPEG pictures", {"SCP_NODE__RESULTS__SECONDARY_CAPTURE__TRANSFER_SYNTAX": "jpeg"}),
    "batches": (
        "scp-node, JPEG pictures, batches",
        {
            "SCP_NODE__RESULTS__SECONDARY_CAPTURE__TRANSFER_SYNTAX": "jpeg",
            "SCP_NODE__ANALYSIS__BATCH_SIZE": "4",
        },
    ),
    "bfloat16": (
        "scp-node, JPEG pictures, bfloat16",
        {
            "SCP_NODE__RESULTS__SECONDARY_CAPTURE__TRANSFER_SYNTAX": "jpeg",
            "SCP_NODE__ANALYSIS__PRECISION": "bfloat16",
        },
    ),
}
_SHARE_OF_INLINE = 3
"""The inline way gets a third of the images: it takes its time."""


class _Arrivals:
    """Watches the folder of the destination: how many objects of each study are there, and when the last one came."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.counts: dict[str, int] = {}
        self.last: dict[str, float] = {}

    def look(self) -> None:
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError

        for file in self._folder.iterdir():
            try:
                written = file.stat()
                study = str(dcmread(file, stop_before_pixels=True, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
                if time.time() - written.st_mtime < 0.1:
                    continue  # perhaps still being written
                file.unlink()
            except (OSError, AttributeError, ValueError, TypeError, InvalidDicomError):
                continue  # still being written
            self.counts[study] = self.counts.get(study, 0) + 1
            self.last[study] = max(self.last.get(study, 0.0), written.st_mtime)

    def wait(self, studies: list[str], objects: int, limit_s: float = 300) -> None:
        deadline = time.monotonic() + limit_s
        while any(self.counts.get(study, 0) < objects for study in studies):
            if time.monotonic() > deadline:
                missing = {study: self.counts.get(study, 0) for study in studies}
                raise RuntimeError(f"results are missing, of {objects} objects there are {missing}")
            time.sleep(0.1)
            self.look()


@dataclass(slots=True)
class _Contestant:
    """A server, its destination, and what was measured of it."""

    title: str
    server: servers.Server
    arrivals: _Arrivals
    objects: int
    studies_per_s: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)

    def burst(self, source: load.Source, images: int, *, is_counted: bool = True) -> None:
        """Send images over two associations as fast as they are taken, and wait for the last result."""
        files = source.write(images)
        cpu_s, began = self.server.cpu_s(), time.time()
        load.closed(self.server.port, self.server.ae_title, list(files.values()), associations=min(2, images))
        self.arrivals.wait(list(files), self.objects)
        if is_counted:
            self.studies_per_s.append(images / (max(self.arrivals.last[study] for study in files) - began))
            self.cpu_ms.append(1000 * (self.server.cpu_s() - cpu_s) / images)
        _remove(files)

    def steady(self, source: load.Source, images: int) -> None:
        """Send images at random moments, at half the rate of the bursts."""
        files = source.write(images)
        per_s = 0.5 * statistics.median(self.studies_per_s)
        sent = load.open_arrival(self.server.port, self.server.ae_title, files, per_s=per_s)
        self.arrivals.wait(list(files), self.objects)
        self.latencies_s += sorted(max(0.0, self.arrivals.last[study] - sent[study]) for study in files)
        _remove(files)

    def percentile(self, share: float) -> float:
        """Latency that this share of the studies does not exceed."""
        return self.latencies_s[min(len(self.latencies_s) - 1, math.ceil(share * len(self.latencies_s)) - 1)]


def measure(*, images: int, rounds: int = 3, variants: tuple[str, ...] = VARIANTS) -> list[dict]:
    """Throughput of bursts, round by round, then latency at half that rate, for each variant.

    Latency is from the start of the sender to the last result written by the destination: the inline way answers the
    C-STORE when all is done, the node at once.

    Parameters
    ----------
    images
        Per burst; twice as many at half the rate.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        folder = Path(name)
        source = load.Source(load.template(folder / "template.dcm"), folder / "sent")
        contestants = [_open(variant, folder / variant, stack) for variant in variants]
        stop = threading.Event()
        sampler = threading.Thread(target=_sample, args=(contestants, stop))
        sampler.start()
        stack.callback(sampler.join)
        stack.callback(stop.set)
        for contestant in contestants:
            contestant.burst(source, 4, is_counted=False)
        for number in range(rounds):
            # In another order each time, so that a change of the machine's speed meets all of them.
            for contestant in contestants[:: 1 if number % 2 else -1]:
                contestant.burst(source, _images(contestant, images))
        for contestant in contestants:
            contestant.steady(source, 2 * _images(contestant, images))
        reference = contestants[0]
        return [_row(contestant, reference) for contestant in contestants]


def one_by_one(variant: str, *, images: int) -> dict:
    """Latency of radiographs that find the node idle, at different moments of its polling."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        folder = Path(name)
        source = load.Source(load.template(folder / "template.dcm"), folder / "sent")
        contestant = _open(variant, folder / variant, stack)
        contestant.burst(source, 4, is_counted=False)
        latencies_s = []
        for number in range(images):
            time.sleep(0.5 + 0.037 * number)
            files = source.write(1)
            load.closed(contestant.server.port, contestant.server.ae_title, list(files.values()), associations=1)
            sent = time.time()
            contestant.arrivals.wait(list(files), contestant.objects)
            latencies_s.append(max(contestant.arrivals.last.values()) - sent)
            _remove(files)
        return {
            "title": contestant.title,
            "median_s": statistics.median(latencies_s),
            "smallest_s": min(latencies_s),
            "largest_s": max(latencies_s),
        }


def _images(contestant: _Contestant, images: int) -> int:
    return max(2, images // _SHARE_OF_INLINE) if contestant.title == PEER else images


def _row(contestant: _Contestant, reference: _Contestant) -> dict:
    def ratio(name: str) -> float:
        pairs = zip(getattr(contestant, name), getattr(reference, name), strict=True)
        return statistics.median(own / other for own, other in pairs)

    return {
        "title": contestant.title,
        "studies_per_s": statistics.median(contestant.studies_per_s),
        "ratio": ratio("studies_per_s"),
        "cpu_ms": statistics.median(contestant.cpu_ms),
        "cpu_ratio": 1 / ratio("cpu_ms"),
        "p50_s": contestant.percentile(0.5),
        "p95_s": contestant.percentile(0.95),
        "p99_s": contestant.percentile(0.99),
        "peak_mb": contestant.server.peak_mb,
        "objects": contestant.objects,
    }


def _open(variant: str, folder: Path, stack: ExitStack) -> _Contestant:
    destination = stack.enter_context(servers.running(servers.tuned_storescp(folder / "pacs")))
    arrivals = _Arrivals(folder / "pacs" / "stored")
    if variant == "inline":
        server = stack.enter_context(servers.running(servers.inline_example(folder / "server", destination)))
        return _Contestant(PEER, server, arrivals, objects=5)
    peer = {"name": "pacs", "kind": "dicom", "ae_title": destination.ae_title, "host": "127.0.0.1"}
    peer["port"] = destination.port
    title, settings = _SETTINGS[variant]
    started = servers.node(folder / "server", title=title, **settings, SCP_NODE__DESTINATIONS=json.dumps([peer]))
    return _Contestant(title, stack.enter_context(servers.running(started)), arrivals, objects=6)


def _sample(contestants: list[_Contestant], stop: threading.Event) -> None:
    while not stop.wait(1.0):
        for contestant in contestants:
            contestant.server.sample()


def _remove(files: dict[str, Path]) -> None:
    for file in files.values():
        file.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=("inline", *_SETTINGS), default=list(VARIANTS))
    parser.add_argument("--images", type=int, default=24, help="per burst")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one-by-one", type=int, metavar="N", help="one at a time, N of them")
    args = parser.parse_args()
    if args.one_by_one:
        for variant in args.variants:
            print(json.dumps(one_by_one(variant, images=args.one_by_one)))
        return
    for row in measure(images=args.images, rounds=args.rounds, variants=tuple(args.variants)):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
