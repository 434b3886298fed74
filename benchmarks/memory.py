"""How much memory a node takes while many radiographs arrive at once: its own process and its children.

python -m benchmarks.memory [--images 500] [--associations 8]

Every image is 18 MB and is sent as fast as it is taken; analysis and delivery to a folder go on meanwhile. What is
printed must not depend on the number of images.
"""

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks import load, servers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--associations", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        print(json.dumps(measure(Path(name), images=args.images, associations=args.associations), indent=2))


def measure(folder: Path, *, images: int, associations: int) -> dict[str, object]:
    """Peaks of resident memory, MiB, of the node's own process and of its largest child."""
    source = load.Source(load.template(folder / "template.dcm"), folder / "sent")
    out = folder / "out"
    destination = {"name": "out", "kind": "folder", "folder": str(out)}
    with servers.running(servers.node(folder / "server", SCP_NODE__DESTINATIONS=json.dumps([destination]))) as server:
        warm = list(source.write(2).values())
        load.closed(server.port, server.ae_title, warm, associations=1)
        # The children have loaded their models and drawn: what comes on top is the load's.
        while not out.exists() or len(list(out.glob("*.dcm"))) < 12:
            time.sleep(0.2)
        before = _resident(server.process.pid)
        peaks = dict(before)
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(0.1):
                for who, size in _resident(server.process.pid).items():
                    peaks[who] = max(peaks.get(who, 0.0), size)

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.monotonic()
        left, sent = images, 0
        while left:
            # In portions, since the files that are sent lie on the same disk.
            portion = list(source.write(min(left, 64)).values())
            load.closed(server.port, server.ae_title, portion, associations=associations)
            left, sent = left - len(portion), sent + len(portion)
            for file in portion:
                file.unlink()
        took_s = time.monotonic() - began
        stop.set()
        watcher.join()
    return {
        "images": sent,
        "received_in_s": round(took_s, 1),
        "before_mib": {who: round(size) for who, size in before.items()},
        "peak_mib": {who: round(size) for who, size in peaks.items()},
    }


def _resident(pid: int) -> dict[str, float]:
    node = psutil.Process(pid)
    children = [child.memory_info().rss for child in node.children()]
    return {"node": node.memory_info().rss / 2**20, "largest child": max(children, default=0) / 2**20}


if __name__ == "__main__":
    main()
