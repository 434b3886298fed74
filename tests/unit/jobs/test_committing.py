"""Storage Commitment after delivery: asked, answered here or elsewhere, sent again, given up with a note."""

import threading

import pytest
import sqlalchemy as sa
from pydicom import Dataset
from pydicom.uid import BasicTextSRStorage, SecondaryCaptureImageStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance, Verification

from config.destinations import DicomDestination
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.delivery.commitment import CommitmentReport
from scp_node.jobs import database
from scp_node.jobs.admin import Admin
from scp_node.jobs.breaker import Breakers
from scp_node.jobs.reports import Reports
from scp_node.jobs.tables import commitment
from scp_node.records import DeliveryState, InstanceState

TIMEOUT_S = 600


class Archive:
    """A Storage SCP that commits itself, or not, as it is told.

    ``reasons``: Failure Reason by SOP Instance UID; ``reports``: on the association of the request, else never.
    """

    def __init__(self, *, commits=True, action_status=0x0000):
        self.stored, self.requests, self.answers = [], [], []
        self.reasons = {}
        self.reports = True
        self.action_status = action_status
        self.ae = AE(ae_title="PACS")
        for uid in (Verification, SecondaryCaptureImageStorage, BasicTextSRStorage):
            self.ae.add_supported_context(uid)
        if commits:
            self.ae.add_supported_context(StorageCommitmentPushModel)

    def _store(self, event):
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def _action(self, event):
        request = event.action_information
        self.requests.append(request)
        if self.reports and self.action_status == 0:
            threading.Timer(0.05, self._report, (event.assoc, request)).start()
        return self.action_status, None

    def _report(self, association, request):
        report, event_type = self.report_on(request)
        answer, _ = association.send_n_event_report(
            report, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        self.answers.append(answer.get("Status"))

    def report_on(self, request):
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        items = list(request.ReferencedSOPSequence)
        failed = [item for item in items if item.ReferencedSOPInstanceUID in self.reasons]
        report.ReferencedSOPSequence = [item for item in items if item not in failed]
        for item in failed:
            item.FailureReason = self.reasons[item.ReferencedSOPInstanceUID]
        if failed:
            report.FailedSOPSequence = failed
        return report, 2 if failed else 1

    def __enter__(self):
        self.server = self.ae.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._action)],
        )
        self.port = self.server.server_address[1]
        return self

    def __exit__(self, *_):
        self.server.shutdown()


@pytest.fixture
def silent(monkeypatch):
    """For peers that will not report: nothing to wait for."""
    monkeypatch.setattr("scp_node.delivery.commitment._LINGER_S", 0.0)


@pytest.fixture
def to(results):
    """Configure a destination that is asked for commitment."""

    def _to(archive, **options):
        results.destinations = (
            DicomDestination(
                name="pacs",
                ae_title="PACS",
                host="127.0.0.1",
                port=archive.port,
                timeout_s=5,
                commitment_timeout_s=TIMEOUT_S,
                **{"storage_commitment": True, **options},
            ),
        )

    return _to


def _report(results, transaction_uid, committed=(), failed=()):
    reports = Reports(results.engine, results.jobs, results.destinations, clock=lambda: results.now)
    return reports.accept(
        CommitmentReport(transaction_uid=transaction_uid, committed=tuple(committed), failed=tuple(failed))
    )


def _transactions(results):
    with results.engine.connect() as connection:
        return connection.execute(sa.select(commitment).order_by(commitment.c.requested_at)).all()


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
    (transaction,) = _transactions(results)
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
    (transaction,) = _transactions(results)
    assert _report(results, transaction.transaction_uid, committed=uids)
    assert results.row(1, "pacs").state == DeliveryState.COMMITTED
    assert results.instance(1).state == InstanceState.DELIVERED
    # The job that waited for the report finds nothing to do; the report once more changes nothing.
    assert results.work().run(row.instance_id, "pacs", row.job_id) == "stale"
    assert _report(results, transaction.transaction_uid, failed=[(uids[0], 0x0112)])
    assert results.row(1, "pacs").state == DeliveryState.COMMITTED
    assert not _report(results, "2.25.999", committed=uids)


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


def test_without_a_report_it_is_asked_again_and_then_delivered_with_a_note(results, to, silent):
    with Archive() as archive:
        archive.reports = False
        to(archive, commitment_attempts=2)
        (uid,) = results.add(1, "pacs")
        results.deliver(1, "pacs")
        assert results.deliver(1, "pacs") == DeliveryState.COMMITTING
        # Too early, as after a restart: it waits on.
        results.now += TIMEOUT_S / 2
        assert results.deliver(1, "pacs") == DeliveryState.COMMITTING
        assert len(archive.requests) == 1
        results.now += TIMEOUT_S / 2
        assert results.deliver(1, "pacs") == DeliveryState.COMMITTING
        assert len(archive.requests) == 2
        results.now += TIMEOUT_S
        assert results.deliver(1, "pacs") == DeliveryState.DELIVERED
    assert archive.stored == [uid]
    assert results.row(1, "pacs").last_error == "stored, not committed: asked 2 times, no report within 600 s"
    assert results.instance(1).state == InstanceState.DELIVERED
    # Better late than never.
    first, _ = _transactions(results)
    assert _report(results, first.transaction_uid, committed=[uid])
    assert results.row(1, "pacs").state == DeliveryState.COMMITTED


@pytest.mark.parametrize("options", [{"commits": False}, {"action_status": 0x0110}])
def test_a_peer_that_knows_no_commitment_is_asked_a_few_times_only(results, to, options):
    with Archive(**options) as archive:
        to(archive, commitment_attempts=3)
        results.add(1, "pacs")
        results.deliver(1, "pacs")
        states = [results.deliver(1, "pacs") for _ in range(3)]
    assert states == [DeliveryState.COMMITTING, DeliveryState.COMMITTING, DeliveryState.DELIVERED]
    assert results.row(1, "pacs").last_error.startswith("stored, not committed: PACS ")
    assert results.instance(1).state == InstanceState.DELIVERED


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


def test_a_peer_that_is_away_is_asked_when_it_is_back_and_patience_ends_without_a_dead_letter(results, to):
    with Archive() as archive:
        to(archive)
        results.add(1, "pacs")
        results.deliver(1, "pacs")
    assert results.deliver(1, "pacs") == DeliveryState.COMMITTING
    row = results.row(1, "pacs")
    assert "connection refused" in row.last_error
    assert row.next_attempt_at == results.now + 10
    assert [transaction.state for transaction in _transactions(results)] == ["void"]
    results.now += 8 * 86400
    assert results.deliver(1, "pacs") == DeliveryState.DELIVERED
    assert "not committed" in results.row(1, "pacs").last_error
    assert results.instance(1).state == InstanceState.DELIVERED


def test_a_request_that_was_cut_off_is_made_anew(results, to, monkeypatch):
    """The process dies between writing the transaction down and hearing whether it was taken."""

    class Killed(BaseException):
        pass

    def kill(*_arguments, **_options):
        raise Killed

    with Archive() as archive:
        to(archive)
        results.add(1, "pacs")
        results.deliver(1, "pacs")
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr("scp_node.delivery.commitment.ask", kill)
            results.deliver(1, "pacs")
        results.deliver(1, "pacs")
    assert results.row(1, "pacs").state == DeliveryState.COMMITTED
    assert [transaction.state for transaction in _transactions(results)] == ["void", "answered"]


def test_switched_off_meanwhile_what_is_stored_is_delivered(results, to):
    with Archive() as archive:
        to(archive)
        results.add(1, "pacs")
        results.deliver(1, "pacs")
        results.destinations = (
            DicomDestination(name="pacs", ae_title="PACS", host="127.0.0.1", port=archive.port, timeout_s=5),
        )
        assert results.deliver(1, "pacs") == DeliveryState.DELIVERED


def test_a_question_on_trial_that_need_not_be_asked_is_followed_by_another_trial(results, to):
    """Switched off meanwhile, so nothing was heard of the destination: others must not wait for a word of it."""
    with Archive() as archive:
        to(archive)
        results.add(1, "pacs")
        assert results.deliver(1, "pacs") == DeliveryState.COMMITTING
        to(archive, storage_commitment=False)
    breakers = Breakers(results.settings, clock=results.clock)
    with database.write(results.engine) as connection:
        for number in range(results.settings.failures_before_pause):
            breakers.failed(connection, "pacs", 100 + number, "away", is_reached=False)
        breakers.grant(connection, "pacs", results.instance(1).id)
        assert breakers.due(connection, ["pacs"]) == []
    assert results.deliver(1, "pacs") == DeliveryState.DELIVERED
    with results.engine.connect() as connection:
        assert len(breakers.due(connection, ["pacs"])) == 1


def test_a_report_about_objects_of_others_changes_nothing(results, to, silent):
    with Archive() as archive:
        archive.reports = False
        to(archive)
        (uid,) = results.add(1, "pacs")
        (other,) = results.add(2, "pacs")
        for number in (1, 2):
            results.deliver(number, "pacs")
            results.deliver(number, "pacs")
    first = next(one for one in _transactions(results) if one.instance_id == results.instance(1).id)
    assert _report(results, first.transaction_uid, committed=[other, "'; DROP TABLE"])
    assert results.words(1, "pacs")[uid].committed_at is None
    assert results.words(2, "pacs")[other].committed_at is None
    assert results.row(1, "pacs").state == DeliveryState.COMMITTING
    assert results.row(1, "pacs").last_error == "pacs did not mention every object in its report"


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
