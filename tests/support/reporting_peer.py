"""A report of a peer, served at the worst moment: while a release has begun and waits for the association's thread."""

import time

from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

LIMIT_S = 60


def report_while_releasing(association, context_id):
    # As a release begins: nobody passes any more.
    association._reactor_checkpoint.clear()
    deadline = time.monotonic() + LIMIT_S
    while not association._is_paused:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)
    report = N_EVENT_REPORT()
    report.MessageID, report.EventTypeID = 1, 1
    report.AffectedSOPClassUID = StorageCommitmentPushModel
    report.AffectedSOPInstanceUID = StorageCommitmentPushModelInstance
    association._serve_request(report, context_id)
