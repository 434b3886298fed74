"""From rows of the database to the records that the command line and the console see."""

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from scp_node.errors import UnknownJobError
from scp_node.jobs.records import (
    ConfirmationRecord,
    ConflictRecord,
    DeliveryRecord,
    InstanceDetail,
    InstanceRecord,
    PredictionRecord,
    ResultRecord,
)
from scp_node.jobs.tables import conflict, delivered_object, delivery, instance, prediction, result
from scp_node.records import DeliveryState, InstanceState, ResultKind, Verdict

R = TypeVar("R")
Locate = Callable[[str], Path]
"""From a name in the spool to where it lies."""


def find(connection: sa.Connection, key: str) -> sa.Row[Any]:
    """Return the instance with this SOP Instance UID or number.

    Raises
    ------
    UnknownJobError
    """
    where = instance.c.sop_instance_uid == key
    # A UID always has a dot, a number never.
    if key.isdecimal() and len(key) <= 18:
        where = instance.c.id == int(key)
    row = connection.execute(sa.select(instance).where(where)).one_or_none()
    if row is None:
        raise UnknownJobError(f"no instance {key!r} was received: see `scp-node jobs list`")
    return row


def instance_records(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[InstanceRecord]:
    """Return records of instances, with their deliveries, in the order of the rows."""
    deliveries = _deliveries(connection, [row.id for row in rows])
    return [
        InstanceRecord(
            id=row.id,
            sop_instance_uid=row.sop_instance_uid,
            study_instance_uid=row.study_instance_uid,
            sop_class_uid=row.sop_class_uid,
            state=InstanceState(row.state),
            reason=row.reason,
            detail=row.detail,
            calling_ae_title=row.calling_ae_title,
            peer_address=row.peer_address,
            received_at=_time(row.received_at),
            updated_at=_time(row.updated_at),
            deliveries=deliveries.get(row.id, ()),
        )
        for row in rows
    ]


def instance_detail(connection: sa.Connection, row: sa.Row[Any], locate: Locate) -> InstanceDetail:
    """Return all that is known of an instance."""
    (record,) = instance_records(connection, [row])
    return InstanceDetail(
        instance=record,
        file=locate(row.file),
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        transfer_syntax_uid=row.transfer_syntax_uid,
        called_ae_title=row.called_ae_title,
        job_id=row.job_id,
        crashes=row.crashes,
        causes=tuple(json.loads(row.causes)),
        analysed_at=_time_or_none(row.analysed_at),
        duration_s=row.duration_s,
        window=_window(row),
        notes=tuple(json.loads(row.notes)),
        predictions=predictions_of(connection, [row.id]).get(row.id, ()),
        results=_results(connection, row.id, locate),
        conflicts=conflict_records(
            connection, conflict.c.sop_instance_uid == row.sop_instance_uid, locate=locate, limit=None
        ),
    )


def conflict_records(
    connection: sa.Connection, *where: sa.ColumnElement[bool], locate: Locate, limit: int | None
) -> tuple[ConflictRecord, ...]:
    """Return records of objects that were set aside, oldest first."""
    query = sa.select(conflict).where(*where).order_by(conflict.c.received_at, conflict.c.sha256).limit(limit)
    return tuple(
        ConflictRecord(
            sop_instance_uid=row.sop_instance_uid,
            file=locate(row.file),
            sha256=row.sha256,
            calling_ae_title=row.calling_ae_title,
            peer_address=row.peer_address,
            received_at=_time(row.received_at),
        )
        for row in connection.execute(query)
    )


def predictions_of(connection: sa.Connection, ids: Sequence[int]) -> dict[int, tuple[PredictionRecord, ...]]:
    """What the models said of instances, by their numbers."""
    if not ids:
        return {}
    rows = connection.execute(
        sa.select(prediction)
        .where(prediction.c.instance_id.in_(ids))
        .order_by(prediction.c.instance_id, prediction.c.position)
    )
    return _by_instance(rows, _prediction)


def _by_instance(rows: Iterable[sa.Row[Any]], made_of: Callable[[sa.Row[Any]], R]) -> dict[int, tuple[R, ...]]:
    """Records by the number of their instance; the rows come in its order."""
    return {
        number: tuple(made_of(row) for row in group)
        for number, group in groupby(rows, key=lambda row: int(row.instance_id))
    }


def _prediction(row: sa.Row[Any]) -> PredictionRecord:
    return PredictionRecord(
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


def _deliveries(connection: sa.Connection, ids: Sequence[int]) -> dict[int, tuple[DeliveryRecord, ...]]:
    if not ids:
        return {}
    rows = connection.execute(
        sa.select(delivery)
        .where(delivery.c.instance_id.in_(ids))
        .order_by(delivery.c.instance_id, delivery.c.destination)
    )
    return _by_instance(rows, _delivery)


def _delivery(row: sa.Row[Any]) -> DeliveryRecord:
    return DeliveryRecord(
        destination=row.destination,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        last_error=row.last_error,
        next_attempt_at=_time_or_none(row.next_attempt_at),
        updated_at=_time(row.updated_at),
    )


def _results(connection: sa.Connection, instance_id: int, locate: Locate) -> tuple[ResultRecord, ...]:
    words: dict[str, list[ConfirmationRecord]] = {}
    for row in connection.execute(
        sa.select(delivered_object).where(delivered_object.c.instance_id == instance_id).order_by(delivered_object.c.at)
    ):
        words.setdefault(row.sop_instance_uid, []).append(
            ConfirmationRecord(
                destination=row.destination,
                verdict=Verdict(row.verdict),
                status=row.status,
                detail=row.detail,
                at=_time(row.at),
                committed_at=_time_or_none(row.committed_at),
            )
        )
    rows = connection.execute(
        sa.select(result)
        .where(result.c.instance_id == instance_id)
        .order_by(result.c.is_superseded, result.c.position, result.c.sop_instance_uid)
    )
    return tuple(
        ResultRecord(
            sop_instance_uid=row.sop_instance_uid,
            sop_class_uid=row.sop_class_uid,
            transfer_syntax_uid=row.transfer_syntax_uid,
            kind=ResultKind(row.kind),
            model=row.model,
            file=locate(row.file),
            sha256=row.sha256,
            size_bytes=row.size_bytes,
            is_superseded=row.is_superseded,
            confirmations=tuple(words.get(row.sop_instance_uid, ())),
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
