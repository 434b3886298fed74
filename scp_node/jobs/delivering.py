"""The deliver job as the worker runs it: one attempt to send what one destination has not confirmed yet."""

import time
from collections.abc import Callable, Mapping, Sequence
from random import random as uniform
from typing import Any

import sqlalchemy as sa
import structlog

from config.destinations import DeliverySettings, Destination, DicomDestination
from scp_node.delivery import catalog
from scp_node.delivery.keeping import Associations
from scp_node.delivery.retry import RetryRule
from scp_node.jobs import confirmations, database, deliveries
from scp_node.jobs.breaker import Breakers
from scp_node.jobs.committing import Committing
from scp_node.jobs.patience import Patience
from scp_node.jobs.queues import Jobs
from scp_node.records import DeliveryState, ObjectOutcome, Outgoing, Verdict
from scp_node.spool.store import Spool

log = structlog.get_logger(__name__)

STALE = "stale"


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
        self._associations = Associations()
        self._breakers = Breakers(settings, clock=clock, random=random)
        self._committing = Committing(
            engine,
            jobs,
            self._breakers,
            destinations=self._destinations,
            calling_ae_title=calling_ae_title,
            rule_for=self._rule,
            clock=clock,
            random=random,
            patience=self._patience,
        )

    def close(self) -> None:
        """Release the associations that wait for another job."""
        self._associations.close()

    def run(self, instance_id: int, name: str, job_id: str) -> str:
        """Make one attempt; return the state it leaves the delivery in, or ``stale`` when it is not the current job."""
        try:
            return self._run(instance_id, name, job_id)
        except Exception as error:  # top of a job: one that ends with an error would never be tried again
            log.exception("delivery failed", destination=name, instance=instance_id)
            if name not in self._destinations:
                raise
            why = f"error of this node: {type(error).__name__}"
            return self._patience.call(lambda: self._after_error(instance_id, name, job_id, why))

    def _run(self, instance_id: int, name: str, job_id: str) -> str:
        fence = self._fence()
        present = self._patience.call(lambda: self._begin(instance_id, name, job_id))
        if present is None:
            return STALE
        state, is_refused = present
        if is_refused:
            left_in = self._patience.call(lambda: self._put_off(instance_id, name, job_id))
            if left_in is not None:
                return left_in
        if state is DeliveryState.COMMITTING:
            return self._committing.run(instance_id, name, job_id)
        destination = self._destinations.get(name)
        outcomes = [] if destination is None else self._attempt(instance_id, destination, fence)
        return self._patience.call(lambda: self._finish(instance_id, name, job_id, outcomes)).value

    def _begin(self, instance_id: int, name: str, job_id: str) -> tuple[DeliveryState, bool] | None:
        """Return the state of the delivery and whether its destination's breaker is open; None: not the current job."""
        with database.write(self._engine) as connection:
            row = deliveries.current(connection, instance_id, name, job_id)
            if row is None:
                return None
            if row.first_attempt_at is None:
                deliveries.change(connection, row, first_attempt_at=self._clock())
            is_refused = name in self._destinations and (
                self._breakers.refusal(connection, name, instance_id) is not None
            )
            return DeliveryState(row.state), is_refused

    def _after_error(self, instance_id: int, name: str, job_id: str, why: str) -> str:
        """Count an attempt that an error of this node has ended; the next one is due as after any that failed."""
        with database.write(self._engine) as connection:
            owner = database.lock_instance(connection, instance_id)
            row = deliveries.current(connection, instance_id, name, job_id)
            if row is None or owner is None:
                return STALE
            begun_at = self._clock() if row.first_attempt_at is None else row.first_attempt_at
            deliveries.change(connection, row, attempts=row.attempts + 1, first_attempt_at=begun_at)
            row = deliveries.current(connection, instance_id, name, job_id)
            assert row is not None  # noqa: S101 - locked above
            epoch = self._breakers.epoch(connection, name)
            return self._wait(connection, owner, row, why, epoch=epoch, is_progress=False).value

    def _put_off(self, instance_id: int, name: str, job_id: str) -> str | None:
        """Delay a delivery whose destination is down, without an association.

        None: it is to be attempted. The destination came back meanwhile, or patience is over: a node that was off for
        so long, or whose clock was put forward, gives nothing up that it has not tried since.
        """
        with database.write(self._engine) as connection:
            owner = database.lock_instance(connection, instance_id)
            row = deliveries.current(connection, instance_id, name, job_id)
            if row is None or owner is None:
                return STALE
            refusal = self._breakers.refusal(connection, name, instance_id)
            if refusal is None:
                return None
            now, end = self._clock(), row.first_attempt_at + self._destinations[name].patience_s
            if now >= end:
                return None
            # When it is back, `probing` hastens this; the delay is for the case that nobody does.
            due = min(end, now + self._settings.maximum_delay_s * (0.5 + 0.5 * self._random()))
            deliveries.put_off(
                connection,
                self._jobs,
                owner,
                row,
                due=due,
                now=now,
                epoch=refusal.epoch,
                last_error=f"waits until the destination is back: {refusal.last_error}",
            )
            return str(row.state)

    def _attempt(self, instance_id: int, destination: Destination, fence: Callable[[], None]) -> list[ObjectOutcome]:
        def read() -> list[Outgoing]:
            with self._engine.connect() as connection:
                return confirmations.pending(connection, self._spool, instance_id, destination.name)

        def read_source() -> confirmations.Source | None:
            with self._engine.connect() as connection:
                return confirmations.source(connection, instance_id)

        outcomes: list[ObjectOutcome] = []
        pending = self._patience.call(read)
        source = self._patience.call(read_source) if pending else None
        if source is None:
            return outcomes
        heard: list[list[Outgoing]] = []

        unwritten: list[ObjectOutcome] = []

        def report(outcome: ObjectOutcome) -> None:
            outcomes.append(outcome)
            unwritten.append(outcome)
            if outcome.verdict is Verdict.NOT_NEEDED:
                # It follows from the confirmation beside it: worth no transaction of its own.
                return
            # What was confirmed is remembered first, however long that takes: then nobody sends it again.
            heard[:] = [self._patience.call(lambda: self._remember(source, destination.name, unwritten))]
            unwritten.clear()
            fence()

        def is_wanted(item: Outgoing) -> bool:
            # A worker that was silent for too long shares the job with its heir until it notices: each looks again
            # right before it sends, so that what one has brought the other does not bring again. What was read with
            # the outcome before is that look.
            fence()
            wanted = heard.pop() if heard else self._patience.call(read)
            return any(one.group == item.group for one in wanted)

        # Whatever a sender does wrong is an outcome like any other: a job that raises would never be tried again.
        try:
            catalog.send(
                pending,
                destination,
                calling_ae_title=self._calling_ae_title,
                report=report,
                is_wanted=is_wanted,
                associations=self._associations,
                is_more=lambda: self._is_more(instance_id, destination.name),
            )
        except Exception as error:  # top of a job: recorded and tried again until patience ends
            log.exception("delivery failed", destination=destination.name, instance=instance_id)
            for item in pending:
                detail = f"error of this node: {type(error).__name__}"
                outcome = ObjectOutcome(
                    sop_instance_uid=item.sop_instance_uid, verdict=Verdict.TRANSIENT, status=None, detail=detail
                )
                report(outcome)
        if unwritten:
            self._patience.call(lambda: self._remember(source, destination.name, unwritten))
        return outcomes

    def _remember(self, source: confirmations.Source, name: str, outcomes: Sequence[ObjectOutcome]) -> list[Outgoing]:
        """Write down outcomes; return what the destination still lacks."""
        with database.write(self._engine) as connection:
            for outcome in outcomes:
                confirmations.remember(connection, source, name, outcome, self._clock())
            return confirmations.pending(connection, self._spool, source.instance_id, name)

    def _is_more(self, instance_id: int, name: str) -> bool:
        try:
            with self._engine.connect() as connection:
                return deliveries.is_more(connection, instance_id, name, now=self._clock())
        except sa.exc.SQLAlchemyError:
            # Everything is sent by now: not knowing costs the next delivery an association of its own.
            return False

    def _finish(self, instance_id: int, name: str, job_id: str, outcomes: Sequence[ObjectOutcome]) -> DeliveryState:
        with database.write(self._engine) as connection:
            # The instance first, as everywhere: two transactions that lock in different orders could block each other.
            owner = database.lock_instance(connection, instance_id)
            row = deliveries.current(connection, instance_id, name, job_id)
            if row is None or owner is None:
                # Cancelled, or begun anew, during the attempt: what was confirmed stays remembered.
                return DeliveryState.CANCELLED
            attempts = int(row.attempts) + 1
            deliveries.change(connection, row, attempts=attempts)
            epoch, has_got_through = 0, confirmations.got_through(outcomes)
            if name not in self._destinations:
                state, error = DeliveryState.REFUSED, f"destination {name} is not configured any more"
            else:
                state, error = confirmations.judge(connection, instance_id, name)
                epoch = self._tell_breaker(connection, row, state, error, outcomes)
            if state is DeliveryState.WAITING:
                state = self._wait(connection, owner, row, error, epoch=epoch, is_progress=has_got_through)
            elif state is DeliveryState.DELIVERED and self._is_to_be_committed(name):
                state = DeliveryState.COMMITTING
                now = self._clock()
                deliveries.put_off(
                    connection,
                    self._jobs,
                    owner,
                    row,
                    due=now,
                    now=now,
                    state=state.value,
                    last_error=error,
                    # Asking has a patience of its own: the objects are stored.
                    first_attempt_at=now,
                    setbacks=0,
                )
            else:
                deliveries.end(connection, owner, row, state, error, now=self._clock())
        log.info(
            "delivery attempted",
            sop_instance_uid=owner.sop_instance_uid,
            destination=name,
            state=state.value,
            attempts=attempts,
            error=error or None,
        )
        return state

    def _tell_breaker(
        self,
        connection: sa.Connection,
        row: sa.Row[Any],
        state: DeliveryState,
        error: str,
        outcomes: Sequence[ObjectOutcome],
    ) -> int:
        """Return the breaker's epoch, which a delay is kept with."""
        name = row.destination
        if confirmations.got_through(outcomes):
            if self._breakers.answered(connection, name):
                log.info("destination is back", destination=name)
        elif outcomes and state is DeliveryState.WAITING:
            is_reached = any(outcome.is_reached for outcome in outcomes)
            return self._breakers.failed(connection, name, row.instance_id, error, is_reached=is_reached)
        elif state is not DeliveryState.WAITING:
            self._breakers.untold(connection, name, row.instance_id)
        return self._breakers.epoch(connection, name)

    def _wait(
        self,
        connection: sa.Connection,
        owner: sa.Row[Any],
        row: sa.Row[Any],
        error: str,
        *,
        epoch: int,
        is_progress: bool,
    ) -> DeliveryState:
        setbacks = 1 if is_progress else row.setbacks + 1
        now = self._clock()
        due = self._rule(row.destination).next_attempt_at(
            attempts=setbacks, first_attempt_at=row.first_attempt_at, now=now, random=self._random
        )
        if due is None:
            return self._give_up(connection, owner, row, error)
        deliveries.put_off(
            connection, self._jobs, owner, row, due=due, now=now, last_error=error, setbacks=setbacks, epoch=epoch
        )
        return DeliveryState(row.state)

    def _give_up(self, connection: sa.Connection, owner: sa.Row[Any], row: sa.Row[Any], error: str) -> DeliveryState:
        why = f"gave up after {self._destinations[row.destination].patience_s:g} s: {error}"
        # Stored is stored: only its commitment was never heard of.
        is_stored = row.state == DeliveryState.COMMITTING.value
        state = DeliveryState.DELIVERED if is_stored else DeliveryState.REFUSED
        deliveries.end(connection, owner, row, state, f"not committed: {why}" if is_stored else why, now=self._clock())
        return state

    def _rule(self, name: str) -> RetryRule:
        return RetryRule(
            first_delay_s=self._settings.first_delay_s,
            maximum_delay_s=self._settings.maximum_delay_s,
            patience_s=self._destinations[name].patience_s,
        )

    def _is_to_be_committed(self, name: str) -> bool:
        destination = self._destinations.get(name)
        return isinstance(destination, DicomDestination) and destination.storage_commitment
