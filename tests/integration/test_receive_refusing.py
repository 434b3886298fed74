"""What real clients, pynetdicom and DCMTK, are refused, and what they are told."""

import time

import pytest
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification
from receive_clients import CR, associate, needs_dcmtk, radiograph, run, store

from scp_node.errors import SpoolFullError
from scp_node.scp.contexts import SOP_CLASSES
from scp_node.scp.statuses import Status


@pytest.mark.parametrize(
    ("called", "calling", "addresses", "codes"),
    [
        ("ANOTHER", "SCU", [], (1, 1, 7)),
        ("NODE", "STRANGER", [], (1, 1, 3)),
        ("NODE", "SCU", ["192.0.2.0/24"], (1, 1, 3)),
    ],
)
def test_strangers_are_rejected(receiving, called, calling, addresses, codes):
    running = receiving(callers=[{"ae_title": "SCU", "addresses": addresses}])
    association = associate(running.port, called=called, calling=calling)
    assert association.is_rejected
    answer = association.acceptor.primitive
    assert (answer.result, answer.result_source, answer.diagnostic) == codes


@pytest.mark.integration
@needs_dcmtk
def test_echoscu_is_answered_and_a_stranger_is_told_why(receiving):
    running = receiving(callers=[{"ae_title": "ECHOSCU"}])
    run("echoscu", "-aec", "NODE", "127.0.0.1", str(running.port))
    assert "Called AE Title Not Recognized" in run("echoscu", "127.0.0.1", str(running.port), expected=1)
    stranger = run("echoscu", "-aet", "X", "-aec", "NODE", "127.0.0.1", str(running.port), expected=1)
    assert "Calling AE Title Not Recognized" in stranger


def test_one_association_too_many_is_told_to_come_again(receiving):
    running = receiving(maximum_associations=2)
    inside = [associate(running.port) for _ in range(2)]
    third = associate(running.port)
    assert third.is_rejected
    answer = third.acceptor.primitive
    assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
    inside.pop().release()
    deadline = time.monotonic() + 60
    while not (again := associate(running.port)).is_established:
        assert time.monotonic() < deadline
    again.release()
    inside.pop().release()


def test_the_acceptor_says_what_it_is_and_what_it_takes(receiving):
    running = receiving(maximum_pdu_bytes=65536)
    association = associate(running.port)
    assert association.acceptor.maximum_length == 65536
    assert association.acceptor.implementation_class_uid == "2.25.1"
    assert association.acceptor.implementation_version_name == "NODE"
    association.release()


def test_other_services_and_classes_are_not_offered(receiving):
    running = receiving()
    contexts = [
        (Verification, ImplicitVRLittleEndian),
        (StudyRootQueryRetrieveInformationModelFind, ImplicitVRLittleEndian),
        (CTImageStorage, ImplicitVRLittleEndian),
        (CR, UID("1.2.840.10008.1.2.4.100")),  # MPEG2
    ]
    association = associate(running.port, *contexts)
    assert [context.abstract_syntax for context in association.accepted_contexts] == [Verification]
    assert [context.result for context in association.rejected_contexts] == [3, 3, 4]
    association.release()


def test_a_full_disk_is_out_of_resources_and_the_association_goes_on(receiving):
    running = receiving(minimum_free_bytes=2**60)
    association = associate(running.port, (CR, ExplicitVRLittleEndian), (Verification, ImplicitVRLittleEndian))
    assert association.send_c_store(radiograph(rows=512)).Status == Status.STORE_OUT_OF_RESOURCES
    assert association.send_c_echo().Status == 0
    association.release()
    assert not any(file.is_file() for file in running.spool.folder.rglob("*"))


@pytest.mark.parametrize("error", [SpoolFullError("full"), RuntimeError("locked")])
def test_what_the_intake_raises_is_answered_and_nothing_is_kept(receiving, error):
    running = receiving()

    def fail(instance):
        raise error

    running.before_accept = fail
    dataset = radiograph()
    answer = store(running.port, dataset)
    assert answer.Status == Status.STORE_OUT_OF_RESOURCES
    assert "ErrorComment" in answer
    assert running.temporary_files() == []


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"SOPInstanceUID": "1.2.3.4"}, Status.STORE_DATA_SET_MISMATCH),
        ({"SOPClassUID": SOP_CLASSES[1]}, Status.STORE_DATA_SET_MISMATCH),
        ({"SOPInstanceUID": None}, Status.STORE_DATA_SET_MISMATCH),
    ],
)
def test_data_set_and_command_must_agree(receiving, tmp_path, monkeypatch, change, status):
    """File Meta Information becomes the command, so a file that contradicts itself makes such a message."""
    monkeypatch.setattr("pynetdicom._config.STORE_SEND_CHUNKED_DATASET", True)
    running = receiving()
    dataset = radiograph()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    for keyword, value in change.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    file = tmp_path / "liar.dcm"
    dataset.preamble = bytes(128)
    dataset.save_as(file)
    association = associate(running.port, (CR, ExplicitVRLittleEndian))
    assert association.send_c_store(file).Status == status
    assert association.is_established
    association.release()
    assert running.instances == {}


def test_an_object_that_is_too_large_is_refused_and_the_next_is_taken(receiving):
    running = receiving(maximum_object_bytes=2**20)
    association = associate(running.port, (CR, ExplicitVRLittleEndian))
    assert association.send_c_store(radiograph(rows=1024)).Status == Status.STORE_CANNOT_UNDERSTAND
    assert association.send_c_store(radiograph(rows=512)).Status == 0
    association.release()
    assert len(running.instances) == 1
