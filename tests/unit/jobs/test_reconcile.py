"""Deliveries whose job ended without moving them: what is stored is asked about again, the rest is a dead letter."""

import pytest
import sqlalchemy as sa

from config.destinations import DicomDestination
from scp_node.jobs import database
from scp_node.jobs.reconcile import Reconciler
from scp_node.jobs.recovery import job_table
from scp_node.jobs.tables import delivery
from scp_node.records import DeliveryState, InstanceState

pytestmark = pytest.mark.databases

ENDINGS = ["ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "SUCCESS", None]
"""Of the durable engine; None: it knows no such job."""


@pytest.fixture
def committing(results):
    """A delivery that waits for its commitment."""
    results.destinations = (DicomDestination(name="pacs", ae_title="PACS", host="127.0.0.1", port=1, timeout_s=1),)
    results.add(1, "pacs")
    with database.write(results.engine) as connection:
        connection.execute(sa.update(delivery).values(state=DeliveryState.COMMITTING.value))
    return results


def _end(results, job_id, status):
    jobs = job_table(results.engine.dialect.name)
    which = jobs.c.workflow_uuid == job_id
    with database.write(results.engine) as connection:
        change = sa.delete(jobs) if status is None else sa.update(jobs).values(status=status)
        assert connection.execute(change.where(which)).rowcount == 1


@pytest.mark.parametrize("status", ENDINGS)
def test_what_waits_for_a_commitment_without_a_job_is_asked_about_again(committing, status):
    reconciler = Reconciler(committing.engine, committing.jobs)
    assert reconciler.run() == 0
    before = committing.row(1, "pacs").job_id
    _end(committing, before, status)
    assert reconciler.run() == 1
    row = committing.row(1, "pacs")
    assert row.state == DeliveryState.COMMITTING
    assert row.job_id != before
    assert committing.jobs.statuses([row.job_id]) == {row.job_id: "ENQUEUED"}
    assert committing.instance(1).state == InstanceState.DELIVERING
    assert reconciler.run() == 0


def test_what_nobody_can_ask_about_stays_delivered_with_a_note(committing):
    """Its jobs end the same way each time: stored is stored."""
    reconciler = Reconciler(committing.engine, committing.jobs)
    for _ in range(3):
        assert committing.row(1, "pacs").state == DeliveryState.COMMITTING
        _end(committing, committing.row(1, "pacs").job_id, "ERROR")
        assert reconciler.run() == 1
    row = committing.row(1, "pacs")
    assert row.state == DeliveryState.DELIVERED
    assert row.last_error == "stored, not committed: error of this node: the job ended (ERROR) without an outcome"
    assert committing.instance(1).state == InstanceState.DELIVERED
    assert reconciler.run() == 0


def test_what_waits_in_thousands_hides_nothing_behind_it(committing, monkeypatch):
    """One look asks about so many; the next goes on behind them, and then from the first again."""
    monkeypatch.setattr("scp_node.jobs.reconcile._AT_ONCE", 2)
    for number in range(2, 8):
        committing.add(number, "pacs")
    with database.write(committing.engine) as connection:
        connection.execute(sa.update(delivery).values(state=DeliveryState.COMMITTING.value))
    reconciler = Reconciler(committing.engine, committing.jobs)
    for number in (7, 1):
        before = committing.row(number, "pacs").job_id
        _end(committing, before, "ERROR")
        assert sum(reconciler.run() for _ in range(4)) == 1
        assert committing.row(number, "pacs").job_id != before
