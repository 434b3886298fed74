"""Who may connect: by title, by address, and nobody by accident."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.base import Priority
from config.receiver import Caller, ReceiverSettings, ReceiverTlsSettings
from scp_node.scp.callers import Peer, Rejection, decide
from scp_node.security.certificates import Certificate

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


TLS = ReceiverTlsSettings(enabled=True, certificate=Path("c"), key=Path("k"), authorities=Path("a"))
BOUND = (
    Caller(ae_title="BY_NAME", certificate_names=("CR1.example.org",)),
    Caller(ae_title="BY_SHA256", certificate_sha256=(":".join(["AB"] * 32),), addresses=("10.0.0.1",)),
)


def certificate(name: str, sha256: str = "00" * 32) -> Certificate:
    now = datetime.now(UTC)
    return Certificate(subject=f"CN={name}", names=frozenset({name}), sha256=sha256, not_before=now, not_after=now)


@pytest.mark.parametrize(
    ("calling", "shown", "expected"),
    [
        ("BY_NAME", certificate("cr1.example.org"), None),
        ("BY_NAME", certificate("cr2.example.org"), Rejection.CERTIFICATE),
        ("BY_NAME", None, Rejection.CERTIFICATE),
        ("BY_SHA256", certificate("any", "ab" * 32), None),
        ("BY_SHA256", certificate("any", "ac" * 32), Rejection.CERTIFICATE),
    ],
)
def test_a_caller_that_is_bound_to_a_certificate_must_show_it(
    calling: str, shown: Certificate | None, expected: Rejection | None
) -> None:
    decision = decide(
        settings(callers=BOUND, tls=TLS),
        called_ae_title="NODE",
        calling_ae_title=calling,
        address="10.0.0.1",
        certificate=shown,
    )
    assert decision is expected if expected else isinstance(decision, Peer)


def test_the_address_counts_as_well_as_the_certificate() -> None:
    decision = decide(
        settings(callers=BOUND, tls=TLS),
        called_ae_title="NODE",
        calling_ae_title="BY_SHA256",
        address="10.0.0.2",
        certificate=certificate("any", "ab" * 32),
    )
    assert decision is Rejection.ADDRESS
    assert Rejection.CERTIFICATE.codes == (1, 1, 3)


def test_certificates_without_tls_are_refused_by_the_settings() -> None:
    with pytest.raises(ValueError, match=r"BY_NAME.*tls\.enabled"):
        settings(callers=BOUND)
