"""Tables as the program sees them are tables as the migrations make them; commits are durable."""

import importlib
import sqlite3
import time

import pytest
import sqlalchemy as sa

from scp_node.errors import DatabaseError
from scp_node.jobs import database, tables
from scp_node.jobs.migrations import MIGRATIONS, migrate, require_current, version


@pytest.fixture
def bare(tmp_path):
    """A new database without tables."""
    engine = database.open_engine(f"sqlite:///{tmp_path / 'deep' / 'new.sqlite'}")
    yield engine
    engine.dispose()


def test_migrations_make_exactly_the_tables_of_the_program(bare):
    # A table lives with what uses it alone.
    for module in ("user_actions", "refusals"):
        importlib.import_module(f"scp_node.jobs.{module}")
    migrate(bare)
    found = sa.inspect(bare)
    assert set(found.get_table_names()) - {"schema_version", "sqlite_sequence"} == set(tables.metadata.tables)
    for name, table in tables.metadata.tables.items():
        columns = {column["name"]: column for column in found.get_columns(name)}
        assert set(columns) == set(table.columns.keys()), name
        for column in table.columns:
            if not column.primary_key:
                assert columns[column.name]["nullable"] == column.nullable, column
        assert found.get_pk_constraint(name)["constrained_columns"] == [key.name for key in table.primary_key], name


def test_migrating_twice_does_nothing_the_second_time(bare):
    assert migrate(bare) == len(MIGRATIONS)
    assert migrate(bare) == 0
    with bare.connect() as connection:
        assert version(connection) == len(MIGRATIONS)


def test_a_migration_that_fails_leaves_nothing_behind(bare, monkeypatch):
    monkeypatch.setattr(
        "scp_node.jobs.migrations.MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE x (a INTEGER)", "NONSENSE"))
    )
    with pytest.raises(sa.exc.OperationalError):
        migrate(bare, versions=len(MIGRATIONS) + 1)
    assert sa.inspect(bare).get_table_names() == []


def test_a_newer_database_is_refused(bare):
    migrate(bare)
    with database.write(bare) as connection:
        connection.exec_driver_sql("INSERT INTO schema_version VALUES (99, 0)")
    with pytest.raises(DatabaseError, match="version 99"):
        migrate(bare)
    with pytest.raises(DatabaseError, match="version 99"):
        require_current(bare, str(bare.url))


def test_looking_for_a_database_creates_none(tmp_path):
    file = tmp_path / "none" / "node.sqlite"
    engine = database.open_engine(f"sqlite:///{file}", create_folder=False)
    with pytest.raises(DatabaseError, match="no database"):
        require_current(engine, f"sqlite:///{file}")
    assert not file.parent.exists()


def test_a_database_in_memory_is_refused():
    with pytest.raises(DatabaseError, match="not durable"):
        database.open_engine("sqlite:///")


def test_every_connection_is_durable_and_waits_its_turn(bare):
    with bare.connect() as one, bare.connect() as two:
        for connection in (one, two):
            pragma = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
            assert pragma == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}


def test_one_connection_is_used_while_one_is_enough(bare):
    """After a burst the others rest: each that is used keeps pages of the file in memory."""
    burst = [bare.connect() for _ in range(5)]
    for connection in burst:
        connection.close()
    used = set()
    for _ in range(10):
        with bare.connect() as connection:
            used.add(id(connection.connection.dbapi_connection))
    assert len(used) == 1


def test_a_writing_transaction_locks_before_it_reads(engine):
    other = sqlite3.connect(engine.url.database, timeout=0)
    with database.write(engine), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.close()


def test_the_clock_has_milliseconds_that_are_whole_numbers(bare):
    """The durable engine multiplies by 1000 and keeps the product in an INTEGER column."""
    with bare.connect() as connection:
        before = time.time()
        seconds = database.now(connection)
        assert before - 0.01 <= seconds <= time.time()
        for _ in range(200):
            for expression in (
                "unixepoch('subsec') * 1000",
                "unixepoch('now', 'subsec') * 1000",
                "strftime('%s', 'now') * 1000",
            ):
                value = connection.exec_driver_sql(f"SELECT {expression}").scalar_one()
                assert value == int(value)
        with pytest.raises(sa.exc.OperationalError):
            connection.exec_driver_sql("SELECT strftime('%Y', 'now')")


def test_numbers_of_removed_instances_are_not_used_again(engine, jobs, spool, receive):
    from scp_node.jobs.intake import Filing

    filing = Filing(engine, jobs, spool, models=("a",), destinations=())
    filing.accept(receive("1.2.3", b"a"))
    with database.write(engine) as connection:
        (first,) = connection.execute(sa.select(tables.instance.c.id)).scalars()
        connection.execute(sa.delete(tables.instance))
    filing.accept(receive("1.2.4", b"b"))
    with engine.connect() as connection:
        assert connection.execute(sa.select(tables.instance.c.id)).scalar_one() == first + 1
