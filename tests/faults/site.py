"""A site of several processes: receivers behind a balancer, workers, one PostgreSQL, one spool folder."""

import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from scp_node.jobs import database
from scp_node.jobs.recovery import job_table
from tests.faults.installation import Installation
from tests.faults.processes import ROOT, Program, free_port, scp_node, wait_until

BALANCER = ROOT / "deploy" / "haproxy.cfg"
LEASE_TTL_S = 5.0
"""Shorter than a hospital's: tests wait for it."""


def haproxy() -> str | None:
    """Return the program, which Debian keeps where only root's PATH leads."""
    return shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")


class Site(Installation):
    """Programs of a site and what they leave behind; `port` is the one that modalities know.

    Parameters
    ----------
    receivers, workers
        How many.
    is_balanced
        Two receivers behind HAProxy, as `deploy/` ships it; without it, `port` is that of the first receiver.
    """

    def __init__(
        self,
        folder: Path,
        *,
        receivers: int = 1,
        workers: int = 2,
        is_balanced: bool = False,
        settings: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        service = {"service": {"lease_ttl_s": LEASE_TTL_S, "stop_timeout_s": 10.0}}
        super().__init__(folder, database="postgresql", settings=service | (settings or {}), **options)
        ports = [free_port() for _ in range(receivers)]
        self.receivers = [
            Program(
                f"receiver{number}",
                scp_node("serve", "--role", "receiver"),
                folder / f"receiver{number}.log",
                self.variables | {"SCP_NODE__RECEIVER__PORT": str(port)},
            )
            for number, port in enumerate(ports, 1)
        ]
        self.workers = [
            Program(
                f"worker{number}",
                scp_node("serve", "--role", "worker"),
                folder / f"worker{number}.log",
                self.variables,
            )
            for number in range(1, workers + 1)
        ]
        self.balancer: Program | None = None
        if is_balanced:
            addresses = {f"SCP_NODE_RECEIVER_{n}": f"127.0.0.1:{port}" for n, port in enumerate(ports, 1)}
            self.balancer = Program(
                "haproxy",
                [haproxy() or "haproxy", "-db", "-f", str(BALANCER)],
                folder / "haproxy.log",
                {"SCP_NODE_BIND": f"127.0.0.1:{self.port}", **addresses},
            )
        else:
            self.port = ports[0]

    @property
    def programs(self) -> Sequence[Program]:
        """All of the node's own."""
        return (*self.receivers, *self.workers)

    def start(self, *, destinations: bool = True) -> None:
        """Start everything; returns when receivers listen and workers have loaded their models."""
        for program in (*(self.destinations.values() if destinations else ()), *self.programs):
            program.start()
        if self.balancer is not None:
            self.balancer.start()
        for program in self.receivers:
            wait_logged(program, "receiving")
        for program in self.workers:
            wait_logged(program, "child ready")

    def owners(self) -> dict[int, int]:
        """Return how many running jobs each worker has, by process id."""
        engine = database.open_engine(self.settings.database.url)
        jobs = job_table(engine.dialect.name)
        query = (
            sa.select(jobs.c.executor_id, sa.func.count())
            .where(jobs.c.status == "PENDING")
            .group_by(jobs.c.executor_id)
        )
        with engine.connect() as connection:
            counts = {int(owner.split(":")[1]): count for owner, count in connection.execute(query)}
        engine.dispose()
        return counts

    def stop_database(self) -> None:
        """Stop PostgreSQL as an administrator does who does not wait for clients."""
        assert self.cluster is not None
        assert self.cluster.program.process is not None
        self.cluster.program.process.send_signal(signal.SIGINT)
        self.cluster.program.wait(60)

    def stop(self) -> None:
        """End whatever still runs, also what is paused."""
        for program in (*self.programs, *([self.balancer] if self.balancer else [])):
            if program.is_alive:
                program.kill()
        if self.cluster is not None and self.cluster.program.is_alive:
            self.stop_database()
        super().stop()


def wait_logged(program: Program, event: str, limit_s: float = 300.0) -> None:
    """Wait until every life of a program has logged an event."""
    wait_until(
        lambda: not program.is_alive or program.log.read_text().count(f'"event": "{event}"') >= program.starts,
        limit_s,
        f"{event!r} of {program.name}",
    )
    if not program.is_alive:
        raise RuntimeError(f"{program.name} ended: {program.log.read_text()[-3000:]}")
