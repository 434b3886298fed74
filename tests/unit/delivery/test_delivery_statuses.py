"""The verdict on each status follows PS3.4 Table B.2-1."""

import pytest

from scp_node.delivery.statuses import Remedy, remedy_for, verdict_on
from scp_node.records import Verdict


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (0x0000, Verdict.CONFIRMED),
        (0x0001, Verdict.CONFIRMED),
        (0x0107, Verdict.CONFIRMED),
        (0x0116, Verdict.CONFIRMED),
        (0xB000, Verdict.CONFIRMED),
        (0xB123, Verdict.CONFIRMED),
        (0xB006, Verdict.CONFIRMED),
        (0xB007, Verdict.CONFIRMED),
        (0x0111, Verdict.CONFIRMED),
        (0xA700, Verdict.TRANSIENT),
        (0xA701, Verdict.TRANSIENT),
        (0xA777, Verdict.PERMANENT),
        (0xA7FF, Verdict.TRANSIENT),
        (0xA800, Verdict.NOT_TAKEN),
        (0xA900, Verdict.PERMANENT),
        (0xC000, Verdict.PERMANENT),
        (0xC123, Verdict.PERMANENT),
        (0x0110, Verdict.TRANSIENT),
        (0x0117, Verdict.PERMANENT),
        (0x0119, Verdict.PERMANENT),
        (0x0122, Verdict.NOT_TAKEN),
        (0x0124, Verdict.TRANSIENT),
        (0x0213, Verdict.TRANSIENT),
        (0x9999, Verdict.TRANSIENT),
    ],
)
def test_verdict(status, verdict):
    assert verdict_on(status)[0] is verdict


def test_each_warning_has_its_own_words():
    words = {status: verdict_on(status)[1] for status in (0xB000, 0xB006, 0xB007, 0xB123)}
    assert len(set(words.values())) == 4
    assert "coerced" in words[0xB000]
    assert "discarded" in words[0xB006]


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        (0x0112, Remedy.SEND_AGAIN),
        (0x0119, Remedy.SEND_AGAIN),
        (0x4711, Remedy.SEND_AGAIN),
        (0x0110, Remedy.ASK_AGAIN),
        (0x0131, Remedy.ASK_AGAIN),
        (0x0213, Remedy.ASK_AGAIN),
        (0x0122, Remedy.NONE),
    ],
)
def test_remedy_for_a_failed_commitment(reason, remedy):
    """Failure Reason (0008,1197), PS3.3 C.14.1.1."""
    assert remedy_for(reason)[0] is remedy
