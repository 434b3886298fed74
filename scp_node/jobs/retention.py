"""What is removed by itself: old instances, finished jobs of the durable engine, and files that no row names."""

import threading
import time
from collections.abc import Callable, Sequence

import sqlalchemy as sa
import structlog

from config.storage import SpoolSettings
from scp_node.jobs import database
from scp_node.jobs.queues import Jobs
from scp_node.jobs.removing import Removal, Remover
from scp_node.jobs.tables import conflict, delivery, instance, result
from scp_node.records import DeliveryState, InstanceState
from scp_node.spool.store import AREAS, SHARDS, Spool

log = structlog.get_logger(__name__)

_DAY_S = 86400.0
_AT_ONCE = 200
_BATCHES = 25
"""In one run; the next one goes on."""
_JOB_HISTORY_S = _DAY_S
"""Finished jobs of the durable engine are of no use after that; before, they help to find out what went wrong. Where
instances are kept for less, their jobs go with them."""
_ORPHAN_S = _DAY_S
"""Longer than any object takes to arrive, and any result from its file to its row."""
_CHUNK = 500
_UNFINISHED = tuple(state.value for state in DeliveryState if not state.is_final)


class Retention:
    """Removes what its time has come for. Every step can be interrupted and repeated; two at a time do no harm.

    Parameters
    ----------
    stop
        Set when the process is about to end: a run then ends after the batch that it is in.
    """

    def __init__(
        self,
        engine: sa.Engine,
        jobs: Jobs,
        spool: Spool,
        settings: SpoolSettings,
        *,
        models: Sequence[str],
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._spool = spool
        self._settings = settings
        self._remover = Remover(engine, jobs, spool, models)
        self._stop = stop or threading.Event()
        self._clock = clock
        self._kept_s = max(_ORPHAN_S, settings.retention_days * _DAY_S)
        self._unknown = 0

    def remove_expired(self) -> int:
        """Remove instances whose time is over, and finish removals that were begun; return how many are gone."""
        gone = 0
        for _ in range(_BATCHES):
            marked = self._mark_expired()
            finished = self._remover.finish(limit=_AT_ONCE)
            gone += finished
            if self._stop.is_set() or not (marked and finished):
                break
        gone_aside = self._remove_expired_conflicts()
        if gone or gone_aside:
            log.info("removed by retention", instances=gone, conflicts=gone_aside)
        return gone + gone_aside

    def forget_jobs(self) -> int:
        """Remove finished jobs of the durable engine from its tables; return how many."""
        gone = 0
        history_s = min(_JOB_HISTORY_S, self._settings.retention_days * _DAY_S)
        for _ in range(_BATCHES):
            some = self._jobs.forget_finished(self._clock() - history_s, limit=_CHUNK)
            gone += some
            if some < _CHUNK or self._stop.is_set():
                break
        return gone

    def sweep(self) -> int:
        """Remove files that no row names and that have lain still for a day; return how many.

        They come from crashes: between a received file and its row, whose sender got no answer, or in the middle of
        writing results. Received objects stay as long as finished instances do all the same: a database that was
        restored from a copy does not know what was acknowledged since, and they can be sent to this node again.
        """
        gone = self._unknown = 0
        try:
            gone += self._spool.sweep_incoming(_ORPHAN_S)
        except OSError as error:
            log.warning("incoming files cannot be swept", error=str(error))
        for area in AREAS:
            for shard in SHARDS:
                if self._stop.is_set():
                    return gone
                try:
                    gone += self._sweep_shard(area, shard)
                except OSError as error:  # a folder that cannot be read keeps no other from being swept
                    log.warning("folder cannot be swept", folder=f"{area}/{shard}", error=str(error))
        if gone:
            log.info("removed files that no row names", files=gone)
        if self._unknown:
            log.warning("received files that the database does not know", files=self._unknown, kept_s=self._kept_s)
        return gone

    def _mark_expired(self) -> int:
        now = self._clock()
        with database.write(self._engine) as connection:
            ids: list[int] = []
            for state in (InstanceState.DELIVERED, InstanceState.NOT_ELIGIBLE):
                ids += self._expired(connection, state, now - self._settings.retention_days * _DAY_S)
            if self._settings.dead_letter_retention_days:
                limit = now - self._settings.dead_letter_retention_days * _DAY_S
                ids += self._expired(connection, InstanceState.DEAD_LETTER, limit)
            if ids:
                Remover.mark(connection, ids, Removal.RETENTION)
            return len(ids)

    @staticmethod
    def _expired(connection: sa.Connection, state: InstanceState, limit: float) -> list[int]:
        # The state follows from the deliveries; asked again here because nothing may go that is not final everywhere.
        busy = (
            sa.select(delivery.c.instance_id)
            .where(
                delivery.c.instance_id == instance.c.id,
                sa.or_(delivery.c.state.in_(_UNFINISHED), delivery.c.updated_at >= limit),
            )
            .exists()
        )
        query = (
            sa.select(instance.c.id)
            .where(
                instance.c.state == state.value,
                instance.c.updated_at < limit,
                instance.c.removal.is_(None),
                ~busy,
            )
            .order_by(instance.c.updated_at)
            .limit(_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        return list(connection.execute(query).scalars())

    def _remove_expired_conflicts(self) -> int:
        if not self._settings.dead_letter_retention_days:
            return 0
        limit = self._clock() - self._settings.dead_letter_retention_days * _DAY_S
        query = sa.select(conflict.c.sop_instance_uid, conflict.c.sha256).where(conflict.c.received_at < limit)
        with self._engine.connect() as connection:
            rows = connection.execute(query.limit(_AT_ONCE)).all()
        return sum(self._remover.remove_conflict(*row, Removal.RETENTION) for row in rows)

    def _sweep_shard(self, area: str, shard: str) -> int:
        names = self._spool.old_files(area, shard, _ORPHAN_S)
        if not names:
            return 0
        with self._engine.connect() as connection:
            suspects = sorted(set(names) - self._named(connection, names))
        gone = 0
        older_than_s = self._kept_s if area == "objects" else _ORPHAN_S
        for start in range(0, len(suspects), _CHUNK):
            # Nobody can name one of them while it is looked at again and removed.
            with database.exclusive(self._engine, instance, conflict, result) as connection:
                some = suspects[start : start + _CHUNK]
                for name in sorted(set(some) - self._named(connection, some)):
                    try:
                        is_gone = self._spool.remove_old(name, older_than_s)
                    except OSError as error:
                        log.warning("file cannot be removed", file=name, error=str(error))
                        continue
                    gone += is_gone
                    self._unknown += not is_gone
        return gone

    @staticmethod
    def _named(connection: sa.Connection, names: Sequence[str]) -> set[str]:
        """Those of the names that a row has."""
        found: set[str] = set()
        for start in range(0, len(names), _CHUNK):
            some = names[start : start + _CHUNK]
            for table in (instance, conflict, result):
                found.update(connection.execute(sa.select(table.c.file).where(table.c.file.in_(some))).scalars())
        return found
