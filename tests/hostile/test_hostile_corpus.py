"""A fifth of the corpus against a running node; `make hostile` sends all of it."""

import pytest

from tests.hostile.corpus import all_cases
from tests.hostile.node import Node
from tests.hostile.report import differences

pytestmark = pytest.mark.integration


@pytest.mark.timeout(1200)
# Results hold what their sources do, byte for byte; pydicom remarks on it.
@pytest.mark.filterwarnings("ignore:Unknown encoding:UserWarning", "ignore:Invalid value for VR:UserWarning")
def test_every_fifth_case_ends_as_it_must(tmp_path):
    cases = all_cases()[::5]
    with Node(tmp_path) as node:
        found = node.judge(cases)
        complaints = node.complaints(cases)
    assert differences(cases, found) == {}
    assert complaints == []


def test_there_are_enough_cases_of_every_kind():
    cases = all_cases()
    assert len(cases) >= 250
    assert {case.name.partition("/")[0] for case in cases} >= {"same", "cut", "damage", "lies", "identity", "uids"}
    assert {case.expected.answer for case in cases} >= {"0000", "0117", "0122", "a900", "c000", "refused"}


def test_a_difference_is_seen():
    """The comparison itself bites: wrong state, wrong status, another score, a score where there must be none."""
    from dataclasses import replace

    from tests.hostile.cases import DELIVERED, UNREADABLE, Case
    from tests.hostile.node import Actual

    def actual(**fields):
        return Actual(**({"answer": "0000", "state": "delivered", "probability": 0.5} | fields))

    case = Case(name="a", content=b"", expected=DELIVERED, same_as="x", tolerance=0.01)
    other = replace(case, name="b")
    assert differences([case, other], {"a": actual(), "b": actual()}) == {}
    assert "b" in differences([case, other], {"a": actual(), "b": actual(probability=0.6)})
    assert "a" in differences([case], {"a": actual(answer="a700", state="")})
    broken = replace(case, expected=UNREADABLE)
    assert "a" in differences([broken], {"a": actual(state="not_eligible", reason="no_pixels", probability=None)})
