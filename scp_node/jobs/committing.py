"""The part of a deliver job that asks for Storage Commitment once everything is stored; what answers is in `reports`.

A Transaction UID is in the database before the request goes out: whatever dies afterwards, the report finds it.
"""

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
import structlog

from config.destinations import Destination, DicomDestination
from scp_node.delivery import catalog, commitment
from scp_node.delivery.commitment import Asked, AskOutcome
from scp_node.delivery.retry import RetryRule
from scp_node.jobs import database, deliveries
from scp_node.jobs.breaker import Breakers
from scp_node.jobs.patience import Patience
from scp_node.jobs.queues import Jobs
from scp_node.jobs.reports import Reports, missing, requests
from scp_node.jobs.states import TransactionState
from scp_node.jobs.tables import commitment as transaction
from scp_node.jobs.tables import delivery
from scp_node.records import DeliveryState

log = structlog.get_logger(__name__)

_Request = tuple[str, list[tuple[str, str]]]
"""Transaction UID, and SOP Class UID and SOP Instance UID of each object."""


class Committing:
    """Asks for commitment; one request a job.

    Parameters
    ----------
    rule_for
        Returns the retry rule of a destination.
    """

    def __init__(
        self,
        engine: sa.Engine,
        jobs: Jobs,
        breakers: Breakers,
        *,
        destinations: Mapping[str, Destination],
        calling_ae_title: str,
        rule_for: Callable[[str], RetryRule],
        clock: Callable[[], float],
        random: Callable[[], float],
        patience: Patience,
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._breakers = breakers
        self._destinations = destinations
        self._calling_ae_title = calling_ae_title
        self._rule_for = rule_for
        self._clock = clock
        self._random = random
        self._patience = patience
        self._reports = Reports(engine, jobs, tuple(destinations.values()), clock=clock)

    def run(self, instance_id: int, name: str, job_id: str) -> str:
        """Make one request, or wait on; return the state it leaves the delivery in."""
        request = self._patience.call(lambda: self._prepare(instance_id, name, job_id))
        if isinstance(request, DeliveryState):
            return request.value
        transaction_uid, objects = request
        destination = self._destinations[name]
        if not isinstance(destination, DicomDestination):
            raise TypeError(f"destination {name} knows no commitment")
        try:
            outcome = commitment.ask(
                objects,
                destination,
                calling_ae_title=catalog.title(destination, self._calling_ae_title),
                transaction_uid=transaction_uid,
                on_report=self._reports.accept,
            )
        except Exception as error:  # top of a job: tried again until patience ends
            log.exception("asking for commitment failed", destination=name, instance=instance_id)
            outcome = AskOutcome(asked=Asked.UNREACHED, detail=f"error of this node: {type(error).__name__}")
        state = self._patience.call(lambda: self._conclude(instance_id, name, job_id, transaction_uid, outcome))
        log.info("commitment requested", destination=name, state=state.value, outcome=outcome.asked.value)
        return state.value

    def _prepare(self, instance_id: int, name: str, job_id: str) -> _Request | DeliveryState:
        with database.write(self._engine) as connection:
            owner = database.lock_instance(connection, instance_id)
            row = deliveries.current(connection, instance_id, name, job_id)
            if row is None or owner is None:
                return DeliveryState.CANCELLED
            now = self._clock()
            destination = self._destinations.get(name)
            lacking = missing(connection, instance_id, name)
            if not isinstance(destination, DicomDestination) or not destination.storage_commitment:
                # Switched off since: what is stored is delivered.
                return self._end_untold(connection, owner, row, DeliveryState.DELIVERED, row.last_error)
            if not lacking:
                return self._end_untold(connection, owner, row, DeliveryState.COMMITTED, "")
            for open_one in self._open(connection, row):
                if open_one.state == TransactionState.ASKED.value and open_one.deadline_at > now:
                    deliveries.put_off(connection, self._jobs, owner, row, due=open_one.deadline_at, now=now)
                    return DeliveryState.COMMITTING
                is_asked = open_one.state == TransactionState.ASKED.value
                # One that is only new was cut off by the end of its process: it may have been sent, or not.
                _change(connection, open_one, TransactionState.UNANSWERED if is_asked else TransactionState.VOID)
            asked = requests(connection, row)
            if asked >= destination.commitment_attempts:
                times = f"asked {asked} times" if asked > 1 else "asked once"
                note = f"stored, not committed: {times}, no report within {destination.commitment_timeout_s:g} s"
                return self._end_untold(connection, owner, row, DeliveryState.DELIVERED, note)
            transaction_uid = f"2.25.{uuid.uuid4().int}"
            connection.execute(
                sa.insert(transaction).values(
                    transaction_uid=transaction_uid,
                    instance_id=instance_id,
                    destination=name,
                    round=row.round,
                    state=TransactionState.NEW.value,
                    requested_at=now,
                    deadline_at=now + destination.commitment_timeout_s,
                )
            )
            return transaction_uid, [(item.sop_class_uid, item.sop_instance_uid) for item in lacking]

    def _conclude(
        self, instance_id: int, name: str, job_id: str, transaction_uid: str, outcome: AskOutcome
    ) -> DeliveryState:
        with database.write(self._engine) as connection:
            owner = database.lock_instance(connection, instance_id)
            row = deliveries.current(connection, instance_id, name, job_id)
            if outcome.asked is not Asked.UNREACHED:
                self._breakers.answered(connection, name)
            if row is None or owner is None:
                # The report was here first, or an operator's word was.
                return _state(connection, instance_id, name)
            present = connection.execute(
                sa.select(transaction).where(transaction.c.transaction_uid == transaction_uid)
            ).one()
            now = self._clock()
            match outcome.asked:
                case Asked.TAKEN:
                    _change(connection, present, TransactionState.ASKED)
                    deliveries.put_off(
                        connection,
                        self._jobs,
                        owner,
                        row,
                        due=present.deadline_at,
                        now=now,
                        setbacks=0,
                        last_error=outcome.detail or row.last_error,
                    )
                    return DeliveryState.COMMITTING
                case Asked.DECLINED:
                    _change(connection, present, TransactionState.DECLINED)
                    destination = self._destinations[name]
                    limit = destination.commitment_attempts if isinstance(destination, DicomDestination) else 0
                    if requests(connection, row) >= limit:
                        note = f"stored, not committed: {outcome.detail}"
                        return self._end(connection, owner, row, DeliveryState.DELIVERED, note)
                    epoch = self._breakers.epoch(connection, name)
                case _:
                    _change(connection, present, TransactionState.VOID)
                    epoch = self._breakers.failed(connection, name, instance_id, outcome.detail, is_reached=False)
            setbacks = row.setbacks + 1
            due = self._rule_for(name).next_attempt_at(
                attempts=setbacks, first_attempt_at=row.first_attempt_at, now=now, random=self._random
            )
            if due is None:
                note = f"stored, not committed: {outcome.detail}"
                return self._end(connection, owner, row, DeliveryState.DELIVERED, note)
            deliveries.put_off(
                connection,
                self._jobs,
                owner,
                row,
                due=due,
                now=now,
                last_error=outcome.detail,
                setbacks=setbacks,
                epoch=epoch,
            )
            return DeliveryState.COMMITTING

    def _end_untold(
        self, connection: sa.Connection, owner: sa.Row[Any], row: sa.Row[Any], state: DeliveryState, note: str
    ) -> DeliveryState:
        """End what needs no question: if it was on trial, nothing was heard of its destination."""
        self._breakers.untold(connection, row.destination, row.instance_id)
        return self._end(connection, owner, row, state, note)

    def _end(
        self, connection: sa.Connection, owner: sa.Row[Any], row: sa.Row[Any], state: DeliveryState, note: str
    ) -> DeliveryState:
        deliveries.end(connection, owner, row, state, note, now=self._clock())
        return state

    @staticmethod
    def _open(connection: sa.Connection, row: sa.Row[Any]) -> list[sa.Row[Any]]:
        return list(
            connection.execute(
                sa.select(transaction).where(
                    transaction.c.instance_id == row.instance_id,
                    transaction.c.destination == row.destination,
                    transaction.c.round == row.round,
                    transaction.c.state.in_((TransactionState.NEW.value, TransactionState.ASKED.value)),
                )
            ).all()
        )


def _state(connection: sa.Connection, instance_id: int, name: str) -> DeliveryState:
    query = sa.select(delivery.c.state).where(delivery.c.instance_id == instance_id, delivery.c.destination == name)
    return DeliveryState(connection.execute(query).scalar_one_or_none() or DeliveryState.CANCELLED)


def _change(connection: sa.Connection, row: sa.Row[Any], state: TransactionState) -> None:
    connection.execute(
        sa.update(transaction)
        .where(
            transaction.c.transaction_uid == row.transaction_uid,
            transaction.c.state != TransactionState.ANSWERED.value,
        )
        .values(state=state.value)
    )
