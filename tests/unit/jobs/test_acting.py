"""What an operator can do beside retry and cancel: pages and filters, resend, export, purge."""

import json
import stat
import time
import zipfile
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from config.destinations import FolderDestination
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.errors import JobStateError, UnknownJobError
from scp_node.jobs import database
from scp_node.jobs.admin import Admin
from scp_node.jobs.export import ExportError
from scp_node.jobs.intake import Filing
from scp_node.jobs.reading import Reader
from scp_node.jobs.records import InstanceFilter
from scp_node.jobs.tables import conflict, instance
from scp_node.records import DeliveryState, InstanceState, Intake


@pytest.fixture
def settings(engine, spool):
    return NodeSettings(
        spool=SpoolSettings(folder=spool.folder, minimum_free_bytes=0),
        database=DatabaseSettings(url=engine.url.render_as_string(hide_password=False)),
    )


@pytest.fixture
def filing(engine, jobs, spool):
    return Filing(engine, jobs, spool, models=("m1",), destinations=("share",))


def _set(engine, uid, **values):
    with database.write(engine) as connection:
        connection.execute(sa.update(instance).where(instance.c.sop_instance_uid == uid).values(**values))


@pytest.mark.databases
def test_pages_follow_each_other_whatever_comes_and_goes(engine, settings, filing, receive):
    for number in range(7):
        filing.accept(receive(f"1.2.{number}", b"%d" % number))
    with Reader(settings) as reader:
        first = reader.page(limit=3)
        filing.accept(receive("1.3", b"new"))
        with database.write(engine) as connection:
            connection.execute(sa.delete(instance).where(instance.c.sop_instance_uid == "1.2.4"))
        second = reader.page(limit=3, after=first.next_after)
        third = reader.page(limit=3, after=second.next_after)
    uids = [[record.sop_instance_uid for record in page.records] for page in (first, second, third)]
    assert uids == [["1.2.6", "1.2.5", "1.2.4"], ["1.2.3", "1.2.2", "1.2.1"], ["1.2.0"]]
    assert third.next_after is None


@pytest.mark.databases
def test_filters_can_be_combined(engine, settings, filing, receive):
    for number, caller in enumerate(("CR1", "CR2", "CR1", "CR1")):
        filing.accept(receive(f"1.2.{number % 2}.{number}", b"%d" % number, calling_ae_title=caller))
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    _set(engine, "1.2.1.3", received_at=noon.timestamp(), state="dead_letter", reason="memory")
    _set(engine, "1.2.0.2", state="not_eligible", reason="lateral")

    def uids(**which):
        with Reader(settings) as reader:
            counted = sum(reader.counts(InstanceFilter(**which)).values())
            found = [record.sop_instance_uid for record in reader.list_instances(InstanceFilter(**which))]
        assert counted == len(found)
        return found

    assert uids() == ["1.2.0.0", "1.2.1.1", "1.2.0.2", "1.2.1.3"]
    assert uids(uid_prefix="1.2.1") == ["1.2.1.1", "1.2.1.3"]
    assert uids(uid_prefix="1.2.1.3.") == []
    assert uids(uid_prefix="%") == []
    assert uids(calling_ae_title="CR1") == ["1.2.0.0", "1.2.0.2", "1.2.1.3"]
    assert uids(states=(InstanceState.DEAD_LETTER, InstanceState.NOT_ELIGIBLE)) == ["1.2.0.2", "1.2.1.3"]
    assert uids(states=(InstanceState.DEAD_LETTER,), reason="memory", calling_ae_title="CR1") == ["1.2.1.3"]
    assert uids(reason="lateral", uid_prefix="1.2.1") == []
    assert uids(received_from=noon, received_before=noon + timedelta(seconds=1)) == ["1.2.1.3"]
    assert uids(received_from=noon + timedelta(seconds=1)) == []
    _set(engine, "1.2.0.2", study_instance_uid="1.2.1.3.4")
    assert uids(uid_prefix="1.2.1.3") == ["1.2.0.2", "1.2.1.3"]
    assert uids(uid_prefix="1.2.1.3", reason="lateral") == ["1.2.0.2"]


def test_an_export_holds_the_file_and_all_that_is_known_and_is_private(engine, settings, filing, receive, tmp_path):
    filing.accept(receive("1.2.3", b"pixels"))
    _set(engine, "1.2.3", state="dead_letter", reason="unreadable", causes='["SourceError: cut off (at x.py:1)"]')
    filing.accept(receive("1.2.3", b"others"))
    with engine.connect() as connection:
        digest = connection.execute(sa.select(conflict.c.sha256)).scalar_one()
    with Admin(settings) as admin:
        folder = admin.export("1.2.3", tmp_path / "out")
        zipped = admin.export("1", tmp_path / "out.zip")
        aside = admin.export("1.2.3", tmp_path / "aside", sha256=digest[:10])
        for taken in (folder, zipped):
            with pytest.raises(ExportError, match="File exists"):
                admin.export("1.2.3", taken)
        with pytest.raises(UnknownJobError, match="no object"):
            admin.export("1.2.3", tmp_path / "none", sha256="ffff")
        events = [record.event.value for record in admin.history("1.2.3")]
    assert events == ["received", "conflict", "exported", "exported", "exported"]
    assert (folder / "received.dcm").read_bytes() == b"pixels"
    assert (aside / "received.dcm").read_bytes() == b"others"
    known = json.loads((folder / "job.json").read_text())
    assert known["instance"]["reason"] == "unreadable"
    assert known["causes"] == ["SourceError: cut off (at x.py:1)"]
    assert [one["event"] for one in known["history"]] == ["received", "conflict"]
    assert json.loads((aside / "job.json").read_text())["conflict"]["sha256"] == digest
    with zipfile.ZipFile(zipped) as content:
        assert content.read("received.dcm") == b"pixels"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "received.dcm", zipped)}
    assert modes == {"out": 0o700, "received.dcm": 0o600, "out.zip": 0o600}


def test_an_export_of_a_file_that_is_gone_says_so(settings, filing, receive, spool, tmp_path):
    filing.accept(receive("1.2.3", b"pixels"))
    with Admin(settings) as admin:
        admin.show("1.2.3").file.unlink()
        with pytest.raises(ExportError, match="No such file"):
            admin.export("1.2.3", tmp_path / "out")


def test_only_what_is_final_is_purged_and_its_trace_stays(engine, settings, filing, receive, spool):
    filing.accept(receive("1.2.3", b"pixels"))
    filing.accept(receive("1.2.3", b"others"))
    with Admin(settings) as admin:
        with pytest.raises(JobStateError, match="cancel it first"):
            admin.purge("1.2.3")
        admin.cancel("1.2.3")
        admin.purge("1.2.3")
        with pytest.raises(UnknownJobError):
            admin.show("1.2.3")
        # What was set aside under its UID is an own matter.
        (aside,) = admin.conflicts()
        assert aside.file.exists()
        admin.purge("1.2.3", sha256=aside.sha256[:12])
        assert admin.conflicts() == ()
        events = [record.event.value for record in admin.history("1.2.3")]
    assert events == ["received", "conflict", "cancelled", "given_up", "removed", "removed"]
    assert [path for path in spool.folder.rglob("*") if path.is_file()] == []
    assert filing.accept(receive("1.2.3", b"pixels")) is Intake.FILED


def test_nobody_acts_on_what_is_being_removed(engine, settings, filing, receive):
    filing.accept(receive("1.2.3", b"pixels"))
    _set(engine, "1.2.3", state="dead_letter", removal="purge")
    with Admin(settings) as admin:
        for act in (admin.retry, admin.cancel, admin.resend):
            with pytest.raises(JobStateError, match="being removed"):
                act("1.2.3")
        # A purge that was interrupted is finished by another one.
        admin.purge("1.2.3")


def test_results_are_sent_again_to_one_that_lost_them(results, settings, tmp_path):
    shares = [FolderDestination(kind="folder", name=name, folder=tmp_path / name) for name in ("one", "two")]
    results.destinations = tuple(shares)
    results.add(1, "one", "two")
    with Admin(settings) as admin:
        with pytest.raises(JobStateError, match="already"):
            admin.resend("1.2.1")
        for share in shares:
            assert results.deliver(1, share.name) == DeliveryState.DELIVERED
        (lost,) = shares[0].folder.iterdir()
        lost.unlink()
        with pytest.raises(JobStateError, match="not to be delivered to three"):
            admin.resend("1.2.1", "three")
        assert admin.resend("1.2.1", "one").state is InstanceState.DELIVERING
        (kept,) = shares[1].folder.iterdir()
        before = kept.stat().st_mtime_ns
        assert results.deliver(1, "one") == DeliveryState.DELIVERED
        assert lost.exists()
        assert kept.stat().st_mtime_ns == before
        assert admin.show("1.2.1").instance.state is InstanceState.DELIVERED
        resent = [record.detail for record in admin.history("1.2.1") if record.event.value == "resent"]
    assert [one["destinations"] for one in resent] == [["one"]]


def _plan(connection, query):
    return " ".join(row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}"))


def test_pages_and_filters_go_by_index(engine):
    """Plans and not times: no page may read the table."""
    with database.write(engine) as connection:
        columns = [column for column in instance.columns if column.name != "id"]
        row = {
            column.name: column.default.arg if column.default else (0 if "INT" in str(column.type) else "x")
            for column in columns
            if not column.nullable and column.server_default is None
        }
        rows = [
            {
                **row,
                "sop_instance_uid": f"1.2.{number}",
                "state": "delivered" if number % 100 else "dead_letter",
                "calling_ae_title": f"CR{number % 7}",
                "received_at": float(number),
                "updated_at": time.time(),
                "notes": "[]",
            }
            for number in range(2000)
        ]
        connection.execute(sa.insert(instance), rows)
    plans = []
    with engine.connect() as connection:
        for which in (
            "",
            "WHERE state IN ('dead_letter')",
            "WHERE calling_ae_title = 'CR3'",
            "WHERE received_at >= 1000 AND received_at < 1010",
            "WHERE sop_instance_uid >= '1.2.19' AND sop_instance_uid < '1.2.19z'",
        ):
            query = f"SELECT * FROM instance {which} ORDER BY id DESC LIMIT 50"  # noqa: S608
            plans.append(_plan(connection, query))
        # What each C-STORE asks, and retention every minute.
        received = "FROM instance WHERE state = 'received' AND place < 9"
        assert "instance_waiting (" in _plan(connection, f"SELECT min(place) {received}")
        assert "waiting_by_caller" in _plan(connection, f"SELECT max(place) {received} AND calling_ae_title = 'CR3'")
        ended = "SELECT id FROM instance WHERE state = 'delivered' AND updated_at < 9 ORDER BY updated_at LIMIT 9"
        assert "by_age" in _plan(connection, ended)
    assert plans[0] == "SCAN instance"  # by its key, from the end
    for plan, index in zip(plans[1:], ("by_state", "by_caller", "by_arrival", "autoindex"), strict=True):
        assert index in plan, plan
