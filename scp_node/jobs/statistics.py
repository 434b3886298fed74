"""How the work goes, as numbers for charts and metrics: counts, ages, latencies. See `findings` for what it brings."""

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from scp_node.jobs.states import PENDING
from scp_node.jobs.tables import delivery, instance
from scp_node.records import InstanceState

_MAXIMUM_LATENCIES = 20_000
"""Latencies are read for the newest instances of a span; more would not change a percentile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waits.

    Parameters
    ----------
    oldest_s
        How long the instance that waits longest has waited for its analysis; None when none waits.
    """

    instances: dict[InstanceState, int]
    deliveries: dict[tuple[str, str], int]
    oldest_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Counts of one stretch of time.

    Parameters
    ----------
    begins_at
        Seconds since 1970.
    analysis_s, turnaround_s
        Median of what was received in it, see `Activity`; None when nothing was measured.
    """

    begins_at: float
    received: int
    analysed: int
    ended: int
    given_up: int
    analysis_s: float | None
    turnaround_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Percentiles of seconds; None when nothing was measured."""

    count: int
    median_s: float | None
    p95_s: float | None
    maximum_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What a span of time brought.

    Parameters
    ----------
    analysis
        Reading to last map.
    turnaround
        Last byte received to every destination served.
    """

    span_s: float
    buckets: tuple[Bucket, ...]
    analysis: Latency
    turnaround: Latency


def backlog(connection: sa.Connection) -> Backlog:
    """Count what there is and what waits."""
    states = connection.execute(sa.select(instance.c.state, sa.func.count()).group_by(instance.c.state))
    counts = {InstanceState(state): int(count) for state, count in states}
    ends = connection.execute(
        sa.select(delivery.c.destination, delivery.c.state, sa.func.count()).group_by(
            delivery.c.destination, delivery.c.state
        )
    )
    oldest = connection.execute(
        sa.select(sa.func.min(instance.c.received_at)).where(
            instance.c.state.in_([InstanceState.RECEIVED.value, InstanceState.ANALYSING.value])
        )
    ).scalar_one()
    return Backlog(
        instances={state: counts.get(state, 0) for state in InstanceState},
        deliveries={(name, state): int(count) for name, state, count in ends},
        oldest_s=None if oldest is None else max(0.0, time.time() - float(oldest)),
    )


def reasons(connection: sa.Connection) -> dict[tuple[InstanceState, str], int]:
    """Why instances were not judged or given up, counted."""
    rows = connection.execute(
        sa.select(instance.c.state, instance.c.reason, sa.func.count())
        .where(
            instance.c.state.in_([InstanceState.NOT_ELIGIBLE.value, InstanceState.DEAD_LETTER.value]),
            instance.c.reason.is_not(None),
        )
        .group_by(instance.c.state, instance.c.reason)
        .order_by(sa.func.count().desc())
    )
    return {(InstanceState(state), reason): int(count) for state, reason, count in rows}


def activity(connection: sa.Connection, *, span_s: float, buckets: int, now: float | None = None) -> Activity:
    """Count arrivals, analyses and ends in equal stretches up to now."""
    until = time.time() if now is None else now
    width = span_s / buckets
    # Whole stretches, so that a column that is complete does not change any more.
    first = (until // width - buckets + 1) * width
    counts = {
        "received": _by_bucket(connection, instance.c.received_at, first, width),
        "analysed": _by_bucket(connection, instance.c.analysed_at, first, width, instance.c.received_at >= first),
        "ended": _by_bucket(
            connection,
            instance.c.updated_at,
            first,
            width,
            instance.c.state.in_([InstanceState.DELIVERED.value, InstanceState.NOT_ELIGIBLE.value]),
        ),
        "given_up": _by_bucket(
            connection, instance.c.updated_at, first, width, instance.c.state == InstanceState.DEAD_LETTER.value
        ),
    }
    latencies = connection.execute(
        sa.select(
            instance.c.received_at,
            instance.c.duration_s.label("analysis_s"),
            sa.case(
                (instance.c.state == InstanceState.DELIVERED.value, instance.c.updated_at - instance.c.received_at)
            ).label("turnaround_s"),
        )
        .where(instance.c.received_at >= first, instance.c.analysed_at.is_not(None))
        .order_by(instance.c.id.desc())
        .limit(_MAXIMUM_LATENCIES)
    ).all()
    measured: dict[str, defaultdict[int, list[float]]] = {
        "analysis_s": defaultdict(list),
        "turnaround_s": defaultdict(list),
    }
    for row in latencies:
        for name, found in measured.items():
            if (value := getattr(row, name)) is not None:
                found[int((row.received_at - first) // width)].append(float(value))
    return Activity(
        span_s=span_s,
        buckets=tuple(
            Bucket(
                begins_at=first + number * width,
                **{name: found.get(number, 0) for name, found in counts.items()},
                analysis_s=_latency(measured["analysis_s"][number]).median_s,
                turnaround_s=_latency(measured["turnaround_s"][number]).median_s,
            )
            for number in range(buckets)
        ),
        analysis=_latency(one for found in measured["analysis_s"].values() for one in found),
        turnaround=_latency(one for found in measured["turnaround_s"].values() for one in found),
    )


def stored_bytes(connection: sa.Connection) -> int:
    """Sizes of all received objects that are kept."""
    return int(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(instance.c.size_bytes), 0))).scalar_one())


def overdue(connection: sa.Connection, *, stuck_after_s: float, now: float | None = None) -> tuple[int, float | None]:
    """Count instances that have waited too long for a next step that nothing stands in the way of.

    Waiting for an analysis, or for an attempt of a delivery that is due; a delivery that is to be tried again later
    waits as it should.

    Returns
    -------
    Their number, and how long the oldest has waited in seconds; None without any.
    """
    limit = (time.time() if now is None else now) - stuck_after_s
    waiting = connection.execute(
        sa.select(sa.func.count(), sa.func.min(instance.c.updated_at)).where(
            instance.c.state.in_([InstanceState.RECEIVED.value, InstanceState.ANALYSING.value]),
            instance.c.updated_at < limit,
        )
    ).one()
    due = connection.execute(
        sa.select(
            sa.func.count(), sa.func.min(sa.func.coalesce(delivery.c.next_attempt_at, delivery.c.updated_at))
        ).where(
            delivery.c.state.in_(PENDING),
            delivery.c.updated_at < limit,
            sa.func.coalesce(delivery.c.next_attempt_at, delivery.c.updated_at) < limit,
        )
    ).one()
    oldest = min((float(one[1]) for one in (waiting, due) if one[1] is not None), default=None)
    return int(waiting[0]) + int(due[0]), None if oldest is None else limit + stuck_after_s - oldest


def _by_bucket(
    connection: sa.Connection,
    moment: sa.ColumnElement[float] | sa.Column[float],
    first: float,
    width: float,
    *where: sa.ColumnElement[bool],
) -> dict[int, int]:
    number = sa.cast(sa.func.floor((moment - first) / width), sa.Integer)
    rows = connection.execute(sa.select(number, sa.func.count()).where(moment >= first, *where).group_by(number))
    return {int(one): int(count) for one, count in rows}


def _latency(values: Iterable[float]) -> Latency:
    found = sorted(float(value) for value in values)
    if not found:
        return Latency(count=0, median_s=None, p95_s=None, maximum_s=None)
    return Latency(
        count=len(found),
        median_s=found[len(found) // 2],
        p95_s=found[min(len(found) - 1, int(len(found) * 0.95))],
        maximum_s=found[-1],
    )
