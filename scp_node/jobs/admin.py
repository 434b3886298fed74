"""What an operator asks: list, show, retry, cancel. Runs beside a node or without one; never starts a worker.

Imports neither torch nor the durable engine until something is to be retried, so that `scp-node jobs list` is quick.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa

from config.settings import NodeSettings
from scp_node.errors import JobStateError, UnknownJobError
from scp_node.jobs import database
from scp_node.jobs.database import conflict, delivered_object, delivery, instance, prediction, result
from scp_node.jobs.migrations import require_current
from scp_node.jobs.records import (
    ConfirmationRecord,
    ConflictRecord,
    DeliveryRecord,
    InstanceDetail,
    InstanceRecord,
    PredictionRecord,
    ResultRecord,
)
from scp_node.jobs.states import DeadLetterReason, move, settle
from scp_node.records import DeliveryState, InstanceState, ResultKind, Verdict

if TYPE_CHECKING:
    from scp_node.jobs.queues import Jobs

_CHUNK = 500
"""Rows read at a time: a list of 100,000 instances is streamed, not held."""


class Admin:
    """Access to the jobs of a node through its database; use it as a context manager.

    Raises
    ------
    DatabaseError
        No node has made the database yet, or it is of another version.
    """

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._engine = database.open_engine(settings.database.url, create_folder=False)
        self._jobs_or_none: Jobs | None = None
        require_current(self._engine, settings.database.url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        if self._jobs_or_none is not None:
            self._jobs_or_none.close()
        self._engine.dispose()

    def list_instances(
        self, state: InstanceState | None = None, *, newest_first: bool = False
    ) -> Iterator[InstanceRecord]:
        """Received instances in order of arrival, read piece by piece.

        Parameters
        ----------
        state
            Only these; None for all.
        """
        order = instance.c.id.desc() if newest_first else instance.c.id
        query = sa.select(instance).order_by(order).limit(_CHUNK)
        if state is not None:
            query = query.where(instance.c.state == state.value)
        last: int | None = None
        while True:
            page = query
            if last is not None:
                page = query.where(instance.c.id < last if newest_first else instance.c.id > last)
            with self._engine.connect() as connection:
                rows = connection.execute(page).all()
                deliveries = _deliveries(connection, [row.id for row in rows])
            for row in rows:
                yield _instance(row, deliveries.get(row.id, ()))
            if len(rows) < _CHUNK:
                return
            last = rows[-1].id

    def counts(self) -> dict[InstanceState, int]:
        """Instances per state; states without one count 0."""
        query = sa.select(instance.c.state, sa.func.count()).group_by(instance.c.state)
        with self._engine.connect() as connection:
            found = {InstanceState(state): int(count) for state, count in connection.execute(query)}
        return {state: found.get(state, 0) for state in InstanceState}

    def show(self, key: str) -> InstanceDetail:
        """All that is known of one instance.

        Parameters
        ----------
        key
            SOP Instance UID, or the number that ``list_instances`` gives as ``id``.

        Raises
        ------
        UnknownJobError
        """
        with self._engine.connect() as connection:
            row = _find(connection, key)
            deliveries = _deliveries(connection, [row.id]).get(row.id, ())
            return InstanceDetail(
                instance=_instance(row, deliveries),
                file=self._path(row.file),
                sha256=row.sha256,
                size_bytes=row.size_bytes,
                transfer_syntax_uid=row.transfer_syntax_uid,
                called_ae_title=row.called_ae_title,
                job_id=row.job_id,
                crashes=row.crashes,
                analysed_at=_time_or_none(row.analysed_at),
                duration_s=row.duration_s,
                window=_window(row),
                notes=tuple(json.loads(row.notes)),
                predictions=_predictions(connection, row.id),
                results=self._results(connection, row.id),
                conflicts=self._conflicts(connection, row.sop_instance_uid),
            )

    def retry(self, key: str) -> InstanceRecord:
        """Take up again what was given up; a delivery that waits is tried now.

        A dead letter without results and a not eligible instance are analysed anew; otherwise every delivery that is
        not confirmed begins anew, to destinations added since then too. Confirmed objects are not sent again.

        Raises
        ------
        UnknownJobError
        JobStateError
            It is being worked on, or there is nothing left to do.
        """
        from scp_node.jobs import deliveries
        from scp_node.jobs.analysis import restart_analysis

        jobs = self._jobs()
        with database.write(self._engine) as connection:
            row = database.lock_instance(connection, _find(connection, key).id)
            if row is None:
                raise UnknownJobError(f"no instance {key}")
            state = InstanceState(row.state)
            if state in (InstanceState.RECEIVED, InstanceState.ANALYSING):
                raise JobStateError(f"{row.sop_instance_uid} is {state.value}: nothing was given up yet")
            if row.analysed_at is None:
                restart_analysis(connection, jobs, row, self._settings.analysis.models)
            else:
                names = [destination.name for destination in self._settings.destinations]
                begun = deliveries.begin(connection, jobs, row, names)
                begun += deliveries.restart(
                    connection, jobs, row, (DeliveryState.WAITING, DeliveryState.REFUSED, DeliveryState.CANCELLED)
                )
                if not begun:
                    raise JobStateError(f"{row.sop_instance_uid} is {state.value}: there is nothing to retry")
                settle(connection, row)
        return self._record(row.id)

    def cancel(self, key: str) -> InstanceRecord:
        """Give up by hand: no more analysis, no more attempts. What was delivered stays delivered.

        Raises
        ------
        UnknownJobError
        JobStateError
            It is delivered or not eligible: there is nothing to cancel.
        """
        with database.write(self._engine) as connection:
            row = database.lock_instance(connection, _find(connection, key).id)
            if row is None:
                raise UnknownJobError(f"no instance {key}")
            state = InstanceState(row.state)
            if state in (InstanceState.DELIVERED, InstanceState.NOT_ELIGIBLE):
                raise JobStateError(f"{row.sop_instance_uid} is {state.value}: there is nothing to cancel")
            # Jobs in the durable engine need no telling: each looks at the state before it does anything.
            cancelled = connection.execute(
                sa.update(delivery)
                .where(
                    delivery.c.instance_id == row.id,
                    delivery.c.state.in_([DeliveryState.WAITING.value, DeliveryState.REFUSED.value]),
                )
                .values(state=DeliveryState.CANCELLED.value, next_attempt_at=None)
            ).rowcount
            if cancelled:
                settle(connection, row)
            else:
                detail = "cancelled by an operator" + (f"; before: {row.reason}: {row.detail}" if row.reason else "")
                move(connection, row, InstanceState.DEAD_LETTER, reason=DeadLetterReason.CANCELLED, detail=detail)
        return self._record(row.id)

    def _record(self, instance_id: int) -> InstanceRecord:
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(instance).where(instance.c.id == instance_id)).one()
            return _instance(row, _deliveries(connection, [row.id]).get(row.id, ()))

    def _jobs(self) -> "Jobs":
        if self._jobs_or_none is None:
            from scp_node.jobs.queues import Jobs

            self._jobs_or_none = Jobs(self._engine)
        return self._jobs_or_none

    def _path(self, relative: str) -> Path:
        return self._settings.spool.folder / relative

    def _results(self, connection: sa.Connection, instance_id: int) -> tuple[ResultRecord, ...]:
        words: dict[str, list[ConfirmationRecord]] = {}
        for row in connection.execute(
            sa.select(delivered_object)
            .where(delivered_object.c.instance_id == instance_id)
            .order_by(delivered_object.c.at)
        ):
            words.setdefault(row.sop_instance_uid, []).append(
                ConfirmationRecord(
                    destination=row.destination,
                    verdict=Verdict(row.verdict),
                    status=row.status,
                    detail=row.detail,
                    at=_time(row.at),
                )
            )
        rows = connection.execute(
            sa.select(result).where(result.c.instance_id == instance_id).order_by(result.c.position)
        )
        return tuple(
            ResultRecord(
                sop_instance_uid=row.sop_instance_uid,
                sop_class_uid=row.sop_class_uid,
                transfer_syntax_uid=row.transfer_syntax_uid,
                kind=ResultKind(row.kind),
                model=row.model,
                file=self._path(row.file),
                sha256=row.sha256,
                size_bytes=row.size_bytes,
                confirmations=tuple(words.get(row.sop_instance_uid, ())),
            )
            for row in rows
        )

    def _conflicts(self, connection: sa.Connection, sop_instance_uid: str) -> tuple[ConflictRecord, ...]:
        rows = connection.execute(
            sa.select(conflict).where(conflict.c.sop_instance_uid == sop_instance_uid).order_by(conflict.c.received_at)
        )
        return tuple(
            ConflictRecord(
                file=self._path(row.file),
                sha256=row.sha256,
                calling_ae_title=row.calling_ae_title,
                peer_address=row.peer_address,
                received_at=_time(row.received_at),
            )
            for row in rows
        )


def _find(connection: sa.Connection, key: str) -> sa.Row[Any]:
    where = instance.c.sop_instance_uid == key
    # A UID always has a dot, a number never.
    if key.isdecimal() and len(key) <= 18:
        where = instance.c.id == int(key)
    row = connection.execute(sa.select(instance).where(where)).one_or_none()
    if row is None:
        raise UnknownJobError(f"no instance {key!r} was received: see `scp-node jobs list`")
    return row


def _deliveries(connection: sa.Connection, ids: Sequence[int]) -> dict[int, tuple[DeliveryRecord, ...]]:
    if not ids:
        return {}
    rows = connection.execute(
        sa.select(delivery)
        .where(delivery.c.instance_id.in_(ids))
        .order_by(delivery.c.instance_id, delivery.c.destination)
    )
    return {
        number: tuple(
            DeliveryRecord(
                destination=row.destination,
                state=DeliveryState(row.state),
                attempts=row.attempts,
                last_error=row.last_error,
                next_attempt_at=_time_or_none(row.next_attempt_at),
                updated_at=_time(row.updated_at),
            )
            for row in group
        )
        for number, group in groupby(rows, key=lambda row: int(row.instance_id))
    }


def _instance(row: sa.Row[Any], deliveries: tuple[DeliveryRecord, ...]) -> InstanceRecord:
    return InstanceRecord(
        id=row.id,
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        state=InstanceState(row.state),
        reason=row.reason,
        detail=row.detail,
        calling_ae_title=row.calling_ae_title,
        peer_address=row.peer_address,
        received_at=_time(row.received_at),
        updated_at=_time(row.updated_at),
        deliveries=deliveries,
    )


def _predictions(connection: sa.Connection, instance_id: int) -> tuple[PredictionRecord, ...]:
    rows = connection.execute(
        sa.select(prediction).where(prediction.c.instance_id == instance_id).order_by(prediction.c.position)
    )
    return tuple(
        PredictionRecord(
            model=row.model,
            title=row.title,
            version=row.version,
            weights_sha256=row.weights_sha256,
            preprocessing=row.preprocessing,
            probability=row.probability,
            threshold=row.threshold,
            is_threshold_overridden=row.is_threshold_overridden,
            is_positive=row.is_positive,
            has_evidence=row.has_evidence,
        )
        for row in rows
    )


def _window(row: sa.Row[Any]) -> str:
    if row.window_source is None:
        return ""
    numbers = "" if row.window_center is None else f" {row.window_center:g}/{row.window_width:g}"
    return f"{row.window_source}{numbers} {row.window_function}"


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _time_or_none(seconds: float | None) -> datetime | None:
    return None if seconds is None else _time(seconds)
