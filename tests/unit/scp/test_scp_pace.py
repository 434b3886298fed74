"""Who gets on may stay, who does not must go; on a clock of the test's own."""

import pytest

from config.receiver import ReceiverSettings
from scp_node.scp.pace import Pace

SETTINGS = ReceiverSettings(
    network_timeout_s=30, minimum_bytes_per_s=2000, progress_timeout_s=600, association_limit_s=86400
)


def test_a_long_association_of_many_objects_stays():
    """Twenty hours, an object every five minutes at 100 kB/s."""
    pace, received = Pace(SETTINGS, 0), 0
    for begun in range(0, 20 * 3600, 300):
        for second in range(100):
            received += 100_000
            complaint = pace.complaint(begun + second, received_bytes=received, is_receiving=True)
            assert complaint == ""
        pace.stored(begun + 100)
        for second in range(100, 300):
            assert pace.complaint(begun + second, received_bytes=received, is_receiving=False) == ""


def test_a_slow_link_may_take_hours_for_one_object():
    """100 MB at 2.5 kB/s: eleven hours."""
    pace = Pace(SETTINGS, 0)
    for second in range(40_000):
        assert pace.complaint(second, received_bytes=2500 * second, is_receiving=True) == ""


def test_a_byte_every_29_seconds_does_not():
    pace = Pace(SETTINGS, 0)
    complaints = [pace.complaint(s, received_bytes=s // 29, is_receiving=True) for s in range(62)]
    assert complaints.index("an object arrives too slowly") == 30


def test_a_quick_beginning_is_no_credit():
    """Otherwise 100 MB at once would pay for fourteen hours of nothing."""
    pace = Pace(SETTINGS, 0)
    received = [min(second, 40) * 10**7 for second in range(200)]
    complaints = [pace.complaint(s, received_bytes=received[s], is_receiving=True) for s in range(200)]
    assert 60 <= complaints.index("an object arrives too slowly") <= 100


def test_small_objects_one_after_the_other_are_not_slow():
    """50 bytes a second, but each object is answered."""
    pace = Pace(SETTINGS, 0)
    for second in range(3600):
        assert pace.complaint(second, received_bytes=second * 50, is_receiving=True) == ""
        pace.stored(second)


def test_echoes_are_no_progress():
    pace = Pace(SETTINGS, 0)
    complaints = [pace.complaint(second, received_bytes=second * 100, is_receiving=False) for second in range(700)]
    assert complaints.index("nothing was stored for too long") == 600


@pytest.mark.parametrize("is_receiving", [True, False])
def test_there_is_an_end_in_any_case(is_receiving):
    pace = Pace(SETTINGS, 0)
    for second in range(86400):
        if second % 10 == 0:
            pace.stored(second)
        assert pace.complaint(second, received_bytes=second * 10**6, is_receiving=is_receiving) == ""
    last = pace.complaint(86400, received_bytes=86400 * 10**6, is_receiving=is_receiving)
    assert last == "the association has lasted too long"


def test_zero_lets_an_object_take_as_long_as_it_likes():
    pace = Pace(SETTINGS.model_copy(update={"minimum_bytes_per_s": 0}), 0)
    assert all(pace.complaint(s, received_bytes=0, is_receiving=True) == "" for s in range(2000))
