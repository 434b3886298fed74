"""Damage inside compressed frames: what decoders pass over in silence is found, what is whole passes (SEC-06, M6)."""

import io
import logging
import struct
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_files
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from inference.errors import CodestreamError, SourceError
from inference.imaging import jpeg
from inference.imaging.codestream import check
from inference.imaging.decoders import TRANSFER_SYNTAXES, decode
from inference.imaging.jpeg2000 import ask_for_termination_check
from inference.imaging.source import read_pixels
from scp_node.demo import encodings, phantoms

HUFFMAN = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
ENCODABLE = encodings.encodable_transfer_syntaxes()
CODECS = [uid for uid in ENCODABLE if UID(uid).is_encapsulated]


def compressed(uid, rows=256, columns=224, **options):
    if uid not in ENCODABLE:
        pytest.skip("dcmcjpeg of DCMTK is not installed")
    build = phantoms.secondary_capture if uid == JPEGBaseline8Bit else phantoms.cr
    dataset = encodings.encode(build(rows=rows, columns=columns, **options), uid)
    return dataset, get_frame(dataset.PixelData, 0, number_of_frames=1).rstrip(b"\0")


def with_frame(dataset, frame):
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    return dataset


def checked(dataset, frame):
    check(
        frame,
        dataset.file_meta.TransferSyntaxUID,
        rows=dataset.Rows,
        columns=dataset.Columns,
        samples=dataset.SamplesPerPixel,
        bits_allocated=dataset.BitsAllocated,
    )(None)


def undetected(dataset, frames, image_of):
    """Count frames whose pixels come out although something is wrong."""
    passed = 0
    for frame in frames:
        try:
            image_of(with_frame(dataset, bytes(frame)))
        except SourceError:
            continue
        passed += 1
    return passed


def flipped(frame, number, start):
    """Copies of a frame with one bit of its data turned over in each."""
    random = np.random.default_rng(3)
    for _ in range(number):
        copy = bytearray(frame)
        copy[int(random.integers(start, len(frame) - 2))] ^= 1 << int(random.integers(8))
        yield bytes(copy)


@pytest.mark.parametrize("uid", CODECS)
def test_a_frame_cut_off_anywhere_with_its_end_put_back_never_gives_pixels(uid, image_of):
    dataset, frame = compressed(uid)
    end = b"" if uid == RLELossless else frame[-2:]
    cuts = [frame[: int(len(frame) * share)] + end for share in np.linspace(0.02, 0.9995, 25)]
    assert undetected(dataset, cuts, image_of) == 0


@pytest.mark.parametrize("uid", HUFFMAN)
def test_decoders_show_a_cut_off_jpeg_as_if_it_were_whole(uid):
    """M6: that a decoder comes to raise would be welcome; until then the check before it is all there is."""
    dataset, frame = compressed(uid)
    cut = with_frame(dataset, frame[: len(frame) // 2] + b"\xff\xd9")
    assert decode(cut, get_frame(cut.PixelData, 0, number_of_frames=1), uid).shape == (256, 224)


# docs/hostile.md has what was measured. Bits that say how long a code is are found, bits of the number behind are not.
@pytest.mark.parametrize(
    ("uid", "largest_share"),
    [
        (JPEGBaseline8Bit, 0.9),
        (JPEGExtended12Bit, 0.8),
        (JPEGLossless, 0.95),
        (JPEGLosslessSV1, 0.95),
        (JPEGLSLossless, 0.2),
        (JPEGLSNearLossless, 0.3),
        (JPEG2000Lossless, 0.1),
        (JPEG2000, 0.25),
        (RLELossless, 0.99),
    ],
)
def test_turned_bits_are_found_as_far_as_the_coding_allows(uid, largest_share, image_of):
    dataset, frame = compressed(uid)
    start = len(frame) // 8
    assert undetected(dataset, flipped(frame, 60, start), image_of) <= largest_share * 60


def test_openjpeg_shows_what_the_check_of_terminations_finds(image_of):
    """M6: without the check, a turned bit in JPEG 2000 changes pixels in silence."""
    dataset, frame = compressed(JPEG2000Lossless)
    whole = imagecodecs.jpeg2k_decode(frame)
    silent = [one for one in flipped(frame, 20, 200) if not np.array_equal(imagecodecs.jpeg2k_decode(one), whole)]
    assert len(silent) > 15
    assert undetected(dataset, silent, image_of) <= 2


def test_the_check_of_terminations_works_where_logging_is_off(image_of):
    """As in the node's child processes; the decoder reports by logging only."""
    dataset, frame = compressed(JPEG2000Lossless)
    logging.disable(logging.CRITICAL)
    try:
        assert undetected(dataset, flipped(frame, 20, 200), image_of) <= 2
        assert logging.root.manager.disable == logging.CRITICAL
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("uid", [JPEG2000Lossless, JPEG2000])
def test_threads_find_the_damage_that_one_finds_and_decode_what_one_decodes(uid, header_of):
    """They report from threads that Python did not start."""
    dataset, frame = compressed(uid)
    whole = header_of(dataset)
    headers = [header_of(with_frame(dataset, one)) for one in flipped(frame, 40, 200)]

    def said(threads):
        for header in headers:
            try:
                yield read_pixels(header, threads=threads).stored_values.tobytes()
            except SourceError as error:
                yield str(error)

    alone = list(said(1))
    assert sum(isinstance(one, str) for one in alone) > 25
    assert list(said(4)) == alone
    np.testing.assert_array_equal(read_pixels(whole, threads=4).stored_values, read_pixels(whole).stored_values)


def test_asking_for_the_check_changes_no_pixel():
    _, frame = compressed(JPEG2000)
    marked = ask_for_termination_check(frame)
    assert marked != frame
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(marked), imagecodecs.jpeg2k_decode(frame))


@pytest.mark.parametrize("uid", HUFFMAN)
@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_missing_bytes_in_the_middle_are_found(uid, place, image_of):
    dataset, frame = compressed(uid)
    position = int(len(frame) * place)
    gaps = [frame[:position] + frame[position + missing :] for missing in range(100, 500, 20)]
    # Now and then the codes fall into step again with the right count: within one block, if less than it is missing.
    assert undetected(dataset, gaps, image_of) <= 2


def test_missing_and_doubled_runs_of_rle_are_found(image_of):
    dataset, frame = compressed(RLELossless)
    for place in np.linspace(0.3, 0.95, 10):
        position = int(len(frame) * place)
        for damaged in (frame[:position] + frame[position + 9 :], frame[:position] + b"\x03abcd" + frame[position:]):
            with pytest.raises(SourceError):
                image_of(with_frame(dataset, damaged))


@pytest.mark.parametrize("segment", [b"\x02abc", b"\xfea", b"\x01ab\x00c", b"\x80\x02abc\x80"])
def test_an_rle_segment_of_three_pixels_may_end_in_padding_only(segment):
    """PS3.5 Annex G pads with a zero; a decoder that took any lone byte for padding would find less damage."""
    whole = struct.pack("<16I", 1, 64, *[0] * 14) + segment

    def passes(frame, columns=3):
        try:
            check(frame, RLELossless, rows=1, columns=columns, samples=1, bits_allocated=8)
        except CodestreamError:
            return False
        return True

    assert [last for last in range(256) if passes(whole + bytes([last]))] == [0x00, 0x80]
    assert passes(whole)
    assert passes(whole + b"\0\0")
    assert not any(passes(whole, columns) for columns in (1, 2, 4))
    assert not passes(whole + b"\0a")


def with_restarts(interval):
    """A JPEG with restart markers, as Pillow makes it."""
    dataset = phantoms.secondary_capture(rows=96, columns=80)
    stream = io.BytesIO()
    picture = Image.fromarray(phantoms.chest_array(96, 80, 8).astype(np.uint8))
    picture.save(stream, format="JPEG", quality=92, restart_marker_blocks=interval)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return dataset, stream.getvalue()


@pytest.mark.parametrize("interval", [1, 7, 120, 1000])
def test_restart_intervals_are_counted(interval):
    dataset, frame = with_restarts(interval)
    checked(dataset, frame)


def test_a_missing_restart_interval_is_found():
    dataset, frame = with_restarts(10)
    first, second = frame.index(b"\xff\xd0"), frame.index(b"\xff\xd1")
    with pytest.raises(CodestreamError, match="out of order"):
        checked(dataset, frame[:first] + frame[second:])
    last = frame.rindex(b"\xff\xd2")
    with pytest.raises(CodestreamError, match="11 restart intervals of JPEG, its pixels ask for 12"):
        checked(dataset, frame[:last] + frame[-2:])


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("shape", [(96, 80), (97, 83)])
def test_colour_with_any_sampling_passes(subsampling, shape):
    grey = phantoms.chest_array(*shape, 8).astype(np.uint8)
    dataset = phantoms.secondary_capture(np.repeat(grey[..., None], 3, axis=2), photometric_interpretation="RGB")
    stream = io.BytesIO()
    Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(stream, format="JPEG", subsampling=subsampling)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    checked(dataset, stream.getvalue())
    with pytest.raises(CodestreamError):
        checked(dataset, stream.getvalue()[:-40] + b"\xff\xd9")


def test_lossless_colour_passes_and_is_found_when_cut():
    dataset = dcmread(get_testdata_files("SC_rgb_jpeg_gdcm.dcm")[0])
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1).rstrip(b"\0")
    checked(dataset, frame)
    with pytest.raises(CodestreamError):
        checked(dataset, frame[: len(frame) // 2] + b"\xff\xd9")


@pytest.mark.parametrize(
    ("marker", "payload", "message"),
    [
        (0xC4, b"\x00" + b"\x01" * 16 + b"\x00" * 16, "names a Huffman table"),
        (0xC4, b"\x00" + b"\xff" * 16, "Huffman table of JPEG is cut off"),
        (0xC4, b"\x10" + b"\x03" + b"\x00" * 15 + b"abc", "more codes than there are"),
        (0xC4, b"\x00", "Huffman table of JPEG is cut off"),
        (0xDA, b"", "scan header of JPEG is damaged"),
        (0xDA, b"\x01\x09\x00\x00\x3f\x00", "scan header of JPEG is damaged"),
        (0xDC, b"\x00\x60", "lines after the scan"),
        (0xC0, b"\x08\x00\x60", "frame header of JPEG is damaged"),
        (0xC0, b"\x08\x00\x60\x00\x50\x01\x01\x00\x00", "frame header of JPEG is damaged"),
    ],
)
def test_headers_of_jpeg_that_make_no_sense_are_named(marker, payload, message):
    dataset, frame = compressed(JPEGBaseline8Bit, rows=96, columns=80)
    segments = [jpeg.Segment(marker=one.marker, payload=one.payload, scan=one.scan) for one in jpeg.segments(frame)]
    replaced = False
    out = b"\xff\xd8"
    for one in segments:
        if one.marker == marker and replaced and marker == 0xC4:
            continue
        content = payload if one.marker == marker else one.payload
        replaced |= one.marker == marker
        out += bytes([0xFF, one.marker]) + (len(content) + 2).to_bytes(2, "big") + content + one.scan
    if not replaced:
        out += bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload
    with pytest.raises(CodestreamError, match=message):
        checked(dataset, out + b"\xff\xd9")


# Their faults are in the file and known: cut short on purpose, or no such header at all.
FAULTY = {"JPEG2000-embedded-sequence-delimiter.dcm"}
NO_PIXELS = {"emri_small_jpeg_2k_lossless_too_short.dcm"}


def real_files():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = [Path(name) for name in get_testdata_files("*.dcm")]
    wanted = ("J2K", "JPEG", "JPG", "jp2k", "jpeg", "RLE", "rle")
    found = {name.name: name for name in names if any(word in name.name for word in wanted)}
    return [found[name] for name in sorted(set(found) - NO_PIXELS)]


@pytest.mark.parametrize("file", real_files(), ids=lambda file: file.name)
def test_streams_of_other_encoders_pass(file):
    """Pydicom's own test files: Kakadu, JasPer, OpenJPEG, GDCM, DCMTK, CharLS and others made them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(file, force=True)
        uid = getattr(dataset.file_meta, "TransferSyntaxUID", None)
        if uid not in dict(TRANSFER_SYNTAXES) or not uid.is_encapsulated or int(dataset.get("NumberOfFrames") or 1) > 1:
            pytest.skip("not one compressed frame")
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if file.name in FAULTY:
        with pytest.raises(CodestreamError):
            checked(dataset, frame)
        return
    checked(dataset, frame)
    decoded = decode(dataset, frame, uid)
    assert decoded.shape[:2] == (dataset.Rows, dataset.Columns)
    if uid == RLELossless:
        colour, _ = get_decoder(uid).as_array(dataset, index=0, raw=dataset.SamplesPerPixel == 1)
        np.testing.assert_array_equal(decoded, colour.view(decoded.dtype))


def test_each_transfer_syntax_has_one_decoder():
    """SEC-26, SEC-27: a new decoder of pydicom, or GDCM in the environment, changes nothing."""
    assert dict(TRANSFER_SYNTAXES) == {
        "1.2.840.10008.1.2.1": "",
        "1.2.840.10008.1.2": "",
        "1.2.840.10008.1.2.2": "",
        "1.2.840.10008.1.2.1.99": "",
        "1.2.840.10008.1.2.4.50": "pillow",
        "1.2.840.10008.1.2.4.51": "imagecodecs",
        "1.2.840.10008.1.2.4.57": "imagecodecs",
        "1.2.840.10008.1.2.4.70": "imagecodecs",
        "1.2.840.10008.1.2.4.80": "pyjpegls",
        "1.2.840.10008.1.2.4.81": "pyjpegls",
        "1.2.840.10008.1.2.4.90": "imagecodecs",
        "1.2.840.10008.1.2.4.91": "imagecodecs",
        "1.2.840.10008.1.2.4.201": "imagecodecs",
        "1.2.840.10008.1.2.4.202": "imagecodecs",
        "1.2.840.10008.1.2.4.203": "imagecodecs",
        "1.2.840.10008.1.2.5": "imagecodecs",
    }


def test_openjpeg_is_not_one_with_a_known_memory_fault():
    """SEC-26: CVE-2025-54874 was fixed in 2.5.4."""
    version = imagecodecs.jpeg2k_version().split()[-1]
    assert tuple(map(int, version.split("."))) >= (2, 5, 4)
