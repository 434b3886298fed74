"""What the worklist shows beside the instances themselves: what the models said of them, and whom they came from."""

from collections.abc import Sequence
from itertools import groupby

import sqlalchemy as sa

from scp_node.jobs.database import instance, prediction
from scp_node.jobs.records import Finding, PredictionRecord


def senders(connection: sa.Connection, *, limit: int = 100) -> tuple[str, ...]:
    """Calling AE Titles that objects came from, in alphabetical order."""
    # One look into the index per title, not one per instance: 100,000 of them come from a handful of devices.
    found: list[str] = []
    last = ""
    while len(found) < limit:
        query = sa.select(sa.func.min(instance.c.calling_ae_title)).where(instance.c.calling_ae_title > last)
        title = connection.execute(query).scalar_one()
        if title is None:
            break
        found.append(str(title))
        last = str(title)
    return tuple(found)


def predictions_of(connection: sa.Connection, ids: Sequence[int]) -> dict[int, tuple[PredictionRecord, ...]]:
    """What the models said of instances, by their numbers."""
    if not ids:
        return {}
    rows = connection.execute(
        sa.select(prediction)
        .where(prediction.c.instance_id.in_(ids))
        .order_by(prediction.c.instance_id, prediction.c.position)
    )
    return {
        number: tuple(
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
            for row in group
        )
        for number, group in groupby(rows, key=lambda row: int(row.instance_id))
    }


def said(finding: Finding) -> sa.ColumnElement[bool]:
    """The condition that the models said this of an instance."""

    def some(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
        return sa.exists().where(prediction.c.instance_id == instance.c.id, *conditions)

    positive, negative = some(prediction.c.is_positive), some(sa.not_(prediction.c.is_positive))
    match finding:
        case Finding.POSITIVE:
            return positive
        case Finding.NEGATIVE:
            return sa.and_(negative, sa.not_(positive))
        case Finding.DISAGREEMENT:
            return sa.and_(positive, negative)
