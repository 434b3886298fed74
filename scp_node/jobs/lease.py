"""Which workers live: each renews a row; the jobs of one that does not are taken over by the others."""

import os
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
import structlog

from scp_node.jobs import database
from scp_node.jobs.database import lease

log = structlog.get_logger(__name__)

TTL_S = 15.0
BEAT_S = 5.0
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
    owners
        Returns the ids of workers that own running jobs.
    take_over
        Makes the jobs of these workers run again, here or elsewhere.
    on_beat
        Called after each beat, for what else is to be looked after now and then.
    """

    def __init__(
        self,
        engine: sa.Engine,
        worker: WorkerId,
        *,
        owners: Callable[[], Collection[str]],
        take_over: Callable[[list[str]], None],
        on_beat: Callable[[], None] = lambda: None,
        ttl_s: float = TTL_S,
        beat_s: float = BEAT_S,
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._owners = owners
        self._take_over = take_over
        self._on_beat = on_beat
        self._ttl_s = ttl_s
        self._beat_s = beat_s
        self._draining = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def register(self) -> None:
        """Take the lease; before the first job of this worker runs."""
        with database.write(self._engine) as connection:
            now = database.now(connection)
            values = {"beat_at": now}
            connection.execute(
                database.insert(connection, lease)
                .values(executor_id=str(self._worker), started_at=now, **values)
                .on_conflict_do_update(index_elements=["executor_id"], set_=values)
            )

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
        return sorted(one for one in others if one not in alive or self._worker.knows_dead(one))

    def drain(self) -> None:
        """Go on renewing, so that running work stays this worker's; take nothing over any more."""
        self._draining = True

    def stop(self) -> None:
        """Give the lease back: what this worker leaves behind can be taken over at once."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with database.write(self._engine) as connection:
            connection.execute(sa.delete(lease).where(lease.c.executor_id == str(self._worker)))
            connection.execute(sa.delete(lease).where(lease.c.beat_at < database.now(connection) - _FORGET_S))

    def _run(self) -> None:
        while not self._stop.wait(self._beat_s):
            try:
                self.beat()
            except Exception:  # top of a thread: a database that is away for a while must not end it
                log.exception("lease beat failed")
