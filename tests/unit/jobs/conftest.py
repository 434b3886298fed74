"""A database and a spool for tests of jobs; the durable engine's tables are made once and copied.

Tests run on SQLite; those marked ``databases`` run on PostgreSQL too.
"""

import hashlib
import itertools
import shutil
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from config.base import Priority
from config.storage import SpoolSettings
from scp_node.jobs import queues
from scp_node.jobs.database import open_engine
from scp_node.jobs.migrations import migrate
from scp_node.jobs.queues import Jobs
from scp_node.records import ReceivedInstance
from scp_node.spool.store import Spool


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A migrated SQLite file."""
    file = tmp_path_factory.mktemp("database") / "empty.sqlite"
    queues.migrate(f"sqlite:///{file}")
    engine = open_engine(f"sqlite:///{file}")
    migrate(engine)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    return file


_databases = itertools.count(1)


def pytest_generate_tests(metafunc):
    """Tests marked ``databases`` get an engine of each kind."""
    if "engine" in metafunc.fixturenames and any(metafunc.definition.iter_markers("databases")):
        metafunc.parametrize("engine", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(scope="session")
def empty_postgresql(postgresql):
    """A function that makes migrated databases on a real server, and returns their URLs."""
    server = sa.create_engine(
        sa.make_url(postgresql).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )

    def execute(statement):
        with server.connect() as connection:
            connection.exec_driver_sql(statement)

    def url_of(name):
        return sa.make_url(postgresql).set(database=name).render_as_string(hide_password=False)

    execute("CREATE DATABASE jobs_template")
    queues.migrate(url_of("jobs_template"))
    engine = open_engine(url_of("jobs_template"))
    migrate(engine)
    engine.dispose()

    def make():
        name = f"jobs_{next(_databases)}"
        execute(f"CREATE DATABASE {name} TEMPLATE jobs_template")
        # Tests look into the durable engine's tables by their bare names, as on SQLite.
        execute(f"ALTER DATABASE {name} SET search_path = public, dbos")
        return url_of(name)

    yield make
    server.dispose()


@pytest.fixture
def engine(request, tmp_path):
    """A database of this test's own; its kind is the fixture's parameter."""
    if getattr(request, "param", "sqlite") == "postgresql":
        url = request.getfixturevalue("empty_postgresql")()
    else:
        shutil.copy(request.getfixturevalue("empty_database"), tmp_path / "node.sqlite")
        url = f"sqlite:///{tmp_path / 'node.sqlite'}"
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def jobs(engine):
    """The queues of that database."""
    jobs = Jobs(engine)
    yield jobs
    jobs.close()


@pytest.fixture
def spool(tmp_path):
    """A spool of this test's own."""
    spool = Spool(SpoolSettings(folder=tmp_path / "spool", minimum_free_bytes=0))
    spool.create()
    return spool


@pytest.fixture
def receive(spool):
    """Makes what a receiver hands over: a temporary file and what is known of it."""

    def _receive(uid="1.2.3", content=b"pixels", *, priority=Priority.ROUTINE, calling_ae_title="CR1"):
        file = spool.open_incoming()
        file.write(content)
        file.close()
        return ReceivedInstance(
            file=file.path,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
            sop_instance_uid=uid,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            calling_ae_title=calling_ae_title,
            called_ae_title="SCP_NODE",
            peer_address="127.0.0.1",
            priority=priority,
            received_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        )

    return _receive
