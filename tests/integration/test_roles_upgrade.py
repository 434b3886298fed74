"""A new version on the database of the previous release: it is migrated once, and what it holds is finished."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from config.analysis import AnalysisSettings
from config.base import Priority
from config.destinations import FolderDestination
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.demo.phantoms import cr
from scp_node.errors import StartError
from scp_node.jobs import database, queues, tables, trace
from scp_node.jobs.admin import Admin
from scp_node.jobs.migrations import MIGRATIONS, migrate, version
from scp_node.jobs.node import Node
from scp_node.jobs.queues import Jobs
from scp_node.jobs.recovery import job_table
from scp_node.jobs.roles import Role
from scp_node.records import DeliveryState, InstanceState
from scp_node.spool.store import Spool
from tests.faults.processes import wait_until

pytestmark = pytest.mark.integration

LIMIT_S = 240


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """Of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'node.sqlite'}"
    name = f"upgrade_{time.time_ns()}"
    server = sa.make_url(request.getfixturevalue("postgresql"))
    engine = sa.create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return server.set(database=name).render_as_string(hide_password=False)


def test_processes_that_start_together_migrate_once(url):
    def start(_number):
        engine = database.open_engine(url)
        try:
            done = migrate(engine)
            queues.migrate(url)
            with engine.connect() as connection:
                return done, version(connection)
        finally:
            engine.dispose()

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(start, range(6)))
    assert sorted(done for done, _ in answers) == [0] * 5 + [len(MIGRATIONS)]
    assert {present for _, present in answers} == {len(MIGRATIONS)}


def test_the_study_of_what_arrived_before_an_upgrade_is_known(url):
    """From the trace, where it has stood all along; what came before there was a trace has none."""
    before = next(n for n, statements in enumerate(MIGRATIONS) if "study_instance_uid" in " ".join(statements))
    engine = database.open_engine(url)
    assert migrate(engine, versions=before) == before
    with database.write(engine) as connection:
        for number, uid in enumerate(("1.2.3", "1.2.4"), 1):
            connection.execute(
                sa.text(
                    "INSERT INTO instance (id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, sha256,"
                    " size_bytes, file, calling_ae_title, called_ae_title, peer_address, priority, received_at, state,"
                    " detail, job_id, round, crashes, notes, updated_at) VALUES (:id, :uid, '1', '1', '', 1, '', 'A',"
                    " 'B', '', 'routine', 0, 'delivered', '', '', 1, 0, '[]', 0)"
                ),
                {"id": number, "uid": uid},
            )
        for event, study in ((trace.Event.DUPLICATE, "9.9"), (trace.Event.RECEIVED, "9.8.7")):
            trace.record(connection, event, "1.2.3", instance_id=1, study_instance_uid=study)
    assert migrate(engine) == len(MIGRATIONS) - before
    with engine.connect() as connection:
        found = connection.execute(sa.select(tables.instance.c.study_instance_uid).order_by("id")).scalars().all()
    engine.dispose()
    assert found == ["9.8.7", ""]


def _settings(tmp_path, url, checkpoints):
    return NodeSettings(
        spool=SpoolSettings(folder=tmp_path / "spool", minimum_free_bytes=0),
        database=DatabaseSettings(url=url),
        analysis=AnalysisSettings(checkpoints=checkpoints, models=("resnet18",), processes=1, threads=1, device="cpu"),
        destinations=(FolderDestination(kind="folder", name="share", folder=tmp_path / "share"),),
    )


class PreviousRelease:
    """Version 1 of the tables, jobs of application version 0, three instances that are not finished."""

    def __init__(self, settings, monkeypatch):
        self.spool = Spool(settings.spool)
        self.spool.create()
        self.engine = database.open_engine(settings.database.url)
        assert migrate(self.engine, versions=1) == 1
        queues.migrate(settings.database.url)
        self.jobs = Jobs(self.engine)
        monkeypatch.setattr(queues, "APPLICATION_VERSION", "0")
        self.waiting = self._received("received")
        self.analysing = self._received("analysing")
        self._claim(self.analysing)
        self.delivering = self._delivering()
        monkeypatch.undo()
        self.jobs.close()
        self.engine.dispose()

    def _insert(self, connection, table, **values):
        # The program's tables have later columns: name those of version 1 only.
        connection.execute(sa.insert(sa.table(table, *map(sa.column, values))).values(**values))

    def _instance(self, state):
        dataset = cr(rows=96, columns=96, identity=state)
        temporary = self.spool.open_incoming()
        temporary.close()
        dataset.save_as(temporary.path, enforce_file_format=True)
        uid = str(dataset.SOPInstanceUID)
        sha256 = uid.replace(".", "").ljust(64, "0")[:64]
        values = {
            "sop_instance_uid": uid,
            "sop_class_uid": str(dataset.SOPClassUID),
            "transfer_syntax_uid": str(dataset.file_meta.TransferSyntaxUID),
            "sha256": sha256,
            "size_bytes": temporary.path.stat().st_size,
            "file": self.spool.adopt(temporary.path, sha256),
            "calling_ae_title": "CR1",
            "called_ae_title": "SCP_NODE",
            "peer_address": "127.0.0.1",
            "priority": "routine",
            "received_at": time.time(),
            "state": state,
            "detail": "",
            "job_id": f"analyse:resnet18:{uid}:{sha256[:16]}:1",
            "round": 1,
            "crashes": 0,
            "notes": "[]",
            "updated_at": time.time(),
        }
        return uid, values

    def _received(self, state):
        uid, values = self._instance(state)
        with database.write(self.engine) as connection:
            self._insert(connection, "instance", **values)
            row_id = self._id(connection, uid)
            self.jobs.analyse(connection, values["job_id"], row_id, Priority.ROUTINE)
        return uid

    def _claim(self, uid):
        """By a worker that is no more."""
        jobs = job_table(self.engine.dialect.name)
        with database.write(self.engine) as connection:
            claimed = connection.execute(
                sa.update(jobs)
                .where(jobs.c.workflow_uuid.like(f"analyse:resnet18:{uid}:%"))
                .values(status="PENDING", executor_id="gone:1:kernel:life", owner_xid="token")
            )
            assert claimed.rowcount == 1

    def _delivering(self):
        uid, values = self._instance("delivering")
        values["analysed_at"] = time.time()
        with database.write(self.engine) as connection:
            self._insert(connection, "instance", **values)
            row_id = self._id(connection, uid)
            self._insert(
                connection,
                "result",
                instance_id=row_id,
                sop_instance_uid="2.25.4711",
                position=0,
                sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                kind="montage",
                alternatives="montage",
                rank=0,
                file=self.spool.write_durably("results/aa/bb/cc/old.dcm", b"made by the previous release"),
                sha256="00",
                size_bytes=28,
            )
            self._insert(
                connection,
                "delivery",
                instance_id=row_id,
                destination="share",
                state="waiting",
                attempts=1,
                last_error="away",
                job_id=f"deliver:{row_id}:share:1:2",
                round=1,
                first_attempt_at=time.time(),
                next_attempt_at=time.time() + 3,
                updated_at=time.time(),
            )
            self.jobs.deliver(connection, f"deliver:{row_id}:share:1:2", row_id, "share", Priority.ROUTINE, delay_s=3.0)
        return uid

    def _id(self, connection, uid):
        columns = sa.table("instance", sa.column("id"), sa.column("sop_instance_uid"))
        return connection.execute(sa.select(columns.c.id).where(columns.c.sop_instance_uid == uid)).scalar_one()


def test_what_the_previous_release_left_the_next_one_finishes(tmp_path, url, random_checkpoints, monkeypatch):
    settings = _settings(tmp_path, url, random_checkpoints)
    left = PreviousRelease(settings, monkeypatch)

    def finished():
        with Admin(settings) as admin:
            return all(record.state.is_final for record in admin.list_instances())

    with Node(settings, roles=[Role.WORKER]):
        wait_until(finished, LIMIT_S, "the end of what the previous release left")
    with Admin(settings) as admin:
        records = {record.sop_instance_uid: record for record in admin.list_instances()}
    assert {uid: record.state for uid, record in records.items()} == dict.fromkeys(
        (left.waiting, left.analysing, left.delivering), InstanceState.DELIVERED
    )
    (delivery,) = records[left.delivering].deliveries
    assert delivery.state is DeliveryState.DELIVERED
    assert (tmp_path / "share" / "2.25.4711.dcm").read_bytes() == b"made by the previous release"


def test_an_older_program_refuses_a_newer_database(tmp_path, random_checkpoints):
    url = f"sqlite:///{tmp_path / 'node.sqlite'}"
    engine = database.open_engine(url)
    migrate(engine)
    with database.write(engine) as connection:
        connection.exec_driver_sql("INSERT INTO schema_version VALUES (99, 0)")
    engine.dispose()
    with pytest.raises(StartError, match="it is older"):
        Node(_settings(tmp_path, url, random_checkpoints), roles=[Role.RECEIVER], receiver_port=0).start()


def test_a_database_that_is_away_at_the_start_is_a_sentence(tmp_path, random_checkpoints, free_port):
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    with pytest.raises(StartError, match=r"the database cannot be used: .*refused"):
        Node(_settings(tmp_path, url, random_checkpoints), roles=[Role.RECEIVER], receiver_port=0).start()
