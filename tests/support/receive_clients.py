"""Real clients of a receiver, pynetdicom and DCMTK, and small objects for them to send."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.dsutils import split_dataset
from pynetdicom.sop_class import Verification

from scp_node.scp.contexts import SOP_CLASSES

needs_dcmtk = pytest.mark.skipif(shutil.which("dcmsend") is None, reason="DCMTK is not installed")
CR = SOP_CLASSES[0]


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
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 60
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
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr
