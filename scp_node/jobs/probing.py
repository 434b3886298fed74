"""Looks after destinations that are down: asks whether they are back, and lets what waits for them go on then.

One thread per worker looks at the breakers; each question has a thread of its own, since one may take all of a
destination's time limit. Whoever dies while asking is replaced when its claim has run out.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence

import sqlalchemy as sa
import structlog

from config.destinations import DeliverySettings, Destination
from scp_node.delivery import catalog
from scp_node.delivery.records import EchoOutcome
from scp_node.jobs import database
from scp_node.jobs.breaker import Breakers
from scp_node.jobs.queues import Jobs
from scp_node.jobs.recovery import put_first
from scp_node.jobs.states import wants_contact
from scp_node.jobs.tables import breaker, delivery

log = structlog.get_logger(__name__)

_LOOK_S = 0.5
_TROUBLE_S = 5.0
_AT_ONCE = 50
"""Deliveries hastened per look: faster than any destination takes them, and no burst on the database. How many run at a
time is the queue's affair."""
_CLAIM_TIMEOUTS = 4.0
"""A question is over within this many time limits of its destination: connecting, association, answer, release."""
_FOLDER_LIMIT_S = 60.0
_CLOSE_S = 5.0


class Probing:
    """The thread that looks after destinations that are down.

    Parameters
    ----------
    calling_ae_title
        Of this node.
    clock
        Seconds since 1970.
    """

    def __init__(
        self,
        engine: sa.Engine,
        jobs: Jobs,
        destinations: Sequence[Destination],
        settings: DeliverySettings,
        *,
        calling_ae_title: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._destinations: Mapping[str, Destination] = {one.name: one for one in destinations}
        self._calling_ae_title = calling_ae_title
        self._breakers = Breakers(settings, clock=clock)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probing", daemon=True)
        self._asking: dict[str, threading.Thread] = {}

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a question that is under way ends by itself, or with the process."""
        self._stop.set()
        # Not for ever, and not for each of many: with the database away, a worker's connections wait for it.
        deadline = time.monotonic() + _CLOSE_S
        for thread in (self._thread, *self._asking.values()):
            if thread.is_alive():
                thread.join(max(deadline - time.monotonic(), 0.0))

    def look(self) -> None:
        """Look once."""
        if not self._destinations:
            return
        with self._engine.connect() as connection:
            longest_s = max(self._claim_s(name) for name in self._destinations)
            due = self._breakers.due(connection, list(self._destinations), longest_claim_s=longest_s)
            resuming = list(
                connection.execute(
                    sa.select(breaker.c.destination).where(
                        breaker.c.is_resuming, breaker.c.destination.in_(list(self._destinations))
                    )
                ).scalars()
            )
        self._asking = {name: thread for name, thread in self._asking.items() if thread.is_alive()}
        for row in due:
            if row.destination in self._asking:
                # A share that hangs: one question that never ends is enough.
                continue
            with database.write(self._engine) as connection:
                is_mine = self._breakers.claim(connection, row, self._claim_s(row.destination))
            if is_mine:
                thread = threading.Thread(target=self._ask, args=(row.destination,), name="probe", daemon=True)
                self._asking[row.destination] = thread
                thread.start()
        for name in resuming:
            self.resume(name)

    def ask(self, name: str) -> EchoOutcome:
        """Ask a destination whether it is back, and do what follows."""
        destination = self._destinations[name]
        outcome = catalog.echo(destination, self._calling_ae_title)
        with database.write(self._engine) as connection:
            trial = self._breakers.probed(
                connection,
                name,
                is_reachable=outcome.is_reachable,
                is_present=outcome.is_present,
                detail=outcome.detail,
            )
        log.info("destination asked", destination=name, is_reachable=outcome.is_reachable, has_trial=trial is not None)
        if trial is not None:
            with self._engine.connect() as connection:
                job_id = connection.execute(
                    sa.select(delivery.c.job_id).where(delivery.c.instance_id == trial, delivery.c.destination == name)
                ).scalar_one_or_none()
            if job_id is not None:
                # Before the crowd that waits with it: behind thousands that are only put off again, the trial would be
                # over before its turn comes.
                with database.write(self._engine) as connection:
                    put_first(connection, job_id)
                self._jobs.hasten(job_id)
        return outcome

    def resume(self, name: str) -> int:
        """Hasten some of the deliveries that were delayed before the destination came back; return how many."""
        older = (
            sa.select(delivery.c.instance_id, delivery.c.job_id)
            .join(breaker, breaker.c.destination == delivery.c.destination)
            .where(
                delivery.c.destination == name,
                wants_contact(),
                delivery.c.next_attempt_at.is_not(None),
                delivery.c.epoch < breaker.c.epoch,
            )
            .order_by(delivery.c.next_attempt_at, delivery.c.instance_id)
            .limit(_AT_ONCE)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(older).all()
        # First the job, then the row: who dies in between leaves a row that is looked at again.
        for row in rows:
            self._jobs.hasten(row.job_id)
        with database.write(self._engine) as connection:
            for row in rows:
                connection.execute(
                    sa.update(delivery)
                    .where(
                        delivery.c.instance_id == row.instance_id,
                        delivery.c.destination == name,
                        delivery.c.job_id == row.job_id,
                    )
                    .values(next_attempt_at=None, setbacks=0)
                )
            if not rows:
                connection.execute(sa.update(breaker).where(breaker.c.destination == name).values(is_resuming=False))
        if rows:
            log.info("deliveries resumed", destination=name, deliveries=len(rows))
        return len(rows)

    def _claim_s(self, name: str) -> float:
        return _CLAIM_TIMEOUTS * float(getattr(self._destinations[name], "timeout_s", _FOLDER_LIMIT_S))

    def _ask(self, name: str) -> None:
        try:
            self.ask(name)
        except Exception:  # top of a thread: asked again when the claim has run out
            log.exception("asking a destination failed", destination=name)

    def _run(self) -> None:
        pause_s = _LOOK_S
        while not self._stop.wait(pause_s):
            pause_s = _LOOK_S
            try:
                self.look()
            except Exception:  # top of a thread: a database that is away for a while must not end it
                log.exception("looking after destinations failed")
                pause_s = _TROUBLE_S
