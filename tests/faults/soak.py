"""The soak: thousands of radiographs and bare TCP connects through one node with retention on; what grows is found.

    python -m tests.faults.soak [--instances 5000] [--connects 2000] [--csv FILE] [--plot FILE]

A real node, one destination, two senders that wait while more than a few dozen instances are unfinished: a steady load.
Memory, threads, file handles, disk and database are sampled every few seconds. After a warm-up a straight line is laid
through each; exit code 0 only if none rises by more than its bound. `--evaluate FILE` judges and plots an older CSV.
"""

import argparse
import contextlib
import csv
import itertools
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil
from pydicom import dcmread
from pynetdicom import AE

from scp_node.delivery.messages import Messages
from scp_node.demo.phantoms import uid
from scp_node.jobs.admin import Admin
from tests.faults import radiographs
from tests.faults.installation import Installation
from tests.faults.records import read
from tests.faults.trend import judge, plot

SAMPLE_S = 5.0
UNFINISHED = 40
"""Senders wait while more instances are unfinished."""
PER_ASSOCIATION = 25
SOURCES = 60
KNEES = 2
"""Every second one is no chest, as in the stream of a department."""
RETENTION_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """State of the node at one moment; sizes in bytes. ``done``: instances that were acknowledged so far."""

    at_s: float
    done: int
    connects: int
    unfinished: int
    rows: int
    serve_memory: int
    children_memory: int
    threads: int
    handles: int
    spool: int
    database: int


class Soak:
    """One soak, in a folder of its own."""

    def __init__(self, folder: Path, *, instances: int, connects: int, database: str) -> None:
        self._installation = Installation(
            folder,
            database=database,
            destinations=("first",),
            settings={
                "spool": {"retention_days": RETENTION_S / 86400, "dead_letter_retention_days": RETENTION_S / 86400}
            },
        )
        self._instances = instances
        self._connects = connects
        self._files = folder / "radiographs"
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._acknowledged = 0
        self._connected = 0
        self._unfinished = 0
        self._rows = 0
        self._started = time.monotonic()
        self.samples: list[Sample] = []

    def run(self, out: Path) -> list[Sample]:
        """Send everything, wait for the end, return the samples; they are written to `out` as they are taken."""
        radiographs.write(self._files, SOURCES, seed=1, knees=KNEES)
        installation = self._installation
        installation.destinations["first"].start()
        try:
            installation.compile_models()
            installation.start_nodes()
            with out.open("w", newline="") as stream:
                writer = csv.DictWriter(stream, [field.name for field in fields(Sample)])
                writer.writeheader()
                senders = [threading.Thread(target=self._send, args=(number,)) for number in range(2)]
                for thread in senders:
                    thread.start()
                while any(thread.is_alive() for thread in senders) or self._unfinished:
                    self._count()
                    self._sample(writer)
                    stream.flush()
                    time.sleep(SAMPLE_S)
            stored = len({row["uid"] for row in read(installation.record("first"))})
            print(f"acknowledged {self._acknowledged}, bare connects {self._connected}, objects stored {stored}")
            print(f"the node stopped with {installation.node.terminate()}")
        finally:
            installation.stop()
        return self.samples

    def _send(self, number: int) -> None:
        datasets = [dcmread(file) for file in sorted(self._files.glob("*.dcm"))[number::2]]
        ae = AE(ae_title=f"SOAK{number}")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 300
        for context in sorted({(str(d.SOPClassUID), str(d.file_meta.TransferSyntaxUID)) for d in datasets}):
            ae.add_requested_context(*context)
        waiting: int | None = next(self._numbers)
        while waiting is not None and waiting < self._instances:
            association = ae.associate("127.0.0.1", self._installation.port, ae_title="SCP_NODE")
            if association.is_established:
                # Else pynetdicom's own thread takes an answer now and then.
                association.dimse = Messages(association)
            for _ in range(PER_ASSOCIATION):
                if not association.is_established or waiting >= self._instances:
                    break
                while self._unfinished > UNFINISHED:
                    time.sleep(0.1)
                dataset = datasets[waiting % len(datasets)]
                dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid("soak", waiting)
                status = None
                with contextlib.suppress(RuntimeError):  # the association ended under it
                    status = association.send_c_store(dataset).get("Status")
                if status == 0x0000:
                    self._note()
                    waiting = next(self._numbers)
            if association.is_established:
                association.release()

    def _note(self) -> None:
        with self._lock:
            self._acknowledged += 1
            # An estimate until the next look at the database.
            self._unfinished += 1
            wanted = self._acknowledged * self._connects // self._instances - self._connected
            self._connected += wanted
        for number in range(wanted):
            with socket.create_connection(("127.0.0.1", self._installation.port), timeout=30) as bare:
                if number % 2:
                    bare.settimeout(0.05)  # half of them stay a moment, as a balancer's probe does
                    with contextlib.suppress(TimeoutError, ConnectionError):
                        bare.recv(1)

    def _count(self) -> None:
        with Admin(self._installation.settings) as admin:
            counts = admin.counts()
        self._rows = sum(counts.values())
        self._unfinished = sum(count for state, count in counts.items() if not state.is_final)

    def _sample(self, writer: "csv.DictWriter[str]") -> None:
        node = self._installation.node
        if not node.is_alive:
            raise RuntimeError(f"the node ended: {node.log.read_text()[-3000:]}")
        serve = psutil.Process(node.pid)
        children = serve.children(recursive=True)
        sample = Sample(
            at_s=round(time.monotonic() - self._started, 1),
            done=self._acknowledged,
            connects=self._connected,
            unfinished=self._unfinished,
            rows=self._rows,
            serve_memory=serve.memory_info().rss,
            children_memory=sum(_of(child, lambda one: one.memory_info().rss) for child in children),
            threads=sum(_of(one, lambda process: process.num_threads()) for one in (serve, *children)),
            handles=sum(_of(one, lambda process: process.num_fds()) for one in (serve, *children)),
            spool=_size(self._installation.folder / "spool"),
            database=self._database_bytes(),
        )
        self.samples.append(sample)
        writer.writerow(asdict(sample))

    def _database_bytes(self) -> int:
        folder = self._installation.folder
        if self._installation.cluster is not None:
            return self._installation.cluster.size_bytes()
        return sum(file.stat().st_size for file in folder.glob("node.sqlite*"))


def _of(process: psutil.Process, what) -> int:
    try:
        return what(process)
    except psutil.NoSuchProcess:
        return 0


def _size(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def load(file: Path) -> list[Sample]:
    """Read samples back."""
    with file.open(newline="") as stream:
        return [
            Sample(**{f.name: (float if f.name == "at_s" else int)(row[f.name]) for f in fields(Sample)})
            for row in csv.DictReader(stream)
        ]


def report(samples: Sequence[Sample], picture: Path | None) -> bool:
    """Print the trends, draw them, and say whether all are flat."""
    trends = judge(samples)
    last = samples[-1]
    print(f"{last.done} instances and {last.connects} bare connects in {last.at_s:.0f} s")
    for trend in trends:
        print(trend.line())
    if picture is not None:
        plot(samples, trends, picture)
    return all(trend.is_flat for trend in trends)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=5000)
    parser.add_argument("--connects", type=int, default=2000)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--csv", type=Path, default=Path("soak.csv"))
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--evaluate", type=Path, metavar="CSV", help="only judge and plot this file")
    arguments = parser.parse_args()
    if arguments.evaluate:
        samples = load(arguments.evaluate)
    else:
        folder = Path(tempfile.mkdtemp(prefix="soak-"))
        print(f"soak in {folder}", flush=True)
        soak = Soak(folder, instances=arguments.instances, connects=arguments.connects, database=arguments.database)
        samples = soak.run(arguments.csv)
        shutil.rmtree(folder)
    is_flat = report(samples, arguments.plot)
    print("flat" if is_flat else "SOMETHING GROWS")
    return 0 if is_flat else 1


if __name__ == "__main__":
    sys.exit(main())
