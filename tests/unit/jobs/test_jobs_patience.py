"""A database that is away for a while: what is refused, what waits, and that neither needs a person afterwards."""

import socket
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from pynetdicom import AE

from config.receiver import ReceiverSettings
from scp_node.demo.phantoms import cr
from scp_node.jobs import database
from scp_node.jobs.intake import Filing
from scp_node.jobs.patience import Patience, WorkStoppedError, is_outage
from scp_node.jobs.queues import Jobs
from scp_node.jobs.tables import instance
from scp_node.records import InstanceState
from scp_node.scp.part10 import Implementation
from scp_node.scp.server import Receiver
from scp_node.scp.statuses import Status


@pytest.fixture
def impatient(monkeypatch):
    """Nobody waits half a minute for a lock."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 100)


@pytest.fixture
def small(tmp_path, empty_database, impatient):
    """An SQLite database on a disk that can be full."""
    file = tmp_path / "small.sqlite"
    file.write_bytes(empty_database.read_bytes())
    engine = database.open_engine(f"sqlite:///{file}")
    limit = {"pages": 2**31 - 2}

    @sa.event.listens_for(engine, "checkout")
    def _limit(connection, _record, _proxy):
        connection.execute(f"PRAGMA max_page_count={limit['pages']}")

    yield engine, limit
    engine.dispose()


def _lock(engine):
    other = sqlite3.connect(engine.url.database, timeout=0, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def _fill(engine):
    with database.write(engine) as connection:
        connection.execute(sa.text("CREATE TABLE filler (content TEXT)"))
        connection.execute(sa.text("INSERT INTO filler VALUES (:content)"), {"content": "x" * 2**20})


def test_a_lock_and_a_full_disk_are_outages_and_mistakes_are_not(small):
    engine, limit = small
    other = _lock(engine)
    with pytest.raises(sa.exc.OperationalError) as locked, database.write(engine):
        pass
    other.close()
    limit["pages"] = 1
    with pytest.raises(sa.exc.OperationalError) as full:
        _fill(engine)
    with pytest.raises(sa.exc.OperationalError) as wrong, engine.connect() as connection:
        connection.execute(sa.text("SELECT nonsense FROM nowhere"))
    with pytest.raises(sa.exc.IntegrityError) as twice, database.write(engine) as connection:
        connection.execute(sa.text("INSERT INTO schema_version VALUES (1, 0)"))
    assert is_outage(locked.value)
    assert "disk is full" in str(full.value)
    assert is_outage(full.value)
    assert not is_outage(wrong.value)
    assert not is_outage(twice.value)
    assert not is_outage(ValueError())


def test_a_server_that_is_away_or_ends_sessions_is_an_outage_and_a_mistake_is_not(empty_postgresql):
    url = empty_postgresql()
    engine = database.open_engine(url)
    with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError) as ended:
        connection.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))
    with pytest.raises(sa.exc.DBAPIError) as wrong, engine.connect() as connection:
        connection.execute(sa.text("SELECT nonsense"))
    with pytest.raises(sa.exc.DBAPIError) as locked, engine.connect() as one, engine.begin() as two:
        one.execute(sa.text("LOCK TABLE instance"))
        two.execute(sa.text("SET LOCAL lock_timeout = '50ms'"))
        two.execute(sa.text("LOCK TABLE instance"))
    engine.dispose()
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    away = database.open_engine(sa.make_url(url).set(port=port).render_as_string(hide_password=False))
    with pytest.raises(sa.exc.DBAPIError) as refused:
        away.connect()
    assert is_outage(ended.value)
    assert not is_outage(wrong.value)
    assert is_outage(locked.value)
    assert is_outage(refused.value)


def test_a_session_that_was_paused_within_a_transaction_does_not_hold_its_locks(empty_postgresql):
    engine = database.open_engine(empty_postgresql())
    with engine.connect() as connection:
        shown = {
            name: connection.execute(sa.text(f"SHOW {name}")).scalar_one()
            for name in ("idle_in_transaction_session_timeout", "lock_timeout")
        }
    engine.dispose()
    assert shown == {"idle_in_transaction_session_timeout": "10s", "lock_timeout": "20s"}


def test_patience_repeats_until_the_database_answers(small):
    engine, _ = small
    patience = Patience()
    other = _lock(engine)
    refused = threading.Event()

    def work():
        try:
            with database.write(engine) as connection:
                return database.now(connection) > 0
        except sa.exc.OperationalError:
            refused.set()
            raise

    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(patience.call, work)
        assert refused.wait(60)
        assert not answer.done()
        other.close()
        assert answer.result(60) is True


def test_patience_ends_with_the_worker_and_never_hides_a_mistake(small):
    engine, _ = small
    patience = Patience()
    other = _lock(engine)

    def work():
        with database.write(engine):
            pass

    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(patience.call, work)
        patience.stopped.set()
        with pytest.raises(WorkStoppedError):
            answer.result(60)
    other.close()
    with pytest.raises(ZeroDivisionError):
        Patience().call(lambda: 1 // 0)


def test_connecting_waits_for_a_server_until_the_worker_stops(empty_postgresql):
    url = sa.make_url(empty_postgresql())
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    patience = Patience()
    away = database.open_engine(url.set(port=port).render_as_string(hide_password=False), patience=patience)
    with ThreadPoolExecutor(1) as threads:
        connecting = threads.submit(away.connect)
        with pytest.raises(TimeoutError):
            connecting.result(1.5)
        patience.stopped.set()
        with pytest.raises(sa.exc.OperationalError):
            connecting.result(60)


@pytest.mark.parametrize("trouble", ["locked", "full"])
def test_a_receiver_answers_out_of_resources_and_takes_the_repeat(small, spool, trouble):
    engine, limit = small
    jobs = Jobs(engine)
    receiver = Receiver(
        ReceiverSettings(acse_timeout_s=30),
        spool,
        Filing(engine, jobs, spool, models=("m1",), destinations=()).accept,
        ["1.2.840.10008.1.2.1"],
        implementation=Implementation(class_uid="2.25.1", version_name="NODE"),
        port=0,
    )
    receiver.start()
    source = cr(rows=64, columns=64)
    ae = AE(ae_title="MODALITY")
    ae.add_requested_context(source.SOPClassUID, "1.2.840.10008.1.2.1")
    association = ae.associate("127.0.0.1", receiver.port, ae_title="SCP_NODE")
    statuses = []
    try:
        if trouble == "locked":
            other = _lock(engine)
            statuses.append(association.send_c_store(source).Status)
            other.close()
        else:
            limit["pages"] = 1  # no more than there are: rows still fit into those for a while
            while len(statuses) < 200 and set(statuses) <= {Status.SUCCESS}:
                source.SOPInstanceUID = source.file_meta.MediaStorageSOPInstanceUID = f"2.25.{900 + len(statuses)}"
                statuses.append(association.send_c_store(source).Status)
            limit["pages"] = 2**31 - 2
        assert statuses[-1] == Status.STORE_OUT_OF_RESOURCES
        with engine.connect() as connection:
            count = connection.execute(sa.select(sa.func.count()).select_from(instance)).scalar_one()
        assert count == len(statuses) - 1
        assert association.send_c_store(source).Status == Status.SUCCESS
        with engine.connect() as connection:
            row = connection.execute(sa.select(instance).order_by(instance.c.id.desc())).first()
        assert row.sop_instance_uid == source.SOPInstanceUID
        assert row.state == InstanceState.RECEIVED
        assert spool.path(row.file).exists()
    finally:
        association.release()
        receiver.stop(5)
        jobs.close()
