"""What the models said over time, as numbers for charts: by model and day, and where they disagree."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from scp_node.jobs.tables import instance, prediction

_BINS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDay:
    """What one model said on one day (UTC).

    Parameters
    ----------
    day
        Number of days since 1970.
    """

    day: int
    judged: int
    positive: int
    mean_probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatistics:
    """What one model said in a span.

    Parameters
    ----------
    histogram
        Number of probabilities in each twentieth of [0, 1].
    """

    model: str
    title: str
    threshold: float
    days: tuple[ModelDay, ...]
    histogram: tuple[int, ...]

    @property
    def judged(self) -> int:
        """Instances judged."""
        return sum(day.judged for day in self.days)

    @property
    def positive(self) -> int:
        """Of these at or above threshold."""
        return sum(day.positive for day in self.days)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the models said in a span.

    Parameters
    ----------
    judged
        Instances that any model judged.
    disagreements
        Of these with some models at or above threshold and some below.
    """

    days: int
    models: tuple[ModelStatistics, ...]
    judged: int
    disagreements: int


def findings(connection: sa.Connection, *, days: int, models: Sequence[str], now: float | None = None) -> Findings:
    """What the models said in the last days, by model and day: a change is the first sign of a changed modality."""
    until = time.time() if now is None else now
    since = (until // 86400 - days + 1) * 86400
    # received_at has an index, and an instance is analysed soon after it came.
    source = prediction.join(instance, prediction.c.instance_id == instance.c.id)
    recent = instance.c.received_at >= since
    day = sa.cast(sa.func.floor(instance.c.received_at / 86400), sa.Integer)
    positive = sa.func.sum(sa.case((prediction.c.is_positive, 1), else_=0))
    by_day: dict[str, list[ModelDay]] = defaultdict(list)
    titles: dict[str, tuple[str, float]] = {}
    for row in connection.execute(
        sa.select(
            prediction.c.model,
            day.label("day"),
            sa.func.count().label("judged"),
            positive.label("positive"),
            sa.func.avg(prediction.c.probability).label("mean"),
            sa.func.max(prediction.c.title).label("title"),
            sa.func.max(prediction.c.threshold).label("threshold"),
        )
        .select_from(source)
        .where(recent)
        .group_by(prediction.c.model, day)
        .order_by(prediction.c.model, day)
    ):
        titles[row.model] = (row.title, float(row.threshold))
        by_day[row.model].append(
            ModelDay(
                day=int(row.day),
                judged=int(row.judged),
                positive=int(row.positive),
                mean_probability=float(row.mean),
            )
        )
    bins: dict[str, dict[int, int]] = defaultdict(dict)
    step = sa.cast(sa.func.floor(prediction.c.probability * _BINS), sa.Integer)
    for model, number, count in connection.execute(
        sa.select(prediction.c.model, step, sa.func.count())
        .select_from(source)
        .where(recent)
        .group_by(prediction.c.model, step)
    ):
        index = min(int(number), _BINS - 1)
        bins[model][index] = bins[model].get(index, 0) + int(count)
    judged, disagreements = _agreement(connection, recent)
    known = [*(name for name in models if name in by_day), *(name for name in by_day if name not in models)]
    return Findings(
        days=days,
        models=tuple(
            ModelStatistics(
                model=name,
                title=titles[name][0],
                threshold=titles[name][1],
                days=tuple(by_day[name]),
                histogram=tuple(bins[name].get(number, 0) for number in range(_BINS)),
            )
            for name in known
        ),
        judged=judged,
        disagreements=disagreements,
    )


def _agreement(connection: sa.Connection, recent: sa.ColumnElement[bool]) -> tuple[int, int]:
    number = sa.func.count()
    positive = sa.func.sum(sa.case((prediction.c.is_positive, 1), else_=0))
    each = (
        sa.select(number.label("number"), positive.label("positive"))
        .select_from(prediction.join(instance, prediction.c.instance_id == instance.c.id))
        .where(recent)
        .group_by(prediction.c.instance_id)
        .subquery()
    )
    apart = sa.and_(each.c.positive > 0, each.c.positive < each.c.number)
    row = connection.execute(
        sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(sa.case((apart, 1), else_=0)), 0)).select_from(each)
    ).one()
    return int(row[0]), int(row[1])
