"""Data Sets to be bent: a sound radiograph, its elements one by one, elements made by hand."""

import functools
import struct
import warnings
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr, write_dataset

from scp_node.demo import phantoms

ROWS, COLUMNS = 192, 160
IDENTITY = (0x00080005, 0x00080050, 0x00100010, 0x00100020, 0x0020000D)
"""Specific Character Set, Accession Number, Patient's Name and ID, Study Instance UID."""
_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})


@functools.cache
def picture() -> NDArray[np.uint8]:
    """Return the (192, 160) display values that all sound cases show, 255 = white."""
    return phantoms.chest_array(ROWS, COLUMNS, 8, seed=11).astype(np.uint8)


def radiograph(name: str, stored: NDArray[Any] | None = None, **options: Any) -> FileDataset:
    """Return a CR that shows `picture`, 12 bits, MONOCHROME2; attributes as for `phantoms.cr`, None removes one."""
    options = {"bits_stored": 12, "photometric_interpretation": "MONOCHROME2"} | options
    if stored is None:
        stored = picture().astype(np.uint16) * 16
        options = window(16, 0) | options
    options.setdefault("PatientName", "CANARY^HOSTILE")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = phantoms.cr(
            stored, identity=f"hostile-{name}", SOPInstanceUID=phantoms.uid("hostile", name, "instance"), **options
        )
    return dataset


def window(factor: float, offset: float) -> dict[str, Any]:
    """Return the VOI that turns ``picture * factor + offset`` into `picture` exactly."""
    return {
        "WindowCenter": f"{127.5 * factor + offset:.10g}",
        "WindowWidth": f"{255 * factor:.10g}",
        "VOILUTFunction": "LINEAR_EXACT",
    }


def data_set(dataset: FileDataset) -> bytes:
    """Return what follows the File Meta Information in the data set's own transfer syntax."""
    stream = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(stream, enforce_file_format=True)
    content = stream.getvalue()
    (length,) = struct.unpack("<L", content[140:144])
    return content[144 + length :]


def elements(dataset: Dataset) -> dict[int, bytes]:
    """Return each element encoded, Explicit VR Little Endian, by tag."""
    found: dict[int, bytes] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        correct_ambiguous_vr(dataset, True)
        for one in dataset:
            stream = DicomBytesIO()
            stream.is_little_endian, stream.is_implicit_VR = True, False
            single = Dataset()
            single.add(one)
            write_dataset(stream, single, dataset.get("SpecificCharacterSet") or "iso8859")
            found[int(one.tag)] = stream.getvalue()
    return found


def joined(parts: Mapping[int, bytes]) -> bytes:
    """Return a Data Set of these elements in the order of their tags."""
    return b"".join(parts[tag] for tag in sorted(parts))


def element(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """Return an element, Explicit VR Little Endian.

    Parameters
    ----------
    length
        What it says of itself, if not the truth.
    """
    size = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    return head + (struct.pack("<HL", 0, size) if vr in _LONG else struct.pack("<H", size & 0xFFFF)) + value


def text(value: str | bytes) -> bytes:
    """Return a value padded with a blank to even length."""
    content = value if isinstance(value, bytes) else value.encode()
    return content + b" " * (len(content) % 2)


def with_frame(dataset: FileDataset, frame: bytes | list[bytes], **options: Any) -> FileDataset:
    """Put a compressed frame, or several fragments as frames, in the place of the data set's own."""
    dataset.PixelData = encapsulate(frame if isinstance(frame, list) else [frame], **options)
    dataset["PixelData"].is_undefined_length = True
    return dataset


def identity_of(parts: Mapping[int, bytes]) -> dict[int, bytes]:
    """Return the values, without padding, that results must repeat."""
    return {tag: parts[tag][8:].rstrip(b" \0") for tag in IDENTITY if tag in parts}
