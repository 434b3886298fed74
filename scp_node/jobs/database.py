"""Opens the node's database, and how it is read and written: transactions, locks, clock."""

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
from scp_node.jobs.tables import instance

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


def unusable(error: sa.exc.DBAPIError | OSError) -> str:
    """What is wrong, in the words of the driver: those of SQLAlchemy hold the statement and its values too."""
    said = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    reason = str(said).strip().partition("\n")[0]
    return f"the database cannot be used: {reason}"
