"""How often something was refused, and why: counted in memory and added to the database now and then, for the metrics.

Nobody who is refused waits for the database, and a thousand refusals in a second are one write. What was counted in the
last seconds is lost when a process is killed; the audit trail and the log have each of them.
"""

import threading
from collections import Counter

import sqlalchemy as sa
import structlog

from scp_node.jobs import database, tables
from scp_node.scp.callers import Rejection
from scp_node.scp.statuses import Answer
from scp_node.security.events import EventKind, SecurityEvent

_log = structlog.get_logger(__name__)

_FLUSH_S = 3.0
C_STORE = "c_store"
_KINDS = frozenset(
    {
        EventKind.ASSOCIATION_REJECTED,
        EventKind.ASSOCIATION_ABORTED,
        EventKind.LIMIT_REACHED,
        EventKind.TLS_FAILED,
    }
)
_RULES = frozenset(rule.value for rule in Rejection)

refusal = sa.Table(
    "refusal",
    tables.metadata,
    sa.Column("what", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, primary_key=True),
    sa.Column("times", sa.BigInteger, nullable=False),
)
"""``what``: ``c_store`` with the status as ``reason``, or the kind of a security event with its rule, if it has one."""


class Refusals:
    """Counts for one process; `tell` and `refused` are quick, and safe to call from many threads."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def tell(self, event: SecurityEvent) -> None:
        """Count a security event that turned somebody away; a sink of `security.events`."""
        if event.kind in _KINDS:
            self._add(event.kind.value, event.reason if event.reason in _RULES else "")

    def refused(self, answer: Answer) -> None:
        """Count an object that was answered with a failure."""
        self._add(C_STORE, f"{answer.status:04x}")

    def start(self) -> None:
        """Begin to write."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="refusals", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, and end."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def flush(self) -> None:
        """Write what was counted; what the database does not take now waits for the next time."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        if not counts:
            return
        try:
            with database.write(self._engine) as connection:
                for (what, reason), count in sorted(counts.items()):
                    statement = database.insert(connection, refusal).values(what=what, reason=reason, times=count)
                    connection.execute(
                        statement.on_conflict_do_update(
                            index_elements=["what", "reason"],
                            set_={"times": refusal.c.times + statement.excluded.times},
                        )
                    )
        except Exception:
            with self._lock:
                self._counts += counts
            raise

    def _add(self, what: str, reason: str) -> None:
        with self._lock:
            self._counts[what, reason] += 1

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopping.wait(_FLUSH_S)
            try:
                self.flush()
            except sa.exc.SQLAlchemyError:
                # A database that is away is told of by those who need it.
                continue
            except Exception:  # top of a thread: what was counted waits for the next time
                _log.exception("refusals wait")


def counts(connection: sa.Connection) -> dict[tuple[str, str], int]:
    """How often what was refused for which reason, ever."""
    return {(row.what, row.reason): int(row.times) for row in connection.execute(sa.select(refusal))}
