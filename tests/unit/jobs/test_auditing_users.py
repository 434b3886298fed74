"""What users did reaches the audit trail: once, with who, from where, how it went and about which object."""

import pytest
import sqlalchemy as sa
from lxml import etree

from config.destinations import FolderDestination
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.audit.auditor import open_trail
from scp_node.jobs import database, tables, user_actions
from scp_node.jobs.acting import acting_as, system_user
from scp_node.jobs.admin import Admin
from scp_node.jobs.auditing import Auditing
from scp_node.jobs.intake import Filing
from scp_node.jobs.overview import Overview
from scp_node.jobs.tables import trace
from scp_node.jobs.user_actions import user_action


@pytest.fixture
def filing(engine, jobs, spool):
    return Filing(engine, jobs, spool, models=("m1",), destinations=())


@pytest.fixture
def settings(engine, spool, tmp_path):
    return NodeSettings(
        spool=SpoolSettings(folder=spool.folder, minimum_free_bytes=0),
        database=DatabaseSettings(url=engine.url.render_as_string(hide_password=False)),
        destinations=(FolderDestination(kind="folder", name="share", folder=tmp_path / "share"),),
    )


@pytest.fixture
def told(engine, spool, settings):
    """What the trail says after what has happened, as event, type, action, outcome, user, address, objects, words."""

    def tell():
        trail = open_trail(settings)
        trail.create()
        auditing = Auditing(settings, engine, spool, trail)
        with trail.writing() as writer:
            while auditing.write(writer):
                pass
        return [_read(entry.message) for entry in trail.entries()]

    return tell


def _read(message):
    root = etree.fromstring(message)
    event = root.find("EventIdentification")
    kinds = [one.get("csd-code") for one in event.findall("EventTypeCode")]
    (asked, *_) = [one for one in root.findall("ActiveParticipant") if one.get("UserIsRequestor") == "true"]
    return {
        "event": event.find("EventID").get("csd-code"),
        "type": kinds[0] if kinds else None,
        "action": event.get("EventActionCode"),
        "outcome": event.get("EventOutcomeIndicator"),
        "user": asked.get("UserID"),
        "address": asked.get("NetworkAccessPointID"),
        "objects": [one.get("UID") for one in root.iter("Instance")],
        "words": event.findtext("EventOutcomeDescription") or "",
    }


def record(engine, action, *, after="", subject="", user_name="anna", role="operator"):
    user_actions.record(
        engine, user_name=user_name, role=role, address="192.0.2.44", action=action, subject=subject, after=after
    )


@pytest.mark.databases
def test_log_ins_and_refusals_are_told_once(engine, filing, receive, told):
    filing.accept(receive("1.2.3"))
    record(engine, "log_in")
    record(engine, "log_in", after="refused: wrong name or password", user_name="?")
    record(engine, "log_out")
    record(engine, "echo", subject="share", after="answers")
    record(engine, "retry", subject="1.2.3", after="received")
    record(engine, "retry", subject="1.2.3", after="refused: 1.2.3 is received: nothing was given up yet")
    record(engine, "cancel", after="refused: needs the role operator", role="viewer")
    messages = told()
    anna = {"user": "anna", "address": "192.0.2.44"}
    assert messages[0]["event"] == "110104"
    expected = [
        {"event": "110114", "type": "110122", "action": "E", "outcome": "0", **anna},
        {"event": "110114", "type": "110122", "outcome": "4", "user": "?", "words": "refused: wrong name or password"},
        {"event": "110114", "type": "110123", "outcome": "0", **anna},
        {"event": "110103", "type": None, "action": "U", "outcome": "4", "objects": ["1.2.3"], **anna},
        {"event": "110113", "type": "110132", "outcome": "8", **anna},
    ]
    assert len(messages) == 1 + len(expected)
    for message, said in zip(messages[1:], expected, strict=True):
        assert said.items() <= message.items()
    # As after a crash between the trail and the database's commit.
    with database.write(engine) as connection:
        connection.execute(sa.update(user_action).values(is_audited=False))
    assert told() == messages


def test_an_operators_act_names_him_and_where_he_sat(filing, receive, settings, told):
    filing.accept(receive("1.2.3"))
    with Admin(settings) as admin:
        with acting_as("anna", "192.0.2.44"):
            admin.cancel("1.2.3")
        admin.retry("1.2.3")
    # The second is at this machine, as `scp-node jobs retry` is.
    told_of = [one for one in told() if one["action"] == "U"]
    assert [(one["event"], one["outcome"], one["objects"]) for one in told_of] == [("110103", "0", ["1.2.3"])] * 2
    assert [one["user"] for one in told_of] == ["anna", system_user()]
    assert told_of[0]["address"] == "192.0.2.44"
    assert told_of[1]["address"]
    assert told_of[1]["address"] != "192.0.2.44"


def test_deliveries_resumed_on_the_command_line_are_told(settings, told):
    with Overview(settings) as overview:
        overview.resume("share")
    (message,) = told()
    assert {"event": "110100", "type": "resume", "user": system_user(), "outcome": "0"}.items() <= message.items()
    assert message["words"] == "deliveries to share are attempted again"


def test_what_a_process_wrote_it_does_not_read_again(  # noqa: PLR0917 - fixtures
    engine, filing, receive, settings, spool, monkeypatch
):
    """The newest messages say what is told already; a file of 64 MiB would be read through every second."""
    trail = open_trail(settings)
    trail.create()
    reads = []
    entries = trail.entries

    def counted(after=0):
        reads.append(after)
        return entries(after)

    def untold():
        with database.write(engine) as connection:
            connection.execute(sa.text("UPDATE trace SET is_audited = FALSE"))

    def write(auditing):
        with trail.writing() as writer:
            while auditing.write(writer):
                pass

    monkeypatch.setattr(trail, "entries", counted)
    ours, others = (Auditing(settings, engine, spool, trail) for _ in range(2))
    for uid in ("1.2.3", "1.2.4"):
        filing.accept(receive(uid))
        write(ours)
    assert len(reads) == 1
    # As after a commit that failed: what is in the trail is known without reading.
    untold()
    write(ours)
    assert len(reads) == 1
    filing.accept(receive("1.2.5"))
    write(others)
    untold()
    write(ours)
    assert len(reads) == 3
    assert [entry.record for entry in entries()] == [1, 2, 3]


def test_what_happens_after_a_restored_database_is_told_under_numbers_that_the_trail_has_already(
    engine, filing, receive, told
):
    """The trail lies beside the spool and is not put back with the database: its numbers come a second time."""
    filing.accept(receive("1.2.3"))
    record(engine, "log_in")
    assert [one["objects"] for one in told()] == [["1.2.3"], []]
    with database.write(engine) as connection:
        numbers = {table.name: connection.execute(sa.select(table.c.id)).scalar_one() for table in (trace, user_action)}
        for table in (tables.instance, trace, user_action):
            connection.execute(sa.delete(table))

    filing.accept(receive("1.2.4"))
    record(engine, "log_out")
    with database.write(engine) as connection:
        for table in (trace, user_action):
            connection.execute(sa.update(table).values(id=numbers[table.name]))

    assert [one["objects"] for one in told()] == [["1.2.3"], [], ["1.2.4"], []]
