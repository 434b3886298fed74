"""Queues and jobs of the durable engine: their names, their ids, and how a job is added inside a transaction.

Nothing here runs a job; receivers and the command line use it as well as workers.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer, EnqueueOptions

from config.base import Priority
from config.destinations import Destination, DicomDestination

APPLICATION = "scp-node"
APPLICATION_VERSION = "1"
"""Goes up only when the order of steps inside a job changes; jobs of another version are not run."""

ANALYSE_QUEUE = "analyse"
ANALYSE_JOB = "analyse"
DELIVER_JOB = "deliver"

ANALYSE_POLL_S = 0.05
DELIVER_POLL_S = 0.05
"""The engine's own 1 s would add a second to every answer; what asking costs is in docs/scale.md."""
FOLDER_CONCURRENCY = 2
WORKER_CONCURRENCY = 4
"""Deliveries to one destination that one worker runs at a time; more would only hold threads."""

_ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")

LAST_PLACE = 10**9
"""For what may wait until nothing else does, a recall for example."""

# Lower numbers run first, 0 (unset) would come before all, and 2**31 - 1 is the highest there is.
_FIRST = {Priority.STAT: 1, Priority.ROUTINE: LAST_PLACE + 2}


def serializer() -> DBOSPortableJSONSerializer:
    """JSON on both sides; the engine's default is pickle."""
    return DBOSPortableJSONSerializer()


def deliver_queue(destination: str) -> str:
    """Name of the queue of one destination: a dead one holds up its own queue only."""
    return f"deliver.{destination}"


def analyse_id(models: Sequence[str], sop_instance_uid: str, sha256: str, number: int) -> str:
    """Id of an analyse job; the same instance, models and round make the same id, so a repeat adds nothing."""
    return f"analyse:{'+'.join(models)}:{sop_instance_uid}:{sha256[:16]}:{number}"


def analyse_ids(row: sa.Row[Any], models: Sequence[str]) -> list[str]:
    """Ids that jobs of an instance's analysis have, or would have with these models if it came again."""
    named = row.job_id.rsplit(":", 3)[0]
    current = {f"{named}:{row.sop_instance_uid}:{row.sha256[:16]}:{number}" for number in range(1, row.round + 1)}
    return sorted(
        current | {analyse_id(models, row.sop_instance_uid, row.sha256, number) for number in range(1, row.round + 1)}
    )


def deliver_id(instance_id: int, destination: str, number: int, attempt: int) -> str:
    """Id of one attempt (from 1) of one round of deliveries to a destination."""
    return f"deliver:{instance_id}:{destination}:{number}:{attempt}"


def following_id(job_id: str) -> str:
    """Id of the deliver job that goes on where this one ends."""
    head, _, number = job_id.rpartition(":")
    return f"{head}:{int(number) + 1}"


def migrate(url: str) -> None:
    """Make or migrate the durable engine's tables, without launching it; several processes may call it at once."""
    DBOS.migrate(url)


def rank(priority: Priority, place: int) -> int:
    """Return the durable engine's number for a job: every urgent one before every routine one, each by its place."""
    return _FIRST[priority] + min(max(place, 0), LAST_PLACE)


class Jobs:
    """Adds jobs to the durable queues.

    Parameters
    ----------
    engine
        Of the database that holds both the node's and the durable engine's tables.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @cached_property
    def _client(self) -> DBOSClient:
        return DBOSClient(
            system_database_engine=self._engine,
            serializer=serializer(),
            application_name=APPLICATION,
            lazy=True,
            # A database that is away is an answer (0xA700), not a wait inside an association.
            retry_connection_errors=False,
        )

    def analyse(
        self,
        connection: sa.Connection,
        job_id: str,
        instance_id: int,
        priority: Priority,
        *,
        place: int = 0,
        delay_s: float = 0.0,
    ) -> None:
        """Add an analyse job in the caller's transaction; ``place``: among those of the same priority, see `order`."""
        number = rank(priority, place)
        self._add(connection, ANALYSE_JOB, ANALYSE_QUEUE, job_id, (instance_id,), priority=number, delay_s=delay_s)

    def deliver(
        self,
        connection: sa.Connection,
        job_id: str,
        instance_id: int,
        destination: str,
        priority: Priority,
        *,
        place: int = 0,
        delay_s: float = 0.0,
    ) -> None:
        """Add one attempt of a delivery in the caller's transaction; a delayed one is a row, it holds no thread."""
        self._add(
            connection,
            DELIVER_JOB,
            deliver_queue(destination),
            job_id,
            (instance_id, destination),
            priority=rank(priority, place),
            delay_s=delay_s,
        )

    def _add(
        self,
        connection: sa.Connection,
        job: str,
        queue: str,
        job_id: str,
        arguments: tuple[int | str, ...],
        *,
        priority: int,
        delay_s: float,
    ) -> None:
        options: EnqueueOptions = {
            "workflow_name": job,
            "queue_name": queue,
            "workflow_id": job_id,
            "app_version": APPLICATION_VERSION,
            "priority": priority,
        }
        if delay_s > 0:
            options["delay_seconds"] = delay_s
        self._client.enqueue_in_transaction(connection, options, *arguments)

    def statuses(self, job_ids: Sequence[str]) -> dict[str, str]:
        """Status of the durable engine by job id; jobs that it does not know are missing."""
        if not job_ids:
            return {}
        rows = self._client.list_workflows(workflow_ids=list(job_ids), load_input=False, load_output=False)
        return {row.workflow_id: row.status for row in rows}

    def hasten(self, job_id: str) -> None:
        """Make a delayed job due now; one that is not delayed any more is left alone."""
        self._client.set_workflow_delay(job_id, delay_seconds=0)

    def forget(self, job_ids: Sequence[str]) -> None:
        """Remove jobs that do not run, in whatever other state; no error for those that are gone."""
        if job_ids:
            self._client.delete_workflows(list(job_ids))

    def forget_finished(self, before: float, *, limit: int) -> int:
        """Remove jobs that ended before a moment (seconds since 1970), the oldest first; return how many."""
        rows = self._client.list_workflows(
            status=list(_ENDED),
            completed_before=datetime.fromtimestamp(before, UTC).isoformat(),
            limit=limit,
            load_input=False,
            load_output=False,
        )
        self.forget([row.workflow_id for row in rows])
        return len(rows)

    def close(self) -> None:
        """Let go of the client; the engine stays the caller's."""
        if "_client" in self.__dict__:
            self._client.destroy()
            del self.__dict__["_client"]


def deliver_concurrency(destination: Destination) -> int:
    """Deliveries to this destination at the same time, over all workers."""
    return destination.maximum_associations if isinstance(destination, DicomDestination) else FOLDER_CONCURRENCY


def register(register_queue: Callable[..., object], *, slots: int, destinations: Sequence[Destination]) -> None:
    """Create the queues, or bring their limits to the configuration.

    Parameters
    ----------
    register_queue
        Of the durable engine, after its launch.
    slots
        Child processes of this worker; two more jobs wait in memory so that no child idles between two.
    """
    register_queue(
        ANALYSE_QUEUE, worker_concurrency=slots + 2, polling_interval_sec=ANALYSE_POLL_S, on_conflict="always_update"
    )
    for destination in destinations:
        limit = deliver_concurrency(destination)
        register_queue(
            deliver_queue(destination.name),
            worker_concurrency=min(WORKER_CONCURRENCY, limit),
            global_concurrency=limit,
            polling_interval_sec=DELIVER_POLL_S,
            on_conflict="always_update",
        )
