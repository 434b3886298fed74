"""What analyse and deliver jobs make of the answers they get, with real children and real destinations."""

import json
import os
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs
from summaries import PREDICTION, analysed

from config.analysis import AnalysisSettings
from config.destinations import DeliverySettings, DicomDestination, FolderDestination
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.errors import DatabaseError, JobStateError, UnknownJobError
from scp_node.jobs import database
from scp_node.jobs.admin import Admin
from scp_node.jobs.analysis import AnalysisWork
from scp_node.jobs.child_errors import ModelsFailedError
from scp_node.jobs.children import ChildPool
from scp_node.jobs.delivering import DeliveryWork
from scp_node.jobs.intake import Filing
from scp_node.jobs.reconcile import Reconciler
from scp_node.jobs.states import DeadLetterReason
from scp_node.jobs.summary import Hopeless, NotEligible, NotNow, from_json, to_json
from scp_node.jobs.tables import delivered_object, delivery, instance
from scp_node.records import DeliveryState, InstanceState, Intake


@pytest.mark.parametrize(
    "summary",
    [
        analysed("2.25.1", "2.25.2"),
        NotEligible(reason="lateral", detail="d"),
        Hopeless(reason=DeadLetterReason.MEMORY, detail="d"),
        NotNow(detail="full"),
        NotNow(detail="lost", delay_s=60.0, is_counted=True),
    ],
)
def test_a_summary_survives_its_journey(summary):
    assert from_json(json.loads(json.dumps(to_json(summary)))) == summary


class Bench:
    """A node without receiver and durable engine: jobs are run by hand."""

    def __init__(self, folder, engine, jobs, spool, receive):
        self.folder, self.engine, self.jobs, self.spool, self.receive = folder, engine, jobs, spool, receive
        self.now = 1_000_000.0
        self.share = FolderDestination(kind="folder", name="share", folder=folder / "share", patience_s=100)
        self.destinations = (self.share,)
        self.pool = ChildPool(
            "child_targets:scripted", {"spool": {"folder": str(spool.folder)}}, count=1, time_limit_s=1.5
        )
        self.pool.start()

    @property
    def settings(self):
        return NodeSettings(
            spool=SpoolSettings(folder=self.spool.folder),
            database=DatabaseSettings(url=str(self.engine.url)),
            analysis=AnalysisSettings(models=("m1",)),
            destinations=self.destinations,
        )

    @property
    def names(self):
        return tuple(destination.name for destination in self.destinations)

    def arrive(self, script, uid="1.2.3"):
        filing = Filing(self.engine, self.jobs, self.spool, models=("m1",), destinations=self.names)
        if not isinstance(script, dict):
            script = {"answer": to_json(script)}
        return filing.accept(self.receive(uid, json.dumps(script).encode()))

    def analyse(self, uid="1.2.3", *, attempts=3):
        work = AnalysisWork(
            self.engine, self.jobs, self.pool, self.spool, models=("m1",), attempts=attempts, destinations=self.names
        )
        row = self.row(uid)
        return work.run(row.id, row.job_id)

    def deliver(self, name="share", uid="1.2.3", job_id=None):
        work = DeliveryWork(
            self.engine,
            self.jobs,
            self.spool,
            destinations=self.destinations,
            settings=DeliverySettings(first_delay_s=10, maximum_delay_s=40),
            calling_ae_title="NODE",
            clock=lambda: self.now,
            random=lambda: 1.0,
        )
        row = self.row(uid)
        return work.run(row.id, name, job_id or self.delivery(name, uid).job_id)

    def row(self, uid="1.2.3"):
        with self.engine.connect() as connection:
            return connection.execute(sa.select(instance).where(instance.c.sop_instance_uid == uid)).one()

    def delivery(self, name="share", uid="1.2.3"):
        with self.engine.connect() as connection:
            return connection.execute(
                sa.select(delivery).where(delivery.c.instance_id == self.row(uid).id, delivery.c.destination == name)
            ).one()

    def workflows(self):
        query = "SELECT workflow_uuid, status, delay_until_epoch_ms FROM workflow_status ORDER BY created_at, 1"
        with self.engine.connect() as connection:
            return {row[0]: row[1:] for row in connection.exec_driver_sql(query)}

    def set_job_status(self, job_id, status):
        with database.write(self.engine) as connection:
            connection.execute(
                sa.text("UPDATE workflow_status SET status = :status WHERE workflow_uuid = :id"),
                {"status": status, "id": job_id},
            )


@pytest.fixture
def bench(tmp_path, engine, jobs, spool, receive, monkeypatch):  # noqa: PLR0917 - fixtures
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    made = Bench(tmp_path, engine, jobs, spool, receive)
    yield made
    made.pool.stop(0.1)


@pytest.mark.databases
def test_an_analysis_leads_to_deliveries_and_they_to_delivered(bench):
    bench.arrive(analysed("2.25.1", "2.25.2"))
    assert bench.analyse() == InstanceState.DELIVERING
    assert bench.workflows()["deliver:1:share:1:1"][0] == "ENQUEUED"
    assert bench.deliver() == DeliveryState.DELIVERED
    assert bench.row().state == InstanceState.DELIVERED
    assert sorted(file.name for file in bench.share.folder.iterdir()) == ["2.25.1.dcm", "2.25.2.dcm"]
    with Admin(bench.settings) as admin:
        detail = admin.show("1.2.3")
        assert admin.show("1") == detail
        assert admin.counts()[InstanceState.DELIVERED] == 1
    assert detail.predictions == (PREDICTION,)
    assert detail.window == "window_attributes 2047.5/4096 LINEAR"
    assert detail.notes == ("view unknown",)
    assert [result.confirmations[0].verdict for result in detail.results] == ["confirmed"] * 2
    assert detail.results[0].file.read_bytes() == b"result 2.25.1"


@pytest.mark.databases
def test_jobs_that_run_twice_do_nothing_the_second_time(bench, tmp_path):
    """As after a crash between our commit and the durable engine's own."""
    marks = tmp_path / "marks"
    bench.arrive({"crash_until": 1, "marks": str(marks), "answer": to_json(analysed("2.25.1"))})
    assert bench.analyse() == InstanceState.DELIVERING
    assert bench.analyse() == "stale"
    assert marks.read_text() == "x"
    first = bench.delivery().job_id
    bench.deliver()
    (bench.share.folder / "2.25.1.dcm").unlink()
    assert bench.deliver(job_id=first) == "stale"
    assert not (bench.share.folder / "2.25.1.dcm").exists()
    assert len(bench.workflows()) == 2


def test_without_a_destination_analysed_is_delivered(bench):
    bench.destinations = ()
    bench.arrive(analysed("2.25.1"))
    assert bench.analyse() == InstanceState.DELIVERED
    with Admin(bench.settings) as admin:
        assert admin.show("1.2.3").results[0].file.exists()


def test_what_is_not_eligible_says_why(bench):
    bench.arrive(NotEligible(reason="lateral", detail="View Position (0018,5101) is LL"))
    assert bench.analyse() == InstanceState.NOT_ELIGIBLE
    row = bench.row()
    assert (row.reason, row.detail) == ("lateral", "View Position (0018,5101) is LL")
    assert len(bench.workflows()) == 1


@pytest.mark.parametrize(
    ("script", "reason", "detail"),
    [
        ({"answer": to_json(Hopeless(reason=DeadLetterReason.UNREADABLE, detail="cut off"))}, "unreadable", "cut off"),
        ({"fail": True}, "internal", "ValueError at child_targets.py"),
        ({"sleep": 60}, "time_limit", "longer than 1.5 s"),
        ({"crash_until": 99}, "crashed", "SIGKILL (2 times)"),
    ],
)
def test_every_kind_of_failure_is_one_dead_letter_with_its_reason(bench, tmp_path, script, reason, detail):
    bench.arrive({**script, "marks": str(tmp_path / "marks")})
    assert bench.analyse(attempts=2) == InstanceState.DEAD_LETTER
    row = bench.row()
    assert row.reason == reason
    assert detail in row.detail
    assert "secret" not in row.detail
    # The neighbour is unharmed.
    bench.arrive(analysed("2.25.1"), uid="1.2.4")
    assert bench.analyse("1.2.4") == InstanceState.DELIVERING


def test_what_waits_for_a_person_is_a_warning(bench):
    bench.arrive(Hopeless(reason=DeadLetterReason.UNREADABLE, detail="cut off"))
    bench.arrive(analysed("2.25.1"), uid="1.2.4")
    with capture_logs() as logs:
        bench.analyse()
        bench.analyse("1.2.4")
    assert [one["log_level"] for one in logs if one["event"] == "instance analysed"] == ["warning", "info"]


def test_crashes_below_the_limit_are_survived_and_counted(bench, tmp_path):
    script = {"crash_until": 3, "marks": str(tmp_path / "marks"), "answer": to_json(analysed("2.25.1"))}
    bench.arrive(script)
    assert bench.analyse(attempts=3) == InstanceState.DELIVERING
    assert bench.row().crashes == 2


def test_a_file_that_vanished_is_a_dead_letter(bench):
    bench.arrive(analysed("2.25.1"))
    bench.spool.path(bench.row().file).unlink()
    assert bench.analyse() == InstanceState.DEAD_LETTER
    assert "missing" in bench.row().detail


@pytest.mark.databases
def test_a_full_disk_is_waited_for(bench):
    bench.arrive(NotNow(detail="no space"))
    assert bench.analyse() == InstanceState.RECEIVED
    row = bench.row()
    assert row.job_id.endswith(":2")
    status, due_ms = bench.workflows()[row.job_id]
    assert status == "DELAYED"
    assert 20 < due_ms / 1000 - time.time() < 40


class FailingModels:
    """Instead of children: the process of the models ends on everything."""

    def __init__(self):
        self.asked = 0

    def run(self, request):
        self.asked += 1
        raise ModelsFailedError("the models: device lost")

    def stop(self, timeout_s):
        pass


def test_models_that_fail_are_waited_for_longer_and_longer_and_then_a_person(bench, tmp_path):
    """A device that is lost or out of memory is no radiograph's fault, and comes back: nobody has to retry."""
    bench.arrive({"answer": to_json(analysed("2.25.1"))})
    children, bench.pool = bench.pool, FailingModels()
    delays = []
    while bench.analyse(attempts=2) == InstanceState.RECEIVED:
        status, due_ms = bench.workflows()[bench.row().job_id]
        assert status == "DELAYED"
        delays.append(round(due_ms / 1000 - time.time(), -1))
    assert delays == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600, 3600]
    row = bench.row()
    assert (row.state, row.reason, row.crashes) == (InstanceState.DEAD_LETTER, "crashed", 14)
    assert row.detail == "the models: device lost (14 times)"
    # Each attempt at once as long as they are few, then one after each delay.
    assert bench.pool.asked == 14
    bench.pool = children
    with Admin(bench.settings) as admin:
        admin.retry("1.2.3")
    assert bench.analyse() == InstanceState.DELIVERING
    assert bench.row().crashes == 0


@pytest.mark.databases
def test_a_destination_that_is_away_is_tried_again_later_and_patience_ends(bench):
    bench.share.folder.write_text("in the way")
    bench.arrive(analysed("2.25.1"))
    bench.analyse()
    assert bench.deliver() == DeliveryState.WAITING
    row = bench.delivery()
    assert (row.attempts, row.job_id, row.next_attempt_at) == (1, "deliver:1:share:1:2", bench.now + 10)
    assert "cannot write" in row.last_error
    assert bench.workflows()["deliver:1:share:1:2"][0] == "DELAYED"
    assert bench.row().state == InstanceState.DELIVERING
    waits = []
    while bench.delivery().state == DeliveryState.WAITING:
        waits.append(bench.delivery().next_attempt_at - bench.now)
        bench.now = bench.delivery().next_attempt_at
        bench.deliver()
    assert waits == [10, 20, 40, 30]
    assert bench.delivery().state == DeliveryState.REFUSED
    assert bench.row().state == InstanceState.DEAD_LETTER
    assert bench.row().reason == "delivery"
    assert "share: gave up after 100 s: cannot write" in bench.row().detail


@pytest.mark.databases
def test_a_confirmed_object_is_not_sent_again(bench):
    bench.arrive(analysed("2.25.1", "2.25.2"))
    bench.analyse()
    missing = bench.spool.path("results/aa/bb/cc/2.25.2.dcm")
    missing.chmod(0)
    if os.access(missing, os.R_OK):  # root reads everything: let writing fail instead
        (bench.share.folder / "2.25.2.dcm").mkdir(parents=True)
        (bench.share.folder / "2.25.2.dcm" / "occupied").touch()
    assert bench.deliver() == DeliveryState.WAITING
    first = bench.share.folder / "2.25.1.dcm"
    first.write_bytes(b"the archive's own copy")
    missing.chmod(0o600)
    if (bench.share.folder / "2.25.2.dcm").is_dir():
        (bench.share.folder / "2.25.2.dcm" / "occupied").unlink()
        (bench.share.folder / "2.25.2.dcm").rmdir()
    assert bench.deliver() == DeliveryState.DELIVERED
    assert first.read_bytes() == b"the archive's own copy"
    assert (bench.share.folder / "2.25.2.dcm").read_bytes() == b"result 2.25.2"


def test_a_destination_that_is_not_configured_any_more_is_a_dead_letter_that_can_be_retried(bench):
    bench.arrive(analysed("2.25.1"))
    bench.analyse()
    bench.destinations = ()
    assert bench.deliver() == DeliveryState.REFUSED
    assert "not configured" in bench.row().detail
    bench.destinations = (bench.share,)
    with Admin(bench.settings) as admin:
        record = admin.retry("1.2.3")
    assert record.state is InstanceState.DELIVERING
    assert bench.deliver() == DeliveryState.DELIVERED


def test_a_peer_that_takes_nothing_is_waited_for_and_one_that_takes_some_has_all(bench, tmp_path):
    from scp_node.demo.pacs import StandInPacs

    with StandInPacs(tmp_path / "pacs", sop_classes=["1.2.840.10008.5.1.4.1.1.88.11"]) as pacs:
        bench.destinations = (
            DicomDestination(name="pacs", ae_title="PACS", host="127.0.0.1", port=pacs.port, timeout_s=5),
        )
        bench.arrive(analysed("2.25.1"))
        bench.analyse()
        assert bench.deliver("pacs") == DeliveryState.WAITING
        detail = "PACS accepts no presentation context for Secondary Capture Image Storage"
        assert bench.delivery("pacs").last_error == detail
        # Nobody has set it up by the end of patience: then a person is told.
        bench.now += bench.destinations[0].patience_s
        assert bench.deliver("pacs") == DeliveryState.REFUSED
        assert bench.row().detail == f"pacs: gave up after 604800 s: {detail}"
        # Had it confirmed another object, it would have all that it takes.
        bench.arrive(analysed("2.25.1", "2.25.2"), uid="1.2.4")
        bench.analyse("1.2.4")
        with database.write(bench.engine) as connection:
            connection.execute(
                sa.insert(delivered_object).values(
                    instance_id=2,
                    destination="pacs",
                    sop_instance_uid="2.25.2",
                    verdict="confirmed",
                    status=0,
                    detail="",
                    at=0.0,
                )
            )
        assert bench.deliver("pacs", "1.2.4") == DeliveryState.DELIVERED
        assert "no presentation context" in bench.delivery("pacs", "1.2.4").last_error


def test_a_defect_of_a_sender_is_an_attempt_like_any_other(bench, monkeypatch):
    def defect(*_arguments, **_options):
        raise ZeroDivisionError("secret")

    bench.arrive(analysed("2.25.1"))
    bench.analyse()
    monkeypatch.setattr("scp_node.delivery.catalog.send", defect)
    assert bench.deliver() == DeliveryState.WAITING
    assert bench.delivery().last_error == "error of this node: ZeroDivisionError"


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
