"""What the keeper of the trail says while something is away."""

import threading

import structlog

from config.settings import NodeSettings
from scp_node.audit.auditor import Auditor
from scp_node.security.events import EventKind, SecurityEvent

LIMIT_S = 60


def test_trouble_is_logged_when_it_begins_and_when_it_is_over(tmp_path):
    """The database may be away for a night: one line, not one each second."""
    rounds, is_back, third = [], threading.Event(), threading.Event()

    def feed(_writer):
        rounds.append(None)
        if len(rounds) >= 3:
            third.set()
        if not is_back.is_set():
            raise RuntimeError("the database is away")
        return 0

    auditor = Auditor(NodeSettings(spool={"folder": tmp_path}), user="tester")
    auditor.feed = feed
    over = threading.Event()

    def notice(_logger, _method, entry):
        logged.append(entry["event"])
        if entry["event"] == "audit trail is written again":
            over.set()
        raise structlog.DropEvent

    logged: list[str] = []
    before = structlog.get_config()["processors"]
    structlog.configure(processors=[notice])
    try:
        auditor.start()
        assert third.wait(LIMIT_S)
        is_back.set()
        assert over.wait(LIMIT_S)
        auditor.stop()
    finally:
        structlog.configure(processors=before)
    assert logged == ["audit trail is behind", "audit trail is written again"]


def test_an_event_that_cannot_be_told_is_lost_alone(tmp_path, monkeypatch):
    """A defect in one kind of message must not leave the node without a trail."""
    auditor = Auditor(NodeSettings(spool={"folder": tmp_path / "spool"}), user="tester")
    alert = auditor._node.alert

    def refuse(event):
        if event.reason == "bad":
            raise KeyError(event.reason)
        return alert(event)

    monkeypatch.setattr(type(auditor._node), "alert", staticmethod(refuse))
    auditor.start()
    with structlog.testing.capture_logs() as logged:
        for reason in ("bad", "good", "bad"):
            auditor.tell(SecurityEvent(kind=EventKind.LIMIT_REACHED, reason=reason))
        auditor.stop()
    lost = [(line["event"], line["kind"]) for line in logged]
    assert lost == [("audit message lost", "limit_reached")] * 2
    messages = [entry.message for entry in auditor.trail.entries()]
    assert len(messages) == 3
    assert "good" in messages[1]
