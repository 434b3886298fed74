"""Reads the headers of a JPEG 2000 codestream (ITU-T T.800 A) and has damage inside code-blocks found by its decoder.

An arithmetic decoder gives coefficients for any bytes. What tells a damaged code-block is where it ends: in a sound one
all coefficients are there when the bytes are used up.
"""

import re
import struct

from inference.errors import CodestreamError
from inference.imaging.jpeg import FrameHeader

_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_START = b"\xff\x4f\xff\x51"
_SOT, _END = b"\xff\x90", b"\xff\xd9"
_COD, _COC = 0x52, 0x53
_PREDICTABLE_TERMINATION = 0x10
_BYPASS, _HIGH_THROUGHPUT = 0x01, 0x40
# Over the 24 codestreams of pydicom's test data (Kakadu 2.2 and 7.3, JasPer, OpenJPEG) sound code-blocks leave nothing
# and lack up to 4 bytes, which the decoder makes up (T.800 C.3.1). These limits allow for other encoders.
_UNUSED_BYTES, _MADE_UP_BYTES = 8, 8
_TERMINATION = re.compile(r"PTERM check failure: (\d+) (remaining|synthesized)")


def codestream(frame: bytes) -> bytes:
    """Return the codestream without padding, and without the file format around it.

    Not legal in DICOM (PS3.5 A.4.4), the file format is met in practice.

    Raises
    ------
    CodestreamError
        It does not start or end as a codestream does.
    """
    if frame.startswith(_JP2_SIGNATURE):
        frame = frame[max(frame.find(_START), 0) :]
    if not frame.startswith(_START) or len(frame) < 42:
        raise CodestreamError("the compressed frame does not start with the markers SOC and SIZ of JPEG 2000")
    content = frame.rstrip(b"\0\xff")
    if not content.endswith(_END):
        raise CodestreamError("the compressed frame is truncated: the marker EOC of JPEG 2000 is missing")
    return content


def read_header(frame: bytes) -> FrameHeader:
    """Read the segment SIZ (A.5.1) and walk over the tile-parts (A.4.2).

    Raises
    ------
    CodestreamError
        Damaged, truncated, components of different sizes or depths.
    """
    content = codestream(frame)
    width, height, left, top = struct.unpack(">4I", content[8:24])
    (samples,) = struct.unpack(">H", content[40:42])
    if samples == 0 or len(content) < 42 + 3 * samples:
        raise CodestreamError("the segment SIZ of JPEG 2000 is damaged")
    components = {content[42 + 3 * index : 45 + 3 * index] for index in range(samples)}
    if len(components) > 1 or components.pop()[1:] != b"\x01\x01":
        raise CodestreamError("the compressed frame has components of different sizes or depths")
    _walk_tile_parts(content)
    return FrameHeader(rows=height - top, columns=width - left, samples=samples, precision=(content[42] & 0x7F) + 1)


def _main_header_segments(content: bytes) -> list[tuple[int, int]]:
    """Return marker and place of each segment of the main header, and last where the first tile-part begins."""
    found: list[tuple[int, int]] = []
    position = 2
    while content[position : position + 2] != _SOT:
        if position + 4 > len(content) or content[position] != 0xFF:
            raise CodestreamError("the main header of JPEG 2000 is damaged or cut off")
        found.append((content[position + 1], position))
        position += 2 + max(int.from_bytes(content[position + 2 : position + 4], "big"), 2)
    return [*found, (_SOT[1], position)]


def _walk_tile_parts(content: bytes) -> None:
    position = _main_header_segments(content)[-1][1]
    while content[position : position + 2] == _SOT:
        length = int.from_bytes(content[position + 6 : position + 10], "big")
        if length == 0:  # reaches to EOC
            return
        position += max(length, 12)
    if position != len(content) - 2:
        raise CodestreamError("the compressed frame is truncated: its tile-parts of JPEG 2000 do not end where it ends")


def ask_for_termination_check(frame: bytes) -> bytes:
    """Return the codestream with the mark by which OpenJPEG reports where each code-block ended.

    The mark (A.6.1, predictable termination) changes no pixel. Where the block coder is another one (High-Throughput,
    or with bypass), the report would mean nothing and the mark is left out.
    """
    marked = bytearray(codestream(frame))
    for marker, position in _main_header_segments(bytes(marked)):
        if marker == _COD:
            place = position + 12
        elif marker == _COC:  # the component's number has two bytes beyond 256 components, which nobody here has
            place = position + 9
        else:
            continue
        if place < len(marked) and not marked[place] & (_BYPASS | _HIGH_THROUGHPUT):
            marked[place] |= _PREDICTABLE_TERMINATION
    return bytes(marked)


def read_termination_check(report: str) -> None:
    """Judge what OpenJPEG wrote while it decoded.

    Raises
    ------
    CodestreamError
        A code-block ended elsewhere than its bytes.
    """
    for count, kind in _TERMINATION.findall(report):
        if int(count) > (_UNUSED_BYTES if kind == "remaining" else _MADE_UP_BYTES):
            raise CodestreamError(
                "the compressed frame is damaged: a code-block of JPEG 2000 does not end with its bytes"
            )
