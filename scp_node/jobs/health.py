"""How destinations do, as their breakers and what waits for them have it; reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from scp_node.jobs.breaker import BreakerState
from scp_node.jobs.states import PENDING
from scp_node.jobs.tables import breaker, delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationHealth:
    """How a destination does, for command line and console.

    Parameters
    ----------
    since
        When it came into this state; None: nothing has ever failed.
    failures
        In a row, without anything that got through.
    last_error
        One sentence; kept after it came back.
    waiting
        Deliveries that are not final.
    oldest_waiting_at
        When the oldest of these was first attempted, or last changed before that.
    next_probe_at
        When it is asked next whether it is back; None while closed.
    """

    name: str
    state: BreakerState
    since: datetime | None
    failures: int
    last_error: str
    last_error_at: datetime | None
    waiting: int
    oldest_waiting_at: datetime | None
    next_probe_at: datetime | None

    def as_json(self) -> dict[str, object]:
        """The fields of ``scp-node destinations --json``."""
        return {
            "name": self.name,
            "state": self.state.value,
            "since": _text(self.since),
            "failures": self.failures,
            "last_error": self.last_error,
            "last_error_at": _text(self.last_error_at),
            "waiting": self.waiting,
            "oldest_waiting_at": _text(self.oldest_waiting_at),
            "next_probe_at": _text(self.next_probe_at),
        }


def health(connection: sa.Connection, names: Sequence[str]) -> list[DestinationHealth]:
    """How destinations do: the configured ones in their order, then others for which deliveries wait."""
    rows = {row.destination: row for row in connection.execute(sa.select(breaker))}
    oldest = sa.func.min(sa.func.coalesce(delivery.c.first_attempt_at, delivery.c.updated_at))
    waiting = {
        row.destination: row
        for row in connection.execute(
            sa.select(delivery.c.destination, sa.func.count().label("number"), oldest.label("oldest"))
            .where(delivery.c.state.in_(PENDING))
            .group_by(delivery.c.destination)
        )
    }
    found: list[DestinationHealth] = []
    for name in [*names, *sorted(set(waiting) - set(names))]:
        row, pending = rows.get(name), waiting.get(name)
        found.append(
            DestinationHealth(
                name=name,
                state=BreakerState.CLOSED if row is None else BreakerState(row.state),
                since=None if row is None else _time(row.since),
                failures=0 if row is None else row.failures,
                last_error="" if row is None else row.last_error,
                last_error_at=None if row is None else _time(row.last_error_at),
                waiting=0 if pending is None else int(pending.number),
                oldest_waiting_at=None if pending is None else _time(pending.oldest),
                next_probe_at=None if row is None else _time(row.next_probe_at),
            )
        )
    return found


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
