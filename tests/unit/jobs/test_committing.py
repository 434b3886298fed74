"""Storage Commitment after delivery: asked, answered here or elsewhere, sent again."""

import pytest
from committing_archive import TIMEOUT_S, Archive, accept_report, transactions
from pydicom.uid import BasicTextSRStorage, SecondaryCaptureImageStorage

from scp_node.records import DeliveryState, InstanceState


@pytest.mark.databases
def test_what_is_stored_is_asked_for_and_committed_on_the_same_association(results, to):
    with Archive() as archive:
        to(archive)
        uids = results.add(
            1, "pacs", sop_classes=(SecondaryCaptureImageStorage, SecondaryCaptureImageStorage, BasicTextSRStorage)
        )
        assert results.deliver(1, "pacs") == DeliveryState.COMMITTING
        assert results.instance(1).state == InstanceState.DELIVERING
        assert results.due_now(results.row(1, "pacs").job_id)
        assert results.deliver(1, "pacs") == DeliveryState.COMMITTED
    assert results.row(1, "pacs").state == DeliveryState.COMMITTED
    assert results.instance(1).state == InstanceState.DELIVERED
    (request,) = archive.requests
    assert [item.ReferencedSOPInstanceUID for item in request.ReferencedSOPSequence] == uids
    assert archive.answers == [0x0000]
    assert archive.stored == uids
    assert all(word.committed_at == results.now for word in results.words(1, "pacs").values())
    (transaction,) = transactions(results)
    assert (transaction.state, transaction.transaction_uid) == ("answered", request.TransactionUID)


def test_a_report_that_comes_later_and_elsewhere_finds_its_delivery(results, to, silent):
    """On an association that the PACS opens, after a restart: all it needs is in the database."""
    with Archive() as archive:
        archive.reports = False
        to(archive)
        uids = results.add(1, "pacs")
        results.deliver(1, "pacs")
        assert results.deliver(1, "pacs") == DeliveryState.COMMITTING
    row = results.row(1, "pacs")
    assert row.next_attempt_at == results.now + TIMEOUT_S
    results.now += 100
    (transaction,) = transactions(results)
    assert accept_report(results, transaction.transaction_uid, committed=uids)
    assert results.row(1, "pacs").state == DeliveryState.COMMITTED
    assert results.instance(1).state == InstanceState.DELIVERED
    # The job that waited for the report finds nothing to do; the report once more changes nothing.
    assert results.work().run(row.instance_id, "pacs", row.job_id) == "stale"
    assert accept_report(results, transaction.transaction_uid, failed=[(uids[0], 0x0112)])
    assert results.row(1, "pacs").state == DeliveryState.COMMITTED
    assert not accept_report(results, "2.25.999", committed=uids)


@pytest.mark.databases
def test_what_the_peer_does_not_have_is_sent_again_and_nothing_else(results, to):
    with Archive() as archive:
        to(archive)
        first, second = results.add(1, "pacs", sop_classes=(SecondaryCaptureImageStorage, BasicTextSRStorage))
        archive.reasons = {second: 0x0112}
        results.deliver(1, "pacs")
        # The report has decided before the request's own job could.
        results.deliver(1, "pacs")
        row = results.row(1, "pacs")
        assert (row.state, row.next_attempt_at) == (DeliveryState.WAITING, None)
        assert row.last_error == "pacs does not commit itself: no such object instance"
        words = results.words(1, "pacs")
        assert (words[first].verdict, words[first].committed_at) == ("confirmed", results.now)
        assert (words[second].verdict, words[second].committed_at) == ("transient", None)
        archive.reasons = {}
        assert results.deliver(1, "pacs") == DeliveryState.COMMITTING
        results.deliver(1, "pacs")
    assert results.row(1, "pacs").state == DeliveryState.COMMITTED
    assert archive.stored == [first, second, second]
    assert [[item.ReferencedSOPInstanceUID for item in r.ReferencedSOPSequence] for r in archive.requests] == [
        [first, second],
        [second],
    ]
    assert len({request.TransactionUID for request in archive.requests}) == 2


def test_a_peer_that_never_has_what_it_took_ends_as_a_dead_letter(results, to):
    with Archive() as archive:
        to(archive, commitment_attempts=2)
        (uid,) = results.add(1, "pacs")
        archive.reasons = {uid: 0x0112}
        for _ in range(4):
            results.deliver(1, "pacs")
    assert archive.stored == [uid, uid]
    row = results.row(1, "pacs")
    assert row.state == DeliveryState.REFUSED
    assert row.last_error == "stored with success, and then: pacs does not commit itself: no such object instance"
    assert results.instance(1).state == InstanceState.DEAD_LETTER
    assert results.instance(1).analysed_at is not None


def test_a_class_that_is_never_committed_is_noted_and_the_rest_is_committed(results, to):
    with Archive() as archive:
        to(archive)
        _, report = results.add(1, "pacs", sop_classes=(SecondaryCaptureImageStorage, BasicTextSRStorage))
        archive.reasons = {report: 0x0122}
        results.deliver(1, "pacs")
        results.deliver(1, "pacs")
    row = results.row(1, "pacs")
    assert row.state == DeliveryState.DELIVERED
    assert row.last_error == "stored, pacs does not commit itself: SOP class not supported for commitment"
    assert len(archive.stored) == 2


def test_a_peer_that_could_not_tell_is_asked_again_without_sending(results, to):
    with Archive() as archive:
        to(archive)
        (uid,) = results.add(1, "pacs")
        archive.reasons = {uid: 0x0213}
        results.deliver(1, "pacs")
        results.deliver(1, "pacs")
        assert results.row(1, "pacs").state == DeliveryState.COMMITTING
        assert results.row(1, "pacs").next_attempt_at == results.now + TIMEOUT_S
        archive.reasons = {}
        results.deliver(1, "pacs")
    assert results.row(1, "pacs").state == DeliveryState.COMMITTED
    assert archive.stored == [uid]


def test_a_report_about_objects_of_others_changes_nothing(results, to, silent):
    with Archive() as archive:
        archive.reports = False
        to(archive)
        (uid,) = results.add(1, "pacs")
        (other,) = results.add(2, "pacs")
        for number in (1, 2):
            results.deliver(number, "pacs")
            results.deliver(number, "pacs")
    first = next(one for one in transactions(results) if one.instance_id == results.instance(1).id)
    assert accept_report(results, first.transaction_uid, committed=[other, "'; DROP TABLE"])
    assert results.words(1, "pacs")[uid].committed_at is None
    assert results.words(2, "pacs")[other].committed_at is None
    assert results.row(1, "pacs").state == DeliveryState.COMMITTING
    assert results.row(1, "pacs").last_error == "pacs did not mention every object in its report"
