"""Real clients, pynetdicom and DCMTK, against the receiver."""

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    generate_uid,
)
from pynetdicom import AE
from pynetdicom.dsutils import split_dataset
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from config.base import Priority
from scp_node.errors import SpoolFullError
from scp_node.scp.contexts import SOP_CLASSES
from scp_node.scp.statuses import Status

needs_dcmtk = pytest.mark.skipif(shutil.which("dcmsend") is None, reason="DCMTK is not installed")
CR = SOP_CLASSES[0]

STORESCU_OPTION = {
    ImplicitVRLittleEndian: "-xi",
    ExplicitVRLittleEndian: "-xe",
    ExplicitVRBigEndian: "-xb",
    DeflatedExplicitVRLittleEndian: "-xd",
    JPEGBaseline8Bit: "-xy",
    JPEGExtended12Bit: "-xx",
    JPEGLosslessSV1: "-xs",
    JPEGLSLossless: "-xt",
    JPEGLSNearLossless: "-xu",
    JPEG2000Lossless: "-xv",
    JPEG2000: "-xw",
    RLELossless: "-xr",
}
OTHERS = [JPEGLossless, HTJ2KLossless, HTJ2K]


def radiograph(syntax: UID = ExplicitVRLittleEndian, sop_class: UID = CR, rows: int = 64) -> Dataset:
    """A small object whose pixels nobody decodes on the way in."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid(prefix="1.2.826.0.1.")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(prefix=None), generate_uid(prefix=None)
    dataset.PatientName, dataset.PatientID = "Test^Receive", "1"
    dataset.Modality = "CR"
    dataset.Rows = dataset.Columns = rows
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    pixels = os.urandom(rows * rows * 2)
    dataset.PixelData = encapsulate([pixels]) if syntax.is_encapsulated else pixels
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def write(folder: Path, dataset: Dataset) -> Path:
    file = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(file, enforce_file_format=True)
    return file


def data_set_bytes(file: Path) -> bytes:
    _, offset = split_dataset(file)
    return file.read_bytes()[offset:]


def associate(port: int, *contexts: tuple[UID, UID], called: str = "NODE", calling: str = "SCU"):
    ae = AE(calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
    for abstract_syntax, transfer_syntax in contexts or ((Verification, ImplicitVRLittleEndian),):
        ae.add_requested_context(abstract_syntax, transfer_syntax)
    return ae.associate("127.0.0.1", port, ae_title=called)


def store(port: int, dataset: Dataset) -> Dataset:
    association = associate(port, (dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID))
    assert association.is_established
    answer = association.send_c_store(dataset)
    association.release()
    return answer


def run(*command: str | Path, expected: int = 0) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


# --- storing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [*STORESCU_OPTION, *OTHERS], ids=lambda syntax: syntax.name)
def test_every_transfer_syntax_is_stored_byte_for_byte(receiving, tmp_path, monkeypatch, syntax):
    """The SCU sends the file's bytes as they are; these bytes, and their digest, arrive."""
    monkeypatch.setattr("pynetdicom._config.STORE_SEND_CHUNKED_DATASET", True)
    running = receiving()
    dataset = radiograph(syntax)
    file = write(tmp_path, dataset)
    association = associate(running.port, (CR, syntax))
    assert association.send_c_store(file).Status == 0
    association.release()
    instance = running.instances[dataset.SOPInstanceUID]
    sent = data_set_bytes(file)
    assert instance.sha256 == hashlib.sha256(sent).hexdigest()
    assert instance.size_bytes == len(sent)
    assert instance.transfer_syntax_uid == syntax
    stored = running.stored[dataset.SOPInstanceUID]
    assert data_set_bytes(stored) == sent
    assert dcmread(stored).PixelData == dataset.PixelData
    assert dcmread(stored).file_meta.TransferSyntaxUID == syntax
    assert stored.stat().st_mode & 0o777 == 0o600


@pytest.mark.integration
@needs_dcmtk
@pytest.mark.parametrize("syntax", STORESCU_OPTION, ids=lambda syntax: syntax.name)
def test_storescu_in_every_transfer_syntax(receiving, tmp_path, syntax):
    running = receiving()
    dataset = radiograph(syntax)
    file = write(tmp_path, dataset)
    run("storescu", STORESCU_OPTION[syntax], "-aec", "NODE", "127.0.0.1", str(running.port), file)
    stored = dcmread(running.stored[dataset.SOPInstanceUID])
    assert stored.file_meta.TransferSyntaxUID == syntax
    assert stored.file_meta.SourceApplicationEntityTitle == "STORESCU"
    assert stored.PixelData == dataset.PixelData
    assert stored == dcmread(file)


@pytest.mark.integration
@needs_dcmtk
def test_storescu_with_a_real_radiograph(receiving):
    running = receiving()
    file = get_testdata_file("RG1_UNCR.dcm")
    run("storescu", "-aec", "NODE", "127.0.0.1", str(running.port), file)
    (stored,) = running.stored.values()
    original = dcmread(file)
    assert dcmread(stored).PixelData == original.PixelData
    assert dcmread(stored).SOPInstanceUID == original.SOPInstanceUID


@pytest.mark.parametrize("sop_class", SOP_CLASSES, ids=lambda uid: uid.name)
def test_every_sop_class_is_stored(receiving, sop_class):
    running = receiving()
    dataset = radiograph(sop_class=sop_class)
    assert store(running.port, dataset).Status == 0
    assert running.instances[dataset.SOPInstanceUID].sop_class_uid == sop_class


@pytest.mark.integration
@needs_dcmtk
def test_fifty_instances_over_four_associations(receiving, tmp_path):
    running = receiving()
    sent = {}
    folders = [tmp_path / str(number) for number in range(4)]
    for number in range(50):
        dataset = radiograph(rows=512)
        folders[number % 4].mkdir(exist_ok=True)
        write(folders[number % 4], dataset)
        sent[dataset.SOPInstanceUID] = dataset.PixelData
    command = ["dcmsend", "-aec", "NODE", "+sd", "127.0.0.1", str(running.port)]
    senders = [subprocess.Popen([*command, folder], stdout=subprocess.DEVNULL) for folder in folders]
    assert [sender.wait(60) for sender in senders] == [0] * 4
    assert running.stored.keys() == sent.keys()
    assert all(dcmread(running.stored[uid]).PixelData == pixels for uid, pixels in sent.items())


def test_the_callers_priority_and_address_travel_with_the_instance(receiving):
    callers = [{"ae_title": "SCU", "addresses": ["127.0.0.0/8"], "priority": "stat"}]
    running = receiving(callers=callers)
    dataset = radiograph()
    assert store(running.port, dataset).Status == 0
    instance = running.instances[dataset.SOPInstanceUID]
    assert (instance.calling_ae_title, instance.called_ae_title) == ("SCU", "NODE")
    assert (instance.peer_address, instance.priority) == ("127.0.0.1", Priority.STAT)


# --- refusing --------------------------------------------------------------------------------------------------------


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


# --- time and stopping -----------------------------------------------------------------------------------------------


def test_a_slow_intake_is_not_taken_for_a_silent_peer(receiving):
    running = receiving(dimse_timeout_s=0.3, network_timeout_s=0.3)
    running.before_accept = lambda instance: time.sleep(0.6)
    association = associate(running.port, (CR, ExplicitVRLittleEndian))
    for _ in range(2):
        assert association.send_c_store(radiograph()).Status == 0
    association.release()
    assert association.is_released


def test_a_silent_association_is_aborted(receiving):
    running = receiving(dimse_timeout_s=0.3)
    association = associate(running.port)
    running.wait_until_quiet(limit_s=5)
    association.join(60)
    assert association.is_aborted


def test_stopping_lets_an_object_under_way_be_answered(receiving):
    running = receiving()
    entered, go_on = threading.Event(), threading.Event()

    def wait(instance):
        entered.set()
        assert go_on.wait(60)

    running.before_accept = wait
    dataset = radiograph()
    answers = []
    sender = threading.Thread(target=lambda: answers.append(store(running.port, dataset)))
    sender.start()
    assert entered.wait(60)
    stopper = threading.Thread(target=running.receiver.stop, kwargs={"timeout_s": 60})
    stopper.start()
    deadline = time.monotonic() + 60
    # Refused; or reset, for one that waited to be accepted when the listener closed. Between the two its queue may be
    # full, and nobody answers.
    with pytest.raises(ConnectionError):
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                socket.create_connection(("127.0.0.1", running.port), timeout=1).close()
    go_on.set()
    stopper.join(60)
    sender.join(60)
    assert not stopper.is_alive()
    assert answers[0].Status == 0
    assert dataset.SOPInstanceUID in running.stored


def test_stopping_aborts_who_does_not_leave(receiving):
    running = receiving()
    association = associate(running.port)
    begun = time.monotonic()
    running.receiver.stop(timeout_s=0.2)
    assert time.monotonic() - begun < 15
    association.join(60)
    assert association.is_aborted


def test_a_receiver_can_be_stopped_twice_and_has_no_port_then(receiving):
    running = receiving()
    running.receiver.stop()
    running.receiver.stop()
    with pytest.raises(RuntimeError, match="not running"):
        _ = running.receiver.port
