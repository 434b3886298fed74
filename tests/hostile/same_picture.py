"""One picture in every legal encoding: all must score the same (SEC-10, M10)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import HTJ2K, JPEG2000, UID, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from scp_node.demo import encodings, phantoms
from tests.hostile.cases import DELIVERED, Case
from tests.hostile.parts import data_set, picture, radiograph, window

_LOSSY = dict.fromkeys((JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K), 0.05)
"""How far the probability may move where the encoder changes the picture."""
_EXACT = 1e-4


def _case(name: str, dataset: FileDataset, tolerance: float = _EXACT) -> Case:
    return Case(
        name=f"same/{name}",
        content=data_set(dataset),
        expected=DELIVERED,
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
        sop_class=str(dataset.SOPClassUID),
        same_as="picture",
        tolerance=tolerance,
    )


def _stored(bits: int, *, signed: bool = False) -> tuple[NDArray[Any], dict[str, Any]]:
    """Return stored values of so many bits, and the attributes that show them as the picture."""
    factor = (2**bits - 1) // 255
    offset = -(2 ** (bits - 1)) if signed else 0
    values = picture().astype(np.int32) * factor + offset
    return values.astype(np.int16 if signed else np.uint16), {"bits_stored": bits} | window(factor, offset)


def cases() -> Iterator[Case]:
    """Yield all of them; every one shows the same display values."""
    yield from _transfer_syntaxes()
    yield from _numbers()
    yield from _transformations()
    yield from _colours()


def _transfer_syntaxes() -> Iterator[Case]:
    for syntax in encodings.encodable_transfer_syntaxes():
        name = UID(syntax).name.partition(",")[0].partition(":")[0].replace(" Image Compression", "").strip()
        eight = radiograph(f"same/{name} {syntax[-3:]} 8 bits", picture(), bits_stored=8, **window(1, 0))
        yield _case(f"{name} {syntax[-3:]} 8 bits", encodings.encode(eight, syntax), _LOSSY.get(UID(syntax), _EXACT))
        if syntax == JPEGBaseline8Bit:
            continue
        twelve = radiograph(f"same/{name} {syntax[-3:]} 12 bits")
        yield _case(f"{name} {syntax[-3:]} 12 bits", encodings.encode(twelve, syntax), _LOSSY.get(UID(syntax), _EXACT))
        if UID(syntax) in _LOSSY:
            continue
        values, attributes = _stored(12, signed=True)
        signed = radiograph(f"same/{name} {syntax[-3:]} 12 bits signed", values, **attributes)
        yield _case(f"{name} {syntax[-3:]} 12 bits signed", encodings.encode(signed, syntax))


def _numbers() -> Iterator[Case]:
    for bits in (8, 9, 10, 11, 12, 13, 14, 15, 16):
        for signed in (False, True):
            if bits == 8 and signed:
                continue
            name = f"{bits} bits {'signed' if signed else 'unsigned'}"
            values, attributes = _stored(bits, signed=signed)
            if bits == 8:
                values = values.astype(np.uint8)
            yield _case(name, radiograph(f"same/{name}", values, **attributes))
    for bits, high in ((10, 15), (12, 13), (12, 14), (12, 15)):
        name = f"{bits} bits, High Bit {high}"
        values, attributes = _stored(bits)
        dataset = radiograph(f"same/{name}", values, **attributes)
        dataset.HighBit = high
        dataset.PixelData = (values << (high - bits + 1)).astype("<u2").tobytes()
        yield _case(name, dataset)
    values, attributes = _stored(12)
    dataset = radiograph("same/garbage above High Bit", values, **attributes)
    garbage = np.random.default_rng(0).integers(0, 16, values.shape).astype(np.uint16) << 12
    dataset.PixelData = (values | garbage).astype("<u2").tobytes()
    yield _case("garbage above High Bit", dataset)


def _transformations() -> Iterator[Case]:
    twelve = picture().astype(np.uint16) * 16
    upside_down = (4080 - twelve).astype(np.uint16)

    def one(name: str, stored: NDArray[Any] | None = None, **attributes: Any) -> Case:
        return _case(name, radiograph(f"same/{name}", stored, **attributes))

    yield one("MONOCHROME1", upside_down, photometric_interpretation="MONOCHROME1", **window(16, 0))
    yield one(
        "MONOCHROME1 with shape INVERSE",
        upside_down,
        photometric_interpretation="MONOCHROME1",
        PresentationLUTShape="INVERSE",
        **window(16, 0),
    )
    yield one("MONOCHROME2 with shape IDENTITY", PresentationLUTShape="IDENTITY")
    yield one(
        "negative slope", upside_down, RescaleSlope="-1", RescaleIntercept="4080", RescaleType="US", **window(16, 0)
    )
    yield one("slope of 0.5", RescaleSlope="0.5", RescaleIntercept="0", RescaleType="US", **window(8, 0))
    yield one("intercept", RescaleSlope="1", RescaleIntercept="-1024", RescaleType="US", **window(16, -1024))
    yield one("exponents in DS", RescaleSlope="1e0", RescaleIntercept="-0.0", RescaleType="US")
    center, width = 127.5 * 16 + 0.5, 255 * 16 + 1
    yield one("window LINEAR", WindowCenter=str(center), WindowWidth=str(width), VOILUTFunction="LINEAR")
    yield one("window without function", WindowCenter=str(center), WindowWidth=str(width), VOILUTFunction=None)
    yield one("two windows", WindowCenter=["2040", "100"], WindowWidth=["4080", "50"])
    yield one("blanks in DS", WindowCenter=" 2040 ", WindowWidth="4080 ")
    for bits in (8, 12, 16):
        yield _with_table(f"VOI LUT of {bits} bits", "VOILUTSequence", bits)
        yield _with_table(f"Modality LUT of {bits} bits", "ModalityLUTSequence", bits)
    yield one("padding value that no pixel has", PixelPaddingValue=4095)
    yield one("Body Part in lower case and blanks", BodyPartExamined="chest ")
    yield one("no optional attribute", ViewPosition=None, BodyPartExamined=None, PatientOrientation=None, KVP=None)
    yield one("Number of Frames 1", NumberOfFrames=1)


def _with_table(name: str, keyword: str, bits: int) -> Case:
    """A table instead of a window, or before it."""
    dataset = radiograph(f"same/{name}")
    largest = 2**bits - 1
    item = Dataset()
    entries = np.rint(np.arange(4096) / 4080 * largest).clip(0, largest).astype(np.uint16)
    item.add_new(0x00283002, "US", [4096, 0, bits])
    item.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
    if keyword == "VOILUTSequence":
        del dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction
        dataset.VOILUTSequence = Sequence([item])
    else:
        item.ModalityLUTType = "US"
        dataset.ModalityLUTSequence = Sequence([item])
        for attribute, value in window(largest / 255, 0).items():
            setattr(dataset, attribute, value)
    return _case(name, dataset, 2e-3)  # the rounding of 256 levels


def _colours() -> Iterator[Case]:
    grey = picture()
    for name, photometric, planar in (
        ("grey as RGB", "RGB", 0),
        ("grey as RGB in planes", "RGB", 1),
        ("grey as YBR_FULL", "YBR_FULL", 0),
    ):
        values = np.repeat(grey[..., None], 3, axis=2)
        if photometric == "YBR_FULL":
            values[..., 1:] = 128
        dataset = phantoms.secondary_capture(
            values,
            photometric_interpretation=photometric,
            identity=f"same-{name}",
            SOPInstanceUID=phantoms.uid("hostile", f"same/{name}", "instance"),
            PatientName="CANARY^HOSTILE",
        )
        dataset.PlanarConfiguration = planar
        if planar:
            dataset.PixelData = np.moveaxis(values, 2, 0).tobytes()
        yield _case(name, dataset)
