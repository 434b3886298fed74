"""N-EVENT-REPORTs of Storage Commitment, from a peer that opens an association as provider of the service."""

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)

from config.receiver import ReceiverSettings
from config.storage import SpoolSettings
from scp_node.scp.part10 import Implementation
from scp_node.scp.server import Receiver
from scp_node.spool.store import Spool


class Listening:
    """A receiver that notes what it is told, and answers as it is set."""

    def __init__(self, folder):
        self.notices = []
        self.answer = True
        spool = Spool(SpoolSettings(folder=folder, minimum_free_bytes=0))
        spool.create()
        self.receiver = Receiver(
            ReceiverSettings(ae_title="NODE", acse_timeout_s=30),
            spool,
            lambda received: pytest.fail("no C-STORE was sent"),
            [ExplicitVRLittleEndian],
            implementation=Implementation(class_uid="2.25.1", version_name="NODE"),
            port=0,
            notify=self._notify,
        )

    def _notify(self, notice):
        if isinstance(self.answer, Exception):
            raise self.answer
        self.notices.append(notice)
        return self.answer


@pytest.fixture
def listening(tmp_path):
    made = Listening(tmp_path / "spool")
    made.receiver.start()
    yield made
    made.receiver.stop(5)


def _associate(port, *, role=True, contexts=(StorageCommitmentPushModel,), syntax=ExplicitVRLittleEndian):
    ae = AE(ae_title="PACS")
    for uid in contexts:
        ae.add_requested_context(uid, syntax)
    roles = [build_role(StorageCommitmentPushModel, scp_role=True)] if role else None
    return ae.associate("127.0.0.1", port, ae_title="NODE", ext_neg=roles)


def _report(association, dataset, event_type=1):
    answer, _ = association.send_n_event_report(
        dataset, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    return answer.Status if "Status" in answer else None


def _dataset(*uids):
    dataset = Dataset()
    dataset.TransactionUID = "2.25.7"
    dataset.ReferencedSOPSequence = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", uid
        dataset.ReferencedSOPSequence.append(item)
    return dataset


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_report_is_handed_over_and_answered(listening, syntax):
    association = _associate(listening.receiver.port, syntax=syntax)
    assert association.is_established
    context = association.accepted_contexts[0]
    assert (context.as_scu, context.as_scp) == (False, True), "the peer is the provider"
    assert _report(association, _dataset("2.25.1"), event_type=2) == 0x0000
    assert _report(association, _dataset("2.25.2", "2.25.3")) == 0x0000
    association.release()
    first, second = listening.notices
    assert (first.event_type_id, first.calling_ae_title, first.transfer_syntax_uid) == (2, "PACS", str(syntax))
    assert b"2.25.1" in first.content
    assert second.event_type_id == 1


def test_a_peer_that_wants_this_node_to_be_the_provider_is_refused(listening):
    ae = AE(ae_title="PACS")
    ae.add_requested_context(StorageCommitmentPushModel)
    ae.add_requested_context(Verification)
    roles = [build_role(StorageCommitmentPushModel, scu_role=True)]
    association = ae.associate("127.0.0.1", listening.receiver.port, ae_title="NODE", ext_neg=roles)
    assert [context.abstract_syntax for context in association.accepted_contexts] == [Verification]
    association.release()


def test_what_is_about_nothing_known_here_is_refused(listening):
    listening.answer = False
    association = _associate(listening.receiver.port)
    assert _report(association, _dataset("2.25.1")) == 0x0115
    association.release()


def test_what_cannot_be_taken_in_now_may_be_repeated(listening):
    listening.answer = OSError("database away")
    association = _associate(listening.receiver.port)
    assert _report(association, _dataset("2.25.1")) == 0x0110
    listening.answer = True
    assert _report(association, _dataset("2.25.1")) == 0x0000
    association.release()


def test_a_report_of_megabytes_is_not_kept(listening, monkeypatch):
    monkeypatch.setattr("scp_node.scp.notices.MAXIMUM_NOTICE_BYTES", 2000)
    association = _associate(listening.receiver.port)
    assert _report(association, _dataset(*(f"2.25.{number}" for number in range(200)))) == 0x0115
    assert listening.notices == []
    assert _report(association, _dataset("2.25.1")) == 0x0000
    association.release()


def test_a_report_in_the_context_of_another_service_ends_the_association(listening):
    association = _associate(listening.receiver.port, contexts=[Verification], role=False)
    association._accepted_cx[1].abstract_syntax = StorageCommitmentPushModel  # a peer that does not keep to the rules
    association._accepted_cx[1]._as_scp = True
    assert _report(association, _dataset("2.25.1")) is None
    assert listening.notices == []


def test_nothing_is_accepted_where_nobody_listens(tmp_path):
    spool = Spool(SpoolSettings(folder=tmp_path / "spool", minimum_free_bytes=0))
    spool.create()
    receiver = Receiver(
        ReceiverSettings(ae_title="NODE", acse_timeout_s=30),
        spool,
        lambda received: pytest.fail("no C-STORE was sent"),
        [ExplicitVRLittleEndian],
        implementation=Implementation(class_uid="2.25.1", version_name="NODE"),
        port=0,
    )
    receiver.start()
    try:
        association = _associate(receiver.port, contexts=[StorageCommitmentPushModel, Verification])
        assert [context.abstract_syntax for context in association.accepted_contexts] == [Verification]
        association.release()
    finally:
        receiver.stop(5)
