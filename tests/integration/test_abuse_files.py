"""The findings M6 to M10: each file through pydicom as its examples use it, and through the node.

The first half of each test states the library's defect. When it fails, the library has mended it: then the node's own
measure can be looked at again. What the installed libraries do no more is stated too, with the reason.
"""

import io
import struct
import tracemalloc
import warnings

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import get_frame
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from inference.errors import SourceError
from inference.imaging.decoders import TRANSFER_SYNTAXES
from inference.imaging.render import render
from inference.imaging.source import read_header, read_pixels
from inference.records import RenderRule
from scp_node.demo import encodings
from scp_node.scp.part10 import Implementation, file_header
from tests.hostile.cases import CR, EXPLICIT_LITTLE
from tests.hostile.parts import data_set, element, elements, joined, picture, radiograph, window, with_frame
from tests.hostile.structures import cases, squeezed

# pydicom remarks on some of these files; that is no error of its own.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def part10(content, syntax=EXPLICIT_LITTLE):
    """A Data Set behind the file header that the node writes before it."""
    implementation = Implementation(class_uid="1.2.3", version_name="TEST")
    return (
        file_header(
            sop_class_uid=CR,
            sop_instance_uid="1.2.3",
            transfer_syntax_uid=str(syntax),
            calling_ae_title="TEST",
            implementation=implementation,
        )
        + content
    )


def file_of(dataset):
    return part10(data_set(dataset), dataset.file_meta.TransferSyntaxUID)


def by_library(content):
    """As the examples of pydicom do."""
    return dcmread(io.BytesIO(content))


@pytest.fixture
def by_node(tmp_path):
    """As a child process of the node does; raises SourceError for what becomes a dead letter."""

    def read(content):
        file = tmp_path / "received.dcm"
        file.write_bytes(content)
        return read_pixels(read_header(file))

    return read


def compressed(syntax):
    """A radiograph and its one frame."""
    eight = {"bits_stored": 8} | window(1, 0)
    dataset = radiograph("m6", picture(), **eight) if syntax == JPEGBaseline8Bit else radiograph("m6")
    dataset = encodings.encode(dataset, syntax)
    return dataset, get_frame(dataset.PixelData, 0, number_of_frames=1).rstrip(b"\0")


def without_its_last_part(frame):
    """Cut off, the end marker put back."""
    return frame[: len(frame) * 6 // 10] + frame[-2:]


def with_noise(frame):
    middle, part = len(frame) // 2, len(frame) // 5
    noise = np.random.default_rng(4).integers(0, 0xFF, part).astype(np.uint8).tobytes()
    return frame[:middle] + noise + frame[middle + part :]


# --- M6 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("syntax", "damage"),
    [
        (JPEGBaseline8Bit, without_its_last_part),
        (JPEGBaseline8Bit, with_noise),
        (JPEG2000Lossless, with_noise),
        (JPEG2000, with_noise),
        (RLELossless, with_noise),
    ],
)
def test_m6_damage_inside_a_frame(syntax, damage, by_node):
    """pydicom 3.0.2 with Pillow 13 and its own RLE decoder returns another picture and no error."""
    dataset, frame = compressed(syntax)
    sound = by_library(file_of(dataset)).pixel_array
    assert by_node(file_of(dataset)).stored_values.shape == sound.shape
    damaged = file_of(with_frame(dataset, damage(frame)))
    difference = np.abs(by_library(damaged).pixel_array.astype(int) - sound)
    assert (difference > 0).mean() > 0.2
    with pytest.raises(SourceError):
        by_node(damaged)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEGLosslessSV1, HTJ2KLossless])
def test_m6_no_defect_of_what_is_installed(syntax, by_node):
    """M6 was found with pylibjpeg, which pydicom fell through to and which is no part of the node.

    With pyjpegls alone pydicom 3.0.2 refuses a damaged JPEG-LS frame, and the other two it cannot decode at all.
    """
    if syntax not in encodings.encodable_transfer_syntaxes():
        pytest.skip("dcmcjpeg of DCMTK is not installed")
    dataset, frame = compressed(syntax)
    np.testing.assert_array_equal(by_node(file_of(dataset)).stored_values, picture().astype(int) * 16)
    damaged = file_of(with_frame(dataset, without_its_last_part(frame)))
    with pytest.raises(RuntimeError, match="Unable to deco"):
        _ = by_library(damaged).pixel_array
    with pytest.raises(SourceError):
        by_node(damaged)


def test_m6_each_syntax_has_one_decoder():
    """What makes the fall-through impossible, whatever else is installed."""
    syntaxes = [syntax for syntax, _ in TRANSFER_SYNTAXES]
    assert len(set(syntaxes)) == len(syntaxes)
    assert {decoder for syntax, decoder in TRANSFER_SYNTAXES if UID(syntax).is_encapsulated} == {
        "imagecodecs",
        "pillow",
        "pyjpegls",
    }


# --- M7 --------------------------------------------------------------------------------------------------------------


def says_a_size(frame, rows, columns):
    """A frame whose own header names another size."""
    if frame.startswith(b"\xff\x4f\xff\x51"):
        return frame[:8] + struct.pack(">LL", columns, rows) + frame[16:]
    place = 2
    while frame[place + 1] not in (0xC0, 0xF7):
        place += 2 + struct.unpack_from(">H", frame, place + 2)[0]
    return frame[: place + 5] + struct.pack(">HH", rows, columns) + frame[place + 9 :]


def peak_bytes(action):
    """Memory that Python's allocators gave out, numpy's included, and whether it ended in an error."""
    tracemalloc.start()
    try:
        action()
        error = None
    except (RuntimeError, SourceError) as caught:
        error = caught
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak, error


def test_m7_a_frame_that_says_it_is_larger(by_node):
    """192 x 160 pixels by the Data Set, 6000 x 6000 by the frame: the library makes room for what the frame says."""
    dataset, frame = compressed(JPEGLSLossless)
    lying = file_of(with_frame(dataset, says_a_size(frame, 6000, 6000)))
    peak, error = peak_bytes(lambda: by_library(lying).pixel_array)
    assert peak > 2 * 6000 * 6000
    assert error is not None
    peak, error = peak_bytes(lambda: by_node(lying))
    assert isinstance(error, SourceError)
    assert peak < 2**20


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless])
def test_m7_no_defect_of_what_is_installed(syntax, by_node):
    """Pillow 13 refuses more than 179 million pixels by itself; the node compares with Rows and Columns."""
    dataset, frame = compressed(syntax)
    lying = file_of(with_frame(dataset, says_a_size(frame, 30000, 30000)))
    with pytest.raises(RuntimeError, match="decompression bomb"):
        _ = by_library(lying).pixel_array
    with pytest.raises(SourceError, match="30000"):
        by_node(lying)


# --- M8, M9 ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus():
    return {case.name: case for case in cases()}


def test_m8_a_deflate_bomb(by_node):
    """288 MiB out of 0.3 MB, in the value of one element: the library inflates whatever there is, the node 256 MiB."""
    size = 288 * 2**20
    head = joined({tag: part for tag, part in elements(radiograph("m8")).items() if tag < 0x00091001})
    content = squeezed(head + element(0x00091001, "UN", b"", size), size)
    bomb = part10(content, DeflatedExplicitVRLittleEndian)
    assert len(bomb) < size / 900
    assert len(by_library(bomb)[0x00091001].value) == size
    peak, error = peak_bytes(lambda: by_node(bomb))
    assert isinstance(error, SourceError)
    assert peak < 2 * 256 * 2**20 + 2**23  # as it is inflated, there are two copies for a moment


@pytest.mark.parametrize(
    "name",
    [
        "truncated/Explicit Little Endian at 2.00%",
        "truncated/Explicit Little Endian at 50.00%",
        "truncated/Implicit at 2%",
        "lengths/Patient's Name of 65534 bytes",
        "foreign/zeros behind the identity",
        "foreign/noise behind the identity",
    ],
)
def test_m9_a_data_set_that_is_none(name, corpus, by_node):
    """Read without an exception; something is missing, or shorter than it says."""
    case = corpus[name]
    content = part10(case.content, case.transfer_syntax)
    dataset = by_library(content)
    expected = 2 * picture().size
    assert len(dataset.get("PixelData", b"")) < expected
    with pytest.raises(SourceError):
        by_node(content)


def test_m9_sequences_within_sequences(corpus, by_node):
    """pydicom 3.0.2: an error that is no error of reading, out of the depth of the interpreter."""
    case = corpus["nested/1000 sequences"]
    content = part10(case.content, case.transfer_syntax)
    with pytest.raises(RecursionError):
        by_library(content)
    with pytest.raises(SourceError):
        by_node(content)


# --- M10 -------------------------------------------------------------------------------------------------------------


def shown(dataset):
    """Display values as the documentation of pydicom makes them."""
    return apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(float)


def likeness(first, second):
    """Correlation of two pictures: 1 the same but for brightness and contrast, -1 the negative."""
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def levels_of(by_node, dataset):
    return render(by_node(file_of(dataset)), RenderRule.AUTO).display_values


def test_m10_a_negative_slope(by_node):
    """The same display values by other numbers: the library shows the negative."""
    plain = radiograph("m10")
    values = (4080 - picture().astype(np.uint16) * 16).astype(np.uint16)
    slope = radiograph("m10", values, RescaleSlope="-1", RescaleIntercept="4080", RescaleType="US", **window(16, 0))
    assert likeness(shown(plain), shown(slope)) < -0.99
    np.testing.assert_array_equal(levels_of(by_node, plain), levels_of(by_node, slope))


def test_m10_high_bit(by_node):
    """Twelve bits at the upper end of sixteen: the library takes the lower twelve."""
    plain, left = radiograph("m10"), radiograph("m10")
    left.HighBit = 15
    left.PixelData = (picture().astype("<u2") * 256).tobytes()
    values = by_library(file_of(left)).pixel_array
    assert likeness(values, plain.pixel_array) < 0.5
    np.testing.assert_array_equal(by_node(file_of(left)).stored_values, plain.pixel_array)
    np.testing.assert_array_equal(levels_of(by_node, plain), levels_of(by_node, left))


def test_m10_pixels_twice(by_node):
    """One frame announced, twice the bytes: the library makes two frames of it."""
    dataset = radiograph("m10")
    dataset.PixelData = dataset.PixelData * 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert by_library(file_of(dataset)).pixel_array.shape == (2, *picture().shape)
    with pytest.raises(SourceError):
        by_node(file_of(dataset))
