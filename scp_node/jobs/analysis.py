"""The analyse job as the worker runs it: one instance to a child process, its answer into the database."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import sqlalchemy as sa
import structlog

from config.base import Priority
from scp_node.jobs import database, deliveries, supersession, trace
from scp_node.jobs.child_errors import ChildCrashError, ChildFailedError, ChildTimeLimitError, ModelsFailedError
from scp_node.jobs.children import ChildPool
from scp_node.jobs.patience import Patience
from scp_node.jobs.queues import Jobs, analyse_id
from scp_node.jobs.states import DeadLetterReason, change, move, settle
from scp_node.jobs.summary import Analysed, Hopeless, NotEligible, NotNow, Summary, from_json
from scp_node.jobs.tables import delivered_object, prediction, result, sent_uid
from scp_node.records import InstanceState, Verdict
from scp_node.results.predecessors import REPORTS
from scp_node.spool.store import Spool

log = structlog.get_logger(__name__)

_FULL_DISK_DELAY_S = 30.0
_MODELS_DELAY_S, _LONGEST_DELAY_S = 30.0, 3600.0
_LATER_ATTEMPTS = 12
"""Repeats, twice as long after each other up to the longest, when the models fail: six hours in all."""
_WORKABLE = (InstanceState.RECEIVED.value, InstanceState.ANALYSING.value)


def first_job_id(models: Sequence[str], sop_instance_uid: str, sha256: str) -> str:
    """Id of the job that an instance's arrival makes."""
    return analyse_id(models, sop_instance_uid, sha256, 1)


def restart_analysis(
    connection: sa.Connection,
    jobs: Jobs,
    row: sa.Row[Any],
    models: Sequence[str],
    *,
    place: int | None = None,
    delay_s: float = 0.0,
    crashes: int = 0,
) -> None:
    """Begin a new round of analysis of an instance that this transaction has locked; ``place``: None keeps its own."""
    number = row.round + 1
    job_id = analyse_id(models, row.sop_instance_uid, row.sha256, number)
    place = row.place if place is None else place
    move(connection, row, InstanceState.RECEIVED, job_id=job_id, round=number, crashes=crashes, place=place)
    jobs.analyse(connection, job_id, row.id, Priority(row.priority), place=place, delay_s=delay_s)


class AnalysisWork:
    """Runs analyse jobs. Each can be repeated at any point: what it writes, it writes in one transaction at the end.

    Parameters
    ----------
    attempts
        Child processes that may die on one instance.
    destinations
        Names, as configured; each gets the results.
    patience
        Waits for a database that is away.
    """

    def __init__(
        self,
        engine: sa.Engine,
        jobs: Jobs,
        pool: ChildPool,
        spool: Spool,
        *,
        models: tuple[str, ...],
        attempts: int,
        destinations: tuple[str, ...],
        patience: Patience | None = None,
    ) -> None:
        self._patience = patience or Patience()
        self._engine = engine
        self._jobs = jobs
        self._pool = pool
        self._spool = spool
        self._models = models
        self._attempts = attempts
        self._destinations = destinations

    def run(self, instance_id: int, job_id: str) -> str:
        """Run one job; return the state it leaves the instance in, or ``stale`` when it is not the current job."""
        row = self._patience.call(lambda: self._begin(instance_id, job_id))
        if row is None:
            return "stale"
        summary = self._ask(row)
        return self._patience.call(lambda: self._finish(instance_id, job_id, summary))

    def _begin(self, instance_id: int, job_id: str) -> sa.Row[Any] | None:
        with database.write(self._engine) as connection:
            row = database.lock_instance(connection, instance_id)
            if row is None or row.job_id != job_id or row.state not in _WORKABLE:
                return None
            if row.state == InstanceState.RECEIVED.value:
                move(connection, row, InstanceState.ANALYSING)
            return row

    def _ask(self, row: sa.Row[Any]) -> Summary:
        file = self._spool.path(row.file)
        if not file.exists():
            return Hopeless(reason=DeadLetterReason.UNREADABLE, detail="the received file is missing from the spool")
        request = {
            "file": str(file),
            "name": row.sop_instance_uid,
            "folder": self._spool.results_folder(f"{row.sop_instance_uid}:{row.sha256}"),
            "replaces": self._patience.call(lambda: self._replaced(row.id)),
        }
        while True:
            try:
                return from_json(self._pool.run(request))
            except ChildTimeLimitError as error:
                return Hopeless(reason=DeadLetterReason.TIME_LIMIT, detail=str(error))
            except ChildFailedError as error:
                return Hopeless(reason=DeadLetterReason(error.kind), detail=error.detail, causes=error.causes)
            except ChildCrashError as error:
                crashes = self._patience.call(lambda: self._count_crash(row.id))
                log.warning("child crashed", sop_instance_uid=row.sop_instance_uid, crashes=crashes, how=str(error))
                if (summary := self._after(crashes, error)) is not None:
                    return summary

    def _after(self, crashes: int, error: ChildCrashError) -> Summary | None:
        """What becomes of an instance on which so many processes have ended; None: it is tried again at once."""
        later = crashes - self._attempts
        if later < 0:
            return None
        if isinstance(error, ModelsFailedError) and later < _LATER_ATTEMPTS:
            delay_s = min(_LONGEST_DELAY_S, _MODELS_DELAY_S * 2**later)
            return NotNow(detail=str(error), delay_s=delay_s, is_counted=True)
        return Hopeless(reason=DeadLetterReason.CRASHED, detail=f"{error} ({crashes} times)")

    def _replaced(self, instance_id: int) -> list[tuple[str, str]]:
        """Kind and file of superseded reports that any destination has."""
        with self._engine.connect() as connection:
            rows = connection.execute(_REPLACED, {"instance": instance_id})
            return [(kind, str(self._spool.path(file))) for kind, file in rows]

    def _count_crash(self, instance_id: int) -> int:
        # In the database, so that a restart of the node does not start counting anew.
        with database.write(self._engine) as connection:
            row = database.lock_instance(connection, instance_id)
            if row is None:
                return self._attempts
            crashes = int(row.crashes) + 1
            change(connection, instance_id, crashes=crashes)
            return crashes

    def _finish(self, instance_id: int, job_id: str, summary: Summary) -> str:
        with database.write(self._engine) as connection:
            row = database.lock_instance(connection, instance_id)
            if row is None or row.job_id != job_id or row.state != InstanceState.ANALYSING.value:
                # Cancelled meanwhile: the answer is not wanted any more.
                return "stale"
            state = self._record(connection, row, summary)
        log.log(
            # What waits for a person is to be seen at any level that one would set.
            logging.WARNING if state is InstanceState.DEAD_LETTER else logging.INFO,
            "instance analysed",
            sop_instance_uid=row.sop_instance_uid,
            state=state.value,
            reason=getattr(summary, "reason", None),
        )
        return state.value

    def _record(self, connection: sa.Connection, row: sa.Row[Any], summary: Summary) -> InstanceState:
        match summary:
            case NotEligible():
                move(connection, row, InstanceState.NOT_ELIGIBLE, reason=summary.reason, detail=summary.detail)
                return InstanceState.NOT_ELIGIBLE
            case Hopeless():
                move(
                    connection,
                    row,
                    InstanceState.DEAD_LETTER,
                    reason=summary.reason.value,
                    detail=summary.detail,
                    causes=summary.causes,
                )
                return InstanceState.DEAD_LETTER
            case NotNow():
                crashes = row.crashes if summary.is_counted else 0
                delay_s = _FULL_DISK_DELAY_S if summary.delay_s is None else summary.delay_s
                restart_analysis(connection, self._jobs, row, self._models, delay_s=delay_s, crashes=crashes)
                return InstanceState.RECEIVED
            case Analysed():
                return self._record_results(connection, row, summary)

    def _record_results(self, connection: sa.Connection, row: sa.Row[Any], summary: Analysed) -> InstanceState:
        is_successor = supersession.is_ordered(connection, row.id)
        if is_successor and not supersession.has_other_models(connection, row.id, summary):
            detail = "the same models judged it again: start the node with the new checkpoints, then retry"
            move(connection, row, InstanceState.DEAD_LETTER, reason=DeadLetterReason.SAME_MODELS, detail=detail)
            return InstanceState.DEAD_LETTER
        now = time.time()
        connection.execute(
            _INSERT_PREDICTIONS,
            [
                {"instance_id": row.id, "position": position, **asdict(one)}
                for position, one in enumerate(summary.predictions)
            ],
        )
        if summary.results:
            connection.execute(
                _insert_results(connection.dialect.name),
                [
                    {
                        "instance_id": row.id,
                        "position": position,
                        "sop_instance_uid": one.sop_instance_uid,
                        "sop_class_uid": one.sop_class_uid,
                        "transfer_syntax_uid": one.transfer_syntax_uid,
                        "kind": one.kind.value,
                        "model": one.model,
                        "alternatives": one.group,
                        "rank": one.rank,
                        "file": one.file,
                        "sha256": one.sha256,
                        "size_bytes": one.size_bytes,
                    }
                    for position, one in enumerate(summary.results)
                ],
            )
            # Registered before the first is sent: whatever comes back is known.
            connection.execute(
                _insert_sent(connection.dialect.name),
                [
                    {
                        "sop_instance_uid": one.sop_instance_uid,
                        "source_sop_instance_uid": row.sop_instance_uid,
                        "created_at": now,
                        "returned": 0,
                    }
                    for one in summary.results
                ],
            )
        change(
            connection,
            row.id,
            analysed_at=now,
            duration_s=summary.duration_s,
            window_source=summary.window_source,
            window_center=summary.window_center,
            window_width=summary.window_width,
            window_function=summary.window_function,
            notes=json.dumps(list(summary.notes)),
        )
        trace.record(
            connection,
            trace.Event.ANALYSED,
            row.sop_instance_uid,
            instance_id=row.id,
            sha256=row.sha256,
            **trace.analysed(summary),
        )
        # With no results asked for there is nothing to deliver, with no destination nobody to deliver to.
        if is_successor:
            supersession.deliver(connection, self._jobs, row)
        elif summary.results:
            deliveries.begin(connection, self._jobs, row, self._destinations)
        return settle(connection, row)


# Built once: putting such statements together costs more than the database's answers.
_INSERT_PREDICTIONS = sa.insert(prediction)
_REPLACED = sa.select(result.c.kind, result.c.file).where(
    result.c.instance_id == sa.bindparam("instance"),
    result.c.is_superseded.is_(sa.true()),
    result.c.kind.in_([kind.value for kind in REPORTS]),
    sa.exists().where(
        delivered_object.c.instance_id == result.c.instance_id,
        delivered_object.c.sop_instance_uid == result.c.sop_instance_uid,
        delivered_object.c.verdict == Verdict.CONFIRMED.value,
    ),
)


@cache
def _insert_results(dialect: str) -> sa.Executable:
    insert = database.insert_for(dialect, result)
    renewed = ("position", "file", "sha256", "size_bytes")
    # A picture of a model that a recall leaves alone is the same object as before.
    return insert.on_conflict_do_update(
        index_elements=["instance_id", "sop_instance_uid"],
        set_={"is_superseded": False, **{name: insert.excluded[name] for name in renewed}},
    )


@cache
def _insert_sent(dialect: str) -> sa.Executable:
    return database.insert_for(dialect, sent_uid).on_conflict_do_nothing()
