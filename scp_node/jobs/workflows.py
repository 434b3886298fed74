"""The jobs as the durable engine knows them, and the engine itself: launched and stopped here, nowhere else.

A job's function decides nothing: it hands its arguments and its id to the work that is bound to this process.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import sqlalchemy as sa
import structlog
from dbos import DBOS

from config.destinations import Destination
from scp_node.jobs import polling, queues
from scp_node.jobs.lease import LeaseLostError

log = structlog.get_logger(__name__)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What this process does with jobs."""

    analysing: Analysing
    delivering: Delivering
    give_back: Callable[[str], object]


_bound: _Work | None = None
_running: dict[str, int] = {}
_counting = threading.Lock()


def _work() -> _Work:
    if _bound is None:
        raise RuntimeError("no worker runs in this process")
    return _bound


@contextmanager
def _job() -> Iterator[str]:
    job_id = DBOS.workflow_id
    if job_id is None:
        raise RuntimeError("called outside a job")
    with _counting:
        # Twice at once: taken over by another worker during a pause, which died, and given to this one again.
        _running[job_id] = _running.get(job_id, 0) + 1
    try:
        yield job_id
    except LeaseLostError:
        log.warning("lease lost, job left", job_id=job_id)
        try:
            _work().give_back(job_id)
        except Exception:  # what took the lease takes this too: it must not become the job's outcome; see `reclaim`
            log.exception("job not given back yet", job_id=job_id)
        raise
    finally:
        with _counting:
            _running[job_id] -= 1
            if not _running[job_id]:
                del _running[job_id]


def running() -> frozenset[str]:
    """Ids of the jobs that run in this process."""
    with _counting:
        return frozenset(_running)


@DBOS.workflow(name=queues.ANALYSE_JOB, max_recovery_attempts=MAXIMUM_STARTS)
def _analyse(instance_id: int) -> str:
    with _job() as job_id:
        return _work().analysing.run(instance_id, job_id)


@DBOS.workflow(name=queues.DELIVER_JOB, max_recovery_attempts=MAXIMUM_STARTS)
def _deliver(instance_id: int, destination: str) -> str:
    with _job() as job_id:
        return _work().delivering.run(instance_id, destination, job_id)


def launch(
    engine: sa.Engine,
    *,
    executor_id: str,
    slots: int,
    destinations: Sequence[Destination],
    analysing: Analysing,
    delivering: Delivering,
    give_back: Callable[[str], object] = lambda _job_id: None,
) -> None:
    """Migrate the durable engine's tables, begin to run jobs, and create the queues.

    Parameters
    ----------
    give_back
        Called with the id of a job that was left because this worker's lease was lost.
    """
    global _bound  # noqa: PLW0603 - the durable engine is one per process, and so is its work
    if _bound is not None:
        raise RuntimeError("a worker runs in this process already")
    _bound = _Work(analysing=analysing, delivering=delivering, give_back=give_back)
    threads = slots + 2 + queues.WORKER_CONCURRENCY * len(destinations) + _SPARE_THREADS
    durable = DBOS(
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
    polling.spare(getattr(durable, "_sys_db", None))


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
