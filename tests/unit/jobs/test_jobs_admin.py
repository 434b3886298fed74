"""What operators see of instances and can do about them: cancel, retry, list, and what nothing works on."""

import pytest
from summaries import analysed

from config.destinations import FolderDestination
from config.settings import NodeSettings
from config.storage import DatabaseSettings
from scp_node.errors import DatabaseError, JobStateError, UnknownJobError
from scp_node.jobs.admin import Admin
from scp_node.jobs.reconcile import Reconciler
from scp_node.jobs.summary import NotEligible
from scp_node.records import DeliveryState, InstanceState, Intake


@pytest.mark.databases
def test_cancelling_before_the_analysis_ends_it(bench):
    bench.arrive(analysed("2.25.1"))
    with Admin(bench.settings) as admin:
        record = admin.cancel("1.2.3")
    assert (record.state, record.reason) == (InstanceState.DEAD_LETTER, "cancelled")
    assert bench.analyse() == "stale"
    with Admin(bench.settings) as admin:
        assert admin.retry("1.2.3").state is InstanceState.RECEIVED
    assert bench.analyse() == InstanceState.DELIVERING


@pytest.mark.databases
def test_cancelling_a_delivery_keeps_what_was_delivered(bench, tmp_path):
    blocked = FolderDestination(kind="folder", name="blocked", folder=tmp_path / "blocked")
    blocked.folder.write_text("in the way")
    bench.destinations = (bench.share, blocked)
    bench.arrive(analysed("2.25.1"))
    bench.analyse()
    bench.deliver("share")
    bench.deliver("blocked")
    waiting = bench.delivery("blocked").job_id
    with Admin(bench.settings) as admin:
        record = admin.cancel("1.2.3")
        assert record.state is InstanceState.DEAD_LETTER
        assert {d.destination: d.state for d in record.deliveries} == {
            "share": DeliveryState.DELIVERED,
            "blocked": DeliveryState.CANCELLED,
        }
        assert bench.deliver("blocked", job_id=waiting) == "stale"
        # A repeat from the modality does not undo an operator's word; an operator can.
        assert bench.arrive(analysed("2.25.1")) is Intake.DUPLICATE
        assert bench.delivery("blocked").state == DeliveryState.CANCELLED
        admin.retry("1.2.3")
        assert bench.delivery("blocked").state == DeliveryState.WAITING
        assert bench.delivery("share").state == DeliveryState.DELIVERED


def test_operators_are_told_what_cannot_be_done(bench):
    bench.arrive(analysed("2.25.1"))
    with Admin(bench.settings) as admin:
        with pytest.raises(JobStateError, match="nothing was given up"):
            admin.retry("1.2.3")
        bench.analyse()
        bench.deliver()
        with pytest.raises(JobStateError, match="nothing to retry"):
            admin.retry("1.2.3")
        with pytest.raises(JobStateError, match="nothing to cancel"):
            admin.cancel("1.2.3")
        for key in ("9.9", "17", "'; DROP TABLE instance", "9" * 40):
            with pytest.raises(UnknownJobError):
                admin.show(key)
    with pytest.raises(DatabaseError, match="no database"):
        Admin(NodeSettings(database=DatabaseSettings(url=f"sqlite:///{bench.folder / 'other.sqlite'}")))


@pytest.mark.databases
def test_a_retry_of_a_waiting_delivery_makes_it_due_now(bench):
    bench.share.folder.write_text("in the way")
    bench.arrive(analysed("2.25.1"))
    bench.analyse()
    bench.deliver()
    old = bench.delivery().job_id
    bench.share.folder.unlink()
    with Admin(bench.settings) as admin:
        record = admin.retry("1.2.3")
    assert record.deliveries[0].next_attempt_at is None
    assert bench.workflows()["deliver:1:share:2:1"][0] == "ENQUEUED"
    assert bench.deliver(job_id=old) == "stale"
    assert bench.deliver() == DeliveryState.DELIVERED


@pytest.mark.databases
def test_a_retry_reaches_destinations_added_since(bench, tmp_path):
    bench.arrive(analysed("2.25.1"))
    bench.analyse()
    bench.deliver()
    bench.destinations += (FolderDestination(kind="folder", name="new", folder=tmp_path / "new"),)
    with Admin(bench.settings) as admin:
        admin.retry("1.2.3")
    assert bench.row().state == InstanceState.DELIVERING
    assert bench.deliver("new") == DeliveryState.DELIVERED
    assert bench.row().state == InstanceState.DELIVERED


def test_instances_are_listed_in_order_and_by_state(bench, monkeypatch):
    monkeypatch.setattr("scp_node.jobs.reading._CHUNK", 3)
    for number in range(8):
        bench.arrive(NotEligible(reason="lateral", detail="") if number % 2 else analysed(), uid=f"1.2.{number}")
        bench.analyse(f"1.2.{number}")
    with Admin(bench.settings) as admin:
        listed = [record.sop_instance_uid for record in admin.list_instances()]
        assert listed == [f"1.2.{number}" for number in range(8)]
        assert [r.sop_instance_uid for r in admin.list_instances(newest_first=True)] == listed[::-1]
        odd = list(admin.list_instances(InstanceState.NOT_ELIGIBLE))
    assert [record.sop_instance_uid for record in odd] == listed[1::2]
    assert odd[0].as_json() == {
        "id": odd[0].id,
        "sop_instance_uid": "1.2.1",
        "study_instance_uid": "",
        "state": "not_eligible",
        "reason": "lateral",
        "calling_ae_title": "CR1",
        "received_at": "2026-01-02T03:04:05+00:00",
        "deliveries": [],
    }


@pytest.mark.databases
@pytest.mark.parametrize("status", ["ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "SUCCESS"])
def test_what_no_job_works_on_becomes_a_visible_dead_letter(bench, status):
    reconciler = Reconciler(bench.engine, bench.jobs)
    bench.arrive(analysed("2.25.1"))
    assert reconciler.run() == 0
    bench.set_job_status(bench.row().job_id, status)
    assert reconciler.run() == 1
    assert bench.row().reason == "internal"
    assert status in bench.row().detail
    bench.arrive(analysed("2.25.2"), uid="1.2.4")
    bench.analyse("1.2.4")
    assert reconciler.run() == 0
    bench.set_job_status(bench.delivery(uid="1.2.4").job_id, status)
    assert reconciler.run() == 1
    assert bench.row("1.2.4").state == InstanceState.DEAD_LETTER
    assert reconciler.run() == 0
    with Admin(bench.settings) as admin:
        assert admin.retry("1.2.4").state is InstanceState.DELIVERING
