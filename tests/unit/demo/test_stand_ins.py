"""The stand-in modality and PACS: what one sends the other keeps, and what came back is read for what it is."""

import gc
import shutil
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE

from scp_node.demo import modality
from scp_node.demo.arrivals import read
from scp_node.demo.encodings import encode
from scp_node.demo.modality import SendError, send
from scp_node.demo.pacs import StandInPacs
from scp_node.demo.phantoms import cr


def saved(folder: Path, dataset: pydicom.FileDataset) -> Path:
    file = folder / "source.dcm"
    dataset.save_as(file, enforce_file_format=True)
    return file


@pytest.fixture(params=["storescu", "pynetdicom"])
def sender(request, monkeypatch) -> str:
    if request.param == "pynetdicom":
        monkeypatch.setattr(modality.shutil, "which", lambda _name: None)
    elif shutil.which("storescu") is None:
        pytest.skip("storescu is not installed")
    return request.param


def test_what_is_sent_is_kept_bit_for_bit(tmp_path, sender):
    source = cr(rows=64, columns=48)
    file = saved(tmp_path, source)
    with StandInPacs(tmp_path / "pacs") as pacs:
        assert send(file, host="127.0.0.1", port=pacs.port, called_ae_title="PACS", calling_ae_title="CR1") == sender
        assert pacs.wait_for(lambda objects: len(objects) == 1, 60)
        (stored,) = pacs.objects
    assert stored.sop_class_uid == ComputedRadiographyImageStorage
    assert stored.sop_instance_uid == source.SOPInstanceUID
    assert stored.calling_ae_title == "CR1"
    assert stored.size_bytes == stored.file.stat().st_size
    kept = pydicom.dcmread(stored.file)
    assert kept == source
    assert kept.PixelData == source.PixelData


def test_compressed_files_are_sent_as_they_are(tmp_path, sender):
    file = saved(tmp_path, encode(cr(rows=64, columns=48), JPEG2000Lossless))
    with StandInPacs(tmp_path / "pacs", transfer_syntaxes=[JPEG2000Lossless]) as pacs:
        send(file, host="127.0.0.1", port=pacs.port, called_ae_title="PACS")
        assert pacs.wait_for(lambda objects: len(objects) == 1, 60)
        assert pacs.objects[0].transfer_syntax_uid == JPEG2000Lossless


def test_a_refusal_is_an_error_of_the_sender(tmp_path, sender):
    file = saved(tmp_path, cr(rows=64, columns=48))
    with StandInPacs(tmp_path / "pacs", answer=lambda _uid: 0xA700) as pacs:
        with pytest.raises(SendError):
            send(file, host="127.0.0.1", port=pacs.port, called_ae_title="PACS")
        assert pacs.objects == ()


# pynetdicom 3.0.4 drops the socket of a refused connection without closing it.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_nobody_there_is_an_error_of_the_sender(tmp_path, sender):
    file = saved(tmp_path, cr(rows=64, columns=48))
    with StandInPacs(tmp_path / "pacs") as pacs:
        port = pacs.port
    with pytest.raises(SendError):
        send(file, host="127.0.0.1", port=port, called_ae_title="PACS")
    gc.collect()


def test_the_pacs_takes_only_the_classes_it_is_told(tmp_path, sender):
    file = saved(tmp_path, cr(rows=64, columns=48))
    with (
        StandInPacs(tmp_path / "pacs", sop_classes=[SecondaryCaptureImageStorage]) as pacs,
        pytest.raises(SendError),
    ):
        send(file, host="127.0.0.1", port=pacs.port, called_ae_title="PACS")


def test_no_attribute_names_a_path(tmp_path):
    """An Affected SOP Instance UID that is a path ends as a numbered file like any other."""
    source = cr(rows=64, columns=48)
    with StandInPacs(tmp_path / "pacs") as pacs:
        ae = AE()
        ae.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
        association = ae.associate("127.0.0.1", pacs.port)
        source.SOPInstanceUID = "1.2.3"
        association.send_c_store(source)
        association.release()
        assert [stored.file.name for stored in pacs.objects] == ["0001.dcm"]
    assert sorted(file.name for file in (tmp_path / "pacs").iterdir()) == ["0001.dcm"]


def test_an_arrival_belongs_only_with_the_study_and_a_reference(tmp_path):
    source = cr(rows=64, columns=48)

    def arrival(study: str, reference: str):
        result = cr(rows=64, columns=48)
        result.StudyInstanceUID = study
        item = Dataset()
        item.ReferencedSOPInstanceUID = reference
        result.SourceImageSequence = [item]
        with StandInPacs(tmp_path / "pacs") as pacs:
            send(saved(tmp_path, result), host="127.0.0.1", port=pacs.port, called_ae_title="PACS")
            return read(pacs.objects[0], source)[0]

    assert arrival(source.StudyInstanceUID, source.SOPInstanceUID).belongs
    assert not arrival("1.2.3", source.SOPInstanceUID).belongs
    assert not arrival(source.StudyInstanceUID, "1.2.3").belongs
