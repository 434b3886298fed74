"""The gate counts associations and closes before the node stops."""

import threading

import pytest

from config.receiver import ReceiverSettings
from scp_node.scp.callers import Peer, Rejection
from scp_node.scp.gate import Gate


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
    assert gate.wait_until_empty(5)
    timer.join()
