"""What destinations said about each result object, and what follows for a delivery as a whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa

from scp_node.jobs import database, trace
from scp_node.jobs.tables import delivered_object, instance, result
from scp_node.records import DeliveryState, ObjectOutcome, Outgoing, Verdict
from scp_node.spool.store import Spool

_SETTLED = (Verdict.CONFIRMED.value, Verdict.NOT_NEEDED.value)
_ANSWERS = (Verdict.CONFIRMED, Verdict.PERMANENT, Verdict.NOT_TAKEN)
"""What goes into the trace: not every attempt of a week without an answer."""


def pending(connection: sa.Connection, spool: Spool, instance_id: int, name: str) -> list[Outgoing]:
    """Return what a destination has not confirmed; of a group of which it has one, nothing."""
    rows = results(connection, instance_id, name)
    done = {row.alternatives for row in rows if row.verdict in _SETTLED}
    return [
        Outgoing(
            file=spool.path(row.file),
            sop_class_uid=row.sop_class_uid,
            sop_instance_uid=row.sop_instance_uid,
            transfer_syntax_uid=row.transfer_syntax_uid,
            group=row.alternatives,
            rank=row.rank,
            size_bytes=row.size_bytes,
        )
        for row in rows
        if row.alternatives not in done
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The received instance that results were made of."""

    instance_id: int
    sop_instance_uid: str


def source(connection: sa.Connection, instance_id: int) -> Source | None:
    """Return what a record about a result names, and what never changes; None: the instance is gone."""
    uid = connection.execute(_UID, {"instance": instance_id}).scalar_one_or_none()
    return None if uid is None else Source(instance_id=instance_id, sop_instance_uid=uid)


def remember(connection: sa.Connection, of: Source, name: str, outcome: ObjectOutcome, now: float) -> None:
    """Write down what became of one object; once it is confirmed, it is never sent again."""
    values = {"verdict": outcome.verdict.value, "status": outcome.status, "detail": outcome.detail, "at": now}
    key = {"instance_id": of.instance_id, "destination": name, "sop_instance_uid": outcome.sop_instance_uid}
    connection.execute(_last_word(connection.dialect.name), key | values)
    if outcome.verdict in _ANSWERS:
        trace.record(
            connection,
            trace.Event.ACKNOWLEDGED,
            of.sop_instance_uid,
            instance_id=of.instance_id,
            destination=name,
            uid=outcome.sop_instance_uid,
            verdict=outcome.verdict.value,
            status=outcome.status,
        )


def judge(connection: sa.Connection, instance_id: int, name: str) -> tuple[DeliveryState, str]:
    """Return the state that follows from the last words on all objects, and why it is not simply delivered."""
    groups: dict[str, list[sa.Row[Any]]] = {}
    for row in results(connection, instance_id, name):
        groups.setdefault(row.alternatives, []).append(row)
    states: list[Verdict] = []
    errors: list[str] = []
    for rows in groups.values():
        verdicts = {row.verdict for row in rows}
        if verdicts & set(_SETTLED):
            states.append(Verdict.CONFIRMED)
            continue
        # In order of weight: what is worth another attempt keeps the whole delivery going.
        weights = (Verdict.TRANSIENT, Verdict.PERMANENT, Verdict.NOT_TAKEN)
        state = next((weight for weight in weights if weight.value in verdicts), Verdict.TRANSIENT)
        states.append(state)
        errors += [row.outcome_detail for row in rows if row.verdict == state.value]
    error = "; ".join(dict.fromkeys(error for error in errors if error))
    if Verdict.TRANSIENT in states:
        return DeliveryState.WAITING, error
    if Verdict.PERMANENT in states:
        return DeliveryState.REFUSED, error
    # A peer that takes the pictures and knows no SR has all that it takes. One that takes nothing at all is not set up
    # yet: somebody will see to that, and then a further attempt succeeds.
    return (DeliveryState.DELIVERED if Verdict.CONFIRMED in states else DeliveryState.WAITING), error


def got_through(outcomes: Sequence[ObjectOutcome]) -> bool:
    """Whether the destination took, or for good refused, anything in one attempt: it works."""
    return any(
        outcome.verdict is Verdict.CONFIRMED or (outcome.verdict is Verdict.PERMANENT and outcome.status is not None)
        for outcome in outcomes
    )


def results(connection: sa.Connection, instance_id: int, name: str) -> Sequence[sa.Row[Any]]:
    """All results of an instance, each with the destination's last word (None: not asked yet)."""
    return connection.execute(_RESULTS, {"instance": instance_id, "name": name}).all()


# Built once: putting such a statement together costs more than the database's answer.
_RESULTS = (
    sa.select(
        result,
        delivered_object.c.verdict,
        delivered_object.c.detail.label("outcome_detail"),
        delivered_object.c.committed_at,
    )
    .outerjoin(
        delivered_object,
        sa.and_(
            delivered_object.c.instance_id == result.c.instance_id,
            delivered_object.c.sop_instance_uid == result.c.sop_instance_uid,
            delivered_object.c.destination == sa.bindparam("name"),
        ),
    )
    .where(result.c.instance_id == sa.bindparam("instance"), result.c.is_superseded.is_(sa.false()))
    .order_by(result.c.position)
)
_UID = sa.select(instance.c.sop_instance_uid).where(instance.c.id == sa.bindparam("instance"))


@cache
def _last_word(dialect: str) -> sa.Executable:
    statement = database.insert_for(dialect, delivered_object)
    # A late word of an older attempt does not take a confirmation back.
    return statement.on_conflict_do_update(
        index_elements=["instance_id", "destination", "sop_instance_uid"],
        set_={name: statement.excluded[name] for name in ("verdict", "status", "detail", "at")},
        where=delivered_object.c.verdict.not_in(_SETTLED),
    )
