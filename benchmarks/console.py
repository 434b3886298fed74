"""How long the console's pages take with 100,000 instances, as a ratio to the same pages of an empty database.

``python -m benchmarks.console``: both consoles run side by side and are asked in turns, so that what else this machine
does slows both.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import httpx
import sqlalchemy as sa

from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.console.server import Server
from scp_node.jobs import database
from scp_node.jobs.migrations import migrate
from scp_node.jobs.tables import delivery, instance, prediction

PAGES = (
    "/worklist",
    "/worklist?state=dead_letter",
    "/worklist?finding=disagreement",
    "/worklist?after=50000",
    "/worklist?uid=1.2.3.77",
    "/explorer",
    "/operations",
    "/findings",
    "/health/ready",
    "/metrics",
)
_MODELS = ("resnet18", "efficientnet_b0", "densenet121")
_STATES = ("delivered",) * 95 + ("not_eligible",) * 4 + ("dead_letter",)


def fill(engine: sa.Engine, rows: int) -> None:
    """Instances of thirty days, with what three models said and one delivery each."""
    began = time.time() - 30 * 86400
    with database.write(engine) as connection:
        for first in range(0, rows, 5000):
            numbers = range(first + 1, min(first + 5000, rows) + 1)
            connection.execute(sa.insert(instance), [_instance(number, began, rows) for number in numbers])
            judged = [number for number in numbers if _STATES[number % 100] == "delivered"]
            said = [_prediction(n, place, model) for n in judged for place, model in enumerate(_MODELS)]
            connection.execute(sa.insert(prediction), said)
            connection.execute(sa.insert(delivery), [_delivery(number, began) for number in judged])


def _instance(number, began, rows):
    at = began + 30 * 86400 * number / rows
    state = _STATES[number % 100]
    return {
        "id": number,
        "sop_instance_uid": f"1.2.3.{number}",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "sha256": f"{number:064x}",
        "size_bytes": 7_000_000,
        "file": f"objects/00/00/{number:064x}.dcm",
        "calling_ae_title": f"MODALITY{number % 7}",
        "called_ae_title": "SCP_NODE",
        "peer_address": "192.0.2.1",
        "priority": "routine",
        "received_at": at,
        "state": state,
        "reason": {"not_eligible": "lateral", "dead_letter": "unreadable"}.get(state),
        "detail": "",
        "job_id": f"job-{number}",
        "round": 1,
        "crashes": 0,
        "analysed_at": at + 1 if state == "delivered" else None,
        "duration_s": 0.9 if state == "delivered" else None,
        "notes": "[]",
        "updated_at": at + 2,
    }


def _prediction(number, place, model):
    probability = (number * 37 + place * 11) % 100 / 100
    return {
        "instance_id": number,
        "model": model,
        "position": place,
        "title": model,
        "version": "1.0.0",
        "weights_sha256": "0" * 64,
        "preprocessing": "",
        "probability": probability,
        "threshold": 0.5,
        "is_threshold_overridden": False,
        "is_positive": probability >= 0.5,
        "has_evidence": True,
    }


def _delivery(number, began):
    return {
        "instance_id": number,
        "destination": "pacs",
        "state": "delivered",
        "attempts": 1,
        "last_error": "",
        "job_id": f"deliver-{number}",
        "round": 1,
        "updated_at": began,
    }


def console(folder: Path, rows: int) -> Server:
    """A console on a database with so many instances."""
    settings = NodeSettings(
        database=DatabaseSettings(url=f"sqlite:///{folder}/node.sqlite"), spool=SpoolSettings(folder=folder / "spool")
    )
    settings.spool.folder.mkdir(parents=True)
    engine = database.open_engine(settings.database.url)
    migrate(engine)
    fill(engine, rows)
    server = Server(settings, engine, port=0)
    server.start()
    return server


def main() -> None:
    """Print one JSON object a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        servers = {rows: console(Path(name) / str(rows), rows) for rows in (0, arguments.rows)}
        clients = {rows: httpx.Client(base_url=f"http://127.0.0.1:{one.port}") for rows, one in servers.items()}
        for page in PAGES:
            times: dict[int, list[float]] = {rows: [] for rows in clients}
            for turn in range(arguments.repeats + 1):
                for rows, client in clients.items():
                    began = time.perf_counter()
                    client.get(page, timeout=120)
                    if turn:  # the first one compiles templates and warms caches
                        times[rows].append(time.perf_counter() - began)
            empty, full = (statistics.median(times[rows]) * 1000 for rows in (0, arguments.rows))
            fastest = min(times[arguments.rows]) * 1000
            line = {"page": page, "rows": arguments.rows, "empty_ms": round(empty, 1), "full_ms": round(full, 1)}
            print(json.dumps({**line, "fastest_full_ms": round(fastest, 1), "ratio": round(full / empty, 2)}))
        for client in clients.values():
            client.close()
        for server in servers.values():
            server.stop(5)


if __name__ == "__main__":
    main()
