"""Looks for instances and deliveries whose job ended without moving them, so that nothing waits for ever unseen.

There should be none. There would be one after an error of the program inside a job, or a job that was started over more
often than the durable engine allows.
"""

import itertools
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
import structlog

from scp_node.jobs import database, deliveries
from scp_node.jobs.queues import Jobs
from scp_node.jobs.states import PENDING, DeadLetterReason, move
from scp_node.jobs.tables import delivery, instance
from scp_node.records import DeliveryState, InstanceState

log = structlog.get_logger(__name__)

_ALIVE = frozenset({"PENDING", "ENQUEUED", "DELAYED"})
_FAILED = frozenset({"ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"})
_QUESTIONS = 3
"""So many jobs in a row may fail to ask whether what is stored is committed."""
_AT_ONCE = 1000
"""Rows that one look asks about; the next look goes on behind them. An archive may be away for weeks."""
_UNFINISHED = (InstanceState.RECEIVED.value, InstanceState.ANALYSING.value)


class Reconciler:
    """Makes dead letters of what no job works on; what is stored and only not committed yet is asked about again.

    A row is looked at twice, in this order: the row, its job's status, and again the row inside the transaction that
    changes it. A job that ends in between has moved the row or named its successor there.
    """

    def __init__(self, engine: sa.Engine, jobs: Jobs) -> None:
        self._engine = engine
        self._jobs = jobs
        self._seen: dict[str, tuple[Any, ...]] = {}

    def run(self) -> int:
        """Look once, at some rows of each state; return how many were found."""
        return self._instances() + sum(self._deliveries(state) for state in PENDING)

    def _instances(self) -> int:
        found = 0
        query = sa.select(instance).where(instance.c.state.in_(_UNFINISHED))
        for row, status in self._without_job("instances", query, [instance.c.id]):
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

    def _deliveries(self, state: str) -> int:
        found = 0
        query = sa.select(delivery).where(delivery.c.state == state)
        for row, status in self._without_job(state, query, [delivery.c.instance_id, delivery.c.destination]):
            is_stored = state == DeliveryState.COMMITTING
            is_to_be_asked = is_stored and self._failures(row.job_id) < _QUESTIONS
            with database.write(self._engine) as connection:
                owner = database.lock_instance(connection, row.instance_id)
                again = deliveries.current(connection, row.instance_id, row.destination, row.job_id)
                if owner is None or again is None or again.state != state:
                    continue
                now = time.time()
                why = f"error of this node: the job ended ({status}) without an outcome"
                if is_to_be_asked:
                    deliveries.put_off(connection, self._jobs, owner, again, due=now, now=now)
                else:
                    to = DeliveryState.DELIVERED if is_stored else DeliveryState.REFUSED
                    note = f"stored, not committed: {why}" if is_stored else why
                    deliveries.end(connection, owner, again, to, note, now=now)
            log.error(
                "delivery without job",
                destination=row.destination,
                instance=row.instance_id,
                job_status=status,
                is_asked_again=is_to_be_asked,
            )
            found += 1
        return found

    def _failures(self, job_id: str) -> int:
        """How many jobs of a delivery failed in a row, up to this one, which counts however it ended."""
        head, _, last = job_id.rpartition(":")
        earlier = [f"{head}:{number}" for number in range(int(last) - 1, max(0, int(last) - _QUESTIONS), -1)]
        statuses = self._jobs.statuses(earlier)
        failed = itertools.takewhile(lambda one: statuses.get(one) in _FAILED, earlier)
        return 1 + sum(1 for _ in failed)

    def _without_job(
        self, name: str, query: sa.Select[Any], key: Sequence[sa.Column[Any]]
    ) -> list[tuple[sa.Row[Any], str]]:
        """Look at the next rows in the order of their key, from the first again after the last."""
        query = query.order_by(*key).limit(_AT_ONCE)
        if seen := self._seen.pop(name, None):
            query = query.where(sa.tuple_(*key) > sa.tuple_(*seen))
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        statuses = self._jobs.statuses([row.job_id for row in rows])
        # Not before the question was answered: a database that is away for a moment skips nobody.
        if len(rows) == _AT_ONCE:
            self._seen[name] = tuple(getattr(rows[-1], column.name) for column in key)
        return [(row, statuses.get(row.job_id, "missing")) for row in rows if statuses.get(row.job_id) not in _ALIVE]
