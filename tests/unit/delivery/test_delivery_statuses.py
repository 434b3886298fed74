"""The verdict on each status follows PS3.4 Table B.2-1."""

import pytest

from scp_node.delivery.statuses import verdict_on
from scp_node.records import Verdict


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (0x0000, Verdict.CONFIRMED),
        (0xB000, Verdict.CONFIRMED),
        (0xB006, Verdict.CONFIRMED),
        (0xB007, Verdict.CONFIRMED),
        (0x0111, Verdict.CONFIRMED),
        (0xA700, Verdict.TRANSIENT),
        (0xA701, Verdict.TRANSIENT),
        (0xA777, Verdict.PERMANENT),
        (0xA900, Verdict.PERMANENT),
        (0xC000, Verdict.PERMANENT),
        (0xC123, Verdict.PERMANENT),
        (0x0110, Verdict.TRANSIENT),
        (0x0117, Verdict.PERMANENT),
        (0x0122, Verdict.PERMANENT),
        (0x0124, Verdict.PERMANENT),
        (0x0213, Verdict.TRANSIENT),
        (0x9999, Verdict.TRANSIENT),
    ],
)
def test_verdict(status, verdict):
    assert verdict_on(status)[0] is verdict
