"""The trace says what happened, outlives what it speaks of, and shows when somebody changed it."""

import json
import re
import threading

import pytest
import sqlalchemy as sa

from scp_node.jobs import database, sealing, trace
from scp_node.jobs.intake import Filing
from scp_node.jobs.tables import sent_uid, trace_seal
from scp_node.jobs.tables import trace as trace_table
from scp_node.jobs.trace import Event
from scp_node.records import Intake


@pytest.fixture
def filing(engine, jobs, spool):
    return Filing(engine, jobs, spool, models=("m1",), destinations=("pacs",))


def _write(engine, *uids):
    with database.write(engine) as connection:
        for uid in uids:
            trace.record(connection, Event.RECEIVED, uid, instance_id=1, calling_ae_title="CR\x1b1")


def _events(engine, key):
    with engine.connect() as connection:
        return [
            (record.event.value, record.detail.get("calling_ae_title")) for record in trace.history(connection, key)
        ]


def _verify(engine, **options):
    with engine.connect() as connection:
        return sealing.verify(connection, **options)


@pytest.mark.databases
def test_what_arrives_is_recorded_with_what_became_of_it(filing, engine, receive):
    filing.accept(receive("1.2.3", b"first"))
    filing.accept(receive("1.2.3", b"first", calling_ae_title="CR2"))
    filing.accept(receive("1.2.3", b"second", calling_ae_title="CR3"))
    with database.write(engine) as connection:
        connection.execute(
            sa.insert(sent_uid).values(
                sop_instance_uid="2.25.9", source_sop_instance_uid="1.2.3", created_at=0, returned=0
            )
        )
    assert filing.accept(receive("2.25.9", b"back", calling_ae_title="PACS")) is Intake.OWN_RESULT
    expected = [("received", "CR1"), ("duplicate", "CR2"), ("conflict", "CR3")]
    assert _events(engine, "1") == expected
    # By its own UID the instance, by the UID of a result the instance and what came back.
    assert _events(engine, "1.2.3") == expected
    assert _events(engine, "2.25.9") == [*expected, ("own_result", "PACS")]
    assert _events(engine, "9.9.9") == []


def test_a_change_that_is_taken_back_leaves_no_record(filing, engine, jobs, receive, monkeypatch):
    def fail(*_arguments, **_options):
        raise OSError

    monkeypatch.setattr(jobs, "analyse", fail)
    with pytest.raises(OSError):
        filing.accept(receive("1.2.3", b"first"))
    assert _events(engine, "1.2.3") == []


def test_seals_hold_and_cover_every_record(engine):
    assert sealing.seal(engine) == 0
    for number in range(3):
        _write(engine, f"1.{number}", f"2.{number}")
        assert sealing.seal(engine) == 2
    _write(engine, "3")
    found = _verify(engine)
    assert (found.records, found.unsealed, found.last_seal, found.faults) == (7, 1, 3, ())
    assert _verify(engine, expected={3: found.digest}).faults == ()


@pytest.mark.databases
def test_records_that_are_committed_late_under_a_lower_number_are_sealed_too(engine):
    """As transactions on PostgreSQL do; here by hand."""
    _write(engine, "1.1", "1.2", "1.3")
    with database.write(engine) as connection:
        row = connection.execute(sa.select(trace_table).where(trace_table.c.id == 2)).one()
        connection.execute(sa.delete(trace_table).where(trace_table.c.id == 2))
    assert sealing.seal(engine) == 2
    with database.write(engine) as connection:
        connection.execute(sa.insert(trace_table).values(**row._mapping))
    assert sealing.seal(engine) == 1
    assert _verify(engine).faults == ()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("UPDATE trace SET detail = '{}' WHERE id = 3", "seal 2 .* does not hold"),
        ("UPDATE trace SET at = at - 1 WHERE id = 3", "seal 2 .* does not hold"),
        ("UPDATE trace SET sop_instance_uid = '9' WHERE id = 3", "seal 2 .* does not hold"),
        ("DELETE FROM trace WHERE id = 3", "seal 2 .* covers 2 records, 1 are there"),
        ("UPDATE trace SET seal = 3 WHERE id = 3", "seal 2 .* covers 2 records, 1 are there"),
        ("UPDATE trace SET seal = 99 WHERE id = 3", "1 records name a seal that is not there"),
        ("DELETE FROM trace_seal WHERE number = 2", "seal 2 is missing"),
        ("UPDATE trace_seal SET digest = 'x' WHERE number = 2", "seal 2 .* does not hold"),
        (
            "INSERT INTO trace (id, at, event, instance_id, sop_instance_uid, detail, seal)"
            " VALUES (99, 1, 'received', 1, '9', '{}', 2)",
            "seal 2 .* covers 2 records, 3 are there",
        ),
    ],
)
def test_every_change_afterwards_shows(engine, change, fault):
    for number in range(3):
        _write(engine, f"1.{number}", f"2.{number}")
        sealing.seal(engine)
    with database.write(engine) as connection:
        connection.exec_driver_sql(change)
    faults = _verify(engine).faults
    assert any(re.search(fault, one) for one in faults), faults


def test_a_trace_that_was_cut_off_or_written_anew_shows_by_a_seal_noted_elsewhere(engine):
    for number in range(3):
        _write(engine, f"1.{number}")
        sealing.seal(engine)
    noted = {3: _verify(engine).digest}
    with database.write(engine) as connection:
        connection.exec_driver_sql("DELETE FROM trace WHERE seal = 3")
        connection.exec_driver_sql("DELETE FROM trace_seal WHERE number = 3")
    assert _verify(engine).faults == ()
    assert _verify(engine, expected=noted).faults == ("seal 3 was noted and is missing",)
    _write(engine, "other")
    sealing.seal(engine)
    (fault,) = _verify(engine, expected=noted).faults
    assert "not the one that was noted" in fault


@pytest.mark.databases
def test_two_that_seal_at_once_make_one_chain(engine):
    for number in range(4):
        _write(engine, *(f"{number}.{one}" for one in range(50)))
        threads = [threading.Thread(target=sealing.seal, args=(engine,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = _verify(engine)
    assert (found.records, found.unsealed, found.faults) == (200, 0, ())
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.sum(trace_seal.c.records))).scalar_one() == 200


@pytest.mark.databases
def test_who_writes_waits_for_no_seal(engine):
    """On PostgreSQL a record is added while a seal is being made; SQLite has one writer at a time anyway."""
    if engine.dialect.name == "sqlite":
        pytest.skip("one writer at a time")
    with database.exclusive(engine, trace_seal):
        _write(engine, "1.1")
    assert sealing.seal(engine) == 1


def test_a_record_is_json_without_what_a_terminal_would_obey(engine):
    _write(engine, "1.1")
    with engine.connect() as connection:
        (record,) = trace.history(connection, "1.1")
    assert json.loads(json.dumps(record.as_json()))["detail"] == {"calling_ae_title": "CR\x1b1"}
    assert not record.is_sealed


def test_all_analyses_are_found_without_reading_all_else(engine, monkeypatch):
    monkeypatch.setattr(trace, "_READ_AT_ONCE", 3)
    with database.write(engine) as connection:
        for number in range(10):
            trace.record(connection, Event.RECEIVED, f"1.{number}")
            trace.record(connection, Event.ANALYSED, f"1.{number}", predictions=[])
    with engine.connect() as connection:
        assert [record.sop_instance_uid for record in trace.analyses(connection)] == [f"1.{n}" for n in range(10)]
