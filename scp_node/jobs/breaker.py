"""The circuit breaker of each destination, shared by all processes through the database; imports no durable engine.

Closed: deliveries are attempted. Open: the destination is down, deliveries are put off without an association and
`probing` asks now and then whether it is back. Half open: it answered, and one delivery is on trial for all.

What opens it is that nothing gets through: no association, or only failures that a destination can mend, for different
instances in a row. One object that a destination chokes on does not speak for the others.
"""

import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from random import random as uniform
from typing import Any

import sqlalchemy as sa

from config.destinations import DeliverySettings
from scp_node.jobs import database
from scp_node.jobs.states import wants_contact
from scp_node.jobs.tables import breaker, delivery

_TRIAL_S = 300.0
"""A delivery on trial has been heard of by then; else the destination is asked anew."""
_PATIENCE_WITH_UNABLE = 4
"""A destination that answers and takes nothing gets a real delivery with each probe: so much longer between them."""
_LARGEST_EXPONENT = 30


class BreakerState(StrEnum):
    """Whether deliveries to a destination are attempted."""

    CLOSED = "closed"
    """They are."""
    OPEN = "open"
    """They are not: it is down, and asked now and then."""
    HALF_OPEN = "half_open"
    """It answered; one delivery is on trial."""


class Breakers:
    """Changes the breakers of all destinations; every method but ``admits`` is part of the caller's transaction.

    A caller that has locked a delivery locks the breaker after it, never the other way round.

    Parameters
    ----------
    clock, random
        Seconds since 1970; uniform in [0, 1).
    """

    def __init__(
        self,
        settings: DeliverySettings,
        *,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = uniform,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._random = random

    def refusal(self, connection: sa.Connection, name: str, instance_id: int) -> sa.Row[Any] | None:
        """Return the breaker that keeps a delivery from being attempted; None: go on."""
        row = _read(connection, name)
        if row is None or _lets_through(row, instance_id):
            return None
        # Again with a lock: between an open breaker and the delay of this delivery it must not close unseen.
        row = _read(connection, name, lock=True)
        return None if row is None or _lets_through(row, instance_id) else row

    def failed(self, connection: sa.Connection, name: str, instance_id: int, error: str, *, is_reached: bool) -> int:
        """Note an attempt of which nothing got through; return the epoch, to be kept with the delivery's delay.

        Parameters
        ----------
        is_reached
            There was an association, so that the object may be what is wrong.
        """
        row = self._locked(connection, name)
        is_same = is_reached and row.last_instance_id == instance_id
        values: dict[str, Any] = {
            "last_instance_id": instance_id,
            "last_error": error,
            "last_error_at": self._clock(),
        }
        if not is_same:
            values["failures"] = row.failures + 1
        is_trial = row.state == BreakerState.HALF_OPEN and row.trial_instance_id == instance_id
        if is_trial:
            values |= self._opened(row, is_reached=is_reached) | {"since": row.since}
        elif row.state == BreakerState.CLOSED and (
            values.get("failures", row.failures) >= self._settings.failures_before_pause
        ):
            values |= self._opened(row, is_reached=is_reached) | {"is_resuming": False}
        _change(connection, name, values)
        return int(row.epoch)

    def epoch(self, connection: sa.Connection, name: str) -> int:
        """How often the destination came back, to be kept with the delay of a delivery."""
        row = _read(connection, name, lock=True)
        return 0 if row is None else int(row.epoch)

    def answered(self, connection: sa.Connection, name: str) -> bool:
        """Note that something got through; return whether the destination came back by that."""
        row = _read(connection, name)
        if row is None or (row.state == BreakerState.CLOSED and not row.failures):
            return False
        row = self._locked(connection, name)
        # One failure is one object's affair; after several, those that wait deserve to hear of the success.
        if row.state == BreakerState.CLOSED and row.failures < 2:
            _change(connection, name, {"failures": 0, "last_instance_id": None})
            return False
        _change(connection, name, self._closed(row))
        return True

    def close(self, connection: sa.Connection, name: str) -> None:
        """Attempt everything again, now, because somebody says so."""
        _change(connection, name, self._closed(self._locked(connection, name)))

    def grant(self, connection: sa.Connection, name: str, instance_id: int) -> None:
        """Let one delivery through an open breaker, on trial, because somebody says that it is to be tried now."""
        row = _read(connection, name, lock=True)
        if row is not None and row.state == BreakerState.OPEN:
            values = {"state": BreakerState.HALF_OPEN.value, "trial_instance_id": instance_id, "since": self._clock()}
            _change(connection, name, {**values, "next_probe_at": self._clock() + _TRIAL_S})

    def untold(self, connection: sa.Connection, name: str, instance_id: int) -> None:
        """Note that a delivery has ended without a word of its destination; if it was on trial, another is needed."""
        connection.execute(
            sa.update(breaker)
            .where(
                breaker.c.destination == name,
                breaker.c.state == BreakerState.HALF_OPEN.value,
                breaker.c.trial_instance_id == instance_id,
            )
            .values(next_probe_at=self._clock())
        )

    def due(
        self, connection: sa.Connection, names: Sequence[str], *, longest_claim_s: float = 0.0
    ) -> list[sa.Row[Any]]:
        """Breakers whose destinations are to be asked whether they are back.

        Parameters
        ----------
        longest_claim_s
            What is due later than any wait lasts was set by a clock that has gone back since, and is due now.
        """
        now = self._clock()
        longest_s = max(_TRIAL_S, self._settings.maximum_probe_s * _PATIENCE_WITH_UNABLE, longest_claim_s)
        asked = {"names": list(names), "now": now, "latest": now + longest_s}
        return list(connection.execute(_DUE, asked).all())

    def claim(self, connection: sa.Connection, row: sa.Row[Any], lease_s: float) -> bool:
        """Take it on to ask a destination; False when another process was quicker.

        Parameters
        ----------
        lease_s
            After that another process asks, because this one must have died.
        """
        changed = connection.execute(
            sa.update(breaker)
            .where(breaker.c.destination == row.destination, breaker.c.next_probe_at == row.next_probe_at)
            .values(next_probe_at=self._clock() + lease_s)
        )
        return bool(changed.rowcount)

    def probed(
        self, connection: sa.Connection, name: str, *, is_reachable: bool, is_present: bool, detail: str
    ) -> int | None:
        """Note what a destination answered; return the instance whose delivery is to be tried now, if any.

        One that refuses the question and yet is there gets the trial too: it may take objects and know no C-ECHO.
        """
        row = self._locked(connection, name)
        if row.state == BreakerState.CLOSED:
            return None
        if not (is_reachable or is_present):
            values = self._opened(row, is_reached=False)
            _change(connection, name, {**values, "last_error": detail, "last_error_at": self._clock()})
            return None
        trial = connection.execute(
            # What was attempted least: a fresh delivery says more about the destination than one that always fails.
            sa.select(delivery.c.instance_id)
            .where(delivery.c.destination == name, wants_contact())
            .order_by(delivery.c.attempts, delivery.c.updated_at, delivery.c.instance_id)
            .limit(1)
        ).scalar_one_or_none()
        if trial is None:
            _change(connection, name, self._closed(row) if is_reachable else self._opened(row, is_reached=False))
            return None
        values = {
            "state": BreakerState.HALF_OPEN.value,
            "trial_instance_id": int(trial),
            "next_probe_at": self._clock() + _TRIAL_S,
        }
        if row.state != BreakerState.HALF_OPEN:
            values["since"] = self._clock()
        _change(connection, name, values)
        return int(trial)

    def _opened(self, row: sa.Row[Any], *, is_reached: bool) -> dict[str, Any]:
        probes = 0 if row.state == BreakerState.CLOSED else row.probes + 1
        longest = self._settings.maximum_probe_s * (_PATIENCE_WITH_UNABLE if is_reached else 1)
        whole = min(longest, self._settings.first_probe_s * 2.0 ** min(probes, _LARGEST_EXPONENT))
        # Half of it is left to chance, so that the destinations of one machine are not all asked at once.
        delay_s = whole * (0.5 + 0.5 * self._random())
        return {
            "state": BreakerState.OPEN.value,
            "since": self._clock() if row.state == BreakerState.CLOSED else row.since,
            "probes": probes,
            "next_probe_at": self._clock() + delay_s,
            "trial_instance_id": None,
        }

    def _closed(self, row: sa.Row[Any]) -> dict[str, Any]:
        return {
            "state": BreakerState.CLOSED.value,
            "since": row.since if row.state == BreakerState.CLOSED else self._clock(),
            "failures": 0,
            "last_instance_id": None,
            "probes": 0,
            "next_probe_at": None,
            "trial_instance_id": None,
            "epoch": row.epoch + 1,
            "is_resuming": True,
        }

    def _locked(self, connection: sa.Connection, name: str) -> sa.Row[Any]:
        connection.execute(
            database.insert(connection, breaker)
            .values(
                destination=name,
                state=BreakerState.CLOSED.value,
                since=self._clock(),
                failures=0,
                last_error="",
                probes=0,
                epoch=0,
                is_resuming=False,
            )
            .on_conflict_do_nothing(index_elements=["destination"])
        )
        row = _read(connection, name, lock=True)
        assert row is not None  # noqa: S101 - inserted or there before; nobody deletes one
        return row


def _lets_through(row: sa.Row[Any], instance_id: int) -> bool:
    if row.state == BreakerState.HALF_OPEN:
        return bool(row.trial_instance_id == instance_id)
    return bool(row.state == BreakerState.CLOSED)


def _read(connection: sa.Connection, name: str, *, lock: bool = False) -> sa.Row[Any] | None:
    return connection.execute(_READ_LOCKED if lock else _READ, {"name": name}).one_or_none()


# Built once: every delivery asks, and an idle node every second.
_READ = sa.select(breaker).where(breaker.c.destination == sa.bindparam("name"))
_READ_LOCKED = _READ.with_for_update()
_DUE = (
    sa.select(breaker)
    .where(
        breaker.c.destination.in_(sa.bindparam("names", expanding=True)),
        sa.or_(breaker.c.next_probe_at <= sa.bindparam("now"), breaker.c.next_probe_at > sa.bindparam("latest")),
    )
    .order_by(breaker.c.next_probe_at)
)


def _change(connection: sa.Connection, name: str, values: dict[str, Any]) -> None:
    connection.execute(sa.update(breaker).where(breaker.c.destination == name).values(**values))
