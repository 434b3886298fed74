"""A compressed frame that lies about its size or is cut off never reaches a decoder."""

import struct
import time

import pytest
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from inference.errors import CodestreamError, SourceError
from inference.imaging.codestream import check
from scp_node.demo import encodings, phantoms

COMPRESSED = [uid for uid in encodings.encodable_transfer_syntaxes() if UID(uid).is_encapsulated]
JPEG_MARKERS = [*range(0xC0, 0xC4), 0xF7]


def compressed(uid):
    build = phantoms.secondary_capture if uid == JPEGBaseline8Bit else phantoms.cr
    dataset = encodings.encode(build(rows=96, columns=80), uid)
    return dataset, get_frame(dataset.PixelData, 0, number_of_frames=1)


def checked(dataset, frame):
    check(
        frame,
        dataset.file_meta.TransferSyntaxUID,
        rows=dataset.Rows,
        columns=dataset.Columns,
        samples=dataset.SamplesPerPixel,
        bits_allocated=dataset.BitsAllocated,
    )(None)


def with_frame(dataset, frame):
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    return dataset


def position_of_size(frame, uid):
    """Return where a JPEG frame header has its number of rows."""
    position = 2
    while frame[position + 1] not in JPEG_MARKERS:
        position += 2 + struct.unpack(">H", frame[position + 2 : position + 4])[0]
    return position + 5


@pytest.mark.parametrize("uid", COMPRESSED)
def test_sound_frames_pass(uid):
    checked(*compressed(uid))


@pytest.mark.parametrize("uid", COMPRESSED)
def test_padding_after_the_last_marker_passes(uid):
    dataset, frame = compressed(uid)
    checked(dataset, frame + b"\0\0\0")


@pytest.mark.parametrize("uid", [uid for uid in COMPRESSED if uid != RLELossless])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_frames_are_refused(uid, share):
    dataset, frame = compressed(uid)
    with pytest.raises(CodestreamError):
        checked(dataset, frame[: int(len(frame) * share)])


@pytest.mark.parametrize("uid", [uid for uid in COMPRESSED if uid != RLELossless])
def test_a_frame_of_another_size_is_refused_by_name(uid):
    dataset, frame = compressed(uid)
    dataset.Columns = 96
    with pytest.raises(CodestreamError, match=r"has 96 x 80 pixels, Rows x Columns .* is 96 x 96"):
        checked(dataset, frame)


@pytest.mark.parametrize("uid", [uid for uid in COMPRESSED if uid != RLELossless])
def test_a_frame_header_that_promises_gigapixels_costs_nothing(uid, image_of):
    """SEC-07: such files make decoders take all memory."""
    dataset, frame = compressed(uid)
    if frame.startswith(b"\xff\x4f\xff\x51"):
        frame = frame[:8] + struct.pack(">II", 65535, 65535) + frame[16:]
    else:
        place = position_of_size(frame, uid)
        frame = frame[:place] + b"\xff\xff\xff\xff" + frame[place + 4 :]
    # Not of the clock on the wall: a busy machine is no gigapixel.
    started = time.process_time()
    with pytest.raises(SourceError, match="Rows x Columns"):
        image_of(with_frame(dataset, frame))
    assert time.process_time() - started < 20


def test_a_frame_of_another_process_is_refused():
    dataset, frame = compressed(JPEGBaseline8Bit)
    place = position_of_size(frame, JPEGBaseline8Bit) - 4
    progressive = frame[:place] + b"\xc2" + frame[place + 1 :]
    with pytest.raises(CodestreamError, match="FFC2 is not of the JPEG process"):
        checked(dataset, progressive)


def test_more_samples_or_bits_than_the_header_says_are_refused():
    dataset, frame = compressed(JPEG2000Lossless)
    dataset.SamplesPerPixel = 3
    with pytest.raises(CodestreamError, match="Samples per Pixel"):
        checked(dataset, frame)
    dataset.SamplesPerPixel, dataset.BitsAllocated = 1, 8
    with pytest.raises(CodestreamError, match="Bits Allocated"):
        checked(dataset, frame)


def test_a_j2k_frame_cut_off_with_its_end_marker_put_back_is_refused():
    dataset, frame = compressed(JPEG2000Lossless)
    with pytest.raises(CodestreamError, match="tile-part"):
        checked(dataset, frame[: len(frame) // 2] + b"\xff\xd9")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [(0, 3, "3 segments"), (4, 63, "offsets"), (8, 1 << 30, "offsets"), (8, 64, "offsets")],
)
def test_an_rle_header_that_lies_is_refused(place, value, message):
    dataset, frame = compressed(RLELossless)
    with pytest.raises(CodestreamError, match=message):
        checked(dataset, frame[:place] + struct.pack("<I", value) + frame[place + 4 :])
    with pytest.raises(CodestreamError, match="cut off"):
        checked(dataset, frame[:40])


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_rle_never_gives_pixels(share, image_of):
    dataset, frame = compressed(RLELossless)
    with pytest.raises(SourceError):
        image_of(with_frame(dataset, frame[: int(len(frame) * share)]))


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.4.80", JPEGBaseline8Bit])
def test_a_decoder_that_refuses_is_not_replaced_by_one_that_does_not(uid, image_of):
    """Pillow and pyjpegls refuse these streams; pylibjpeg, next in pydicom's own order, returns stripes."""
    dataset, frame = compressed(uid)
    damaged = frame[: len(frame) // 2] + b"\xff\xd8" + frame[len(frame) // 2 : -2] + b"\xff\xd9"
    with pytest.raises(SourceError):
        image_of(with_frame(dataset, damaged))
