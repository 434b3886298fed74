"""Files are read by content; header and pixels must agree; every transfer syntax gives the original's stored values."""

import copy
import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.sequence import Sequence
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    RLELossless,
)

from inference.errors import SourceError, UnsupportedPixelsError
from inference.imaging import decoders, source
from inference.imaging.decoders import TRANSFER_SYNTAXES, available_transfer_syntaxes
from inference.imaging.source import read_header, read_pixels
from inference.records import FileFormat
from scp_node.demo import encodings, phantoms

# Largest difference of 12-bit (8-bit for JPEG Baseline) stored values that these encoders make of the phantom
TOLERANCE = {JPEGBaseline8Bit: 9, JPEGExtended12Bit: 16, JPEGLSNearLossless: 2, JPEG2000: 60, HTJ2K: 12}


def small(**options):
    return phantoms.cr(rows=96, columns=80, **options)


def test_every_transfer_syntax_of_the_table_can_be_decoded_here():
    assert available_transfer_syntaxes() == tuple(str(uid) for uid, _ in TRANSFER_SYNTAXES)


def test_a_transfer_syntax_without_decoder_is_not_offered(monkeypatch):
    table = (*TRANSFER_SYNTAXES, (RLELossless, "gdcm"))
    monkeypatch.setattr(decoders, "TRANSFER_SYNTAXES", table)
    assert available_transfer_syntaxes().count(RLELossless) == 1


@pytest.mark.parametrize("uid", [uid for uid, _ in TRANSFER_SYNTAXES])
def test_a_transfer_syntax_decodes_to_the_stored_values_of_the_original(uid, image_of):
    if uid not in encodings.encodable_transfer_syntaxes():
        pytest.skip("dcmcjpeg of DCMTK is not installed")
    build = phantoms.secondary_capture if uid == JPEGBaseline8Bit else phantoms.cr
    original = build(seed=4)
    image = image_of(encodings.encode(original, uid))
    difference = np.abs(image.stored_values.astype(int) - original.pixel_array)
    assert difference.max() <= TOLERANCE.get(uid, 0)
    assert (uid in TOLERANCE) == (difference.max() > 0)
    assert image.bits_stored == original.BitsStored


@pytest.mark.parametrize(
    "uid", [uid for uid, decoder in TRANSFER_SYNTAXES if not decoder or uid.endswith((".5", ".90", ".201", ".202"))]
)
def test_signed_values_survive(uid, image_of):
    values = phantoms.chest_array(96, 80, 12).astype(np.int16) - 2048
    image = image_of(encodings.encode(small(stored_values=values), uid))
    assert image.is_signed
    assert image.stored_values.dtype == np.int16
    np.testing.assert_array_equal(image.stored_values, values)


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80"])
def test_signed_values_survive_codecs_that_know_no_sign(uid, image_of):
    if uid not in encodings.encodable_transfer_syntaxes():
        pytest.skip("dcmcjpeg of DCMTK is not installed")
    values = phantoms.chest_array(96, 80, 12).astype(np.int16) - 2048
    image = image_of(encodings.encode(small(stored_values=values), uid))
    np.testing.assert_array_equal(image.stored_values, values)


@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_bits_stored_are_cut_off(signed, image_of):
    values = phantoms.chest_array(96, 80, 12).astype(np.int16) - (2048 if signed else 0)
    dataset = small(stored_values=values if signed else values.astype(np.uint16))
    garbage = np.random.default_rng(0).integers(0, 16, values.shape).astype(np.uint16) << 12
    dataset.PixelData = ((values.view(np.uint16) & 0x0FFF) | garbage).tobytes()
    np.testing.assert_array_equal(image_of(dataset).stored_values, values)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("big_endian", [False, True])
def test_values_aligned_to_the_left_by_high_bit(signed, big_endian, image_of):
    values = phantoms.chest_array(96, 80, 12).astype(np.int16) - (2048 if signed else 0)
    dataset = small(stored_values=values if signed else values.astype(np.uint16))
    dataset.HighBit = 15
    dataset.PixelData = ((values.view(np.uint16) << 4) | 0x000B).tobytes()
    if big_endian:
        dataset = encodings.encode(dataset, ExplicitVRBigEndian)
    image = image_of(dataset)
    assert image.bits_stored == 12
    np.testing.assert_array_equal(image.stored_values, values)


def test_a_header_stops_before_the_pixels(header_of):
    header = header_of(small())
    assert header.file_format is FileFormat.DICOM
    assert "PixelData" not in header.dataset
    assert header.has_pixel_data
    assert header.dataset.file_meta.TransferSyntaxUID.name == "Explicit VR Little Endian"


def test_a_header_without_pixel_data_says_so(header_of):
    header = header_of(small(PixelData=None))
    assert not header.has_pixel_data
    with pytest.raises(SourceError, match=r"no Pixel Data \(7FE0,0010\)"):
        read_pixels(header)


def test_float_pixel_data_are_not_pixel_data(header_of):
    dataset = small(PixelData=None)
    dataset.FloatPixelData = np.zeros((96, 80), np.float32).tobytes()
    assert not header_of(dataset).has_pixel_data


def test_the_name_is_the_file_unless_given(store):
    file = store(small())
    assert read_header(file).name == file.name
    assert read_header(file, "1.2.3").name == "1.2.3"


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_a_data_set_without_its_uids_is_refused(keyword, header_of):
    with pytest.raises(SourceError, match=keyword):
        header_of(small(**{keyword: None}))


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 4000, b"hello world" * 50, b"GIF89a" + b"\0" * 200, b"\0" * 128 + b"DICM"]
)
def test_what_is_no_radiograph_is_refused_in_a_sentence(content, tmp_path):
    file = tmp_path / "x.dcm"
    file.write_bytes(content)
    with pytest.raises(SourceError, match=r"x\.dcm"):
        read_header(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SourceError, match="cannot be opened"):
        read_header(tmp_path / "absent.dcm")


def test_random_bytes_after_the_preamble_are_refused(tmp_path):
    for seed in range(30):
        file = tmp_path / f"{seed}.dcm"
        file.write_bytes(b"\0" * 128 + b"DICM" + np.random.default_rng(seed).bytes(5000))
        with pytest.raises(SourceError):
            read_header(file)


def test_truncated_files_never_give_pixels(store):
    data = store(small()).read_bytes()
    file = store(small())
    for length in range(140, len(data), len(data) // 40):
        file.write_bytes(data[:length])
        with pytest.raises(SourceError):
            read_pixels(read_header(file))


def test_deep_nesting_is_refused(store):
    dataset = small()
    start, stop = (
        b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
        b"\xfe\xff\x0d\xe0\x00\x00\x00\x00\xfe\xff\xdd\xe0\x00\x00\x00\x00",
    )
    sequence = b"\x40\x00\x75\x02SQ\x00\x00\xff\xff\xff\xff"
    depth = 3000
    file = store(dataset)
    data = file.read_bytes()
    pixels = data.index(b"\xe0\x7f\x10\x00OW")
    file.write_bytes(data[:pixels] + (sequence + start) * depth + stop * depth + data[pixels:])
    with pytest.raises(SourceError, match="RecursionError"):
        read_header(file)


def test_patient_data_are_not_in_messages(store):
    dataset = small(PatientName="Secret^Name")
    dataset.PixelData = dataset.PixelData[:100]
    with pytest.raises(SourceError) as caught:
        read_pixels(read_header(store(dataset)))
    assert "Secret" not in str(caught.value)


def test_a_deflate_bomb_is_refused_before_it_takes_memory(store, monkeypatch):
    monkeypatch.setattr(source, "_MAXIMUM_INFLATED_BYTES", 1 << 20)
    plain = store(small())
    data = plain.read_bytes()
    meta_end = 132 + 12 + struct.unpack("<I", data[140:144])[0]
    explosive = data[meta_end:] + b"\0" * (64 << 20)
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    file = store(encodings.encode(small(), DeflatedExplicitVRLittleEndian))
    head = file.read_bytes()
    head_end = 132 + 12 + struct.unpack("<I", head[140:144])[0]
    file.write_bytes(head[:head_end] + squeezer.compress(explosive) + squeezer.flush())
    del explosive
    tracemalloc.start()
    with pytest.raises(SourceError, match="holds more than 1 MiB"):
        read_header(file)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_a_truncated_deflated_data_set_is_refused(store):
    file = store(encodings.encode(small(), DeflatedExplicitVRLittleEndian))
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(SourceError, match="truncated"):
        read_header(file)


@pytest.mark.parametrize("change", [-2, +160, 96 * 80 * 2])
def test_pixel_data_of_another_length_than_the_header_says(change, image_of):
    dataset = small()
    dataset.PixelData = dataset.PixelData[:change] if change < 0 else dataset.PixelData + b"\0" * change
    with pytest.raises(SourceError, match=r"Pixel Data \(7FE0,0010\) has"):
        image_of(dataset)


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"Rows": 0}, "Rows"),
        ({"Columns": None}, "Columns"),
        ({"BitsStored": 17}, "BitsStored"),
        ({"BitsAllocated": None}, "BitsAllocated"),
        ({"PixelRepresentation": 7}, "PixelRepresentation"),
        ({"HighBit": 5}, "High Bit"),
        ({"HighBit": 16}, "High Bit"),
    ],
)
def test_a_broken_image_pixel_module_is_named(attributes, named, image_of):
    with pytest.raises(SourceError, match=named):
        image_of(small(**attributes))


def test_a_size_that_serves_an_attack_is_refused(image_of):
    with pytest.raises(SourceError, match="more than this node reads"):
        image_of(small(Rows=65535, Columns=65535))


@pytest.mark.parametrize("frames", [None, 0, 1])
def test_no_one_and_zero_frames_are_one_frame(frames, image_of):
    assert image_of(small(NumberOfFrames=frames)).stored_values.shape == (96, 80)


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"NumberOfFrames": 2}, "Number of Frames"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "Bits Allocated"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "Photometric Interpretation"),
    ],
)
def test_what_is_no_single_grey_frame_is_unsupported(attributes, named, image_of):
    with pytest.raises(UnsupportedPixelsError, match=named):
        image_of(small(**attributes))


@pytest.mark.parametrize("planar", [0, 1])
def test_grey_stored_as_colour_is_accepted(planar, image_of):
    grey = phantoms.chest_array(96, 80, 8).astype(np.uint8)
    dataset = phantoms.secondary_capture(np.repeat(grey[..., None], 3, axis=2), photometric_interpretation="RGB")
    if planar:
        dataset.PlanarConfiguration = 1
        dataset.PixelData = np.stack([grey] * 3).tobytes()
    np.testing.assert_array_equal(image_of(dataset).stored_values, grey)


def test_grey_stored_as_colour_in_jpeg_is_accepted(image_of):
    grey = phantoms.chest_array(96, 80, 8).astype(np.uint8)
    dataset = phantoms.secondary_capture(np.repeat(grey[..., None], 3, axis=2), photometric_interpretation="RGB")
    image = image_of(encodings.encode(dataset, JPEGBaseline8Bit))
    assert np.abs(image.stored_values.astype(int) - grey).max() <= 12


def test_colour_is_unsupported(image_of):
    colour = np.zeros((96, 80, 3), np.uint8)
    colour[..., 0] = phantoms.chest_array(96, 80, 8)
    with pytest.raises(UnsupportedPixelsError, match="coloured"):
        image_of(phantoms.secondary_capture(colour, photometric_interpretation="RGB"))


def test_an_unknown_transfer_syntax_is_named(store):
    dataset = encodings.encode(small(), RLELossless)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
    with pytest.raises(SourceError, match="no decoder for transfer syntax MPEG2"):
        read_pixels(read_header(store(dataset)))


def test_invalid_values_elsewhere_do_not_matter(image_of):
    dataset = small()
    dataset.add_new(0x00181110, "LO", "not a number")
    dataset.ReferencedImageSequence = Sequence([Dataset()])
    assert image_of(dataset).stored_values.shape == (96, 80)


def test_real_radiographs_are_the_same_compressed_and_not():
    plain, lossless, lossy = (
        read_pixels(read_header(Path(get_testdata_file(f"RG1_{kind}.dcm")))).stored_values.astype(int)
        for kind in ("UNCR", "J2KR", "J2KI")
    )
    assert plain.shape == (1955, 1841)
    np.testing.assert_array_equal(plain, lossless)
    assert np.abs(plain - lossy).mean() < 60


def test_headers_can_be_copied(header_of):
    """Child processes get them by pickling, results copy from them."""
    header = header_of(small())
    assert copy.deepcopy(header.dataset).SOPInstanceUID == header.dataset.SOPInstanceUID
    stream = io.BytesIO()
    header.dataset.save_as(stream, enforce_file_format=True)
    assert dcmread(io.BytesIO(stream.getvalue())).PatientID == header.dataset.PatientID


def test_pngs_in_a_dicom_preamble_are_dicom(store):
    file = store(small())
    data = file.read_bytes()
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + data[8:])
    assert read_header(file).file_format is FileFormat.DICOM


def test_the_suffix_means_nothing(tmp_path):
    file = tmp_path / "x.dcm"
    Image.fromarray(phantoms.chest_array(64, 48, 8).astype(np.uint8)).save(file, format="PNG")
    assert read_header(file).file_format is FileFormat.PNG


@pytest.mark.parametrize(
    ("tag", "raw"),
    [
        (b"\x20\x00\x00\x40", b"\x20\x00\x00\x40UT\0\0\xfe\xff\xff\x7fabcd"),
        (b"\x40\x00\x75\x02", b"\x40\x00\x75\x02SQ\0\0\0\0\0\x40"),
    ],
)
def test_an_element_longer_than_the_file_is_a_truncation(tag, raw, store):
    """Pydicom takes what there is, and the pixels are gone without a word (M9)."""
    file = store(small())
    data = file.read_bytes()
    place = data.index(b"\x28\x00\x02\x00US")
    file.write_bytes(data[:place] + raw + data[place:])
    assert "PixelData" not in dcmread(file)
    with pytest.raises(SourceError, match="truncated within element"):
        read_header(file)


def test_pixel_data_that_say_they_are_longer_are_a_truncation(store):
    file = store(small())
    data = file.read_bytes()
    place = data.index(b"\xe0\x7f\x10\x00OW") + 8
    file.write_bytes(data[:place] + b"\xfe\xff\xff\x7f" + data[place + 4 :])
    with pytest.raises(SourceError, match="truncated within element"):
        read_pixels(read_header(file))
