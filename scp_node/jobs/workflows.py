"""The jobs as the durable engine knows them, and the engine itself: launched and stopped here, nowhere else.

A job's function decides nothing: it hands its arguments and its id to the work that is bound to this process.
"""

import math
import threading
from collections.abc import Sequence
from typing import Protocol

import sqlalchemy as sa
from dbos import DBOS

from config.destinations import Destination
from scp_node.jobs import queues

MAXIMUM_STARTS = 100
"""A job is started over that often at most. Poison kills children, not workers: many restarts mean many restarts."""
_SPARE_THREADS = 16


class Analysing(Protocol):
    """Runs analyse jobs."""

    def run(self, instance_id: int, job_id: str) -> str:
        """Run one."""


class Delivering(Protocol):
    """Runs deliver jobs."""

    def run(self, instance_id: int, name: str, job_id: str) -> str:
        """Run one."""


_bound: tuple[Analysing, Delivering] | None = None


def _work() -> tuple[Analysing, Delivering]:
    if _bound is None:
        raise RuntimeError("no worker runs in this process")
    return _bound


def _job_id() -> str:
    job_id = DBOS.workflow_id
    if job_id is None:
        raise RuntimeError("called outside a job")
    return job_id


@DBOS.workflow(name=queues.ANALYSE_JOB, max_recovery_attempts=MAXIMUM_STARTS)
def _analyse(instance_id: int) -> str:
    return _work()[0].run(instance_id, _job_id())


@DBOS.workflow(name=queues.DELIVER_JOB, max_recovery_attempts=MAXIMUM_STARTS)
def _deliver(instance_id: int, destination: str) -> str:
    return _work()[1].run(instance_id, destination, _job_id())


def launch(
    engine: sa.Engine,
    *,
    executor_id: str,
    slots: int,
    destinations: Sequence[Destination],
    analysing: Analysing,
    delivering: Delivering,
) -> None:
    """Migrate the durable engine's tables, begin to run jobs, and create the queues."""
    global _bound  # noqa: PLW0603 - the durable engine is one per process, and so is its work
    if _bound is not None:
        raise RuntimeError("a worker runs in this process already")
    _bound = (analysing, delivering)
    threads = slots + 2 + queues.WORKER_CONCURRENCY * len(destinations) + _SPARE_THREADS
    DBOS(
        config={
            "name": queues.APPLICATION,
            "system_database_url": engine.url.render_as_string(hide_password=False),
            "system_database_engine": engine,
            "serializer": queues.serializer(),
            "executor_id": executor_id,
            "application_version": queues.APPLICATION_VERSION,
            "max_executor_threads": max(64, threads),
            "use_listen_notify": False,
            "log_level": "WARNING",
        }
    )
    DBOS.launch()
    queues.register(DBOS.register_queue, slots=slots, destinations=destinations)


def take_over(executor_ids: list[str]) -> None:
    """Put the running jobs of dead workers back into their queues.

    The durable engine keeps this to itself (its vendor sells it); a contract test pins what is used here.
    """
    DBOS._recover_pending_workflows(executor_ids)


def owners() -> set[str]:
    """Ids of the workers that own running jobs."""
    rows = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
    return {row.executor_id for row in rows if row.executor_id}


def begin_stop(timeout_s: float) -> threading.Thread:
    """Take no more jobs from the queues, from now on; the thread ends when running ones have, or after the limit."""
    stopper = threading.Thread(
        target=lambda: DBOS.destroy(workflow_completion_timeout_sec=math.ceil(timeout_s)), name="jobs-stop"
    )
    stopper.start()
    return stopper


def end_stop(stopper: threading.Thread) -> None:
    """Wait for what ``begin_stop`` began, and let go of the work."""
    global _bound  # noqa: PLW0603 - as in launch
    stopper.join()
    _bound = None
