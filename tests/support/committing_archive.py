"""An archive that commits itself, or not, and what the node knows of that, for tests of Storage Commitment."""

import threading

import sqlalchemy as sa
from pydicom import Dataset
from pydicom.uid import BasicTextSRStorage, SecondaryCaptureImageStorage
from pynetdicom import AE, evt
from pynetdicom.dimse_messages import N_ACTION_RSP, N_EVENT_REPORT_RSP
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance, Verification

from scp_node.delivery.commitment import CommitmentReport
from scp_node.delivery.messages import Messages
from scp_node.jobs.reports import Reports
from scp_node.jobs.tables import commitment

TIMEOUT_S = 600
"""How long the node waits for a report of this archive."""


class Archive:
    """A Storage SCP that commits itself, or not, as it is told.

    ``reasons``: Failure Reason by SOP Instance UID; ``reports``: on the association of the request, else never.
    """

    def __init__(self, *, commits=True, action_status=0x0000):
        self.stored, self.requests, self.answers = [], [], []
        self.reasons = {}
        self.reports = True
        self._is_answered = {}
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
            self._is_answered[event.assoc] = threading.Event()
            threading.Thread(target=self._report, args=(event.assoc, request)).start()
        return self.action_status, None

    def _report(self, association, request):
        report, event_type = self.report_on(request)
        assert self._is_answered[association].wait(60)
        association.send_n_event_report(
            report, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )

    def _begin(self, event):
        # Else the association's own thread takes the answer to the report now and then.
        event.assoc.dimse = Messages(event.assoc)

    def _sent(self, event):
        if isinstance(event.message, N_ACTION_RSP) and event.assoc in self._is_answered:
            self._is_answered[event.assoc].set()

    def _heard(self, event):
        # In the thread that reads: before it reads that the node releases the association.
        if isinstance(event.message, N_EVENT_REPORT_RSP):
            self.answers.append(event.message.command_set.Status)

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
            evt_handlers=[
                (evt.EVT_REQUESTED, self._begin),
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_N_ACTION, self._action),
                (evt.EVT_DIMSE_SENT, self._sent),
                (evt.EVT_DIMSE_RECV, self._heard),
            ],
        )
        self.port = self.server.server_address[1]
        return self

    def __exit__(self, *_):
        self.server.shutdown()


def accept_report(results, transaction_uid, committed=(), failed=()):
    """A report arrives at the node by whatever way; whether its transaction is known."""
    reports = Reports(results.engine, results.jobs, results.destinations, clock=lambda: results.now)
    return reports.accept(
        CommitmentReport(transaction_uid=transaction_uid, committed=tuple(committed), failed=tuple(failed))
    )


def transactions(results):
    """What the node wrote down of its requests, the oldest first."""
    with results.engine.connect() as connection:
        return connection.execute(sa.select(commitment).order_by(commitment.c.requested_at)).all()
