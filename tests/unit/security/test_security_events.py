"""Events reach the log and the sink; neither can be flooded or can hurt."""

import pytest
from structlog.testing import capture_logs

from scp_node.security.events import EventKind, SecurityEvent, reporting


def event(kind=EventKind.TLS_FAILED, address="192.0.2.1"):
    return SecurityEvent(kind=kind, reason="no certificate", address=address, is_tls=True)


def test_an_event_is_logged_and_told():
    told = []
    with capture_logs() as lines:
        reporting(told.append)(event())
    assert [one.reason for one in told] == ["no certificate"]
    assert told[0].occurred_at.tzinfo is not None
    assert lines == [
        {
            "event": "tls failed",
            "log_level": "warning",
            "peer_address": "192.0.2.1",
            "reason": "no certificate",
            "is_tls": True,
        }
    ]


def test_a_sink_that_fails_ends_nobody():
    def broken(_event):
        raise OSError("disk full")

    with capture_logs() as lines:
        reporting(broken)(event())
    assert "security event lost" in [line["event"] for line in lines]


def test_without_a_sink_there_is_the_log():
    with capture_logs() as lines:
        reporting()(event(EventKind.CREDENTIALS_RELOADED))
    assert lines[0]["log_level"] == "info"


def test_a_flood_fills_no_log_and_hides_nobody_else():
    """A thousand in a minute are sixty lines; the next minute says how many were left out."""
    now = [0.0]
    told = []
    report = reporting(told.append, monotonic=lambda: now[0])
    with capture_logs() as lines:
        for _ in range(1000):
            report(event())
        report(event(address="192.0.2.2"))
        report(event(EventKind.ASSOCIATION_REJECTED))
    assert len(lines) == 62
    assert len(told) == 1002
    now[0] = 61.0
    with capture_logs() as lines:
        report(event())
        report(event())
    assert lines[0]["left_out_before"] == 940
    assert "left_out_before" not in lines[1]


def test_addresses_that_are_remembered_have_a_limit():
    """A network of liars costs no memory: the first is forgotten, and counts from nothing again."""
    report = reporting(monotonic=lambda: 0.0)
    with capture_logs() as lines:
        for _ in range(61):
            report(event())
        assert len(lines) == 60
        for number in range(1024):
            report(event(address=f"10.0.{number // 250}.{number % 250}"))
        report(event())
    assert len(lines) == 60 + 1024 + 1


def test_events_never_change():
    with pytest.raises(AttributeError):
        event().reason = "other"
