"""Storage Commitment reports: what a destination says about a transaction, whenever and wherever it arrives.

A report may come on the association of its request, on one that the destination opens to any receiver of the node, or
after a restart. All it needs is in the database.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
import structlog

from config.destinations import Destination, DicomDestination
from scp_node.delivery.commitment import CommitmentReport
from scp_node.delivery.statuses import Remedy, remedy_for
from scp_node.jobs import confirmations, database, deliveries, trace
from scp_node.jobs.queues import Jobs
from scp_node.jobs.states import TransactionState
from scp_node.jobs.tables import commitment, delivered_object, delivery
from scp_node.records import DeliveryState, Verdict

log = structlog.get_logger(__name__)


COUNTED = (
    TransactionState.ASKED.value,
    TransactionState.ANSWERED.value,
    TransactionState.UNANSWERED.value,
    TransactionState.DECLINED.value,
)
"""Transactions that count as a request."""


class Reports:
    """Takes reports; receivers and workers each have one.

    Parameters
    ----------
    clock
        Seconds since 1970.
    """

    def __init__(
        self,
        engine: sa.Engine,
        jobs: Jobs,
        destinations: Sequence[Destination],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._destinations: Mapping[str, Destination] = {one.name: one for one in destinations}
        self._clock = clock

    def accept(self, report: CommitmentReport) -> bool:
        """Make a report durable with all that follows from it; False when no transaction of this node is meant."""
        with self._engine.connect() as connection:
            known = connection.execute(
                sa.select(commitment).where(commitment.c.transaction_uid == report.transaction_uid)
            ).one_or_none()
        if known is None:
            log.warning("commitment report of an unknown transaction")
            return False
        with database.write(self._engine) as connection:
            owner = database.lock_instance(connection, known.instance_id)
            row = _delivery(connection, known)
            if owner is None or row is None:
                return True
            is_first = connection.execute(
                sa.update(commitment)
                .where(
                    commitment.c.transaction_uid == report.transaction_uid,
                    commitment.c.state != TransactionState.ANSWERED.value,
                )
                .values(state=TransactionState.ANSWERED.value, answered_at=self._clock())
            ).rowcount
            if is_first:
                self._apply(connection, owner, row, report, is_of_round=known.round == row.round)
        return True

    def _apply(
        self,
        connection: sa.Connection,
        owner: sa.Row[Any],
        row: sa.Row[Any],
        report: CommitmentReport,
        *,
        is_of_round: bool,
    ) -> None:
        name = row.destination
        now = self._clock()
        where = (delivered_object.c.instance_id == owner.id, delivered_object.c.destination == name)
        for uid in report.committed:
            connection.execute(
                sa.update(delivered_object)
                .where(
                    *where,
                    delivered_object.c.sop_instance_uid == uid,
                    delivered_object.c.verdict == Verdict.CONFIRMED.value,
                )
                .values(committed_at=now)
            )
        trace.record(
            connection,
            trace.Event.COMMITTED,
            owner.sop_instance_uid,
            instance_id=owner.id,
            destination=name,
            transaction=report.transaction_uid,
            committed=list(report.committed),
            failed=[list(item) for item in report.failed],
        )
        state = DeliveryState(row.state)
        # A late report may still turn "stored" into "committed"; it never takes anything back.
        if missing(connection, owner.id, name) == []:
            if state in (DeliveryState.COMMITTING, DeliveryState.DELIVERED):
                deliveries.end(connection, owner, row, DeliveryState.COMMITTED, "", now=now)
        elif state is DeliveryState.COMMITTING and is_of_round:
            self._mend(connection, owner, row, report)
        log.info(
            "commitment reported",
            sop_instance_uid=owner.sop_instance_uid,
            destination=name,
            committed=len(report.committed),
            failed=len(report.failed),
        )

    def _mend(self, connection: sa.Connection, owner: sa.Row[Any], row: sa.Row[Any], report: CommitmentReport) -> None:
        """Go on with a delivery of which the destination lacks something."""
        name, now = row.destination, self._clock()
        lacking = {item.sop_instance_uid: item.alternatives for item in missing(connection, owner.id, name)}
        remedies = {uid: remedy_for(reason) for uid, reason in report.failed if uid in lacking}
        words = "; ".join(sorted({f"{name} does not commit itself: {words}" for _, words in remedies.values()}))
        note = words or f"{name} did not mention every object in its report"
        again = [uid for uid, (remedy, _) in remedies.items() if remedy is Remedy.SEND_AGAIN]
        is_over = requests(connection, row) >= self._limit(name)
        if again and is_over:
            note = f"stored with success, and then: {note}"
            deliveries.end(connection, owner, row, DeliveryState.REFUSED, note, now=now)
        elif again:
            groups = {lacking[uid] for uid in again}
            self._forget(connection, owner.id, name, groups, note)
            deliveries.put_off(
                connection,
                self._jobs,
                owner,
                row,
                due=now,
                now=now,
                state=DeliveryState.WAITING.value,
                last_error=note,
                first_attempt_at=now,
                setbacks=0,
            )
        elif is_over or (len(remedies) == len(lacking) and _is_without_remedy(remedies.values())):
            deliveries.end(connection, owner, row, DeliveryState.DELIVERED, f"stored, {note}", now=now)
        else:
            due = now + self._pause_s(name)
            deliveries.put_off(connection, self._jobs, owner, row, due=due, now=now, last_error=note)

    def _forget(self, connection: sa.Connection, instance_id: int, name: str, groups: set[str], note: str) -> None:
        """Take confirmations back, so that the objects of these groups are sent once more."""
        uids = [
            item.sop_instance_uid
            for item in confirmations.results(connection, instance_id, name)
            if item.alternatives in groups
        ]
        where = (
            delivered_object.c.instance_id == instance_id,
            delivered_object.c.destination == name,
            delivered_object.c.sop_instance_uid.in_(uids),
        )
        connection.execute(
            sa.delete(delivered_object).where(*where, delivered_object.c.verdict == Verdict.NOT_NEEDED.value)
        )
        connection.execute(
            sa.update(delivered_object)
            .where(*where, delivered_object.c.verdict == Verdict.CONFIRMED.value)
            .values(verdict=Verdict.TRANSIENT.value, detail=note, at=self._clock(), committed_at=None)
        )

    def _limit(self, name: str) -> int:
        destination = self._destinations.get(name)
        return destination.commitment_attempts if isinstance(destination, DicomDestination) else 0

    def _pause_s(self, name: str) -> float:
        destination = self._destinations.get(name)
        return destination.commitment_timeout_s if isinstance(destination, DicomDestination) else 0.0


def _is_without_remedy(remedies: Iterable[tuple[Remedy, str]]) -> bool:
    return all(remedy is Remedy.NONE for remedy, _ in remedies)


def missing(connection: sa.Connection, instance_id: int, name: str) -> list[sa.Row[Any]]:
    """Results that a destination confirmed and has not committed itself to."""
    return [
        row
        for row in confirmations.results(connection, instance_id, name)
        if row.verdict == Verdict.CONFIRMED.value and row.committed_at is None
    ]


def requests(connection: sa.Connection, row: sa.Row[Any]) -> int:
    """How often a destination was asked in this round of a delivery."""
    query = (
        sa.select(sa.func.count())
        .select_from(commitment)
        .where(
            commitment.c.instance_id == row.instance_id,
            commitment.c.destination == row.destination,
            commitment.c.round == row.round,
            commitment.c.state.in_(COUNTED),
        )
    )
    return int(connection.execute(query).scalar_one())


def _delivery(connection: sa.Connection, known: sa.Row[Any]) -> sa.Row[Any] | None:
    return connection.execute(
        sa.select(delivery)
        .where(delivery.c.instance_id == known.instance_id, delivery.c.destination == known.destination)
        .with_for_update()
    ).one_or_none()
