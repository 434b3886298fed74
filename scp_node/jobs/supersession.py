"""An analysis that replaces an earlier one: ordered by a recall, done like any other, sent to whoever has the earlier.

What the earlier analysis made stays as it is, in the spool and at the destinations; new reports name it as replaced.
"""

import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from scp_node.jobs import deliveries
from scp_node.jobs.queues import Jobs
from scp_node.jobs.tables import instance, prediction, result, trace
from scp_node.jobs.trace import Event
from scp_node.records import DeliveryState

if TYPE_CHECKING:
    from scp_node.jobs.summary import Analysed

_GOT_SOMETHING = tuple(state for state in DeliveryState if state is not DeliveryState.CANCELLED)


def order(connection: sa.Connection, row: sa.Row[Any]) -> None:
    """Set the results of an instance aside, which this transaction has locked; the caller restarts the analysis."""
    connection.execute(sa.update(result).where(result.c.instance_id == row.id).values(is_superseded=True))
    # What the models said stays in the trace.
    connection.execute(sa.delete(prediction).where(prediction.c.instance_id == row.id))
    connection.execute(sa.update(instance).where(instance.c.id == row.id).values(analysed_at=None))


def is_ordered(connection: sa.Connection, instance_id: int) -> bool:
    """Whether the next analysis of an instance replaces an earlier one."""
    return connection.execute(_SUPERSEDED, {"instance": instance_id}).first() is not None


_SUPERSEDED = (
    sa.select(result.c.position)
    .where(result.c.instance_id == sa.bindparam("instance"), result.c.is_superseded.is_(sa.true()))
    .limit(1)
)


def has_other_models(connection: sa.Connection, instance_id: int, summary: "Analysed") -> bool:
    """Whether other weights than last time have judged an instance; else there is nothing to replace."""
    query = sa.select(trace.c.detail).where(trace.c.instance_id == instance_id, trace.c.event == Event.ANALYSED.value)
    last = connection.execute(query.order_by(trace.c.id.desc()).limit(1)).scalar_one_or_none()
    before = {one["weights_sha256"] for one in json.loads(last)["predictions"]} if last else set()
    return {one.weights_sha256 for one in summary.predictions} != before


def deliver(connection: sa.Connection, jobs: Jobs, row: sa.Row[Any]) -> None:
    """Begin to send the results to the destinations of the earlier ones."""
    deliveries.restart(connection, jobs, row, _GOT_SOMETHING)
