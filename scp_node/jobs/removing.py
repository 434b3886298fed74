"""How an instance goes: its row is marked, then its files are removed, then the row; a kill in between leaves a mark.

While the mark stands nobody takes the instance up, and the same object sent again is refused for the moment (0xA700):
otherwise the file of a new row could be removed as that of the old one. What was marked and not finished is found again
by its mark.

Kept: the trace, and the UIDs of the results, so that they are known when they come back.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from scp_node.jobs import database, tables, trace
from scp_node.jobs.queues import Jobs, analyse_ids
from scp_node.jobs.tables import conflict, instance, result
from scp_node.spool.store import Spool


class Removal(StrEnum):
    """Why something is removed."""

    RETENTION = "retention"
    PURGE = "purge"
    """By an operator."""


class Remover:
    """Removes instances and objects that were set aside, with their files.

    Parameters
    ----------
    models
        Names, as configured: jobs of the next arrival of the same object would be named after them.
    """

    def __init__(self, engine: sa.Engine, jobs: Jobs, spool: Spool, models: Sequence[str]) -> None:
        self._engine = engine
        self._jobs = jobs
        self._spool = spool
        self._models = models

    @staticmethod
    def mark(connection: sa.Connection, ids: Sequence[int], why: Removal) -> None:
        """Begin to remove instances that this transaction has locked."""
        connection.execute(sa.update(instance).where(instance.c.id.in_(ids)).values(removal=why.value))

    def finish(self, *, only: int | None = None, limit: int = 200) -> int:
        """Remove what is marked, some of it at a time; return how many instances are gone.

        One of which a job runs at this moment, a cancelled one for example, is left for another time.
        """
        # The words and not a parameter: the index holds marked instances only.
        query = sa.select(instance).where(sa.text("removal IS NOT NULL")).order_by(instance.c.id).limit(limit)
        if only is not None:
            query = query.where(instance.c.id == only)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
            deliver = tables.delivery
            jobs_of: dict[int, list[str]] = {row.id: analyse_ids(row, self._models) for row in rows}
            for one in connection.execute(
                sa.select(deliver.c.instance_id, deliver.c.job_id).where(deliver.c.instance_id.in_(list(jobs_of)))
            ):
                jobs_of[one.instance_id].append(one.job_id)
        statuses = self._jobs.statuses([job_id for job_ids in jobs_of.values() for job_id in job_ids])
        idle = [row for row in rows if not any(statuses.get(job_id) == "PENDING" for job_id in jobs_of[row.id])]
        for row in idle:
            self._remove_files(row)
        # Before the rows: the same object sent again gets jobs of the same names.
        self._jobs.forget([job_id for row in idle for job_id in jobs_of[row.id] if job_id in statuses])
        with database.write(self._engine) as connection:
            for row in idle:
                gone = connection.execute(
                    sa.delete(instance).where(instance.c.id == row.id, instance.c.removal.is_not(None))
                )
                if gone.rowcount:
                    trace.record(
                        connection,
                        trace.Event.REMOVED,
                        row.sop_instance_uid,
                        instance_id=row.id,
                        why=row.removal,
                        state=row.state,
                    )
        return len(idle)

    def remove_conflict(self, sop_instance_uid: str, sha256: str, why: Removal) -> bool:
        """Remove an object that was set aside; False when there is none."""
        where = (conflict.c.sop_instance_uid == sop_instance_uid, conflict.c.sha256 == sha256)
        with database.exclusive(self._engine, instance, conflict) as connection:
            row = connection.execute(sa.select(conflict).where(*where)).one_or_none()
            if row is None:
                return False
            connection.execute(sa.delete(conflict).where(*where))
            named = connection.execute(sa.select(instance.c.id).where(instance.c.file == row.file)).first()
            if named is None:
                self._spool.remove(row.file)
            trace.record(
                connection, trace.Event.REMOVED, sop_instance_uid, why=why.value, state="conflict", sha256=sha256
            )
        return True

    def _remove_files(self, row: sa.Row[Any]) -> None:
        with self._engine.connect() as connection:
            results = connection.execute(sa.select(result.c.file).where(result.c.instance_id == row.id)).scalars().all()
            aside = connection.execute(sa.select(conflict.c.file).where(conflict.c.file == row.file)).first()
        for name in results:
            self._spool.remove(name)
        self._spool.remove(self._spool.results_folder(f"{row.sop_instance_uid}:{row.sha256}"))
        if aside is None:
            self._spool.remove(row.file)
