"""What commands cost before they do anything, and how soon a node is of use: CPU and wall seconds."""

import os
import resource
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import load
from benchmarks.contest import ROOT
from benchmarks.servers import SCP_NODE, Server, free_port

TITLE = "Start: whole processes"
SERVE_ROUNDS = 3
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import torch": [sys.executable, "-c", "import torch"],
    "scp-node --help": [SCP_NODE, "--help"],
    "scp-node echo (nobody listens)": [SCP_NODE, "echo", "--port", "9"],
    "scp-node jobs list (empty database)": [SCP_NODE, "jobs", "list"],
}


def measure(*, rounds: int) -> list[tuple[str, float, float]]:
    """Median CPU and wall seconds by command."""
    taken: dict[str, list[tuple[float, float]]] = {title: [] for title in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        prepare = (
            "from pathlib import Path\n"
            "from scp_node.jobs import database\nfrom scp_node.jobs.migrations import migrate\n"
            "Path('scp-node-data').mkdir()\n"
            "migrate(database.open_engine('sqlite:///scp-node-data/node.sqlite'))\n"
        )
        subprocess.run([sys.executable, "-c", prepare], cwd=folder, check=True, env={"PYTHONPATH": str(ROOT)})
        for number in range(rounds + 1):
            for title, command in COMMANDS.items():
                before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
                subprocess.run(command, cwd=Path(folder), capture_output=True, check=False)
                after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
                cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                if number:
                    taken[title].append((cpu, wall))
    for number in range(SERVE_ROUNDS + 1):
        for title, cpu, wall in _serve():
            if number:
                taken.setdefault(title, []).append((cpu, wall))
    return [
        (title, statistics.median(cpu for cpu, _ in found), statistics.median(wall for _, wall in found))
        for title, found in taken.items()
    ]


def _serve() -> list[tuple[str, float, float]]:
    """Start a node with compiled models and a new database; CPU of all its processes."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder, port = Path(name), free_port()
        source = load.template(folder / "template.dcm")
        began = time.perf_counter()
        process = subprocess.Popen(
            [SCP_NODE, "serve"],
            cwd=folder,
            env=os.environ
            | {
                "SCP_NODE__RECEIVER__PORT": str(port),
                "SCP_NODE__CONSOLE__PORT": str(free_port()),
                "SCP_NODE__LOGGING__LEVEL": "WARNING",
            },
        )
        server = Server("", process, port, "SCP_NODE", folder)
        echo = ["echoscu", "--aetitle", "BENCH", "--call", "SCP_NODE", "127.0.0.1", str(port)]
        try:
            _until(lambda: subprocess.run(echo, capture_output=True, check=False).returncode == 0)
            answered = (time.perf_counter() - began, server.cpu_s())
            load.send(port, "SCP_NODE", [source])
            _until(lambda: _is_analysed(folder / "scp-node-data" / "node.sqlite"))
            analysed = (time.perf_counter() - began, server.cpu_s())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    return [
        ("scp-node serve: first C-ECHO answered", answered[1], answered[0]),
        ("scp-node serve: first radiograph analysed", analysed[1], analysed[0]),
    ]


def _is_analysed(database: Path) -> bool:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        return connection.execute("SELECT count(*) FROM instance WHERE analysed_at IS NOT NULL").fetchone()[0] > 0


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the node did not start")
        time.sleep(0.02)
