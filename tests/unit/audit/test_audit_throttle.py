"""A flood becomes few messages, and nothing is forgotten."""

from scp_node.audit.throttle import Throttle
from scp_node.security.events import EventKind, SecurityEvent


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def event(**values):
    return SecurityEvent(kind=EventKind.ASSOCIATION_REJECTED, **{"reason": "calling_ae_title", **values})


def make(maximum_kinds=100):
    clock = Clock()
    return Throttle(period_s=60, maximum_kinds=maximum_kinds, clock=clock), clock


def test_the_first_is_told_at_once_and_the_others_in_one_message_a_period():
    throttle, clock = make()
    assert throttle.take(event(address="192.0.2.1")).times == 1
    assert [throttle.take(event(address="192.0.2.1")) for _ in range(5)] == [None] * 5
    assert throttle.due() == []
    clock.now = 61
    (counted,) = throttle.due()
    assert counted.times == 5
    assert counted.event.address == "192.0.2.1"
    # It goes on: still one message a period.
    assert throttle.take(event(address="192.0.2.1")) is None
    clock.now = 122
    assert [one.times for one in throttle.due()] == [1]
    clock.now = 183
    assert throttle.due() == []
    assert throttle.take(event(address="192.0.2.1")).times == 1


def test_others_are_told_apart():
    throttle, _ = make()
    assert throttle.take(event(address="192.0.2.1", calling_ae_title="A"))
    assert throttle.take(event(address="192.0.2.1", calling_ae_title="B"))
    assert throttle.take(event(address="192.0.2.2", calling_ae_title="A"))
    assert throttle.take(event(address="192.0.2.1", calling_ae_title="A", reason="address"))


def test_a_flood_of_names_cannot_fill_the_trail():
    throttle, _ = make(maximum_kinds=20)
    told = [throttle.take(event(address=f"192.0.2.{n % 250}", calling_ae_title=str(n))) for n in range(5000)]
    assert sum(one is not None for one in told) <= 20
    counted = throttle.due(everything=True)
    assert sum(one.times for one in counted) + sum(one is not None for one in told) == 5000
