"""How an instance goes: its row is marked, then its files are removed, then the row; a kill in between leaves a mark.

While the mark stands nobody takes the instance up, and the same object sent again is refused for the moment (0xA700):
otherwise the file of a new row could be removed as that of the old one. What was marked and not finished is found again
by its mark.

A file that cannot be removed, on a disk gone bad, holds up nothing: the row goes, and the sweep of files that no row
names tries again each day. Only an operator who asked for it is told, and the row stays for the moment.

Kept: the trace, and the UIDs of the results, so that they are known when they come back.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
import structlog

from scp_node.jobs import database, tables, trace
from scp_node.jobs.queues import Jobs, analyse_ids
from scp_node.jobs.tables import conflict, instance, result
from scp_node.spool.store import Spool

_log = structlog.get_logger(__name__)


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

        Raises
        ------
        OSError
            With `only`: a file cannot be removed; the mark stands, and the node goes on with it.
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
        left = {row.id: self._remove_files(row, must=only is not None) for row in idle}
        # Before the rows: the same object sent again gets jobs of the same names.
        self._jobs.forget([job_id for row in idle for job_id in jobs_of[row.id] if job_id in statuses])
        with database.write(self._engine) as connection:
            for row in idle:
                gone = connection.execute(
                    sa.delete(instance).where(instance.c.id == row.id, instance.c.removal.is_not(None))
                )
                if gone.rowcount:
                    detail = {"files_left": left[row.id]} if left[row.id] else {}
                    trace.record(
                        connection,
                        trace.Event.REMOVED,
                        row.sop_instance_uid,
                        instance_id=row.id,
                        why=row.removal,
                        state=row.state,
                        **detail,
                    )
        return len(idle)

    def remove_conflict(self, sop_instance_uid: str, sha256: str, why: Removal) -> bool:
        """Remove an object that was set aside; False when there is none.

        Raises
        ------
        OSError
            An operator asked, and the file cannot be removed; nothing has changed then.
        """
        where = (conflict.c.sop_instance_uid == sop_instance_uid, conflict.c.sha256 == sha256)
        with database.exclusive(self._engine, instance, conflict) as connection:
            row = connection.execute(sa.select(conflict).where(*where)).one_or_none()
            if row is None:
                return False
            connection.execute(sa.delete(conflict).where(*where))
            named = connection.execute(sa.select(instance.c.id).where(instance.c.file == row.file)).first()
            left = 0 if named is not None else self._remove([row.file], must=why is Removal.PURGE)
            detail = {"files_left": left} if left else {}
            trace.record(
                connection,
                trace.Event.REMOVED,
                sop_instance_uid,
                why=why.value,
                state="conflict",
                sha256=sha256,
                **detail,
            )
        return True

    def _remove_files(self, row: sa.Row[Any], *, must: bool) -> int:
        with self._engine.connect() as connection:
            results = connection.execute(sa.select(result.c.file).where(result.c.instance_id == row.id)).scalars().all()
            aside = connection.execute(sa.select(conflict.c.file).where(conflict.c.file == row.file)).first()
        names = [*results, self._spool.results_folder(f"{row.sop_instance_uid}:{row.sha256}")]
        return self._remove([*names, row.file] if aside is None else names, must=must)

    def _remove(self, names: Sequence[str], *, must: bool) -> int:
        """Remove files and folders; return how many cannot be. With `must` the first of these raises."""
        left = 0
        for name in names:
            try:
                self._spool.remove(name)
            except OSError as error:
                if must:
                    raise
                left += 1
                _log.warning("file cannot be removed, left to the sweep", file=name, error=str(error))
        return left
