"""Which workers live: each renews a row; the jobs of one that does not are taken over by the others."""

import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
import structlog

from scp_node.jobs import database
from scp_node.jobs.tables import lease

log = structlog.get_logger(__name__)

_BEATS_PER_TTL = 3.0
_FORGET_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerId:
    """Who a worker is, new at every start.

    Parameters
    ----------
    kernel
        Identifies the running kernel and the process namespace: only within it does ``pid`` mean anything. Empty where
        that cannot be known.
    life
        Random.
    """

    host: str
    pid: int
    kernel: str
    life: str

    @classmethod
    def new(cls) -> "WorkerId":
        """Make the identity of this process."""
        host = socket.gethostname().replace(":", "-")
        return cls(host=host, pid=os.getpid(), kernel=_kernel(), life=uuid.uuid4().hex[:12])

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.kernel}:{self.life}"

    def knows_dead(self, other: str) -> bool:
        """Whether another worker is certainly gone: same kernel, and no such process.

        Spares a node that is started again the wait for its predecessor's lease to run out.
        """
        parts = other.split(":")
        if len(parts) != 4 or not self.kernel or parts[2] != self.kernel or parts[3] == self.life:
            return False
        if int(parts[1]) == self.pid:
            return True
        try:
            os.kill(int(parts[1]), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


class LeaseLostError(BaseException):
    """The worker was silent for so long that others may have its job by now; it leaves it.

    Not an Exception, on purpose: the durable engine records exceptions as the job's outcome, and this is none.
    """


def _kernel() -> str:
    if sys.platform != "linux":
        return ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return ""
    return f"{boot}-{namespace}"


class Lease:
    """The lease of this worker, and its eye on those of others.

    Parameters
    ----------
    ttl_s
        Who is silent for longer is dead, by the clock of the database.
    owners
        Returns the ids of workers that own running jobs.
    take_over
        Makes the jobs of these workers run again, here or elsewhere.
    on_beat
        Called after each beat, for what else is to be looked after now and then.
    clock
        Seconds that go on while this process is paused.
    """

    def __init__(
        self,
        engine: sa.Engine,
        worker: WorkerId,
        *,
        ttl_s: float,
        owners: Callable[[], Collection[str]],
        take_over: Callable[[list[str]], object],
        on_beat: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._owners = owners
        self._take_over = take_over
        self._on_beat = on_beat
        self._ttl_s = ttl_s
        self._clock = clock
        self._renewed_at = clock()
        self._losses = 0
        self._trusts_at = self._renewed_at
        self._draining = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def register(self) -> None:
        """Take the lease; before the first job of this worker runs."""
        with database.write(self._engine) as connection:
            # Before the database's own time is read: the lease ends here no later than others see it end.
            began = self._clock()
            now = database.now(connection)
            values = {"beat_at": now}
            connection.execute(
                database.insert(connection, lease)
                .values(executor_id=str(self._worker), started_at=now, **values)
                .on_conflict_do_update(index_elements=["executor_id"], set_=values)
            )
        if began - self._renewed_at > self._ttl_s:
            self._losses += 1
            # The database was away, or this process was paused: others may have been silent for the same reason.
            self._trusts_at = began + self._ttl_s
        self._renewed_at = began

    def fence(self) -> Callable[[], None]:
        """Return a check for work that begins now: it raises LeaseLostError once others may have taken it over."""
        losses = self._losses

        def check() -> None:
            if self._losses != losses or self._clock() - self._renewed_at > self._ttl_s:
                raise LeaseLostError

        return check

    def start(self) -> None:
        """Look after the dead once, now, then beat until stopped."""
        self.beat()
        self._thread.start()

    def beat(self) -> None:
        """Renew the lease and take over the jobs of workers without one."""
        self.register()
        if self._draining:
            return
        dead = self.dead()
        if dead:
            log.warning("taking over jobs of dead workers", workers=dead)
            self._take_over(dead)
        self._on_beat()

    def dead(self) -> list[str]:
        """Ids of workers that own running jobs and do not live."""
        with self._engine.connect() as connection:
            limit = database.now(connection) - self._ttl_s
            alive = set(connection.execute(sa.select(lease.c.executor_id).where(lease.c.beat_at > limit)).scalars())
        others = set(self._owners()) - {str(self._worker)}
        is_trusted = self._clock() >= self._trusts_at
        return sorted(one for one in others if (is_trusted and one not in alive) or self._worker.knows_dead(one))

    def drain(self) -> None:
        """Go on renewing, so that running work stays this worker's; take nothing over any more."""
        self._draining = True

    def stop(self) -> None:
        """Give the lease back: what this worker leaves behind can be taken over at once."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            with database.write(self._engine) as connection:
                connection.execute(sa.delete(lease).where(lease.c.executor_id == str(self._worker)))
                connection.execute(sa.delete(lease).where(lease.c.beat_at < database.now(connection) - _FORGET_S))
        except sa.exc.SQLAlchemyError as error:
            # It runs out by itself.
            log.warning("lease not given back", error=type(error).__name__)

    def _run(self) -> None:
        while not self._stop.wait(self._ttl_s / _BEATS_PER_TTL):
            try:
                self.beat()
            except Exception:  # top of a thread: a database that is away for a while must not end it
                log.exception("lease beat failed")
