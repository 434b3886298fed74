"""Rows and jobs of deliveries: begun after an analysis, taken up again by an operator or a repeated C-STORE."""

import time
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from config.base import Priority
from scp_node.jobs.database import delivery
from scp_node.jobs.queues import Jobs, deliver_id
from scp_node.records import DeliveryState


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
    known = set(connection.execute(sa.select(delivery.c.destination).where(delivery.c.instance_id == row.id)).scalars())
    begun = [name for name in destinations if name not in known]
    for name in begun:
        job_id = deliver_id(row.id, name, 1, 1)
        connection.execute(
            sa.insert(delivery).values(
                instance_id=row.id,
                destination=name,
                state=DeliveryState.WAITING.value,
                attempts=0,
                last_error="",
                job_id=job_id,
                round=1,
                updated_at=time.time(),
            )
        )
        jobs.deliver(connection, job_id, row.id, name, Priority(row.priority), place=row.place)
    return begun


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
                updated_at=time.time(),
            )
        )
        jobs.deliver(connection, job_id, row.id, present.destination, Priority(row.priority), place=row.place)
    return [present.destination for present in rows]
