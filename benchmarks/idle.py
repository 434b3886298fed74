"""What a node costs while nothing arrives: all roles in one process, SQLite, models loaded; its children included.

python -m benchmarks.idle [--destinations 0 2] [--seconds 40]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import servers

_SETTLED_S = 15.0
"""Models are loaded, and what happens once after a start has happened."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--destinations", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--seconds", type=float, default=40.0)
    args = parser.parse_args()
    for count in args.destinations:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            share = measure(Path(name), destinations=count, seconds=args.seconds)
        print(f"{count} destinations: {100 * share:.1f} % of a core", flush=True)


def measure(folder: Path, *, destinations: int, seconds: float) -> float:
    """CPU seconds, user and system, of the node and its children for each second."""
    peer = {"kind": "dicom", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}
    peers = [peer | {"name": f"pacs-{number}"} for number in range(destinations)]
    with servers.running(servers.node(folder / "server", SCP_NODE__DESTINATIONS=json.dumps(peers))) as server:
        time.sleep(_SETTLED_S)
        node = psutil.Process(server.process.pid)
        processes = [node, *node.children(recursive=True)]
        before, began = _cpu_s(processes), time.monotonic()
        time.sleep(seconds)
        return (_cpu_s(processes) - before) / (time.monotonic() - began)


def _cpu_s(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


if __name__ == "__main__":
    main()
