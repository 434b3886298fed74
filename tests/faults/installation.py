"""A whole installation for a fault run: database, node, two destinations, a sender; everything in one folder."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from config.load import load
from config.settings import NodeSettings
from scp_node.errors import DatabaseError
from scp_node.jobs.admin import Admin
from scp_node.jobs.records import InstanceRecord
from scp_node.records import Verdict
from tests.faults.account import Kill
from tests.faults.postgres import Cluster
from tests.faults.processes import Program, environment, free_port, python, scp_node, wait_until

DESTINATIONS = ("first", "second")

ONE_PROCESS = {"serve": ("serve",)}
SHARED = {
    "receiver": ("serve", "--role", "receiver"),
    "worker-1": ("serve", "--role", "worker"),
    "worker-2": ("serve", "--role", "worker"),
}
"""Processes of a node: their names, and what `scp-node` is started with."""


class Installation:
    """Programs of one run and what they leave behind.

    Parameters
    ----------
    database
        ``sqlite`` or ``postgresql``; the latter is a cluster of this run's own.
    checkpoints
        Folder of the models; None: those shipped with the node.
    processes
        One that does everything, or several that share database and spool.
    settings
        Further sections of the configuration, over those chosen here.
    """

    def __init__(
        self,
        folder: Path,
        *,
        database: str = "sqlite",
        checkpoints: Path | None = None,
        models: Sequence[str] = ("resnet18",),
        processes: Mapping[str, Sequence[str]] = ONE_PROCESS,
        destinations: Sequence[str] = DESTINATIONS,
        settings: dict[str, Any] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.cluster: Cluster | None = None
        url = f"sqlite:///{folder / 'node.sqlite'}"
        if database == "postgresql":
            self.cluster = Cluster(folder / "postgresql", free_port())
            self.cluster.create()
            self.cluster.start()
            url = self.cluster.url
        ports = {name: free_port() for name in destinations}
        sections: dict[str, Any] = {
            "receiver": {"port": self.port, "bind": "127.0.0.1"},
            "spool": {"folder": str(folder / "spool"), "minimum_free_bytes": 0},
            "database": {"url": url},
            "analysis": {"models": list(models), "processes": 1, "threads": 1, "device": "cpu"}
            | ({"checkpoints": str(checkpoints)} if checkpoints else {}),
            # Small results: a run is about their fate, not about their size.
            "results": {"secondary_capture": {"singles": False, "panel_size": 256}},
            # An outage of minutes stands for one of days.
            "delivery": {"first_delay_s": 1.0, "maximum_delay_s": 30.0, "maximum_probe_s": 5.0},
            "logging": {"format": "json"},
            "destinations": [
                {
                    "name": name,
                    "kind": "dicom",
                    "ae_title": name.upper(),
                    "host": "127.0.0.1",
                    "port": ports[name],
                    # Who is killed while it asks for a destination has claimed the question for four times this.
                    "timeout_s": 10.0,
                }
                for name in destinations
            ],
        }
        for section, values in (settings or {}).items():
            present = sections.get(section, {})
            sections[section] = {**present, **values} if isinstance(present, dict) else values
        self.variables = dict(_variables("SCP_NODE", sections))
        self.settings: NodeSettings = load(None, self.variables)
        self.nodes = {
            name: Program(name, scp_node(*arguments), folder / f"{name}.log", self.variables)
            for name, arguments in processes.items()
        }
        self.destinations = {
            name: Program(
                name,
                python(
                    "tests.faults.pacs",
                    *("--port", ports[name], "--ae-title", name.upper(), "--record", self.record(name)),
                ),
                folder / f"{name}.log",
            )
            for name in destinations
        }

    @property
    def programs(self) -> Sequence[Program]:
        """All processes of the node."""
        return tuple(self.nodes.values())

    @property
    def node(self) -> Program:
        """The process that receives: the only one, or the first of several."""
        return next(iter(self.nodes.values()))

    def compile_models(self) -> None:
        """Compile the models once, so that each life of a node begins to work soon."""
        subprocess.run(scp_node("models", "compile"), check=True, capture_output=True, env=environment(self.variables))

    def start_nodes(self) -> None:
        """Start every process of the node, one after the other as its database wants it."""
        for program in self.nodes.values():
            program.start()
        self.wait_receiving()

    def stop_nodes(self) -> None:
        """Ask every process of the node to stop; RuntimeError when one does not in order."""
        for program in self.nodes.values():
            if (status := program.terminate()) != 0:
                raise RuntimeError(f"{program.name} stopped with {status}: {program.log.read_text()[-3000:]}")

    def record(self, name: str) -> Path:
        """Return the file of what a destination, or the sender, swears to."""
        return self.folder / f"{name}.jsonl"

    def sender(self, files: Path, *, associations: int = 4, pause_s: float = 0.0, seed: int = 0) -> Program:
        """Return the program that sends a folder until every file is acknowledged."""
        return Program(
            "sender",
            python(
                "tests.faults.sender",
                *("--port", self.port, "--folder", files, "--record", self.record("sender")),
                *("--associations", associations, "--pause", pause_s, "--seed", seed),
            ),
            self.folder / "sender.log",
        )

    def instances(self) -> list[InstanceRecord]:
        """What the node says of every instance; empty while it has made no database, or while that is away."""
        try:
            with Admin(self.settings) as admin:
                return list(admin.list_instances())
        except (DatabaseError, DBAPIError):
            return []

    def results(self) -> tuple[dict[str, set[str]], dict[str, dict[str, float]]]:
        """Return what the node has on record of its results.

        Returns
        -------
        dict of str to set of str
            UIDs of results by the source's UID.
        dict of str to dict of str to float
            When the confirmation of a result was committed, by destination and the result's UID; seconds since 1970.
        """
        results: dict[str, set[str]] = {}
        confirmed: dict[str, dict[str, float]] = {name: {} for name in self.destinations}
        with Admin(self.settings) as admin:
            for record in admin.list_instances():
                shown = admin.show(str(record.id)).results
                results[record.sop_instance_uid] = {result.sop_instance_uid for result in shown}
                for result in shown:
                    for one in result.confirmations:
                        if one.verdict is Verdict.CONFIRMED:
                            found = confirmed.setdefault(one.destination, {})
                            found[result.sop_instance_uid] = one.at.timestamp()
        return results, confirmed

    def take_overs(self) -> list[Kill]:
        """Return when workers took the jobs of others over: of killed ones, and of those silent for too long.

        A slow machine can make a worker look dead; what it had on the wire then is sent again, as after a kill.
        """
        found = []
        for program in self.programs:
            if not program.log.exists():
                continue
            for line in program.log.read_text(errors="replace").splitlines():
                if '"taking over jobs of dead workers"' in line:
                    at = datetime.fromisoformat(json.loads(line)["timestamp"])
                    found.append(Kill(at=at.timestamp(), victim="take-over"))
        return found

    def wait_final(self, count: int, stalled_s: float) -> bool:
        """Wait until `count` instances are final; False when nothing has changed for `stalled_s` seconds."""
        before: object = None
        changed = time.monotonic()
        while True:
            records = self.instances()
            if len(records) >= count and all(record.state.is_final for record in records):
                return True
            deliveries = Counter((d.destination, d.state) for record in records for d in record.deliveries)
            present = (Counter(record.state for record in records), deliveries)
            if present != before:
                before, changed = present, time.monotonic()
            if time.monotonic() - changed > stalled_s:
                return False
            time.sleep(1.0)

    def wait_receiving(self, limit_s: float = 300.0) -> None:
        """Wait until this life of the node accepts associations."""
        wait_until(
            lambda: not self.node.is_alive or self._log_lines("receiving") >= self.node.starts, limit_s, "receiving"
        )
        if not self.node.is_alive:
            raise RuntimeError(f"the node ended: {self.node.log.read_text()[-3000:]}")

    def _log_lines(self, event: str) -> int:
        return self.node.log.read_text(errors="replace").count(f'"event": "{event}"')

    def stop(self) -> None:
        """End whatever still runs."""
        for program in (*self.nodes.values(), *self.destinations.values()):
            if program.is_alive:
                program.kill()
        if self.cluster is not None and self.cluster.program.is_alive:
            self.cluster.program.terminate()


def _variables(prefix: str, tree: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        name = f"{prefix}__{key.upper()}"
        if isinstance(value, dict):
            yield from _variables(name, value)
        else:
            yield name, value if isinstance(value, str) else json.dumps(value)
