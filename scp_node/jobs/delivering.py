"""The deliver job as the worker runs it: one attempt to send what one destination has not confirmed yet."""

import time
from collections.abc import Callable, Mapping, Sequence
from random import random as uniform
from typing import Any

import sqlalchemy as sa
import structlog

from config.base import Priority
from config.destinations import DeliverySettings, Destination
from scp_node.delivery import catalog
from scp_node.delivery.retry import RetryRule
from scp_node.jobs import database, trace
from scp_node.jobs.database import delivered_object, delivery, instance, result
from scp_node.jobs.patience import Patience
from scp_node.jobs.queues import Jobs, deliver_id
from scp_node.jobs.states import settle
from scp_node.records import DeliveryState, ObjectOutcome, Outgoing, Verdict
from scp_node.spool.store import Spool

log = structlog.get_logger(__name__)

_SETTLED = (Verdict.CONFIRMED.value, Verdict.NOT_NEEDED.value)
_ANSWERS = (Verdict.CONFIRMED, Verdict.PERMANENT, Verdict.NOT_TAKEN)
"""What goes into the trace: not every attempt of a week without an answer."""


class DeliveryWork:
    """Runs deliver jobs. A job ends after one attempt; the next one is another, delayed job.

    Parameters
    ----------
    calling_ae_title
        Of this node.
    clock, random
        Seconds since 1970; uniform in [0, 1).
    patience
        Waits for a database that is away.
    fence
        Called when a job begins; what it returns is called after each object, and raises what ends the job when
        another worker may have it by now.
    """

    def __init__(
        self,
        engine: sa.Engine,
        jobs: Jobs,
        spool: Spool,
        *,
        destinations: Sequence[Destination],
        settings: DeliverySettings,
        calling_ae_title: str,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = uniform,
        patience: Patience | None = None,
        fence: Callable[[], Callable[[], None]] = lambda: lambda: None,
    ) -> None:
        self._patience = patience or Patience()
        self._fence = fence
        self._engine = engine
        self._jobs = jobs
        self._spool = spool
        self._destinations: Mapping[str, Destination] = {one.name: one for one in destinations}
        self._settings = settings
        self._calling_ae_title = calling_ae_title
        self._clock = clock
        self._random = random

    def run(self, instance_id: int, name: str, job_id: str) -> str:
        """Make one attempt; return the state it leaves the delivery in, or ``stale`` when it is not the current job."""
        fence = self._fence()
        if not self._patience.call(lambda: self._begin(instance_id, name, job_id)):
            return "stale"
        destination = self._destinations.get(name)
        if destination is not None:
            self._attempt(instance_id, destination, fence)
        return self._patience.call(lambda: self._finish(instance_id, name, job_id)).value

    def _begin(self, instance_id: int, name: str, job_id: str) -> bool:
        with database.write(self._engine) as connection:
            row = _current(connection, instance_id, name, job_id)
            if row is None:
                return False
            if row.first_attempt_at is None:
                connection.execute(_update(instance_id, name).values(first_attempt_at=self._clock()))
            return True

    def _attempt(self, instance_id: int, destination: Destination, fence: Callable[[], None]) -> None:
        pending = self._patience.call(lambda: self._pending(instance_id, destination.name))
        if not pending:
            return

        def report(outcome: ObjectOutcome) -> None:
            # What was confirmed is remembered first, however long that takes: then nobody sends it again.
            self._patience.call(lambda: self._remember(instance_id, destination.name, outcome))
            fence()

        # Whatever a sender does wrong is an outcome like any other: a job that raises would never be tried again.
        try:
            catalog.send(
                pending,
                destination,
                calling_ae_title=self._calling_ae_title,
                report=report,
            )
        except Exception as error:  # top of a job: recorded and tried again until patience ends
            log.exception("delivery failed", destination=destination.name, instance=instance_id)
            for item in pending:
                detail = f"error of this node: {type(error).__name__}"
                outcome = ObjectOutcome(
                    sop_instance_uid=item.sop_instance_uid, verdict=Verdict.TRANSIENT, status=None, detail=detail
                )
                report(outcome)

    def _pending(self, instance_id: int, name: str) -> list[Outgoing]:
        with self._engine.connect() as connection:
            rows = _results(connection, instance_id, name)
        done = {row.alternatives for row in rows if row.verdict in _SETTLED}
        return [
            Outgoing(
                file=self._spool.path(row.file),
                sop_class_uid=row.sop_class_uid,
                sop_instance_uid=row.sop_instance_uid,
                transfer_syntax_uid=row.transfer_syntax_uid,
                group=row.alternatives,
                rank=row.rank,
            )
            for row in rows
            if row.alternatives not in done
        ]

    def _remember(self, instance_id: int, name: str, outcome: ObjectOutcome) -> None:
        """Commit what became of one object at once: with it confirmed, it is never sent again."""
        values = {
            "verdict": outcome.verdict.value,
            "status": outcome.status,
            "detail": outcome.detail,
            "at": self._clock(),
        }
        keys = ["instance_id", "destination", "sop_instance_uid"]
        with database.write(self._engine) as connection:
            statement = database.insert(connection, delivered_object).values(
                instance_id=instance_id, destination=name, sop_instance_uid=outcome.sop_instance_uid, **values
            )
            # A late word of an older attempt does not take a confirmation back.
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=keys, set_=values, where=delivered_object.c.verdict.not_in(_SETTLED)
                )
            )
            if outcome.verdict in _ANSWERS:
                self._trace(
                    connection,
                    trace.Event.ACKNOWLEDGED,
                    instance_id,
                    destination=name,
                    uid=outcome.sop_instance_uid,
                    verdict=outcome.verdict.value,
                    status=outcome.status,
                )

    @staticmethod
    def _trace(connection: sa.Connection, event: trace.Event, instance_id: int, **detail: object) -> None:
        uid = connection.execute(sa.select(instance.c.sop_instance_uid).where(instance.c.id == instance_id))
        trace.record(connection, event, uid.scalar_one(), instance_id=instance_id, **detail)

    def _finish(self, instance_id: int, name: str, job_id: str) -> DeliveryState:
        with database.write(self._engine) as connection:
            # The instance first, as everywhere: two transactions that lock in different orders could block each other.
            instance_row = database.lock_instance(connection, instance_id)
            row = _current(connection, instance_id, name, job_id)
            if row is None or instance_row is None:
                # Cancelled, or begun anew, during the attempt: what was confirmed stays remembered.
                return DeliveryState.CANCELLED
            state, error = self._judge(connection, instance_id, name)
            attempts = int(row.attempts) + 1
            values: dict[str, Any] = {"attempts": attempts, "next_attempt_at": None, "updated_at": self._clock()}
            due: float | None = None
            if state is DeliveryState.WAITING:
                due = self._due(row, attempts, name)
                if due is None:
                    patience_s = self._destinations[name].patience_s
                    state, error = DeliveryState.REFUSED, f"gave up after {patience_s:g} s: {error}"
            if due is not None:
                following = deliver_id(instance_id, name, row.round, attempts + 1)
                values |= {"job_id": following, "next_attempt_at": due}
                self._jobs.deliver(
                    connection,
                    following,
                    instance_id,
                    name,
                    Priority(instance_row.priority),
                    place=instance_row.place,
                    delay_s=max(0.0, due - self._clock()),
                )
            connection.execute(_update(instance_id, name).values(state=state.value, last_error=error, **values))
            if state is not DeliveryState.WAITING:
                ended = {"destination": name, "state": state.value, "attempts": attempts}
                self._trace(connection, trace.Event.DELIVERY_ENDED, instance_id, **ended)
            settle(connection, instance_row)
        log.info(
            "delivery attempted",
            sop_instance_uid=instance_row.sop_instance_uid,
            destination=name,
            state=state.value,
            attempts=attempts,
            error=error or None,
        )
        return state

    def _due(self, row: sa.Row[Any], attempts: int, name: str) -> float | None:
        rule = RetryRule(
            first_delay_s=self._settings.first_delay_s,
            maximum_delay_s=self._settings.maximum_delay_s,
            patience_s=self._destinations[name].patience_s,
        )
        return rule.next_attempt_at(
            attempts=attempts, first_attempt_at=row.first_attempt_at, now=self._clock(), random=self._random
        )

    def _judge(self, connection: sa.Connection, instance_id: int, name: str) -> tuple[DeliveryState, str]:
        if name not in self._destinations:
            return DeliveryState.REFUSED, f"destination {name} is not configured any more"
        groups: dict[str, list[sa.Row[Any]]] = {}
        for row in _results(connection, instance_id, name):
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
        # A peer that takes the pictures and knows no SR has all that it takes; one that takes nothing refuses.
        if Verdict.PERMANENT in states or Verdict.CONFIRMED not in states:
            return DeliveryState.REFUSED, error
        return DeliveryState.DELIVERED, error


def _current(connection: sa.Connection, instance_id: int, name: str, job_id: str) -> sa.Row[Any] | None:
    row = connection.execute(
        sa.select(delivery)
        .where(delivery.c.instance_id == instance_id, delivery.c.destination == name)
        .with_for_update()
    ).one_or_none()
    if row is None or row.job_id != job_id or row.state != DeliveryState.WAITING.value:
        return None
    return row


def _update(instance_id: int, name: str) -> sa.Update:
    return sa.update(delivery).where(delivery.c.instance_id == instance_id, delivery.c.destination == name)


def _results(connection: sa.Connection, instance_id: int, name: str) -> Sequence[sa.Row[Any]]:
    """All results of an instance, each with the destination's last word (None: not asked yet)."""
    return connection.execute(
        sa.select(result, delivered_object.c.verdict, delivered_object.c.detail.label("outcome_detail"))
        .outerjoin(
            delivered_object,
            sa.and_(
                delivered_object.c.instance_id == result.c.instance_id,
                delivered_object.c.sop_instance_uid == result.c.sop_instance_uid,
                delivered_object.c.destination == name,
            ),
        )
        .where(result.c.instance_id == instance_id, result.c.is_superseded.is_(sa.false()))
        .order_by(result.c.position)
    ).all()
