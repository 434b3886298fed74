"""What is refused is counted for the metrics: by all processes together, and with a bounded number of reasons."""

import threading

import pytest
import sqlalchemy as sa

from scp_node.jobs import refusals
from scp_node.jobs.refusals import Refusals
from scp_node.scp.statuses import DataSetError, answer_to
from scp_node.security.events import EventKind, SecurityEvent


def rejected(reason):
    return SecurityEvent(kind=EventKind.ASSOCIATION_REJECTED, reason=reason, calling_ae_title="HONG^GILDONG")


@pytest.mark.databases
def test_processes_add_up(engine):
    first, second = Refusals(engine), Refusals(engine)
    for counting in (first, second, first):
        counting.tell(rejected("calling_ae_title"))
        counting.refused(answer_to(DataSetError("empty")))
    # A reason that is a sentence is no label, and good news is no refusal.
    first.tell(SecurityEvent(kind=EventKind.TLS_FAILED, reason="certificate not trusted: self-signed"))
    first.tell(SecurityEvent(kind=EventKind.CREDENTIALS_RELOADED, reason="the files have changed"))
    for counting in (first, second, first):
        counting.flush()
    with engine.connect() as connection:
        assert refusals.counts(connection) == {
            ("association_rejected", "calling_ae_title"): 3,
            ("c_store", "c000"): 3,
            ("tls_failed", ""): 1,
        }


def test_what_a_database_does_not_take_waits(engine):
    counting = Refusals(engine)
    counting.tell(rejected("address"))
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE refusal RENAME TO away")
    with pytest.raises(sa.exc.SQLAlchemyError):
        counting.flush()
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO refusal")
    counting.start()
    counting.stop()
    with engine.connect() as connection:
        assert refusals.counts(connection) == {("association_rejected", "address"): 1}


def test_nothing_ends_the_counting(engine, monkeypatch):
    counting = Refusals(engine)
    counting.tell(rejected("address"))
    real, tried, third = refusals.database.write, [], threading.Event()

    def refuse(_engine):
        tried.append(None)
        if len(tried) >= 3:
            third.set()
        raise MemoryError

    monkeypatch.setattr(refusals, "_FLUSH_S", 0.01)
    monkeypatch.setattr(refusals.database, "write", refuse)
    counting.start()
    assert third.wait(60)
    monkeypatch.setattr(refusals.database, "write", real)
    counting.stop()
    with engine.connect() as connection:
        assert refusals.counts(connection) == {("association_rejected", "address"): 1}
