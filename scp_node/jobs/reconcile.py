"""Looks for instances and deliveries whose job ended without moving them, so that nothing waits for ever unseen.

There should be none. There would be one after an error of the program inside a job, or a job that was started over more
often than the durable engine allows.
"""

from typing import Any

import sqlalchemy as sa
import structlog

from scp_node.jobs import database
from scp_node.jobs.queues import Jobs
from scp_node.jobs.states import DeadLetterReason, move, settle
from scp_node.jobs.tables import delivery, instance
from scp_node.records import DeliveryState, InstanceState

log = structlog.get_logger(__name__)

_ALIVE = frozenset({"PENDING", "ENQUEUED", "DELAYED"})
_LIMIT = 1000
_UNFINISHED = (InstanceState.RECEIVED.value, InstanceState.ANALYSING.value)


class Reconciler:
    """Makes dead letters of what no job works on.

    A row is looked at twice, in this order: the row, its job's status, and again the row inside the transaction that
    changes it. A job that ends in between has moved the row or named its successor there.
    """

    def __init__(self, engine: sa.Engine, jobs: Jobs) -> None:
        self._engine = engine
        self._jobs = jobs

    def run(self) -> int:
        """Look once; return how many were found."""
        return self._instances() + self._deliveries()

    def _instances(self) -> int:
        found = 0
        query = sa.select(instance).where(instance.c.state.in_(_UNFINISHED)).order_by(instance.c.id).limit(_LIMIT)
        for row, status in self._without_job(query):
            with database.write(self._engine) as connection:
                again = database.lock_instance(connection, row.id)
                if again is None or again.job_id != row.job_id or again.state not in _UNFINISHED:
                    continue
                detail = f"the job ended ({status}) without an outcome"
                move(
                    connection, again, InstanceState.DEAD_LETTER, reason=DeadLetterReason.INTERNAL.value, detail=detail
                )
            log.error("instance without job", sop_instance_uid=row.sop_instance_uid, job_status=status)
            found += 1
        return found

    def _deliveries(self) -> int:
        found = 0
        query = (
            sa.select(delivery)
            .where(delivery.c.state == DeliveryState.WAITING.value)
            .order_by(delivery.c.instance_id, delivery.c.destination)
            .limit(_LIMIT)
        )
        for row, status in self._without_job(query):
            where = (delivery.c.instance_id == row.instance_id, delivery.c.destination == row.destination)
            with database.write(self._engine) as connection:
                owner = database.lock_instance(connection, row.instance_id)
                changed = connection.execute(
                    sa.update(delivery)
                    .where(*where, delivery.c.job_id == row.job_id, delivery.c.state == DeliveryState.WAITING.value)
                    .values(
                        state=DeliveryState.REFUSED.value,
                        last_error=f"error of this node: the job ended ({status}) without an outcome",
                        next_attempt_at=None,
                    )
                )
                if owner is None or not changed.rowcount:
                    continue
                settle(connection, owner)
            log.error("delivery without job", destination=row.destination, instance=row.instance_id, job_status=status)
            found += 1
        return found

    def _without_job(self, query: sa.Select[Any]) -> list[tuple[sa.Row[Any], str]]:
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        statuses = self._jobs.statuses([row.job_id for row in rows])
        return [(row, statuses.get(row.job_id, "missing")) for row in rows if statuses.get(row.job_id) not in _ALIVE]
