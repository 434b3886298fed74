"""Reads a JPEG or JPEG-LS stream as marker segments and scans (ITU-T T.81 B.1, T.87 C.1); decodes no pixel."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.errors import CodestreamError

SOI, EOI, SOS, TEM = 0xD8, 0xD9, 0xDA, 0x01
DHT, DRI, DNL = 0xC4, 0xDD, 0xDC
RESTARTS = range(0xD0, 0xD8)
LOSSLESS_FRAME, JPEG_LS_FRAME = 0xC3, 0xF7
FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), JPEG_LS_FRAME} - {DHT, 0xC8, 0xCC})
"""All that begin a frame header, of any JPEG process."""

_FILL = 0xFF
_LOOKED_AT_FIRST, _LOOKED_AT_MOST = 1 << 12, 1 << 20

# In a scan FF is followed by a stuffed zero or by a restart marker; anything else is the next segment. JPEG-LS stuffs a
# zero bit only (T.87 A.1): below 80 it is data.
_ENDS_SCAN = np.ones(256, dtype=np.bool_)
_ENDS_SCAN[[0, *RESTARTS, _FILL]] = False
_ENDS_LS_SCAN = _ENDS_SCAN.copy()
_ENDS_LS_SCAN[:0x80] = False


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One marker segment.

    Parameters
    ----------
    payload
        Without marker and length.
    scan
        Entropy-coded data that follow a start of scan, restart markers included; empty for other segments.
    """

    marker: int
    payload: bytes
    scan: bytes = b""


def segments(frame: bytes) -> Iterator[Segment]:
    """Walk over a stream from SOI to EOI.

    Raises
    ------
    CodestreamError
        Not a JPEG stream, cut off, or something after its end that is no padding.
    """
    if not frame.startswith(b"\xff\xd8"):
        raise CodestreamError("the compressed frame does not start with the marker SOI of JPEG")
    content = frame.rstrip(b"\0\xff")
    if not content.endswith(b"\xff\xd9"):
        raise CodestreamError("the compressed frame is truncated: the marker EOI of JPEG is missing")
    ends_scan = _ENDS_SCAN
    position = 2
    while True:
        if content[position : position + 1] != b"\xff":
            raise CodestreamError(f"the compressed frame has no marker of JPEG at byte {position}")
        while content[position + 1] == 0xFF:  # fill bytes
            position += 1
        marker = content[position + 1]
        position += 2
        if marker == EOI:
            break
        if marker in RESTARTS or marker in (SOI, TEM):
            raise CodestreamError(f"the marker FF{marker:02X} of JPEG is where none may be")
        length = int.from_bytes(content[position : position + 2], "big")
        if length < 2 or position + length > len(content) - 2:
            raise CodestreamError(f"the segment FF{marker:02X} of JPEG is damaged or cut off")
        payload = content[position + 2 : position + length]
        position += length
        if marker == JPEG_LS_FRAME:
            ends_scan = _ENDS_LS_SCAN
        if marker != SOS:
            yield Segment(marker=marker, payload=payload)
            continue
        end = _end_of_scan(content, position, ends_scan)
        yield Segment(marker=marker, payload=payload, scan=content[position:end])
        position = end
    if position != len(content):
        raise CodestreamError("the compressed frame goes on after the marker EOI of JPEG")


def following(content: bytes | memoryview) -> NDArray[np.uint8]:
    """Return (n,) uint8: the bytes that come after each FF."""
    values = np.frombuffer(content, dtype=np.uint8)
    return np.asarray(values[1:][values[:-1] == _FILL])


def _end_of_scan(content: bytes, start: int, ends_scan: NDArray[np.bool_]) -> int:
    """Return where the next segment begins, its fill bytes included, or else the end of the content."""
    values = np.frombuffer(content, dtype=np.uint8)
    # More and more at a time: a scan may be a few bytes long, and one of a thousand.
    size, position = _LOOKED_AT_FIRST, start
    while position < len(values):
        piece = values[position : position + size + 1]
        places = np.flatnonzero(piece[:-1] == _FILL)
        found = places[ends_scan[piece[places + 1]]]
        if len(found):
            end = position + int(found[0])
            while end > start and content[end - 1] == _FILL:
                end -= 1
            return end
        position, size = position + size, min(2 * size, _LOOKED_AT_MOST)
    return len(content)


def read_header(content: Sequence[Segment], allowed: tuple[int, ...]) -> FrameHeader:
    """Read the frame header, ITU-T T.81 B.2.2.

    Parameters
    ----------
    content
        All segments of the stream.
    allowed
        Frame markers of the transfer syntax.

    Raises
    ------
    CodestreamError
        Another JPEG process, no or two frame headers, no scan, or a height that only follows the scan.
    """
    header: FrameHeader | None = None
    scans = 0
    for segment in content:
        if segment.marker in FRAME_MARKERS:
            if segment.marker not in allowed:
                raise CodestreamError(
                    f"frame marker FF{segment.marker:02X} is not of the JPEG process of the transfer syntax"
                )
            if header is not None or len(segment.payload) < 6:
                raise CodestreamError("the frame header of JPEG is damaged or there twice")
            precision, rows, columns, samples = struct.unpack_from(">BHHB", segment.payload)
            if samples == 0 or len(segment.payload) < 6 + 3 * samples:
                raise CodestreamError("the frame header of JPEG is damaged or there twice")
            header = FrameHeader(rows=rows, columns=columns, samples=samples, precision=precision)
        elif segment.marker == DNL:
            raise CodestreamError("the compressed frame gives its number of lines after the scan")
        elif segment.marker == SOS:
            if header is None:
                raise CodestreamError("the compressed frame has no frame header of JPEG before its scan")
            scans += 1
    if header is None or not scans:
        raise CodestreamError("the compressed frame is truncated: no scan of JPEG in it")
    return header
