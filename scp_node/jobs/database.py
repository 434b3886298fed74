"""Tables of the node and engines that open them; the durable engine keeps its own tables in the same database.

Times are seconds since 1970 in UTC, as the database's clock tells them where several machines must agree.
"""

import math
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import sqlite

from scp_node.errors import DatabaseError

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

    from scp_node.jobs.patience import Patience

BUSY_TIMEOUT_MS = 30_000
"""Writers of one SQLite file queue up; none waits longer than this."""

_POSTGRESQL_ARGUMENTS: dict[str, int | str] = {
    "connect_timeout": 5,
    # A server that vanished without a word is noticed within seconds, not after the system's two hours.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    # A paused process must not hold locks that the others wait for: the server ends its session.
    "options": "-c idle_in_transaction_session_timeout=10s -c lock_timeout=20s",
}

metadata = sa.MetaData()

instance = sa.Table(
    "instance",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("sop_instance_uid", sa.Text, nullable=False, unique=True),
    sa.Column("sop_class_uid", sa.Text, nullable=False),
    sa.Column("transfer_syntax_uid", sa.Text, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("calling_ae_title", sa.Text, nullable=False),
    sa.Column("called_ae_title", sa.Text, nullable=False),
    sa.Column("peer_address", sa.Text, nullable=False),
    sa.Column("priority", sa.Text, nullable=False),
    sa.Column("received_at", sa.Double, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("job_id", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("crashes", sa.Integer, nullable=False),
    sa.Column("analysed_at", sa.Double),
    sa.Column("duration_s", sa.Double),
    sa.Column("window_source", sa.Text),
    sa.Column("window_center", sa.Double),
    sa.Column("window_width", sa.Double),
    sa.Column("window_function", sa.Text),
    sa.Column("notes", sa.Text, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Column("causes", sa.Text, nullable=False, server_default="[]"),
    sa.Column("place", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("removal", sa.Text),
    sa.Column("accession_pseudonym", sa.Text),
    sa.Column("study_instance_uid", sa.Text, nullable=False, server_default=""),
)
"""One row per received SOP Instance UID. ``job_id``: its analyse job; ``notes``: JSON list; ``file``: in the spool.

``causes``: JSON list, the errors behind a dead letter; ``place``: in the order of analysis, see `order`;
``removal``: why row and files are being removed at this moment, see `removing`; ``accession_pseudonym``: see
`accession`, NULL without an Accession Number and for what arrived before there was this column.
"""

conflict = sa.Table(
    "conflict",
    metadata,
    sa.Column("sop_instance_uid", sa.Text, primary_key=True),
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("calling_ae_title", sa.Text, nullable=False),
    sa.Column("peer_address", sa.Text, nullable=False),
    sa.Column("received_at", sa.Double, nullable=False),
)
"""Objects that came under the UID of another one with other bytes; kept aside, never analysed."""

prediction = sa.Table(
    "prediction",
    metadata,
    sa.Column("instance_id", sa.ForeignKey("instance.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("weights_sha256", sa.Text, nullable=False),
    sa.Column("preprocessing", sa.Text, nullable=False),
    sa.Column("probability", sa.Double, nullable=False),
    sa.Column("threshold", sa.Double, nullable=False),
    sa.Column("is_threshold_overridden", sa.Boolean, nullable=False),
    sa.Column("is_positive", sa.Boolean, nullable=False),
    sa.Column("has_evidence", sa.Boolean, nullable=False),
)

result = sa.Table(
    "result",
    metadata,
    sa.Column("instance_id", sa.ForeignKey("instance.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("sop_instance_uid", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("sop_class_uid", sa.Text, nullable=False),
    sa.Column("transfer_syntax_uid", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("model", sa.Text),
    sa.Column("alternatives", sa.Text, nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("is_superseded", sa.Boolean, nullable=False, server_default=sa.false()),
)
"""Encoded result objects; ``alternatives`` names the group of which a peer gets one.

``is_superseded``: of an analysis that a later one replaces; sent no more, named by its successors.
"""

delivery = sa.Table(
    "delivery",
    metadata,
    sa.Column("instance_id", sa.ForeignKey("instance.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("destination", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("last_error", sa.Text, nullable=False),
    sa.Column("job_id", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("first_attempt_at", sa.Double),
    sa.Column("next_attempt_at", sa.Double),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Column("setbacks", sa.Integer, nullable=False, server_default="0"),
    sa.Column("epoch", sa.Integer, nullable=False, server_default="0"),
)
"""Where the results of an instance stand at a destination; ``job_id``: the deliver job that runs or waits.

``setbacks``: failed attempts since the destination last answered, for the back-off; ``epoch``: of the breaker when the
job was last delayed.
"""

delivered_object = sa.Table(
    "delivered_object",
    metadata,
    sa.Column("instance_id", sa.ForeignKey("instance.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("destination", sa.Text, primary_key=True),
    sa.Column("sop_instance_uid", sa.Text, primary_key=True),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("committed_at", sa.Double),
)
"""The last word of a destination on each object; ``committed_at``: when it took responsibility for it (PS3.4 J)."""

breaker = sa.Table(
    "breaker",
    metadata,
    sa.Column("destination", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("since", sa.Double, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("last_instance_id", sa.BigInteger),
    sa.Column("last_error", sa.Text, nullable=False),
    sa.Column("last_error_at", sa.Double),
    sa.Column("probes", sa.Integer, nullable=False),
    sa.Column("next_probe_at", sa.Double),
    sa.Column("trial_instance_id", sa.BigInteger),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("is_resuming", sa.Boolean, nullable=False),
)
"""Whether a destination takes anything at the moment, for all processes; no row: nothing has ever failed.

``epoch`` counts how often it came back; deliveries that were delayed before are hastened while ``is_resuming``.
"""

commitment = sa.Table(
    "commitment",
    metadata,
    sa.Column("transaction_uid", sa.Text, primary_key=True),
    sa.Column("instance_id", sa.ForeignKey("instance.id", ondelete="CASCADE"), nullable=False),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("requested_at", sa.Double, nullable=False),
    sa.Column("deadline_at", sa.Double, nullable=False),
    sa.Column("answered_at", sa.Double),
)
"""Storage Commitment transactions (PS3.4 J.3): asked of a destination, and answered by it, perhaps long after."""

sent_uid = sa.Table(
    "sent_uid",
    metadata,
    sa.Column("sop_instance_uid", sa.Text, primary_key=True),
    sa.Column("source_sop_instance_uid", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("returned", sa.Integer, nullable=False),
    sa.Column("last_returned_at", sa.Double),
)
"""Every SOP Instance UID this node ever made, kept when instance and files are gone: what comes back is known."""

lease = sa.Table(
    "lease",
    metadata,
    sa.Column("executor_id", sa.Text, primary_key=True),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("beat_at", sa.Double, nullable=False),
)
"""Workers that live; one whose beat is old is dead and its jobs are taken over."""

trace = sa.Table(
    "trace",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("instance_id", sa.BigInteger),
    sa.Column("sop_instance_uid", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("seal", sa.BigInteger),
    sa.Column("is_audited", sa.Boolean, nullable=False, server_default=sa.false()),
)
"""What happened to each instance, for ever; see `trace`. ``detail``: JSON object; ``is_audited``: see `auditing`."""

trace_seal = sa.Table(
    "trace_seal",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("records", sa.Integer, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
)
"""Digests over the records of the trace, each over the one before too."""

chore = sa.Table(
    "chore",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text),
    sa.Column("held_until", sa.Double, nullable=False),
    sa.Column("ended_at", sa.Double),
)
"""Work that one process does for all now and then, and who does it at the moment."""


_POOL = {"pool_size": 6, "max_overflow": 74, "pool_use_lifo": True}
"""The connection that was given back last is taken first, and few are kept: each keeps what it has parsed and read."""
_SQLITE_STATEMENTS = 64
"""Parsed statements that an SQLite connection keeps, instead of 128: they take 10 to 20 KiB each."""
_SQLITE_PAGES_KIB = 256
"""Pages that it keeps, instead of 2 MiB: the file is in the kernel's cache anyway."""


def open_engine(url: str, *, create_folder: bool = True, patience: "Patience | None" = None) -> sa.Engine:
    """Open the database for this process; makes the folder of an SQLite file, not the tables.

    One engine serves the node's tables and the durable engine's, so that both change in one transaction.

    Parameters
    ----------
    patience
        Of a worker: connecting to a server that is away waits until it is back or the worker stops. The durable engine
        would otherwise sleep for a minute and more between its attempts. None: an error, at once.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return _open_postgresql(parsed, patience)
    if not parsed.database:
        raise DatabaseError(f"{url}: name a file, a database in memory is not durable")
    if create_folder:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = sa.create_engine(
        parsed,
        **_POOL,
        connect_args={
            "timeout": BUSY_TIMEOUT_MS / 1000,
            "check_same_thread": False,
            "cached_statements": _SQLITE_STATEMENTS,
        },
    )
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _open_postgresql(url: sa.URL, patience: "Patience | None") -> sa.Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    # What the URL says itself comes first.
    arguments = {name: value for name, value in _POSTGRESQL_ARGUMENTS.items() if name not in url.query}
    engine = sa.create_engine(url, pool_pre_ping=True, connect_args=arguments, **_POOL)
    if patience is not None:

        def connect(dialect: Any, _record: object, positional: Any, named: Any) -> Any:  # noqa: ANN401 - as SQLAlchemy has it
            # The parameters already hold connect_args; the driver's own error is what SQLAlchemy expects.
            return patience.connect(lambda: dialect.connect(*positional, **named))

        event.listen(engine, "do_connect", connect)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # IMMEDIATE: a transaction that will write takes the lock at once instead of failing half-way with BUSY_SNAPSHOT.
    connection.isolation_level = "IMMEDIATE"
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA journal_mode=WAL")
    # FULL: a commit is on the disk when it returns. The promise behind 0x0000 needs it; NORMAL keeps it for a crash of
    # the process only, not for a power cut.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute(f"PRAGMA cache_size=-{_SQLITE_PAGES_KIB}")
    # SQLite before 3.42 knows no sub-second unixepoch: the durable engine then gets NULL or whole seconds.
    connection.create_function("unixepoch", -1, _unixepoch)
    connection.create_function("strftime", 2, _strftime)


def _now_ms_exact() -> float:
    # In thousandths that survive multiplication by 1000 exactly, since INTEGER columns hold the product.
    return math.floor(time.time() * 1000) / 1000


def _unixepoch(*arguments: str) -> float:
    if set(arguments) - {"now", "subsec"}:
        raise ValueError("unixepoch is for the present time only")
    return _now_ms_exact()


def _strftime(form: str, moment: str) -> float:
    if (form, moment) != ("%s", "now"):
        raise ValueError("strftime is for the present time only")
    return _now_ms_exact()


@contextmanager
def write(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction that will write: what it reads is what it changes.

    SQLite: takes the write lock before the first read. PostgreSQL: lock rows with ``lock_instance``.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection


@contextmanager
def exclusive(engine: sa.Engine, *tables: sa.Table) -> Iterator[sa.Connection]:
    """One transaction during which nobody else writes to these tables; for rare and short work."""
    with write(engine) as connection:
        if connection.dialect.name == "postgresql":
            # Lets readers in, waits for writers, keeps new ones out.
            names = ", ".join(table.name for table in tables)
            connection.exec_driver_sql(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")
        yield connection


def insert(connection: sa.Connection, table: sa.Table) -> "sqlite.Insert | postgresql.Insert":
    """INSERT that knows ``on_conflict_do_nothing``, in the words of this database."""
    return insert_for(connection.dialect.name, table)


def insert_for(dialect: str, table: sa.Table) -> "sqlite.Insert | postgresql.Insert":
    """The same, for statements that are built once for each kind of database."""
    if dialect == "sqlite":
        return sqlite.insert(table)
    # Imported here: it comes with all drivers for PostgreSQL, which a command on an SQLite file would load for nothing.
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


def lock_instance(connection: sa.Connection, instance_id: int) -> sa.Row[Any] | None:
    """Read an instance and keep others from changing it, its results and its deliveries until the commit."""
    return connection.execute(_LOCK_INSTANCE, {"wanted": instance_id}).one_or_none()


_LOCK_INSTANCE = sa.select(instance).where(instance.c.id == sa.bindparam("wanted")).with_for_update()


def now(connection: sa.Connection) -> float:
    """Seconds since 1970 by the database's clock, which all machines share."""
    if connection.dialect.name == "sqlite":
        return float(connection.execute(sa.select(sa.func.unixepoch("subsec"))).scalar_one())
    return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
