"""Receiving 18 MB radiographs durably: the node's receiver against Orthanc, DCMTK and pynetdicom's own example."""

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import load, servers

TITLE = "Receive: 3000 x 3000 x 16 bit, dcmsend to files on disk"
PEER = "Orthanc (fsync on)"


def measure(*, rounds: int, images: int, associations: int) -> list[dict]:
    """Send the same number of images to each server in turn; medians over the rounds, ratios within a round."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        folder = Path(name)
        source = load.Source(load.template(folder / "template.dcm"), folder / "sent")
        started = [
            stack.enter_context(servers.running(server))
            for server in (
                servers.node(folder / "node", "--role", "receiver"),
                servers.node(
                    folder / "node2",
                    "--role",
                    "receiver",
                    title="scp-node, 2 processes",
                    SCP_NODE__RECEIVER__PROCESSES="2",
                ),
                servers.orthanc(folder / "orthanc"),
                servers.pynetdicom_example(folder / "example"),
                servers.storescp(folder / "storescp", "--fork", title="DCMTK storescp --fork, defaults"),
                servers.tuned_storescp(folder / "tuned"),
            )
        ]
        taken: dict[str, list[tuple[float, float]]] = {server.title: [] for server in started}
        for number in range(rounds + 1):
            for server in started[number % len(started) :] + started[: number % len(started)]:
                files = list(source.write(images).values())
                cpu, began = server.cpu_s(), time.perf_counter()
                load.closed(server.port, server.ae_title, files, associations=associations)
                wall = time.perf_counter() - began
                server.sample()
                time.sleep(0.5)  # forked children are counted once they have ended
                if number:
                    taken[server.title].append((wall / images, (server.cpu_s() - cpu) / images))
                for file in files:
                    file.unlink()
                for kept in (server.folder / "stored").glob("*"):
                    if kept.is_file() and server.title.startswith("DCMTK"):
                        kept.unlink()
        reference = taken[PEER]
        return [
            {
                "title": server.title,
                "images_per_s": 1 / statistics.median(wall for wall, _ in taken[server.title]),
                "cpu_ms": 1000 * statistics.median(cpu for _, cpu in taken[server.title]),
                "speed_ratio": statistics.median(
                    r[0] / t[0] for r, t in zip(reference, taken[server.title], strict=True)
                ),
                "cpu_ratio": statistics.median(
                    t[1] / r[1] for r, t in zip(reference, taken[server.title], strict=True)
                ),
                "peak_mb": server.peak_mb,
            }
            for server in started
        ]
