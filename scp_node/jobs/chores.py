"""What one process does for all now and then: remove, sweep, seal. Whoever comes first takes a chore for a while."""

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
import structlog

from scp_node.jobs import database
from scp_node.jobs.tables import chore

log = structlog.get_logger(__name__)

_LOOK_S = 10.0
_STOP_S = 10.0
_HELD_S = 900.0
"""Longer than any run takes. A process that died in one keeps the others from it that long."""
_AHEAD_S = _HELD_S
"""More than clocks differ, and more than a turn ends later than somebody asks. A time further ahead than that is of a
clock that was wrong and has been set: it must not keep everybody from a chore until it comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chore:
    """One of them; ``run`` may be interrupted at any point, and started over."""

    name: str
    every_s: float
    run: Callable[[], int]


class Chores:
    """A thread that looks after chores; several processes that share a database share the chores.

    Parameters
    ----------
    stop
        Set by `stop`; long runs look at it.
    """

    def __init__(self, engine: sa.Engine, chores: Sequence[Chore], *, stop: threading.Event) -> None:
        self._engine = engine
        self._chores = chores
        self._me = uuid.uuid4().hex
        self._stop = stop
        self._thread = threading.Thread(target=self._run, name="chores", daemon=True)

    def start(self) -> None:
        """Begin to look after them."""
        self._thread.start()

    def stop(self) -> None:
        """Let the one that runs end soon, and begin none any more."""
        self._stop.set()
        if self._thread.is_alive():
            # A run that waits for a database that is away ends with the process.
            self._thread.join(_STOP_S)

    def run_due(self) -> dict[str, int]:
        """Run what is due and nobody else runs; return what each returned."""
        done: dict[str, int] = {}
        for one in self._chores:
            if self._stop.is_set() or not self._claim(one):
                continue
            began = time.monotonic()
            try:
                done[one.name] = one.run()
            except Exception:  # one that fails is tried again at its next turn, and keeps no other from its own
                log.exception("chore failed", chore=one.name)
            self._release(one)
            log.debug("chore done", chore=one.name, count=done.get(one.name), s=round(time.monotonic() - began, 2))
        return done

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_S):
            try:
                self.run_due()
            except Exception:  # top of a thread: a database that is away for a while must not end it
                log.warning("chores wait", exc_info=True)

    def _claim(self, one: Chore) -> bool:
        with database.write(self._engine) as connection:
            now = database.now(connection)
            values = {"holder": self._me, "held_until": now + _HELD_S}
            is_free = sa.or_(
                chore.c.held_until < now, chore.c.holder == self._me, chore.c.held_until > now + _HELD_S + _AHEAD_S
            )
            is_due = sa.or_(
                chore.c.ended_at.is_(None), chore.c.ended_at <= now - one.every_s, chore.c.ended_at > now + _AHEAD_S
            )
            claimed = connection.execute(
                database.insert(connection, chore)
                .values(name=one.name, **values)
                .on_conflict_do_update(index_elements=["name"], set_=values, where=sa.and_(is_free, is_due))
                .returning(chore.c.name)
            )
            return claimed.one_or_none() is not None

    def _release(self, one: Chore) -> None:
        with database.write(self._engine) as connection:
            connection.execute(
                sa.update(chore)
                .where(chore.c.name == one.name, chore.c.holder == self._me)
                .values(holder=None, held_until=0.0, ended_at=database.now(connection))
            )
