"""A database that is away for a while: which errors say so, and how work of a worker waits until it answers again.

A receiver never waits here: it answers 0xA700 and its sender keeps the object.
"""

import sqlite3
import threading
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
import structlog

log = structlog.get_logger(__name__)

_Answer = TypeVar("_Answer")

_PAUSE_S = 0.5

# PostgreSQL, Appendix A: 08 connection exception, 40 transaction rollback, 53 insufficient resources (disk full, too
# many connections), 55P03 lock not available, 57 operator intervention (shutdown, still starting), 58 system error.
_POSTGRESQL_CLASSES = ("08", "40", "53", "57", "58")
_POSTGRESQL_STATES = ("25006", "25P03", "55P03")
"""Read only: a standby that is about to take over. Ended while idle in a transaction. Lock not available."""

_SQLITE_CODES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
    }
)


class WorkStoppedError(BaseException):
    """The worker stops while the database is away: the job stays unfinished and is taken up by the next one.

    Not an Exception, on purpose: the durable engine records exceptions as the job's outcome, and this is none.
    """


def is_outage(error: BaseException) -> bool:
    """Whether the same transaction may succeed later, without anybody changing the program or its data."""
    if isinstance(error, sa.exc.TimeoutError):  # no connection of the pool became free
        return True
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        # The lower byte is the primary code: SQLITE_IOERR_WRITE, SQLITE_BUSY_SNAPSHOT and the like.
        return (getattr(cause, "sqlite_errorcode", None) or 0) & 0xFF in _SQLITE_CODES
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        return state.startswith(_POSTGRESQL_CLASSES) or state in _POSTGRESQL_STATES
    # Without a state the server did not get to say anything: refused, reset, timed out.
    return error.connection_invalidated or isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)


class Patience:
    """Repeats transactions of a worker until the database takes them, or until the worker stops.

    What is handed over must be repeatable: an answer that got lost after the commit makes it run once more.
    """

    def __init__(self) -> None:
        self.stopped = threading.Event()
        """Set: whoever waits leaves its job."""

    def call(self, work: Callable[[], _Answer]) -> _Answer:
        """Return what ``work`` returns.

        Raises
        ------
        WorkStoppedError
            The worker stopped first.
        """
        is_told = False
        while True:
            try:
                return work()
            except Exception as error:
                if not is_outage(error):
                    raise
                if not is_told:
                    log.warning("the database is away, waiting", error=type(error).__name__)
                    is_told = True
                if self.stopped.wait(_PAUSE_S):
                    raise WorkStoppedError from error

    def connect(self, attempt: Callable[[], _Answer]) -> _Answer:
        """Return the connection of the first attempt that the server takes.

        A refusal (password, database) is waited out too: the same settings were good when the worker started, and the
        driver does not tell it from a server that is still starting.

        Raises
        ------
        psycopg.Error
            The worker stopped.
        """
        is_told = False
        while True:
            try:
                return attempt()
            except Exception as error:
                if self.stopped.wait(_PAUSE_S):
                    raise
                if not is_told:
                    log.warning("no connection to the database, waiting", error=type(error).__name__)
                    is_told = True
