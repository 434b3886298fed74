"""Checks a compressed frame before a decoder sees it: does it agree with the data set, is it whole?

A decoder that trusts a lying frame header takes all memory, and most return grey or noise for a truncated or damaged
stream without an error.
"""

import struct
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import imagecodecs
from numpy.typing import NDArray
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from inference.errors import CodestreamError
from inference.imaging import huffman, jpeg, jpeg2000
from inference.imaging.jpeg import FrameHeader

# Start Of Frame markers that each transfer syntax allows, ITU-T T.81 table B.1 and T.87 C.1.1
_FRAME_MARKERS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        JPEGBaseline8Bit: (0xC0,),
        JPEGExtended12Bit: (0xC0, 0xC1),
        JPEGLossless: (jpeg.LOSSLESS_FRAME,),
        JPEGLosslessSV1: (jpeg.LOSSLESS_FRAME,),
        JPEGLSLossless: (jpeg.JPEG_LS_FRAME,),
        JPEGLSNearLossless: (jpeg.JPEG_LS_FRAME,),
    }
)
_JPEG_LOSSLESS = frozenset({JPEGLossless, JPEGLosslessSV1})
_JPEG_LS = frozenset({JPEGLSLossless, JPEGLSNearLossless})
_JPEG2000 = frozenset({JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K})
_RLE_HEADER_BYTES = 64
_RLE_NO_OPERATION = 0x80


Proof = Callable[[NDArray[Any] | None], None]
"""What is left to look at when there are samples, (rows, columns) as decoded, or None where the decoder failed; raises
CodestreamError."""


def check(
    frame: bytes, transfer_syntax_uid: str, *, rows: int, columns: int, samples: int, bits_allocated: int
) -> Proof:
    """Compare a compressed frame with the data set, and look whether it is complete.

    JPEG and RLE: everything is there that the pixels need, and nothing else. JPEG-LS and JPEG 2000: headers, lengths
    and end; the rest is their decoders' to find.

    Parameters
    ----------
    frame
        One frame, its fragments joined.

    Returns
    -------
    Proof
        To be called after decoding: lossless JPEG can be decoded safely and then checked in a fraction of the time.

    Raises
    ------
    CodestreamError
        Wrong kind of stream, other size than Rows x Columns, more bits than Bits Allocated, truncated or damaged.
    """
    uid = UID(transfer_syntax_uid)
    if uid == RLELossless:
        _check_rle(frame, samples * bits_allocated // 8, rows * columns)
        return _nothing
    if uid in _JPEG2000:
        _compare(jpeg2000.read_header(frame), rows, columns, samples, bits_allocated)
        return _nothing
    segments = list(jpeg.segments(frame))
    _compare(jpeg.read_header(segments, _FRAME_MARKERS[uid]), rows, columns, samples, bits_allocated)
    if uid in _JPEG_LOSSLESS:
        return partial(huffman.check_scans, segments)
    if uid not in _JPEG_LS:
        huffman.check_scans(segments)
    return _nothing


def _nothing(_samples: NDArray[Any] | None) -> None:
    """Prove nothing: all has been looked at."""


def _compare(header: FrameHeader, rows: int, columns: int, samples: int, bits_allocated: int) -> None:
    if (header.rows, header.columns) != (rows, columns):
        raise CodestreamError(
            f"the compressed frame has {header.rows} x {header.columns} pixels, "
            f"Rows x Columns (0028,0010) (0028,0011) is {rows} x {columns}"
        )
    if header.samples != samples:
        raise CodestreamError(
            f"the compressed frame has {header.samples} samples a pixel, Samples per Pixel (0028,0002) is {samples}"
        )
    if not 2 <= header.precision <= bits_allocated:
        raise CodestreamError(
            f"the compressed frame has {header.precision} bits a sample, Bits Allocated (0028,0100) is {bits_allocated}"
        )


def _check_rle(frame: bytes, segments: int, segment_bytes: int) -> None:
    """Check the header of segment offsets and that each segment holds one byte for each pixel, PS3.5 G.3 to G.5."""
    if len(frame) < _RLE_HEADER_BYTES:
        raise CodestreamError("the RLE header is cut off")
    count, *offsets = struct.unpack("<16I", frame[:_RLE_HEADER_BYTES])
    if count != segments:
        raise CodestreamError(
            f"the RLE header has {count} segments, samples and Bits Allocated (0028,0100) ask for {segments}"
        )
    used = offsets[:count]
    if used[0] != _RLE_HEADER_BYTES or sorted(set(used)) != used or used[-1] >= len(frame):
        raise CodestreamError("the segment offsets of the RLE header are not within the frame")
    for start, end in pairwise((*used, len(frame))):
        _check_rle_segment(frame[start:end], segment_bytes)


def _check_rle_segment(segment: bytes, expected: int) -> None:
    """Look whether the runs of one segment end with its pixels; a damaged length puts all later ones out of step."""
    if not _decodes_exactly(segment, expected):
        _follow_runs(segment, expected)


def _decodes_exactly(segment: bytes, expected: int) -> bool:
    """Ask a decoder: an eighth of the time. It refuses a run that is cut off and one that goes beyond `expected`."""
    try:
        return len(imagecodecs.packbits_decode(segment, out=expected)) == expected
    except imagecodecs.PackbitsError:
        return False


def _follow_runs(segment: bytes, expected: int) -> None:
    """Go from run to run: says what is wrong, and passes over padding that reads as one more run."""
    position = decoded = 0
    end = len(segment)
    while decoded < expected and position < end:
        code = segment[position]
        if code < _RLE_NO_OPERATION:
            position += code + 2
            decoded += code + 1
        elif code > _RLE_NO_OPERATION:
            position += 2
            decoded += 257 - code
        else:
            position += 1
    if decoded < expected or position > end:
        raise CodestreamError("the compressed frame is truncated: an RLE segment ends before its pixels")
    if decoded > expected or segment[position:].strip(b"\0\x80"):
        raise CodestreamError("the compressed frame is damaged: an RLE segment holds more than its pixels")
