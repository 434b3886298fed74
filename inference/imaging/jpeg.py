"""Reads a JPEG or JPEG-LS stream as marker segments and scans (ITU-T T.81 B.1, T.87 C.1); decodes no pixel."""

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inference.errors import CodestreamError

SOI, EOI, SOS, TEM = 0xD8, 0xD9, 0xDA, 0x01
DHT, DRI, DNL = 0xC4, 0xDD, 0xDC
RESTARTS = range(0xD0, 0xD8)
LOSSLESS_FRAME, JPEG_LS_FRAME = 0xC3, 0xF7
FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), JPEG_LS_FRAME} - {DHT, 0xC8, 0xCC})
"""All that begin a frame header, of any JPEG process."""

_SCAN_END = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""In a scan FF is followed by a stuffed zero or by a restart marker; anything else is the next segment."""
_LS_SCAN_END = re.compile(rb"\xff+[\x80-\xcf\xd8-\xfe]")
"""JPEG-LS stuffs a zero bit only (T.87 A.1): below 80 it is data."""


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
    scan_end = _SCAN_END
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
            scan_end = _LS_SCAN_END
        if marker != SOS:
            yield Segment(marker=marker, payload=payload)
            continue
        found = scan_end.search(content, position)
        end = found.start() if found else len(content)
        yield Segment(marker=marker, payload=payload, scan=content[position:end])
        position = end
    if position != len(content):
        raise CodestreamError("the compressed frame goes on after the marker EOI of JPEG")


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
