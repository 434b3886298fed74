"""The one place where instances and deliveries change state."""

import json
import time
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from scp_node.jobs import trace
from scp_node.jobs.tables import commitment, delivery, instance
from scp_node.records import DeliveryState, InstanceState


class DeadLetterReason(StrEnum):
    """Why an instance was given up."""

    UNREADABLE = "unreadable"
    """The file cannot be read as a radiograph: truncated, inconsistent, no decoder."""
    RESULTS = "results"
    """The results could not be built."""
    TIME_LIMIT = "time_limit"
    """The analysis took longer than ``analysis.time_limit_s``."""
    MEMORY = "memory"
    """The analysis asked for more memory than there is or than ``analysis.memory_limit_bytes`` allows."""
    CRASHED = "crashed"
    """Child processes died on it, ``analysis.attempts`` times."""
    INTERNAL = "internal"
    """An error of the program; the detail says where."""
    DELIVERY = "delivery"
    """Results exist; at least one destination refused them for good or patience ran out."""
    SAME_MODELS = "same_models"
    """A recall ordered another analysis, and the models were still those that it recalls."""
    CANCELLED = "cancelled"
    """An operator cancelled it."""


class TransactionState(StrEnum):
    """Where a Storage Commitment transaction stands."""

    NEW = "new"
    """Written down; the request may or may not have reached the peer."""
    ASKED = "asked"
    """Requested; the report is waited for."""
    ANSWERED = "answered"
    """The report came."""
    UNANSWERED = "unanswered"
    """It did not come in time; it is still welcome."""
    DECLINED = "declined"
    """The peer refused the request."""
    VOID = "void"
    """The request never reached the peer."""


PENDING = (DeliveryState.WAITING.value, DeliveryState.COMMITTING.value)
"""States of deliveries that still want something of their destination."""

_S = InstanceState
_NEXT: dict[InstanceState, frozenset[InstanceState]] = {
    _S.RECEIVED: frozenset({_S.ANALYSING, _S.DEAD_LETTER}),
    # Back to received: the disk is full, a later job begins anew.
    _S.ANALYSING: frozenset({_S.RECEIVED, _S.DELIVERING, _S.DELIVERED, _S.NOT_ELIGIBLE, _S.DEAD_LETTER}),
    _S.DELIVERING: frozenset({_S.DELIVERED, _S.DEAD_LETTER}),
    # Only an operator's retry or recall or a new destination leads out of a final state.
    _S.DELIVERED: frozenset({_S.DELIVERING, _S.RECEIVED}),
    _S.NOT_ELIGIBLE: frozenset({_S.RECEIVED}),
    _S.DEAD_LETTER: frozenset({_S.RECEIVED, _S.DELIVERING, _S.DELIVERED, _S.DEAD_LETTER}),
}

_ENDINGS = {_S.NOT_ELIGIBLE: trace.Event.NOT_ELIGIBLE, _S.DEAD_LETTER: trace.Event.GIVEN_UP}


def move(
    connection: sa.Connection,
    row: sa.Row[Any],
    to: InstanceState,
    *,
    reason: str | None = None,
    detail: str = "",
    causes: tuple[str, ...] = (),
    **values: object,
) -> None:
    """Change the state of an instance that this transaction has locked; endings without results go to the trace.

    Parameters
    ----------
    row
        The instance as read in this transaction.
    causes
        The errors behind a dead letter.
    values
        Further columns that change with the state.
    """
    present = InstanceState(row.state)
    if to not in _NEXT[present]:
        raise ValueError(f"instance {row.id} cannot go from {present} to {to}")
    change(
        connection,
        row.id,
        state=to.value,
        reason=reason,
        detail=detail,
        causes=json.dumps(causes),
        updated_at=time.time(),
        **values,
    )
    if event := _ENDINGS.get(to):
        trace.record(connection, event, row.sop_instance_uid, instance_id=row.id, reason=reason)


def change(connection: sa.Connection, instance_id: int, **values: object) -> None:
    """Change columns of an instance that this transaction has locked."""
    connection.execute(_CHANGE, {"wanted": instance_id} | values)


# Built once: putting a statement together costs more than the database's answer.
_CHANGE = sa.update(instance).where(instance.c.id == sa.bindparam("wanted"))
_DELIVERIES = (
    sa.select(delivery.c.destination, delivery.c.state, delivery.c.last_error)
    .where(delivery.c.instance_id == sa.bindparam("instance"))
    .order_by(delivery.c.destination)
)


def settle(connection: sa.Connection, row: sa.Row[Any]) -> InstanceState:
    """Give an instance the state that follows from its deliveries.

    Any delivery that is not final: delivering. All confirmed (or no destination at all): delivered. Otherwise dead
    letter.
    """
    rows = connection.execute(_DELIVERIES, {"instance": row.id}).all()
    states = {DeliveryState(d.state) for d in rows}
    reason: DeadLetterReason | None = None
    detail = ""
    if not all(state.is_final for state in states):
        to = InstanceState.DELIVERING
    elif states <= {DeliveryState.DELIVERED, DeliveryState.COMMITTED}:
        to = InstanceState.DELIVERED
    else:
        to = InstanceState.DEAD_LETTER
        refused = [d for d in rows if d.state == DeliveryState.REFUSED]
        reason = DeadLetterReason.DELIVERY if refused else DeadLetterReason.CANCELLED
        cancelled = [f"{d.destination}: cancelled by an operator" for d in rows if d.state == DeliveryState.CANCELLED]
        detail = "; ".join([f"{d.destination}: {d.last_error}" for d in refused] + cancelled)
    if row.state != to.value or to is InstanceState.DEAD_LETTER:
        move(connection, row, to, reason=reason, detail=detail)
    return to


def wants_contact() -> sa.ColumnElement[bool]:
    """SQL: a delivery that would call its destination if it ran now, and does not only wait for its report."""
    is_asked = sa.exists().where(
        commitment.c.instance_id == delivery.c.instance_id,
        commitment.c.destination == delivery.c.destination,
        commitment.c.state == TransactionState.ASKED.value,
    )
    return sa.or_(
        delivery.c.state == DeliveryState.WAITING.value,
        sa.and_(delivery.c.state == DeliveryState.COMMITTING.value, ~is_asked),
    )
