"""Storage Commitment as operators meet it: shown, cancelled, asked for anew."""

import pytest
from committing_archive import Archive
from pydicom.uid import BasicTextSRStorage, SecondaryCaptureImageStorage

from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.jobs.admin import Admin
from scp_node.records import DeliveryState, InstanceState


@pytest.fixture
def admin(results, tmp_path):
    settings = NodeSettings(
        spool=SpoolSettings(folder=tmp_path / "spool"),
        database=DatabaseSettings(url=str(results.engine.url)),
        destinations=results.destinations,
    )
    with Admin(settings) as opened:
        yield opened


def test_an_operator_sees_what_is_committed(results, to, admin):
    with Archive() as archive:
        to(archive)
        first, second = results.add(1, "pacs", sop_classes=(SecondaryCaptureImageStorage, BasicTextSRStorage))
        archive.reasons = {second: 0x0122}
        results.deliver(1, "pacs")
        results.deliver(1, "pacs")
    words = {one.sop_instance_uid: one.confirmations[0] for one in admin.show("1.2.1").results}
    assert (words[first].word, words[second].word) == ("committed", "confirmed")
    assert words[first].committed_at.timestamp() == results.now


def test_cancelled_while_it_waits_for_a_report_it_is_delivered(results, to, silent, admin):
    with Archive() as archive:
        archive.reports = False
        to(archive)
        results.add(1, "pacs")
        results.deliver(1, "pacs")
        results.deliver(1, "pacs")
        job_id = results.row(1, "pacs").job_id
        assert admin.cancel("1.2.1").state is InstanceState.DELIVERED
        assert results.row(1, "pacs").last_error == "stored, not committed: cancelled by an operator"
        assert results.work().run(results.instance(1).id, "pacs", job_id) == "stale"
        assert len(archive.requests) == 1


def test_a_retry_while_it_waits_for_a_report_asks_anew_and_sends_nothing(results, to, silent, admin):
    with Archive() as archive:
        archive.reports = False
        to(archive)
        (uid,) = results.add(1, "pacs")
        results.deliver(1, "pacs")
        results.deliver(1, "pacs")
        assert admin.retry("1.2.1").state is InstanceState.DELIVERING
        assert results.deliver(1, "pacs") == DeliveryState.COMMITTING
        assert results.deliver(1, "pacs") == DeliveryState.COMMITTING
    assert len(archive.requests) == 2
    assert archive.stored == [uid]
