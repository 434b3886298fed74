"""Back-off is exponential, jittered, capped and bounded by patience."""

import pytest

from scp_node.delivery.retry import RetryRule

RULE = RetryRule(first_delay_s=5, maximum_delay_s=3600, patience_s=7 * 86400)


def test_the_longest_wait_doubles_up_to_the_cap():
    waits = [RULE.delay_s(attempts, lambda: 1.0) for attempts in range(1, 14)]
    assert waits[:5] == [5, 10, 20, 40, 80]
    assert waits[-3:] == [3600, 3600, 3600]


def test_jitter_is_full():
    assert RULE.delay_s(3, lambda: 0.0) == 0
    assert RULE.delay_s(3, lambda: 0.5) == 10
    assert RULE.delay_s(3, lambda: 0.25) == 5


def test_a_thousand_attempts_do_not_overflow():
    assert RULE.delay_s(5000, lambda: 1.0) == 3600


def test_there_is_no_wait_before_the_first_attempt():
    with pytest.raises(ValueError, match="0 attempts"):
        RULE.delay_s(0, lambda: 0.0)


def test_the_last_attempt_is_made_when_patience_ends_and_none_after_it():
    end = 1000 + RULE.patience_s

    def at(now):
        return RULE.next_attempt_at(attempts=300, first_attempt_at=1000, now=now, random=lambda: 1.0)

    assert at(2000) == 2000 + 3600
    assert at(end - 10) == end
    assert at(end) is None


def test_the_default_patience_outlasts_a_week_with_few_attempts():
    """Without the breaker a week's refusals would cost a PACS less than 400 attempts per analysis."""
    now, attempts = 0.0, 0
    while now is not None:
        attempts += 1
        last = now
        now = RULE.next_attempt_at(attempts=attempts, first_attempt_at=0, now=now, random=lambda: 0.5)
    assert last == RULE.patience_s
    assert 300 < attempts < 400
