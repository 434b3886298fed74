"""What commands cost before they do anything: CPU and wall seconds of whole processes."""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.contest import ROOT
from benchmarks.servers import SCP_NODE

TITLE = "Start: whole processes"
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
    return [
        (title, statistics.median(cpu for cpu, _ in found), statistics.median(wall for _, wall in found))
        for title, found in taken.items()
    ]
