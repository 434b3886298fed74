"""Lets the durable engine look for jobs at little cost; everything that it decides stays its own.

The engine asks every queue several times a second, and each time puts three statements together anew: 1 ms of CPU and
more for the answer that nothing waits. That was nearly all that an idle node cost. Three of its questions are answered
more cheaply here:

- which parts of a queue are to be looked through (``dequeue_scopes``, asked first): none, while no row of the queue is
  enqueued. That is one statement, built once, and the index of waiting jobs holds the answer. Delayed jobs are no part
  of this: another thread of the engine enqueues them when they are due.
- how a queue is set up (``get_queue``), and whether this version is the newest one (``_is_latest_version``; it matters
  for jobs without a version, and this node adds none): the answer is kept for a while. It changes when a worker starts.

An engine of another kind is used as it is. tests/unit/jobs/test_polling.py names what is relied on.
"""

import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
import structlog

log = structlog.get_logger(__name__)

KEPT_S = 10.0


def spare(system: Any, *, clock: Callable[[], float] = time.monotonic) -> bool:  # noqa: ANN401 - a private class of the engine
    """Make polling cheap; return False and change nothing where the engine is not the one that is known.

    Parameters
    ----------
    system
        The durable engine's access to its tables, ``DBOS._sys_db``.
    clock
        Seconds.
    """
    try:
        if system.sharded:
            return False
        asked = (system.dequeue_scopes, system.get_queue, system._is_latest_version)
        waiting = _waiting(system)
    except AttributeError as error:
        log.warning("the durable engine has changed: looking for jobs costs more than it could", missing=str(error))
        return False
    scopes, queue, is_latest = asked

    def dequeue_scopes(name: str) -> list[str | None]:
        with system.engine.connect() as connection:
            is_empty = connection.execute(waiting, {"queue": name}).first() is None
        return [] if is_empty else list(scopes(name))

    system.dequeue_scopes = dequeue_scopes
    system.get_queue = _kept(queue, clock)
    system._is_latest_version = _kept(is_latest, clock)
    return True


def _waiting(system: Any) -> sa.Select[Any]:  # noqa: ANN401 - as above
    row = system.tables.workflow_status.c
    # The word and not a parameter: the index holds rows with this word.
    is_enqueued = row.status == sa.literal_column("'ENQUEUED'")
    one: sa.ColumnElement[int] = sa.literal_column("1")
    return (
        sa.select(one)
        .where(row.queue_name == sa.bindparam("queue"), is_enqueued, system._in_flight_status_prover())
        .limit(one)
    )


def _kept(ask: Callable[..., Any], clock: Callable[[], float]) -> Callable[..., Any]:
    """Ask once in a while for each first argument; named arguments make it another question, asked every time."""
    answers: dict[object, tuple[Any, float]] = {}

    def answer(first: object, *further: object, **named: object) -> Any:  # noqa: ANN401 - whatever is asked
        if named:
            return ask(first, *further, **named)
        present, until = answers.get(first, (None, 0.0))
        if present is None or clock() >= until:
            present = ask(first, *further)
            answers[first] = (present, clock() + KEPT_S)
        return present

    return answer
