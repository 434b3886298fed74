"""Rows and jobs of deliveries: begun after an analysis, put off, ended, taken up again by an operator or a repeat."""

import time
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from config.base import Priority
from scp_node.jobs import trace
from scp_node.jobs.queues import Jobs, deliver_id, following_id
from scp_node.jobs.states import PENDING, settle
from scp_node.jobs.tables import delivery, instance
from scp_node.records import DeliveryState, InstanceState


def begin(connection: sa.Connection, jobs: Jobs, row: sa.Row[Any], destinations: Sequence[str]) -> list[str]:
    """Start deliveries of an instance to destinations that have none yet.

    Parameters
    ----------
    row
        The instance, locked in this transaction.
    destinations
        Names; those with a delivery already, in whatever state, are left alone.

    Returns
    -------
    list of str
        The destinations begun.
    """
    known = set(connection.execute(_DESTINATIONS, {"instance": row.id}).scalars())
    begun = [name for name in destinations if name not in known]
    for name in begun:
        job_id = deliver_id(row.id, name, 1, 1)
        connection.execute(
            _INSERT,
            {
                "instance_id": row.id,
                "destination": name,
                "state": DeliveryState.WAITING.value,
                "attempts": 0,
                "last_error": "",
                "job_id": job_id,
                "round": 1,
                "updated_at": time.time(),
            },
        )
        jobs.deliver(connection, job_id, row.id, name, Priority(row.priority), place=row.place)
    return begun


# Here and below built once: putting a statement together costs more than the database's answer.
_DESTINATIONS = sa.select(delivery.c.destination).where(delivery.c.instance_id == sa.bindparam("instance"))
_INSERT = sa.insert(delivery)


def is_more(connection: sa.Connection, instance_id: int, destination: str, *, now: float) -> bool:
    """Whether anything but this instance's results waits for a destination now, or is about to."""
    asked = {"name": destination, "instance": instance_id, "now": now}
    return bool(connection.execute(_IS_MORE, asked).scalar_one())


_IS_MORE = sa.select(
    sa.or_(
        sa.exists().where(
            delivery.c.destination == sa.bindparam("name"),
            delivery.c.state == DeliveryState.WAITING.value,
            delivery.c.instance_id != sa.bindparam("instance"),
            sa.or_(delivery.c.next_attempt_at.is_(None), delivery.c.next_attempt_at <= sa.bindparam("now")),
        ),
        sa.exists().where(instance.c.state.in_([InstanceState.ANALYSING.value, InstanceState.RECEIVED.value])),
    )
)


def restart(
    connection: sa.Connection,
    jobs: Jobs,
    row: sa.Row[Any],
    states: Collection[DeliveryState],
    *,
    destinations: Collection[str] | None = None,
) -> list[str]:
    """Begin a new round, at once and with fresh patience, for deliveries in ``states``, to some destinations or all.

    What a destination has confirmed stays confirmed. The old round's job finds that it is not the current one and ends.
    """
    rows = connection.execute(
        sa.select(delivery).where(
            delivery.c.instance_id == row.id, delivery.c.state.in_([state.value for state in states])
        )
    ).all()
    rows = [present for present in rows if destinations is None or present.destination in destinations]
    for present in rows:
        job_id = deliver_id(row.id, present.destination, present.round + 1, 1)
        connection.execute(
            sa.update(delivery)
            .where(delivery.c.instance_id == row.id, delivery.c.destination == present.destination)
            .values(
                state=DeliveryState.WAITING.value,
                attempts=0,
                job_id=job_id,
                round=present.round + 1,
                first_attempt_at=None,
                next_attempt_at=None,
                setbacks=0,
                updated_at=time.time(),
            )
        )
        jobs.deliver(connection, job_id, row.id, present.destination, Priority(row.priority), place=row.place)
    return [present.destination for present in rows]


def current(connection: sa.Connection, instance_id: int, name: str, job_id: str) -> sa.Row[Any] | None:
    """Read and lock a delivery for its job; None when another job is the current one, or there is nothing to do."""
    row = connection.execute(_LOCK_DELIVERY, {"instance": instance_id, "name": name}).one_or_none()
    if row is None or row.job_id != job_id or row.state not in PENDING:
        return None
    return row


_LOCK_DELIVERY = (
    sa.select(delivery)
    .where(delivery.c.instance_id == sa.bindparam("instance"), delivery.c.destination == sa.bindparam("name"))
    .with_for_update()
)


def change(connection: sa.Connection, row: sa.Row[Any], **values: object) -> None:
    """Change columns of a delivery that this transaction has locked."""
    connection.execute(_CHANGE, {"of_instance": row.instance_id, "to": row.destination} | values)


_CHANGE = sa.update(delivery).where(
    delivery.c.instance_id == sa.bindparam("of_instance"), delivery.c.destination == sa.bindparam("to")
)


def put_off(
    connection: sa.Connection,
    jobs: Jobs,
    owner: sa.Row[Any],
    row: sa.Row[Any],
    *,
    due: float,
    now: float,
    **values: object,
) -> None:
    """Let another job go on with a delivery when it is due.

    Parameters
    ----------
    owner
        The instance, locked in this transaction before the delivery.
    values
        Further columns that change with it.
    """
    job_id = following_id(row.job_id)
    is_later = due > now
    change(connection, row, job_id=job_id, next_attempt_at=due if is_later else None, updated_at=now, **values)
    jobs.deliver(
        connection,
        job_id,
        row.instance_id,
        row.destination,
        Priority(owner.priority),
        place=owner.place,
        delay_s=max(0.0, due - now),
    )


def end(
    connection: sa.Connection, owner: sa.Row[Any], row: sa.Row[Any], state: DeliveryState, note: str, *, now: float
) -> None:
    """End a delivery; its instance ends with the last one."""
    change(connection, row, state=state.value, last_error=note, next_attempt_at=None, updated_at=now)
    trace.record(
        connection,
        trace.Event.DELIVERY_ENDED,
        owner.sop_instance_uid,
        instance_id=owner.id,
        destination=row.destination,
        state=state.value,
        attempts=_attempts(connection, row),
    )
    settle(connection, owner)


def _attempts(connection: sa.Connection, row: sa.Row[Any]) -> int:
    return int(connection.execute(_ATTEMPTS, {"instance": row.instance_id, "name": row.destination}).scalar_one())


_ATTEMPTS = sa.select(delivery.c.attempts).where(
    delivery.c.instance_id == sa.bindparam("instance"), delivery.c.destination == sa.bindparam("name")
)
