"""Jobs that nobody runs are put back into their queues: of dead workers, of older programs, and lost on the way here.

The durable engine leaves this to a paid service of its vendor, so this module writes to the engine's own table, in the
words of the engine's recovery (dbos 3.4, `reenqueue_for_recovery`). Contract tests pin table, columns and states.
"""

from collections.abc import Callable, Collection, Iterable, Set

import sqlalchemy as sa
import structlog

from scp_node.jobs import database
from scp_node.jobs.queues import APPLICATION, APPLICATION_VERSION

log = structlog.get_logger(__name__)

_BEFORE_ALL = 0
"""The engine's "unset" and its most urgent; no job of the node is added with it."""
_UNFINISHED = ("PENDING", "ENQUEUED", "DELAYED")


def job_table(dialect: str) -> sa.TableClause:
    """Return the durable engine's table of jobs: what is used of it here."""
    names = ("workflow_uuid", "status", "executor_id", "owner_xid", "started_at_epoch_ms")
    more = ("application_name", "application_version", "priority")
    return sa.table(
        "workflow_status",
        *(sa.column(name) for name in names + more),
        schema="dbos" if dialect == "postgresql" else None,
    )


def put_first(connection: sa.Connection, job_id: str) -> None:
    """Let a waiting job run before all others of its queue, however many there are."""
    jobs = job_table(connection.dialect.name)
    connection.execute(
        sa.update(jobs)
        .where(jobs.c.workflow_uuid == job_id, jobs.c.status.in_(("ENQUEUED", "DELAYED")))
        .values(priority=_BEFORE_ALL)
    )


class Recovery:
    """What one worker does for jobs that lie still.

    Parameters
    ----------
    worker
        The executor id of this worker.
    running
        Returns the ids of the jobs that run in this process.
    """

    def __init__(self, engine: sa.Engine, worker: str, running: Callable[[], Set[str]]) -> None:
        self._engine = engine
        self._worker = worker
        self._running = running
        self._jobs = job_table(engine.dialect.name)
        self._missed: frozenset[str] = frozenset()

    def owners(self) -> set[str]:
        """Ids of the workers that own running jobs."""
        query = sa.select(self._jobs.c.executor_id).where(self._is_ours(), self._jobs.c.status == "PENDING").distinct()
        with self._engine.connect() as connection:
            return {owner for owner in connection.execute(query).scalars() if owner}

    def take_over(self, dead: Collection[str]) -> int:
        """Put the running jobs of dead workers back; those of older programs become this one's. Return how many."""
        with database.write(self._engine) as connection:
            versions = {APPLICATION_VERSION, *self._older(connection)}
            return self._put_back(
                connection, self._jobs.c.executor_id.in_(dead), self._jobs.c.application_version.in_(versions)
            )

    def adopt(self) -> int:
        """Make waiting jobs of older programs this one's, which alone would run them; return how many."""
        with database.write(self._engine) as connection:
            older = self._older(connection)
            if not older:
                return 0
            adopted = connection.execute(
                sa.update(self._jobs)
                .where(
                    self._is_ours(),
                    self._jobs.c.status.in_(("ENQUEUED", "DELAYED")),
                    self._jobs.c.application_version.in_(older),
                )
                .values(application_version=APPLICATION_VERSION)
            ).rowcount
        if adopted:
            log.info("adopted jobs of an older version", versions=sorted(older), jobs=adopted)
        return adopted

    def reclaim(self) -> int:
        """Put back jobs that are this worker's and do not run in it, twice in a row; return how many.

        There are some after an outage of the database: the engine's claim was committed, its answer was lost.
        """
        query = sa.select(self._jobs.c.workflow_uuid).where(
            self._is_ours(), self._jobs.c.status == "PENDING", self._jobs.c.executor_id == self._worker
        )
        with self._engine.connect() as connection:
            owned = frozenset(connection.execute(query).scalars())
        missing = owned - self._running()
        lost, self._missed = missing & self._missed, missing
        return self.give_back(lost) if lost else 0

    def give_back(self, job_ids: Iterable[str]) -> int:
        """Put running jobs of this worker back, unless somebody else has them by now; return how many."""
        with database.write(self._engine) as connection:
            return self._put_back(
                connection,
                self._jobs.c.executor_id == self._worker,
                self._jobs.c.workflow_uuid.in_(tuple(job_ids)),
            )

    def _put_back(self, connection: sa.Connection, *which: sa.ColumnElement[bool]) -> int:
        return connection.execute(
            sa.update(self._jobs)
            .where(self._is_ours(), self._jobs.c.status == "PENDING", *which)
            .values(
                status="ENQUEUED", owner_xid=None, started_at_epoch_ms=None, application_version=APPLICATION_VERSION
            )
        ).rowcount

    def _is_ours(self) -> sa.ColumnElement[bool]:
        return self._jobs.c.application_name == APPLICATION

    def _older(self, connection: sa.Connection) -> set[str]:
        """Versions before this program's that have unfinished jobs; a newer program's jobs are left to it."""
        query = (
            sa.select(self._jobs.c.application_version)
            .where(self._is_ours(), self._jobs.c.status.in_(_UNFINISHED))
            .distinct()
        )
        versions = connection.execute(query).scalars()
        return {one for one in versions if one and one.isdecimal() and int(one) < int(APPLICATION_VERSION)}
