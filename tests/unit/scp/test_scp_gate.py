"""The gate counts associations and closes before the node stops."""

import threading

import pytest

from config.receiver import Caller, ReceiverSettings
from scp_node.scp.callers import Peer, Rejection
from scp_node.scp.gate import Gate
from scp_node.security.events import EventKind, SecurityEvent


@pytest.fixture
def gate() -> Gate:
    return Gate(ReceiverSettings(ae_title="NODE", maximum_associations=2), lambda event: None)


def knock(gate: Gate, who: object, called: str = "NODE") -> Peer | Rejection:
    return gate.admit(who, called_ae_title=called, calling_ae_title="SCU", address="127.0.0.1")


def test_the_limit_counts_those_inside_only(gate: Gate) -> None:
    assert isinstance(knock(gate, 1), Peer)
    assert knock(gate, 2, called="OTHER") is Rejection.CALLED_AE_TITLE
    assert isinstance(knock(gate, 3), Peer)
    assert knock(gate, 4) is Rejection.LOCAL_LIMIT
    gate.leave(1)
    gate.leave("never came")
    assert isinstance(knock(gate, 5), Peer)
    assert gate.contains(5)
    assert not gate.contains(1)


def test_who_has_ended_takes_no_place_and_is_waited_for(gate: Gate) -> None:
    """Its connection is still taken down."""
    knock(gate, 1)
    knock(gate, 2)
    gate.give_back(1)
    gate.give_back("never came")
    assert isinstance(knock(gate, 3), Peer)
    assert knock(gate, 4) is Rejection.LOCAL_LIMIT
    for who in (2, 3):
        gate.leave(who)
    assert not gate.wait_until_empty(0.01)
    gate.leave(1)
    assert gate.wait_until_empty(0)


def test_the_limit_and_the_stop_are_told_as_transient() -> None:
    assert Rejection.LOCAL_LIMIT.codes == (2, 3, 2)
    assert Rejection.STOPPING.codes == (2, 3, 1)


def test_a_draining_gate_lets_nobody_in_and_waits_for_those_inside(gate: Gate) -> None:
    knock(gate, 1)
    gate.drain()
    assert knock(gate, 2) is Rejection.STOPPING
    assert not gate.wait_until_empty(0.01)
    timer = threading.Timer(0.05, gate.leave, (1,))
    timer.start()
    assert gate.wait_until_empty(60)
    timer.join()


def test_limits_per_address_and_title_count_for_their_own_only() -> None:
    events: list[SecurityEvent] = []
    gate = Gate(
        ReceiverSettings(ae_title="NODE", maximum_associations_per_address=2, maximum_associations_per_title=3),
        events.append,
    )

    def ask(who: int, address: str, title: str = "SCU") -> Peer | Rejection:
        return gate.admit(who, called_ae_title="NODE ", calling_ae_title=title, address=address)

    assert isinstance(ask(1, "127.0.0.1"), Peer)
    assert isinstance(ask(2, "127.0.0.1"), Peer)
    assert ask(3, "127.0.0.1", "OTHER") is Rejection.ADDRESS_LIMIT
    assert isinstance(ask(4, "127.0.0.2"), Peer)
    assert ask(5, "127.0.0.3") is Rejection.TITLE_LIMIT
    assert isinstance(ask(6, "127.0.0.3", "OTHER"), Peer)
    gate.leave(1)
    assert isinstance(ask(7, "127.0.0.1"), Peer)
    assert [(event.kind, event.reason, event.address) for event in events] == [
        (EventKind.LIMIT_REACHED, "address_limit", "127.0.0.1"),
        (EventKind.LIMIT_REACHED, "title_limit", "127.0.0.3"),
    ]
    assert {Rejection.ADDRESS_LIMIT.codes, Rejection.TITLE_LIMIT.codes} == {(2, 3, 2)}


def test_callers_that_change_count_for_the_next() -> None:
    events: list[SecurityEvent] = []
    settings = ReceiverSettings(ae_title="NODE", callers=(Caller(ae_title="SCU"),))
    gate = Gate(settings, events.append)
    assert isinstance(knock(gate, 1), Peer)
    gate.apply(settings.model_copy(update={"callers": (Caller(ae_title="OTHER"),)}))
    assert knock(gate, 2) is Rejection.CALLING_AE_TITLE
    assert gate.contains(1)
    [event] = events
    assert (event.kind, event.reason) == (EventKind.ASSOCIATION_REJECTED, "calling_ae_title")
    assert (event.calling_ae_title, event.called_ae_title, event.address) == ("SCU", "NODE", "127.0.0.1")
