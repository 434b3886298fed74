"""A database and a spool for tests of jobs; the durable engine's tables are made once and copied.

Tests run on SQLite; those marked ``databases`` run on PostgreSQL too.
"""

import hashlib
import itertools
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from committing_archive import TIMEOUT_S
from household import House
from pydicom import FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from workbench import Bench

from config.base import Priority
from config.destinations import DeliverySettings, DicomDestination
from scp_node.jobs import database, deliveries, queues
from scp_node.jobs.database import open_engine
from scp_node.jobs.delivering import DeliveryWork
from scp_node.jobs.health import health
from scp_node.jobs.intake import Filing
from scp_node.jobs.migrations import migrate
from scp_node.jobs.probing import Probing
from scp_node.jobs.queues import Jobs
from scp_node.jobs.states import move, settle
from scp_node.jobs.tables import delivered_object, delivery, instance, result
from scp_node.records import InstanceState, ReceivedInstance


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
def receive(spool):
    """Makes what a receiver hands over: a temporary file and what is known of it."""

    def _receive(
        uid="1.2.3", content=b"pixels", *, priority=Priority.ROUTINE, calling_ae_title="CR1", accession_number=""
    ):
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
            accession_number=accession_number,
        )

    return _receive


class Results:
    """Analysed instances whose results wait to be delivered, and jobs that are run by hand under a clock by hand."""

    def __init__(self, engine, jobs, spool, receive):
        self.engine, self.jobs, self.spool, self.receive = engine, jobs, spool, receive
        self.now = 1_000_000.0
        self.clock = lambda: self.now
        self.destinations = ()
        self.settings = DeliverySettings(first_delay_s=10, maximum_delay_s=3600, first_probe_s=2, maximum_probe_s=15)

    def add(self, number, *names, sop_classes=(SecondaryCaptureImageStorage,)):
        """An instance with one valid object of each class, to be delivered to these destinations; returns the UIDs."""
        filing = Filing(self.engine, self.jobs, self.spool, models=("m1",), destinations=names)
        filing.accept(self.receive(f"1.2.{number}", b"%d" % number))
        with database.write(self.engine) as connection:
            row = connection.execute(sa.select(instance).where(instance.c.sop_instance_uid == f"1.2.{number}")).one()
            uids = [f"2.25.{number}{position}" for position in range(len(sop_classes))]
            for position, (uid, sop_class) in enumerate(zip(uids, sop_classes, strict=True)):
                file = self._write(uid, sop_class)
                connection.execute(
                    sa.insert(result).values(
                        instance_id=row.id,
                        sop_instance_uid=uid,
                        position=position,
                        sop_class_uid=str(sop_class),
                        transfer_syntax_uid=str(ExplicitVRLittleEndian),
                        kind="single",
                        alternatives=uid,
                        rank=0,
                        file=file,
                        sha256="",
                        size_bytes=self.spool.path(file).stat().st_size,
                    )
                )
            move(connection, row, InstanceState.ANALYSING)
            row = database.lock_instance(connection, row.id)
            deliveries.begin(connection, self.jobs, row, names)
            settle(connection, row)
            connection.execute(sa.update(instance).where(instance.c.id == row.id).values(analysed_at=1.0))
        return uids

    def _write(self, uid, sop_class):
        dataset = FileDataset("", {}, preamble=b"\0" * 128)
        dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.PatientName = sop_class, uid, "A^B"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        name = f"results/{uid}.dcm"
        self.spool.path(name).parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(self.spool.path(name), enforce_file_format=True)
        return name

    def work(self):
        return DeliveryWork(
            self.engine,
            self.jobs,
            self.spool,
            destinations=self.destinations,
            settings=self.settings,
            calling_ae_title="NODE",
            clock=self.clock,
            random=lambda: 1.0,
        )

    def probing(self):
        return Probing(
            self.engine,
            self.jobs,
            self.destinations,
            self.settings,
            calling_ae_title="NODE",
            clock=lambda: self.now,
        )

    def deliver(self, number, name):
        """Run the current job of a delivery, whenever it is due."""
        row = self.row(number, name)
        return self.work().run(row.instance_id, name, row.job_id)

    def row(self, number, name):
        with self.engine.connect() as connection:
            return connection.execute(
                sa.select(delivery)
                .join(instance, instance.c.id == delivery.c.instance_id)
                .where(instance.c.sop_instance_uid == f"1.2.{number}", delivery.c.destination == name)
            ).one()

    def instance(self, number):
        with self.engine.connect() as connection:
            return connection.execute(sa.select(instance).where(instance.c.sop_instance_uid == f"1.2.{number}")).one()

    def words(self, number, name):
        """Verdict by SOP Instance UID."""
        with self.engine.connect() as connection:
            rows = connection.execute(
                sa.select(delivered_object)
                .join(instance, instance.c.id == delivered_object.c.instance_id)
                .where(instance.c.sop_instance_uid == f"1.2.{number}", delivered_object.c.destination == name)
            ).all()
        return {row.sop_instance_uid: row for row in rows}

    def health(self, name):
        with self.engine.connect() as connection:
            return health(connection, [name])[0]

    def due_now(self, job_id):
        """Whether the durable engine would run this job now."""
        with self.engine.connect() as connection:
            query = sa.text("SELECT status, delay_until_epoch_ms FROM workflow_status WHERE workflow_uuid = :id")
            row = connection.execute(query, {"id": job_id}).one()
        return row.status == "ENQUEUED" or (row.delay_until_epoch_ms or 0) <= time.time() * 1000


@pytest.fixture
def results(engine, jobs, spool, receive):
    """Results that wait to be delivered."""
    return Results(engine, jobs, spool, receive)


@pytest.fixture
def bench(tmp_path, engine, jobs, spool, receive, monkeypatch):  # noqa: PLR0917 - fixtures
    """A node whose jobs are run by hand, with a real child, and one destination, a folder."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    made = Bench(tmp_path, engine, jobs, spool, receive)
    yield made
    made.pool.stop(0.1)


@pytest.fixture
def house(engine, jobs, spool, receive):
    """Instances in any state, and a clock."""
    return House(engine, jobs, spool, receive)


@pytest.fixture
def silent(monkeypatch):
    """For peers that will not report: nothing to wait for."""
    monkeypatch.setattr("scp_node.delivery.commitment._LINGER_S", 0.0)


@pytest.fixture
def to(results, monkeypatch, request):
    """Configure a destination that is asked for commitment; a busy one may take its time to report."""
    if "silent" not in request.fixturenames:
        monkeypatch.setattr("scp_node.delivery.commitment._LINGER_S", 30.0)

    def _to(archive, **options):
        results.destinations = (
            DicomDestination(
                name="pacs",
                ae_title="PACS",
                host="127.0.0.1",
                port=archive.port,
                timeout_s=30,
                commitment_timeout_s=TIMEOUT_S,
                **{"storage_commitment": True, **options},
            ),
        )

    return _to
