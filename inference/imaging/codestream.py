"""Checks a compressed frame before a decoder sees it: does its own header agree with the data set, is it complete?

A decoder that trusts a lying frame header takes all memory, and some return grey or noise for a truncated stream
without an error. Nothing here decodes.
"""

import struct
from dataclasses import dataclass

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

_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_RESTARTS = range(0xD0, 0xD8)
# Start Of Frame markers that each transfer syntax allows, ITU-T T.81 table B.1 and T.87 C.1.1
_FRAME_MARKERS = {
    JPEGBaseline8Bit: (0xC0,),
    JPEGExtended12Bit: (0xC0, 0xC1),
    JPEGLossless: (0xC3,),
    JPEGLosslessSV1: (0xC3,),
    JPEGLSLossless: (0xF7,),
    JPEGLSNearLossless: (0xF7,),
}
_ALL_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_JPEG2000 = (JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_J2K_START = b"\xff\x4f\xff\x51"
_RLE_HEADER_BYTES = 64


class CodestreamError(ValueError):
    """A compressed frame contradicts the data set or is cut off; the message names marker or attribute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameHeader:
    """What a compressed frame says of itself.

    Parameters
    ----------
    precision
        Bits per sample.
    samples
        Samples per pixel.
    """

    rows: int
    columns: int
    samples: int
    precision: int


def check(
    frame: bytes, transfer_syntax_uid: str, *, rows: int, columns: int, samples: int, bits_allocated: int
) -> None:
    """Compare a compressed frame with the data set, and look whether it is complete.

    Parameters
    ----------
    frame
        One frame, its fragments joined.

    Raises
    ------
    CodestreamError
        Wrong kind of stream, other size than Rows x Columns, more bits than Bits Allocated, or truncated.
    """
    uid = UID(transfer_syntax_uid)
    if uid == RLELossless:
        _check_rle(frame, samples * bits_allocated // 8)
        return
    header = _jpeg2000_header(frame) if uid in _JPEG2000 else _jpeg_header(frame, _FRAME_MARKERS[uid])
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


def _without_padding(frame: bytes) -> bytes:
    """Return the frame without what fills it to an even or aligned length after its last marker."""
    return frame.rstrip(b"\0")


def _jpeg_header(frame: bytes, allowed: tuple[int, ...]) -> FrameHeader:
    """Read a JPEG or JPEG-LS frame header, ITU-T T.81 B.2.2."""
    if not frame.startswith(b"\xff\xd8"):
        raise CodestreamError("the compressed frame does not start with the marker SOI of JPEG")
    if not _without_padding(frame).endswith(b"\xff\xd9"):
        raise CodestreamError("the compressed frame is truncated: the marker EOI of JPEG is missing")
    header: FrameHeader | None = None
    position = 2
    while position + 4 <= len(frame):
        if frame[position] != 0xFF:
            raise CodestreamError(f"the compressed frame has no marker of JPEG at byte {position}")
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == _EOI:
            break
        if marker in _RESTARTS or marker in (_SOI, _TEM):
            position += 2
            continue
        length = int.from_bytes(frame[position + 2 : position + 4], "big")
        if marker in _ALL_FRAME_MARKERS:
            if marker not in allowed:
                raise CodestreamError(f"frame marker FF{marker:02X} is not of the JPEG process of the transfer syntax")
            if header is not None or length < 8 or position + 2 + length > len(frame):
                raise CodestreamError("the frame header of JPEG is damaged or there twice")
            precision, rows, columns, samples = struct.unpack(">BHHB", frame[position + 4 : position + 10])
            header = FrameHeader(rows=rows, columns=columns, samples=samples, precision=precision)
        if marker == _SOS:
            if header is None:
                raise CodestreamError("the compressed frame has no frame header of JPEG before its scan")
            return header
        position += 2 + max(length, 2)
    raise CodestreamError("the compressed frame is truncated: no scan of JPEG in it")


def _jpeg2000_header(frame: bytes) -> FrameHeader:
    """Read the SIZ segment and walk the tile-parts of a JPEG 2000 codestream, ITU-T T.800 A.4 and A.5."""
    if frame.startswith(_JP2_SIGNATURE):  # not legal (PS3.5 A.4.4), met in practice and decodable
        frame = frame[max(frame.find(_J2K_START), 0) :]
    if not frame.startswith(_J2K_START) or len(frame) < 42:
        raise CodestreamError("the compressed frame does not start with the markers SOC and SIZ of JPEG 2000")
    width, height, left, top = struct.unpack(">4I", frame[8:24])
    (samples,) = struct.unpack(">H", frame[40:42])
    if samples == 0 or len(frame) < 42 + 3 * samples:
        raise CodestreamError("the segment SIZ of JPEG 2000 is damaged")
    if any(frame[42 + 3 * index + 1 : 42 + 3 * index + 3] != b"\x01\x01" for index in range(min(samples, 3))):
        raise CodestreamError("the compressed frame has sub-sampled components")
    _walk_tile_parts(frame)
    return FrameHeader(rows=height - top, columns=width - left, samples=samples, precision=(frame[42] & 0x7F) + 1)


def _walk_tile_parts(frame: bytes) -> None:
    end = len(_without_padding(frame))
    if frame[end - 2 : end] != b"\xff\xd9":
        raise CodestreamError("the compressed frame is truncated: the marker EOC of JPEG 2000 is missing")
    position = 2
    while frame[position : position + 2] != b"\xff\x90":  # main header: marker segments up to the first SOT
        if position + 4 > end or frame[position] != 0xFF:
            raise CodestreamError("the main header of JPEG 2000 is damaged or cut off")
        position += 2 + max(int.from_bytes(frame[position + 2 : position + 4], "big"), 2)
    while frame[position : position + 2] == b"\xff\x90":
        length = int.from_bytes(frame[position + 6 : position + 10], "big")
        if length == 0:  # reaches to EOC
            return
        position += max(length, 12)
    if position + 2 > end or frame[position : position + 2] != b"\xff\xd9":
        raise CodestreamError("the compressed frame is truncated: a tile-part of JPEG 2000 is shorter than it says")


def _check_rle(frame: bytes, segments: int) -> None:
    """Check the header of segment offsets, PS3.5 G.5."""
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
