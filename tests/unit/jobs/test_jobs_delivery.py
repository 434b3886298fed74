"""What deliver jobs make of destinations that are away, incomplete, unknown or unwilling."""

import os

import pytest
import sqlalchemy as sa
from summaries import analysed

from config.destinations import DicomDestination
from scp_node.jobs import database
from scp_node.jobs.admin import Admin
from scp_node.jobs.tables import delivered_object
from scp_node.records import DeliveryState, InstanceState


@pytest.mark.databases
def test_a_destination_that_is_away_is_tried_again_later_and_patience_ends(bench):
    bench.share.folder.write_text("in the way")
    bench.arrive(analysed("2.25.1"))
    bench.analyse()
    assert bench.deliver() == DeliveryState.WAITING
    row = bench.delivery()
    assert (row.attempts, row.job_id, row.next_attempt_at) == (1, "deliver:1:share:1:2", bench.now + 10)
    assert "cannot write" in row.last_error
    assert bench.workflows()["deliver:1:share:1:2"][0] == "DELAYED"
    assert bench.row().state == InstanceState.DELIVERING
    waits = []
    while bench.delivery().state == DeliveryState.WAITING:
        waits.append(bench.delivery().next_attempt_at - bench.now)
        bench.now = bench.delivery().next_attempt_at
        bench.deliver()
    assert waits == [10, 20, 40, 30]
    assert bench.delivery().state == DeliveryState.REFUSED
    assert bench.row().state == InstanceState.DEAD_LETTER
    assert bench.row().reason == "delivery"
    assert "share: gave up after 100 s: cannot write" in bench.row().detail


@pytest.mark.databases
def test_a_confirmed_object_is_not_sent_again(bench):
    bench.arrive(analysed("2.25.1", "2.25.2"))
    bench.analyse()
    missing = bench.spool.path("results/aa/bb/cc/2.25.2.dcm")
    missing.chmod(0)
    if os.access(missing, os.R_OK):  # root reads everything: let writing fail instead
        (bench.share.folder / "2.25.2.dcm").mkdir(parents=True)
        (bench.share.folder / "2.25.2.dcm" / "occupied").touch()
    assert bench.deliver() == DeliveryState.WAITING
    first = bench.share.folder / "2.25.1.dcm"
    first.write_bytes(b"the archive's own copy")
    missing.chmod(0o600)
    if (bench.share.folder / "2.25.2.dcm").is_dir():
        (bench.share.folder / "2.25.2.dcm" / "occupied").unlink()
        (bench.share.folder / "2.25.2.dcm").rmdir()
    assert bench.deliver() == DeliveryState.DELIVERED
    assert first.read_bytes() == b"the archive's own copy"
    assert (bench.share.folder / "2.25.2.dcm").read_bytes() == b"result 2.25.2"


def test_a_destination_that_is_not_configured_any_more_is_a_dead_letter_that_can_be_retried(bench):
    bench.arrive(analysed("2.25.1"))
    bench.analyse()
    bench.destinations = ()
    assert bench.deliver() == DeliveryState.REFUSED
    assert "not configured" in bench.row().detail
    bench.destinations = (bench.share,)
    with Admin(bench.settings) as admin:
        record = admin.retry("1.2.3")
    assert record.state is InstanceState.DELIVERING
    assert bench.deliver() == DeliveryState.DELIVERED


def test_a_peer_that_takes_nothing_is_waited_for_and_one_that_takes_some_has_all(bench, tmp_path):
    from scp_node.demo.pacs import StandInPacs

    with StandInPacs(tmp_path / "pacs", sop_classes=["1.2.840.10008.5.1.4.1.1.88.11"]) as pacs:
        bench.destinations = (
            DicomDestination(name="pacs", ae_title="PACS", host="127.0.0.1", port=pacs.port, timeout_s=5),
        )
        bench.arrive(analysed("2.25.1"))
        bench.analyse()
        assert bench.deliver("pacs") == DeliveryState.WAITING
        detail = "PACS accepts no presentation context for Secondary Capture Image Storage"
        assert bench.delivery("pacs").last_error == detail
        # Nobody has set it up by the end of patience: then a person is told.
        bench.now += bench.destinations[0].patience_s
        assert bench.deliver("pacs") == DeliveryState.REFUSED
        assert bench.row().detail == f"pacs: gave up after 604800 s: {detail}"
        # Had it confirmed another object, it would have all that it takes.
        bench.arrive(analysed("2.25.1", "2.25.2"), uid="1.2.4")
        bench.analyse("1.2.4")
        with database.write(bench.engine) as connection:
            connection.execute(
                sa.insert(delivered_object).values(
                    instance_id=2,
                    destination="pacs",
                    sop_instance_uid="2.25.2",
                    verdict="confirmed",
                    status=0,
                    detail="",
                    at=0.0,
                )
            )
        assert bench.deliver("pacs", "1.2.4") == DeliveryState.DELIVERED
        assert "no presentation context" in bench.delivery("pacs", "1.2.4").last_error


def test_a_defect_of_a_sender_is_an_attempt_like_any_other(bench, monkeypatch):
    def defect(*_arguments, **_options):
        raise ZeroDivisionError("secret")

    bench.arrive(analysed("2.25.1"))
    bench.analyse()
    monkeypatch.setattr("scp_node.delivery.catalog.send", defect)
    assert bench.deliver() == DeliveryState.WAITING
    assert bench.delivery().last_error == "error of this node: ZeroDivisionError"
