"""The judges of a fault run bite: each kind of breach, planted, is found; what is allowed is not."""

from collections import defaultdict
from datetime import UTC, datetime

import pytest

from scp_node.jobs.records import DeliveryRecord, InstanceRecord
from scp_node.records import DeliveryState, InstanceState
from tests.faults.account import WINDOW_S, Kill, balance, repeats
from tests.faults.records import Record, read
from tests.faults.soak import Sample
from tests.faults.trend import judge

NOW = datetime(2026, 11, 23, tzinfo=UTC)
AT = 1000.0


class Story:
    """One radiograph, `1.1`, delivered to one destination as it should be; tests spoil it."""

    def __init__(self):
        self.expected = {"1.1": InstanceState.DELIVERED}
        self.answers = [{"uid": "1.1", "status": 0x0000}]
        self.state = InstanceState.DELIVERED
        self.results = {"1.1": {"2.1", "2.2", "2.3"}}
        self.rows = [_row(number, AT) for number in (1, 2, 3)]
        self.kills = []
        self.confirmed = {f"2.{number}": AT + 0.02 for number in (1, 2, 3)}
        self.is_known = True

    def balance(self):
        delivery = DeliveryRecord(
            destination="first",
            state=DeliveryState.DELIVERED,
            attempts=1,
            last_error="",
            next_attempt_at=None,
            updated_at=NOW,
        )
        record = InstanceRecord(
            id=1,
            sop_instance_uid="1.1",
            study_instance_uid="",
            sop_class_uid="1.2",
            state=self.state,
            reason=None,
            detail="",
            calling_ae_title="A",
            peer_address="127.0.0.1",
            received_at=NOW,
            updated_at=NOW,
            deliveries=(delivery,),
        )
        return balance(
            self.expected,
            answers=self.answers,
            instances=[record] if self.is_known else [],
            results=self.results,
            confirmed={"first": self.confirmed},
            stored={"first": self.rows},
            kills=self.kills,
        )


def _row(number, at, uid=None, sha256="a"):
    return {
        "uid": uid or f"2.{number}",
        "sop_class": "1.2",
        "sha256": sha256,
        "series": "9001",
        "instance": str(number),
        "references": ["1.1"],
        "at": at,
    }


@pytest.fixture
def story():
    return Story()


def test_a_whole_story_holds(story):
    drawn = story.balance()
    assert drawn.holds
    assert (drawn.sent, drawn.acknowledged, drawn.delivered) == (1, 1, {"first": 1})


def test_an_acknowledged_instance_that_the_node_does_not_know_is_lost(story):
    story.is_known = False
    assert story.balance().lost
    assert not story.balance().holds


def test_a_delivery_that_never_arrived_is_lost(story):
    del story.rows[1]
    assert story.balance().lost


@pytest.mark.parametrize("state", [InstanceState.RECEIVED, InstanceState.ANALYSING, InstanceState.DELIVERING])
def test_what_is_not_final_is_stuck(story, state):
    story.state = state
    assert story.balance().stuck
    assert not story.balance().holds


def test_another_final_state_is_found(story):
    story.state = InstanceState.DEAD_LETTER
    assert story.balance().unexpected
    assert not story.balance().holds


def test_what_was_never_acknowledged_is_missing(story):
    story.answers = [{"uid": "1.1", "status": 0xA700}, {"uid": "1.1", "status": None}]
    assert not story.balance().holds


@pytest.mark.parametrize(
    ("victim", "after_s", "explained"),
    [
        ("serve", 0.01, True),
        ("first", 0.01, True),
        ("child", 0.01, False),
        ("serve", 70.0, False),
        ("serve", -5.0, False),
    ],
)
def test_only_a_kill_in_between_explains_an_object_sent_twice(story, victim, after_s, explained):
    story.rows.append(_row(1, AT + 60))
    story.confirmed["2.1"] = AT + 60.02
    story.kills = [Kill(at=AT + after_s, victim=victim)]
    drawn = story.balance()
    assert bool(drawn.duplicates_explained) is explained
    assert bool(drawn.duplicates_unexplained) is not explained
    assert drawn.holds is explained


def test_nothing_explains_an_object_sent_after_its_confirmation_was_committed(story):
    story.rows.append(_row(1, AT + 60))
    story.confirmed["2.1"] = AT + 0.02
    story.kills = [Kill(at=AT + 0.03, victim="serve")]
    assert story.balance().duplicates_unexplained
    assert not story.balance().holds


@pytest.mark.parametrize(("after_s", "explained"), [(0.01, True), (WINDOW_S + 1, False)])
def test_without_a_record_of_confirmations_the_kill_must_be_near(story, after_s, explained):
    story.rows.append(_row(1, AT + 60))
    found, others = repeats(story.rows, [Kill(at=AT + after_s, victim="router")])
    assert (bool(found), bool(others)) == (explained, not explained)


def test_another_destination_explains_nothing(story):
    story.rows.append(_row(1, AT + 60))
    story.kills = [Kill(at=AT + 0.01, victim="second")]
    both = balance(
        story.expected,
        answers=story.answers,
        instances=[],
        results=story.results,
        confirmed={"first": {"2.1": AT + 61}, "second": {}},
        stored={"first": story.rows, "second": []},
        kills=story.kills,
    )
    assert both.duplicates_unexplained


def test_two_uids_for_one_result_are_found(story):
    story.rows.append(_row(1, AT + 60, uid="2.9"))
    story.results["1.1"].add("2.9")
    assert story.balance().different_uids


def test_a_result_that_the_node_does_not_know_is_found(story):
    story.results = {}
    assert story.balance().different_uids


def test_two_contents_under_one_uid_are_found(story):
    story.rows.append(_row(1, AT + 60, sha256="b"))
    assert story.balance().different_bytes


def test_a_line_that_a_kill_cut_off_is_passed_over_and_the_next_one_is_whole(tmp_path):
    file = tmp_path / "record"
    Record(file).write(uid="1")
    with file.open("ab") as stream:
        stream.write(b'\n{"uid": "2')
    Record(file).write(uid="3")
    assert [line["uid"] for line in read(file)] == ["1", "3"]


def _samples(**growth):
    steady = defaultdict(lambda: 100 * 2**20, threads=20, handles=30)
    names = ("serve_memory", "children_memory", "threads", "handles", "spool", "database")
    return [
        Sample(
            at_s=float(done),
            done=done,
            connects=0,
            unfinished=0,
            rows=0,
            **{name: int(steady[name] + growth.get(name, 0) * done / 1000 + done // 50 % 3) for name in names},
        )
        for done in range(0, 5001, 50)
    ]


def test_what_wavers_is_flat():
    assert all(trend.is_flat for trend in judge(_samples()))


@pytest.mark.parametrize(
    ("name", "per_thousand"),
    [
        ("serve_memory", 20 * 2**20),
        ("children_memory", 20 * 2**20),
        ("threads", 2),
        ("handles", 4),
        ("spool", 20 * 2**20),
        ("database", 20 * 2**20),
    ],
)
def test_what_grows_is_named(name, per_thousand):
    """A leak of one thread or two handles in five hundred instances is seen."""
    assert [trend.measure.field for trend in judge(_samples(**{name: per_thousand})) if not trend.is_flat] == [name]
