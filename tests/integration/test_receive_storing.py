"""What real clients, pynetdicom and DCMTK, send is stored as it is."""

import hashlib
import subprocess

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
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
)
from receive_clients import CR, associate, data_set_bytes, needs_dcmtk, radiograph, run, store, write

from config.base import Priority
from scp_node.scp.contexts import SOP_CLASSES

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
    assert [sender.wait(120) for sender in senders] == [0] * 4
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
