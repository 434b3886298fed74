"""What was received is a durable file and a durable job, or it is nothing."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from config.base import Priority
from scp_node.jobs import database
from scp_node.jobs.intake import Filing
from scp_node.jobs.queues import rank
from scp_node.jobs.states import settle
from scp_node.jobs.tables import conflict, delivery, instance, sent_uid
from scp_node.records import DeliveryState, InstanceState, Intake

pytestmark = pytest.mark.databases


@pytest.fixture
def filing(engine, jobs, spool):
    return Filing(engine, jobs, spool, models=("m1", "m2"), destinations=("pacs", "share"))


def _rows(engine, table):
    with engine.connect() as connection:
        return connection.execute(sa.select(table)).all()


def _workflows(engine):
    query = "SELECT workflow_uuid, queue_name, status, priority FROM workflow_status ORDER BY 1"
    with engine.connect() as connection:
        return connection.exec_driver_sql(query).all()


def test_a_new_object_becomes_a_file_a_row_and_a_job(filing, engine, spool, receive):
    received = receive("1.2.3", b"pixels")
    assert filing.accept(received) is Intake.FILED
    (row,) = _rows(engine, instance)
    assert row.state == InstanceState.RECEIVED
    assert row.received_at == received.received_at.timestamp()
    assert spool.path(row.file).read_bytes() == b"pixels"
    assert not received.file.exists()
    ((job_id, queue, status, priority),) = _workflows(engine)
    assert job_id == row.job_id == f"analyse:m1+m2:1.2.3:{received.sha256[:16]}:1"
    assert (queue, status, priority) == ("analyse", "ENQUEUED", rank(Priority.ROUTINE, 0))


def test_stat_goes_first(filing, engine, receive):
    filing.accept(receive("1.2.3", b"a", priority=Priority.STAT))
    assert _workflows(engine)[0].priority == 1


def test_the_same_object_again_makes_nothing_new(filing, engine, receive):
    filing.accept(receive("1.2.3", b"pixels"))
    again = receive("1.2.3", b"pixels", calling_ae_title="CR2")
    assert filing.accept(again) is Intake.DUPLICATE
    assert len(_rows(engine, instance)) == len(_workflows(engine)) == 1
    assert not again.file.exists()


def test_a_file_that_was_lost_comes_again_and_is_kept(filing, engine, spool, receive):
    """The disk was restored from an older copy: who is told that it is there must find it there."""
    filing.accept(receive("1.2.3", b"pixels"))
    (before,) = _rows(engine, instance)
    spool.path(before.file).unlink()
    again = receive("1.2.3", b"pixels")
    assert filing.accept(again) is Intake.DUPLICATE
    (after,) = _rows(engine, instance)
    assert spool.path(after.file).read_bytes() == b"pixels"
    assert not again.file.exists()
    assert (after.state, after.job_id) == (before.state, before.job_id)
    assert len(_workflows(engine)) == 1


def test_an_analysis_that_found_no_file_begins_anew_when_the_file_comes_again(filing, engine, spool, receive):
    filing.accept(receive("1.2.3", b"pixels"))
    (before,) = _rows(engine, instance)
    spool.path(before.file).unlink()
    with database.write(engine) as connection:
        values = {"state": "dead_letter", "reason": "unreadable", "file": "objects/ab/cd/older-place.dcm"}
        connection.execute(sa.update(instance).values(values))
    assert filing.accept(receive("1.2.3", b"pixels")) is Intake.DUPLICATE
    (after,) = _rows(engine, instance)
    assert (after.state, after.reason, after.round) == (InstanceState.RECEIVED, None, 2)
    assert spool.path(after.file).read_bytes() == b"pixels"
    # Damaged as it came, and still there: that is not repeated.
    with database.write(engine) as connection:
        connection.execute(sa.update(instance).values(state="dead_letter", reason="unreadable"))
    filing.accept(receive("1.2.3", b"pixels"))
    assert _rows(engine, instance)[0].state == InstanceState.DEAD_LETTER


def test_other_bytes_under_the_same_uid_are_kept_aside(filing, engine, spool, receive):
    filing.accept(receive("1.2.3", b"first"))
    other = receive("1.2.3", b"second", calling_ae_title="CR2")
    assert filing.accept(other) is Intake.CONFLICT
    (row,) = _rows(engine, instance)
    assert spool.path(row.file).read_bytes() == b"first"
    (aside,) = _rows(engine, conflict)
    assert aside.calling_ae_title == "CR2"
    assert spool.path(aside.file).read_bytes() == b"second"
    assert len(_workflows(engine)) == 1
    # Again: one row is enough.
    assert filing.accept(receive("1.2.3", b"second")) is Intake.CONFLICT
    assert len(_rows(engine, conflict)) == 1


def test_sixteen_associations_with_one_object_make_one_job(filing, engine, receive):
    objects = [receive("1.2.3", b"pixels") for _ in range(16)]
    with ThreadPoolExecutor(16) as threads:
        verdicts = list(threads.map(filing.accept, objects))
    assert sorted(verdicts) == [Intake.DUPLICATE] * 15 + [Intake.FILED]
    assert len(_rows(engine, instance)) == len(_workflows(engine)) == 1


def test_an_own_result_is_dropped_and_counted(filing, engine, receive):
    with database.write(engine) as connection:
        connection.execute(
            sa.insert(sent_uid).values(
                sop_instance_uid="2.25.9", source_sop_instance_uid="1.2.3", created_at=0, returned=0
            )
        )
    for count in (1, 2):
        back = receive("2.25.9", b"coerced by an archive %d" % count)
        assert filing.accept(back) is Intake.OWN_RESULT
        assert not back.file.exists()
        assert _rows(engine, sent_uid)[0].returned == count
    assert _rows(engine, instance) == []
    assert _workflows(engine) == []


def test_a_job_that_cannot_be_added_takes_the_row_back(filing, engine, jobs, receive, monkeypatch):
    def fail(*_arguments, **_options):
        raise sa.exc.OperationalError("INSERT", {}, OSError("disk I/O error"))

    monkeypatch.setattr(jobs, "analyse", fail)
    with pytest.raises(sa.exc.OperationalError):
        filing.accept(receive("1.2.3", b"pixels"))
    assert _rows(engine, instance) == []
    monkeypatch.undo()
    # The sender repeats it, as it must: nothing is in the way.
    assert filing.accept(receive("1.2.3", b"pixels")) is Intake.FILED


def test_a_file_that_was_filed_before_a_crash_is_taken_up_by_the_repeat(filing, engine, spool, receive):
    """Between the rename and the commit: the file is there, no row names it, the sender got no answer."""
    received = receive("1.2.3", b"pixels")
    spool.adopt(received.file, received.sha256)
    assert filing.accept(receive("1.2.3", b"pixels")) is Intake.FILED
    assert len(_rows(engine, instance)) == 1


def test_a_repeat_takes_up_deliveries_that_were_given_up_or_are_missing(filing, engine, receive):
    received = receive("1.2.3", b"pixels")
    filing.accept(received)
    with database.write(engine) as connection:
        connection.execute(sa.update(instance).values(state="delivering", analysed_at=1.0))
        connection.execute(
            sa.insert(delivery).values(
                instance_id=1,
                destination="pacs",
                state="refused",
                attempts=40,
                last_error="gave up",
                job_id="deliver:1:pacs:1:40",
                round=1,
                first_attempt_at=1.0,
                updated_at=1.0,
            )
        )
        settle(connection, database.lock_instance(connection, 1))
    assert _rows(engine, instance)[0].state == InstanceState.DEAD_LETTER
    assert filing.accept(replace(receive("1.2.3", b"pixels"), sha256=received.sha256)) is Intake.DUPLICATE
    assert _rows(engine, instance)[0].state == InstanceState.DELIVERING
    rows = {row.destination: row for row in _rows(engine, delivery)}
    assert {row.state for row in rows.values()} == {DeliveryState.WAITING}
    assert rows["pacs"].job_id == "deliver:1:pacs:2:1"
    assert rows["pacs"].attempts == 0
    assert [row.workflow_uuid for row in _workflows(engine)][1:] == ["deliver:1:pacs:2:1", "deliver:1:share:1:1"]
