"""Who may connect: by title, by address, and nobody by accident."""

import pytest

from config.base import Priority
from config.receiver import Caller, ReceiverSettings
from scp_node.scp.callers import Peer, Rejection, decide

CALLERS = (
    Caller(ae_title="CR_ROOM1", addresses=("10.1.2.3",)),
    Caller(ae_title="EMERGENCY", addresses=("10.1.0.0/16", "fd00::/8"), priority=Priority.STAT),
    Caller(ae_title="ANYWHERE"),
    Caller(ae_title="TWICE", addresses=("10.0.0.1",)),
    Caller(ae_title="TWICE", addresses=("10.0.0.2",), priority=Priority.STAT),
)


def settings(**values: object) -> ReceiverSettings:
    return ReceiverSettings.model_validate({"ae_title": "NODE", "bind": "10.1.0.1", "callers": CALLERS, **values})


def ask(calling: str, address: str, called: str = "NODE", **values: object) -> Peer | Rejection:
    return decide(settings(**values), called_ae_title=called, calling_ae_title=calling, address=address)


@pytest.mark.parametrize(
    ("calling", "address", "priority"),
    [
        ("CR_ROOM1", "10.1.2.3", Priority.ROUTINE),
        (" CR_ROOM1 ", "10.1.2.3", Priority.ROUTINE),
        ("CR_ROOM1", "::ffff:10.1.2.3", Priority.ROUTINE),
        ("EMERGENCY", "10.1.200.7", Priority.STAT),
        ("EMERGENCY", "fd00::7", Priority.STAT),
        ("ANYWHERE", "192.0.2.1", Priority.ROUTINE),
        ("TWICE", "10.0.0.2", Priority.STAT),
    ],
)
def test_a_known_caller_comes_in_with_its_priority(calling: str, address: str, priority: Priority) -> None:
    peer = ask(calling, address)
    assert isinstance(peer, Peer)
    assert (peer.calling_ae_title, peer.called_ae_title) == (calling.strip(), "NODE")
    assert peer.priority is priority


@pytest.mark.parametrize(
    ("calling", "address", "called", "rule", "codes"),
    [
        ("CR_ROOM1", "10.1.2.3", "node", Rejection.CALLED_AE_TITLE, (1, 1, 7)),
        ("CR_ROOM1", "10.1.2.3", "", Rejection.CALLED_AE_TITLE, (1, 1, 7)),
        ("STRANGER", "10.1.2.3", "NODE", Rejection.CALLING_AE_TITLE, (1, 1, 3)),
        ("cr_room1", "10.1.2.3", "NODE", Rejection.CALLING_AE_TITLE, (1, 1, 3)),
        ("", "10.1.2.3", "NODE", Rejection.CALLING_AE_TITLE, (1, 1, 3)),
        ("CR_ROOM1", "10.1.2.4", "NODE", Rejection.ADDRESS, (1, 1, 3)),
        ("CR_ROOM1", "127.0.0.1", "NODE", Rejection.ADDRESS, (1, 1, 3)),
        ("EMERGENCY", "10.2.0.1", "NODE", Rejection.ADDRESS, (1, 1, 3)),
    ],
)
def test_everybody_else_is_rejected_by_a_rule(
    calling: str, address: str, called: str, rule: Rejection, codes: tuple[int, int, int]
) -> None:
    decision = ask(calling, address, called)
    assert decision is rule
    assert rule.codes == codes


def test_without_callers_only_this_machine_comes_in() -> None:
    assert isinstance(ask("ANY", "127.0.0.1", bind="127.0.0.1", callers=()), Peer)
    assert ask("ANY", "10.0.0.1", bind="127.0.0.1", callers=()) is Rejection.CALLING_AE_TITLE
    # settings refuse this; the rule does not rely on them
    exposed = settings().model_copy(update={"callers": ()})
    decision = decide(exposed, called_ae_title="NODE", calling_ae_title="ANY", address="127.0.0.1")
    assert decision is Rejection.CALLING_AE_TITLE
