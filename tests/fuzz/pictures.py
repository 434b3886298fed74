"""Fuzzes the way of a file to a picture: parse, eligibility, decode, render, quality; what it may raise is SourceError.

The first byte of an input says what the rest is: a Data Set, a compressed frame in a sound header, or values of
attributes. So mutations reach decoders without first having to guess lengths around them.
"""

import copy
import functools
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(
    include=["inference", "pydicom.filereader", "pydicom.dataset", "pydicom.encaps", "pydicom.values"]
):
    import pydicom

    from config.analysis import EligibilitySettings
    from inference.errors import SourceError
    from inference.imaging import eligibility
    from inference.imaging.decoders import TRANSFER_SYNTAXES
    from inference.imaging.render import render
    from inference.imaging.source import read_header, read_pixels
    from inference.records import RenderRule

from pydicom import Dataset, FileDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import UID

from scp_node.demo import encodings, phantoms
from scp_node.scp.part10 import Implementation, file_header

ROWS = COLUMNS = 48
SYNTAXES = [str(uid) for uid, _ in TRANSFER_SYNTAXES]
NATIVE = SYNTAXES[:4]
_DATA_SET, _FRAME, _VALUES = range(3)
_KEYWORDS = (
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PresentationLUTShape",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "Modality",
    "BodyPartExamined",
    "ViewPosition",
    "PatientOrientation",
    "PresentationIntentType",
    "SpecificCharacterSet",
    "PatientName",
    "SeriesDescription",
)
_FILE = Path(tempfile.mkdtemp(prefix="fuzz-")) / "input.dcm"
_ELIGIBILITY = EligibilitySettings()


@functools.cache
def _sound(syntax: str) -> FileDataset | None:
    stored = phantoms.chest_array(ROWS, COLUMNS, 8, seed=1).astype(np.uint8)
    dataset = phantoms.cr(stored, bits_stored=8, photometric_interpretation="MONOCHROME2", identity="fuzz")
    return encodings.encode(dataset, syntax) if syntax in encodings.encodable_transfer_syntaxes() else None


def _header(syntax: str) -> bytes:
    return file_header(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        sop_instance_uid="1.2.3",
        transfer_syntax_uid=syntax,
        calling_ae_title="FUZZ",
        implementation=Implementation(class_uid="1.2.3", version_name="FUZZ"),
    )


def _saved(dataset: Dataset) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(_FILE, enforce_file_format=True)
    return _FILE.read_bytes()


def _file(content: bytes) -> bytes | None:
    """Return the Part 10 file that an input stands for; None for one that stands for nothing."""
    if len(content) < 2:
        return None
    kind, choice, rest = content[0] % 3, content[1], content[2:]
    if kind == _DATA_SET:
        return _header(NATIVE[choice % len(NATIVE)]) + rest
    sound = _sound(SYNTAXES[choice % len(SYNTAXES)])
    if sound is None:
        return None
    dataset = copy.deepcopy(sound)
    if kind == _FRAME:
        if not UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated or not rest:
            return None
        dataset.PixelData = encapsulate([rest])
        dataset["PixelData"].is_undefined_length = True
        return _saved(dataset)
    raw = _saved(dataset)
    # Values as bytes that pydicom did not see: LO takes anything, and the reader decides by the tag's own VR.
    for number in range(0, len(rest) - 2, 2):
        length = rest[number + 1] % 17
        tag = pydicom.datadict.tag_for_keyword(_KEYWORDS[rest[number] % len(_KEYWORDS)]) or 0
        vr = pydicom.datadict.dictionary_VR(tag)[:2].encode()
        value = rest[number + 2 : number + 2 + length]
        value += b" " * (len(value) % 2)
        key = tag.to_bytes(4, "big")
        element = key[1::-1] + key[:1:-1] + vr + len(value).to_bytes(2, "little") + value
        place = raw.find(b"\x28\x00\x02\x00US")
        raw = raw[:place] + element + raw[place:]
        if len(value) > 8:
            break
    return raw


def one_input(content: bytes) -> None:
    """Take one input; anything but SourceError leaves as a finding."""
    file = _file(content)
    if file is None:
        return
    _FILE.write_bytes(file)
    try:
        header = read_header(_FILE)
        if eligibility.check(header, _ELIGIBILITY) is not None:
            return
        image = read_pixels(header)
    except SourceError:
        return
    shown = render(image, RenderRule.AUTO)
    assert shown.display_values.dtype == np.uint8
    assert shown.display_values.shape == image.stored_values.shape
    eligibility.notes(header, _ELIGIBILITY)
    eligibility.check_quality(shown)


def seeds() -> Iterator[bytes]:
    """Yield a corpus to begin with: every transfer syntax whole, as a Data Set or as a frame, and some values."""
    for number, syntax in enumerate(SYNTAXES):
        sound = _sound(syntax)
        if sound is None:
            continue
        raw = _saved(sound)
        start = 144 + int.from_bytes(raw[140:144], "little")
        if syntax in NATIVE:
            yield bytes([_DATA_SET, number]) + raw[start:]
        else:
            yield bytes([_FRAME, number]) + get_frame(sound.PixelData, 0, number_of_frames=1)
        yield bytes([_VALUES, number]) + b"\x0a\x02-1\x0b\x034095"
        yield bytes([_VALUES, number]) + b"\x00\x02\x00\x30\x01\x02\x00\x30"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if len(sys.argv) > 2 and sys.argv[1] == "--seeds":
        for index, seed in enumerate(seeds()):
            (Path(sys.argv[2]) / f"seed-{index}").write_bytes(seed)
    else:
        for name in SYNTAXES:
            _sound(name)  # encoders are programs of their own: not while an input is timed
        atheris.Setup(sys.argv, one_input)
        atheris.Fuzz()
