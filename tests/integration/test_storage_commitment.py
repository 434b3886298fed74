"""Storage Commitment with a whole node: Orthanc as provider, reports on new associations, a restart in between."""

import os
import threading
import time
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pynetdicom import AE, build_role, evt
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance, Verification

from config.analysis import AnalysisSettings
from config.destinations import DeliverySettings, DicomDestination
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.demo.modality import send
from scp_node.jobs.admin import Admin
from scp_node.jobs.node import Node
from scp_node.records import DeliveryState, InstanceState, Verdict
from tests.faults.orthanc import Orthanc, is_installed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

RG1 = Path(get_testdata_file("RG1_UNCR.dcm"))
LIMIT_S = 240
"""Loading models takes seconds on an idle machine and minutes on a busy one."""


def _settings(folder, checkpoints, node_port, destination):
    return NodeSettings(
        receiver={"port": node_port, "acse_timeout_s": 30},
        spool=SpoolSettings(folder=folder / "spool", minimum_free_bytes=0),
        database=DatabaseSettings(url=f"sqlite:///{folder / 'node.sqlite'}"),
        analysis=AnalysisSettings(checkpoints=checkpoints, models=("resnet18",), processes=1, threads=1, device="cpu"),
        delivery=DeliverySettings(first_delay_s=0.5, maximum_delay_s=1.0, first_probe_s=0.2, maximum_probe_s=0.5),
        destinations=(destination,),
    )


def _wait(what, condition):
    deadline = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)
    return found


def _record(settings):
    with Admin(settings) as admin:
        records = list(admin.list_instances())
    return records[0] if records else None


def _delivery(settings):
    record = _record(settings)
    return record.deliveries[0] if record is not None and record.deliveries else None


def _detail(settings):
    with Admin(settings) as admin:
        return admin.show(_record(settings).sop_instance_uid)


def test_orthanc_commits_itself_to_every_result(tmp_path, random_checkpoints, free_port):
    """Orthanc opens an association of its own to report; each object is named committed."""
    if not is_installed():
        if os.environ.get("CI"):
            pytest.fail("Orthanc is not installed")
        pytest.skip("Orthanc is not installed (apt-get install orthanc)")
    node_port = free_port()
    orthanc = Orthanc(tmp_path, dicom_port=free_port(), http_port=free_port(), node_port=node_port)
    destination = DicomDestination(
        name="orthanc",
        ae_title="ORTHANC",
        host="127.0.0.1",
        port=orthanc.dicom_port,
        storage_commitment=True,
        commitment_timeout_s=LIMIT_S,
    )
    settings = _settings(tmp_path, random_checkpoints, node_port, destination)
    try:
        with Node(settings):
            send(RG1, host="127.0.0.1", port=node_port, called_ae_title="SCP_NODE")
            _wait("the end", lambda: (record := _record(settings)) is not None and record.state.is_final)
        detail = _detail(settings)
        assert detail.instance.state is InstanceState.DELIVERED
        assert detail.instance.deliveries[0].state is DeliveryState.COMMITTED
        confirmed = {
            result.sop_instance_uid
            for result in detail.results
            for word in result.confirmations
            if word.verdict is Verdict.CONFIRMED
        }
        assert len(confirmed) == len(orthanc.get("/instances")) == 4
    finally:
        orthanc.stop()


class Archive:
    """A PACS that reports on an association of its own, when it is told to."""

    def __init__(self, node_port):
        self.node_port = node_port
        self.stored, self.requests = [], []
        self.changed = threading.Condition()
        ae = AE(ae_title="PACS")
        for uid in (Verification, StorageCommitmentPushModel):
            ae.add_supported_context(uid)
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax)
        self.server = ae.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._action)],
        )
        self.port = self.server.server_address[1]

    def _store(self, event):
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def _action(self, event):
        with self.changed:
            self.requests.append(event.action_information)
            self.changed.notify_all()
        return 0x0000, None

    def wait_for_request(self, number):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= number, LIMIT_S)
        return self.requests[number - 1]

    def report(self, request, *, failed=()):
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        items = list(request.ReferencedSOPSequence)
        lost = [item for item in items if item.ReferencedSOPInstanceUID in failed]
        report.ReferencedSOPSequence = [item for item in items if item not in lost]
        for item in lost:
            item.FailureReason = 0x0112
        if lost:
            report.FailedSOPSequence = lost
        ae = AE(ae_title="PACS")
        ae.add_requested_context(StorageCommitmentPushModel)
        association = ae.associate(
            "127.0.0.1",
            self.node_port,
            ae_title="SCP_NODE",
            ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
        )
        assert association.is_established
        answer, _ = association.send_n_event_report(
            report, 2 if lost else 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        association.release()
        return answer.Status


def test_a_report_after_a_restart_and_a_failure_lead_to_commitment(tmp_path, random_checkpoints, free_port):
    """Stopped between request and report: the next node takes the report, sends what is lacking, asks again."""
    node_port = free_port()
    archive = Archive(node_port)
    destination = DicomDestination(
        name="pacs",
        ae_title="PACS",
        host="127.0.0.1",
        port=archive.port,
        timeout_s=60,
        storage_commitment=True,
        commitment_timeout_s=600,
    )
    settings = _settings(tmp_path, random_checkpoints, node_port, destination)
    try:
        with Node(settings):
            send(RG1, host="127.0.0.1", port=node_port, called_ae_title="SCP_NODE")
            request = archive.wait_for_request(1)
            _wait("the request's end", lambda: _delivery(settings).next_attempt_at is not None)
        assert _delivery(settings).state is DeliveryState.COMMITTING
        assert _record(settings).state is InstanceState.DELIVERING
        uids = [str(item.ReferencedSOPInstanceUID) for item in request.ReferencedSOPSequence]
        assert sorted(uids) == sorted(archive.stored)

        with Node(settings):
            assert archive.report(request, failed=uids[-1:]) == 0x0000
            second = archive.wait_for_request(2)
            assert [str(item.ReferencedSOPInstanceUID) for item in second.ReferencedSOPSequence] == uids[-1:]
            assert second.TransactionUID != request.TransactionUID
            assert archive.stored[len(uids) :] == uids[-1:], "nothing but what the PACS lacks is sent again"
            assert archive.report(second) == 0x0000
            _wait("commitment", lambda: _record(settings).state is InstanceState.DELIVERED)
            unknown = pydicom.Dataset()
            unknown.TransactionUID, unknown.ReferencedSOPSequence = "2.25.1", []
            assert archive.report(unknown) == 0x0115
        assert _delivery(settings).state is DeliveryState.COMMITTED
    finally:
        archive.server.shutdown()
