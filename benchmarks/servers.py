"""Storage SCPs as processes of a benchmark: started on a free port, their CPU time and memory read from /proc."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")
SCP_NODE = str(Path(sys.executable).with_name("scp-node"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def _tree(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += _tree(int(child))
    return found


@dataclass(slots=True)
class Server:
    """A process tree that listens.

    ``cpu_s`` counts children that have ended too; ``peak_mb`` is the largest sum of resident sets that was seen.
    """

    title: str
    process: subprocess.Popen
    port: int
    ae_title: str
    folder: Path
    peak_mb: float = 0.0

    def cpu_s(self) -> float:
        total = 0.0
        for pid in _tree(self.process.pid):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += sum(int(value) for value in fields[11:15]) / _TICKS
        return total

    def sample(self) -> None:
        """Note the memory in use now: the sum of what each process does not share."""
        total = 0
        for pid in _tree(self.process.pid):
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        self.peak_mb = max(self.peak_mb, total / 1024)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(title: str, command: list[str], *, port: int, ae_title: str, folder: Path, **environment: str) -> Server:
    """Start a server and wait until it accepts connections."""
    log = (folder / "log.txt").open("w")
    process = subprocess.Popen(command, cwd=folder, env=os.environ | environment, stdout=log, stderr=log)
    deadline = time.monotonic() + 120
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{title} does not listen: {(folder / 'log.txt').read_text()[-500:]}")
        time.sleep(0.1)
    return Server(title, process, port, ae_title, folder)


def storescp(folder: Path, *options: str, title: str = "DCMTK storescp") -> Server:
    port = free_port()
    stored = folder / "stored"
    stored.mkdir(parents=True)
    command = ["storescp", *options, "--aetitle", "STORESCP", "-od", str(stored), str(port)]
    return start(title, command, port=port, ae_title="STORESCP", folder=folder, TCP_NODELAY="1")


def tuned_storescp(folder: Path) -> Server:
    options = ("+xa", "--fork", "--max-pdu", "131072", "--bit-preserving")
    return storescp(folder, *options, title="DCMTK storescp --fork, tuned")


def orthanc(folder: Path) -> Server:
    folder.mkdir(parents=True)
    port = free_port()
    settings = {
        "Name": "BENCH",
        "StorageDirectory": str(folder / "stored"),
        "IndexDirectory": str(folder / "stored"),
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpPort": free_port(),
        "RemoteAccessAllowed": False,
        "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": False,
        "SyncStorageArea": True,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    command = [shutil.which("Orthanc") or "/usr/sbin/Orthanc", str(folder / "orthanc.json")]
    return start("Orthanc (fsync on)", command, port=port, ae_title="ORTHANC", folder=folder)


def pynetdicom_example(folder: Path) -> Server:
    """The handler of pynetdicom's own storage example: the data set is decoded and saved."""
    folder.mkdir(parents=True)
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.inline", "store", str(port), str(folder / "stored")]
    return start("pynetdicom's example", command, port=port, ae_title="ANY", folder=folder, PYTHONPATH=str(ROOT))


def inline_example(folder: Path, destination: Server) -> Server:
    """The whole job inside the handler, see `inline.analyse`."""
    folder.mkdir(parents=True)
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.inline", "analyse", str(port), str(destination.port)]
    command.append(destination.ae_title)
    return start("inline in the handler", command, port=port, ae_title="ANY", folder=folder, PYTHONPATH=str(ROOT))


def node(folder: Path, *options: str, title: str = "scp-node", **environment: str) -> Server:
    folder.mkdir(parents=True)
    port = free_port()
    known = {
        "SCP_NODE__RECEIVER__PORT": str(port),
        "SCP_NODE__SPOOL__FOLDER": str(folder / "spool"),
        "SCP_NODE__DATABASE__URL": f"sqlite:///{folder / 'node.sqlite'}",
        "SCP_NODE__LOGGING__LEVEL": "WARNING",
    }
    command = [SCP_NODE, "serve", *options]
    return start(title, command, port=port, ae_title="SCP_NODE", folder=folder, **(known | environment))


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)
