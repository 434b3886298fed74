"""What analyse jobs make of the answers they get from real children, and the way on to delivered."""

import json
import time

import pytest
from structlog.testing import capture_logs
from summaries import PREDICTION, analysed

from scp_node.jobs.admin import Admin
from scp_node.jobs.child_errors import ModelsFailedError
from scp_node.jobs.states import DeadLetterReason
from scp_node.jobs.summary import Hopeless, NotEligible, NotNow, from_json, to_json
from scp_node.records import DeliveryState, InstanceState


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
    if reason == "time_limit":
        bench.pool.stop(0.1)
        bench.start_child(time_limit_s=1.5)
    bench.arrive({**script, "marks": str(tmp_path / "marks")})
    assert bench.analyse(attempts=2) == InstanceState.DEAD_LETTER
    row = bench.row()
    assert row.reason == reason
    assert detail in row.detail
    assert "secret" not in row.detail
    if reason == "time_limit":
        bench.pool.stop(0.1)
        bench.start_child(time_limit_s=60)
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
    before = time.time()
    assert bench.analyse() == InstanceState.RECEIVED
    row = bench.row()
    assert row.job_id.endswith(":2")
    status, due_ms = bench.workflows()[row.job_id]
    assert status == "DELAYED"
    assert before + 20 < due_ms / 1000 < time.time() + 40


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
    for delay_s in [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600, 3600]:
        before = time.time()
        assert bench.analyse(attempts=2) == InstanceState.RECEIVED
        status, due_ms = bench.workflows()[bench.row().job_id]
        assert status == "DELAYED"
        assert before + delay_s <= due_ms / 1000 + 0.01 <= time.time() + delay_s + 0.02
    assert bench.analyse(attempts=2) == InstanceState.DEAD_LETTER
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
