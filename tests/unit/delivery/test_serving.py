"""A peer that reports on the association on which it was asked: its report is answered, then comes the release."""

import threading
import time

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.pdu import A_RELEASE_RQ
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from reporting_peer import report_while_releasing

from config.destinations import DicomDestination
from scp_node.delivery import association as associations
from scp_node.delivery import commitment
from scp_node.delivery.association import connect
from scp_node.delivery.commitment import SOP_CLASS, Asked, ask
from scp_node.delivery.messages import Messages

LIMIT_S = 60


class Provider:
    """Takes every request and reports success of it at once, on the same association."""

    def __init__(self):
        self.order, self.ended, self.has_answered = [], threading.Event(), threading.Event()
        ae = AE(ae_title="PACS")
        ae.dimse_timeout = LIMIT_S
        ae.add_supported_context(StorageCommitmentPushModel)
        handlers = [
            (evt.EVT_REQUESTED, self._begin),
            (evt.EVT_N_ACTION, self._action),
            (evt.EVT_DIMSE_SENT, lambda _: self.has_answered.set()),
            # In the thread that reads, in the order in which they came.
            (evt.EVT_DIMSE_RECV, self._hear),
            (evt.EVT_PDU_RECV, self._read),
            (evt.EVT_RELEASED, lambda _: self.ended.set()),
        ]
        self.server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        port = self.server.server_address[1]
        self.destination = DicomDestination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, timeout_s=60.0)

    def _begin(self, event):
        # Else the association's own thread takes the answer to the report now and then.
        event.assoc.dimse = Messages(event.assoc)

    def _action(self, event):
        report = Dataset()
        report.TransactionUID = event.action_information.TransactionUID
        report.ReferencedSOPSequence = event.action_information.ReferencedSOPSequence
        threading.Thread(target=self._report, args=(event.assoc, report)).start()
        return 0x0000, None

    def _report(self, association, report):
        # After the answer to the request.
        assert self.has_answered.wait(LIMIT_S)
        association.send_n_event_report(report, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)

    def _hear(self, event):
        if "Status" in event.message.command_set:
            self.order.append(event.message.command_set.Status)

    def _read(self, event):
        if isinstance(event.pdu, A_RELEASE_RQ):
            self.order.append("released")


@pytest.fixture
def provider():
    made = Provider()
    yield made
    made.server.shutdown()


@pytest.mark.parametrize("is_known", [True, False])
def test_a_report_on_the_same_association_is_answered_before_the_release(provider, monkeypatch, is_known):
    """However long the answer takes to be written: a busy machine."""
    reports = []
    # A busy machine: nobody gives up before the report is there, and its answer written.
    monkeypatch.setattr(commitment, "_LINGER_S", LIMIT_S)
    monkeypatch.setattr(associations, "_LAST_WORDS_S", LIMIT_S)

    def on_report(report):
        reports.append(report)
        return is_known

    def slowly(messages, primitive, context_id):
        if primitive.MessageIDBeingRespondedTo is not None:
            time.sleep(0.5)
        send(messages, primitive, context_id)

    send = Messages.send_msg
    monkeypatch.setattr(Messages, "send_msg", slowly)
    outcome = ask(
        [("1.2.840.10008.5.1.4.1.1.7", "2.25.1")],
        provider.destination,
        calling_ae_title="NODE",
        transaction_uid="2.25.7",
        on_report=on_report,
    )
    assert outcome.asked is Asked.TAKEN
    assert [(report.transaction_uid, report.committed) for report in reports] == [("2.25.7", ("2.25.1",))]
    assert provider.ended.wait(LIMIT_S)
    assert provider.order == [0x0000 if is_known else 0x0115, "released"]


def test_who_releases_does_not_wait_for_a_thread_that_waits_for_it(provider):
    """pynetdicom's thread that has served a report says at the worst moment that the association's is not paused."""
    ignored = [(evt.EVT_N_EVENT_REPORT, lambda _: (0x0000, None))]
    connection = connect(provider.destination, "NODE", [(SOP_CLASS, "1.2.840.10008.1.2")], ignored)
    association = connection.association
    report_while_releasing(association, association.accepted_contexts[0].context_id)
    released = threading.Thread(target=connection.close, daemon=True)
    released.start()
    released.join(LIMIT_S)
    assert not released.is_alive()
    assert provider.ended.wait(LIMIT_S)
