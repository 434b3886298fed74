"""What the keeper of the trail says while something is away."""

import threading

import structlog

from config.settings import NodeSettings
from scp_node.audit.auditor import Auditor

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
