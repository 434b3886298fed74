"""Seven sources as they arrive in practice, as synthetic DICOM objects: odd names, damaged and missing attributes."""

import copy
import io
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pydicom import FileDataset, dcmread
from pydicom.uid import JPEGBaseline8Bit

from scp_node.demo.encodings import encode
from scp_node.demo.phantoms import cr, dx, secondary_capture


def _rsna() -> FileDataset:
    """Like the RSNA challenge's files: SC class, Modality CR, JPEG Baseline, an invalid age, no spacing."""
    dataset = secondary_capture(
        rows=1024,
        columns=1024,
        seed=1,
        opacity=0.8,
        identity="rsna",
        PatientOrientation=None,
        SeriesDescription="view: PA",
        PatientName="8d1c8a5e-0000-4000-8000-00000000rsna",
        PatientID="8d1c8a5e-0000-4000-8000-00000000rsna",
        PatientBirthDate="",
        PatientSex="F",
        AccessionNumber="",
        StudyDescription=None,
        StudyID="",
        StudyDate="19010101",
        StudyTime="000000.00",
        SeriesDate=None,
        SeriesTime=None,
        AcquisitionDate=None,
        AcquisitionTime=None,
        ContentDate=None,
        ContentTime=None,
        Manufacturer=None,
        ManufacturerModelName=None,
        SoftwareVersions=None,
        DeviceSerialNumber=None,
    )
    dataset = encode(dataset, JPEGBaseline8Bit)
    # AS must be 062Y. A raw element keeps the fault as a file would have it, without a warning on assignment.
    element = copy.deepcopy(dataset["PatientSex"])
    element.tag, element.VR = 0x00101010, "AS"
    element._value = "62"
    dataset.add(element)
    return dataset


def _named(identity: str, character_set: str | list[str], name: bytes) -> FileDataset:
    """Return the CR with a name in these bytes, as the character set encodes it."""
    dataset = cr(identity=identity, seed=2)
    dataset.SpecificCharacterSet = character_set
    stream = io.BytesIO()
    dataset.PatientName = "PLACEHOLDER"
    dataset.save_as(stream, enforce_file_format=True)
    # Reading back from bytes keeps the name exactly as it stands, which assigning a str would not promise.
    padded = name + b" " * (len(name) % 2)
    data = stream.getvalue()
    old = b"\x10\x00\x10\x00PN\x0c\x00PLACEHOLDER "
    if data.count(old) != 1:
        raise ValueError("the placeholder name is not in the encoded object exactly once")
    return dcmread(io.BytesIO(data.replace(old, b"\x10\x00\x10\x00PN" + len(padded).to_bytes(2, "little") + padded)))


def _cr_bare() -> FileDataset:
    """A CR that identifies nothing: even Type 2 attributes are absent, as faulty gateways send it."""
    absent: dict[str, Any] = dict.fromkeys(
        (
            "PatientID",
            "PatientName",
            "PatientBirthDate",
            "PatientSex",
            "StudyDate",
            "StudyTime",
            "AccessionNumber",
            "StudyID",
            "SeriesNumber",
            "InstanceNumber",
            "BodyPartExamined",
            "ViewPosition",
            "PatientOrientation",
            "SpecificCharacterSet",
            "StudyDescription",
            "SeriesDate",
            "SeriesTime",
            "AcquisitionDate",
            "AcquisitionTime",
            "ContentDate",
            "ContentTime",
        )
    )
    return cr(identity="cr-bare", seed=3, **absent)


SOURCES: Mapping[str, Callable[[], FileDataset]] = MappingProxyType(
    {
        "rsna": _rsna,
        "cr": cr,
        "dx": dx,
        "cr_ko": lambda: _named(
            "cr-ko",
            ["", "ISO 2022 IR 149"],
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        ),
        "cr_ja": lambda: _named(
            "cr-ja",
            ["", "ISO 2022 IR 87"],
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        ),
        "cr_u8": lambda: _named("cr-u8", "ISO_IR 192", "Wang^XiaoDong=王^小東=".encode()),
        "cr_bare": _cr_bare,
    }
)
"""Seven sources that cover what arrives in practice; each call builds a new object."""
