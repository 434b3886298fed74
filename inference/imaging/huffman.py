"""Counts the codes in the Huffman-coded scans of a JPEG stream: are they as many as its pixels need? Decodes nothing.

Every JPEG decoder at hand fills up what a damaged scan lacks and says nothing. What a scan must hold follows from its
headers: each interval ends within the byte of its last code (ITU-T T.81 F.1.2.3, H.1.2). A damaged length of a code
puts all later ones out of step, and the count or the end does not fit any more.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import CodestreamError
from inference.imaging.jpeg import DHT, DRI, FRAME_MARKERS, RESTARTS, SOS, Segment, following
from inference.imaging.recount import ends_of_intervals
from inference.imaging.scans import END_OF_BLOCK, Frame, Scan, Table, read_frame, read_scan, read_tables

_RESTART = re.compile(rb"\xff+([\xd0-\xd7])")
_PIECE_BYTES = 1 << 18
_MARGIN_BYTES = 1 << 12
"""More than one MCU can take: 10 blocks (T.81 B.2.3) of 64 codes of 16 + 16 bits."""
_LONGEST_BITS = 32


class _Walk:
    """Goes from code to code through one scan, a piece at a time."""

    def __init__(self, data: bytes, plan: Sequence[tuple[Table, Table | None]]) -> None:
        self._data = data
        self._plan = plan
        self._base = self._limit = 0
        self._tables: list[tuple[bytes, bytes, bytes]] = []

    def units(self, start: int, count: int) -> int:
        """Pass over `count` MCUs from bit `start`; return the bit after them."""
        position = start
        while count:
            if not self._base <= position < self._limit or not self._tables:
                if position >= 8 * len(self._data):
                    raise CodestreamError("the compressed frame is truncated: its scan of JPEG ends before its pixels")
                self._load(position // 8)
            offset = position - self._base
            if self._plan[0][1] is not None:
                offset, count = _blocks(self._tables, offset, self._limit - self._base, count)
            elif len(self._plan) == 1:
                offset, count = _samples(self._tables[0][0], offset, self._limit - self._base, count)
            else:
                offset, count = _interleaved(self._tables, offset, self._limit - self._base, count)
            position = self._base + offset
        return position

    def _load(self, first_byte: int) -> None:
        """Look up what every bit of a piece would mean if a code began there."""
        piece = self._data[first_byte : first_byte + _PIECE_BYTES + _MARGIN_BYTES]
        padded = np.frombuffer(piece + bytes(_MARGIN_BYTES), dtype=np.uint8).astype(np.uint32)
        three = padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]
        windows = np.empty((len(three), 8), dtype=np.uint16)
        for bit in range(8):
            windows[:, bit] = three >> (8 - bit) & 0xFFFF
        flat = windows.ravel()
        made: dict[int, bytes] = {}

        def looked_up(values: NDArray[np.uint8]) -> bytes:
            if id(values) not in made:
                made[id(values)] = values[flat].tobytes()
            return made[id(values)]

        self._tables = [
            (looked_up(dc.steps), looked_up(ac.runs), looked_up(ac.steps)) if ac else (looked_up(dc.steps), b"", b"")
            for dc, ac in self._plan
        ]
        self._base = 8 * first_byte
        self._limit = self._base + 8 * min(len(piece), _PIECE_BYTES)


def _no_such_code() -> CodestreamError:
    return CodestreamError("the compressed frame is damaged: no Huffman code of JPEG fits")


def _blocks(tables: list[tuple[bytes, bytes, bytes]], position: int, limit: int, count: int) -> tuple[int, int]:
    """Pass over blocks of 64 coefficients (T.81 F.2.2)."""
    while count and position < limit:
        for dc_steps, ac_runs, ac_steps in tables:
            step = dc_steps[position]
            if not step:
                raise _no_such_code()
            position += step
            place = 1
            while place < 64:
                place += ac_runs[position]
                position += ac_steps[position]
            if 64 < place < END_OF_BLOCK:
                raise _no_such_code()
        count -= 1
    return position, count


def _samples(steps: bytes, position: int, limit: int, count: int) -> tuple[int, int]:
    """Pass over differences of a single component (T.81 H.2)."""
    while count and position < limit:
        safe = min(count, (limit - position) // _LONGEST_BITS + 1)
        for _ in repeat(None, safe - 1):  # the innermost loop: 10 million turns for a large radiograph
            position += steps[position]
        # Where no code fits the step is 0: the loop has not left that place.
        if not steps[position]:
            raise _no_such_code()
        position += steps[position]
        count -= safe
    return position, count


def _interleaved(tables: list[tuple[bytes, bytes, bytes]], position: int, limit: int, count: int) -> tuple[int, int]:
    """Pass over differences of several components."""
    while count and position < limit:
        for steps, _, _ in tables:
            if not steps[position]:
                raise _no_such_code()
            position += steps[position]
        count -= 1
    return position, count


def check_scans(content: Sequence[Segment], samples: NDArray[Any] | None = None) -> None:
    """Look whether the scans hold exactly what the frame needs.

    Parameters
    ----------
    content
        All segments of a sequential or lossless Huffman-coded stream whose frame header is sound.
    samples
        (rows, columns) what a decoder made of a lossless stream: a hint that saves most of the time where it is right.

    Raises
    ------
    CodestreamError
        A scan is too short or too long, a code is none, restart markers are missing or out of order.
    """
    dc: dict[int, Table] = {}
    ac: dict[int, Table] = {}
    restart_interval = 0
    frame: Frame | None = None
    missing: set[int] = set()
    for segment in content:
        if segment.marker == DHT:
            read_tables(segment.payload, dc, ac)
        elif segment.marker == DRI and len(segment.payload) >= 2:
            restart_interval = int.from_bytes(segment.payload[:2], "big")
        elif segment.marker in FRAME_MARKERS:
            frame = read_frame(segment)
            missing = set(frame.components)
        elif segment.marker == SOS and frame is not None:
            scan = read_scan(segment.payload, frame, dc, ac)
            members = set(segment.payload[1 : 1 + 2 * segment.payload[0] : 2])
            if not members <= missing:
                raise CodestreamError("the compressed frame has a component of JPEG twice")
            missing -= members
            _check_scan(segment.scan, frame, scan, restart_interval, samples)
    if missing:
        raise CodestreamError("the compressed frame is truncated: it has no scan of JPEG for one of its components")


def _check_scan(content: bytes, frame: Frame, scan: Scan, restart_interval: int, samples: NDArray[Any] | None) -> None:
    after = following(content)
    has_restarts = bool(((after >= RESTARTS.start) & (after < RESTARTS.stop)).any())
    parts = _RESTART.split(content) if has_restarts else [content]
    intervals = [part.replace(b"\xff\x00", b"\xff") for part in parts[::2]]
    in_order = b"".join(bytes([0xD0 + number % 8]) for number in range(len(intervals) - 1))
    if b"".join(parts[1::2]) != in_order:
        raise CodestreamError("the compressed frame is damaged: restart markers of JPEG are out of order")
    expected = -(-scan.units // restart_interval) if restart_interval else 1
    if len(intervals) != expected:
        raise CodestreamError(
            f"the compressed frame is damaged: {len(intervals)} restart intervals of JPEG, "
            f"its pixels ask for {expected}"
        )
    for position, interval in zip(_ends(intervals, frame, scan, restart_interval, samples), intervals, strict=True):
        end = 8 * len(interval)
        if position > end:
            raise CodestreamError("the compressed frame is truncated: its scan of JPEG ends before its pixels")
        if position <= end - 8:
            raise CodestreamError(
                f"the compressed frame is damaged: {(end - position) // 8} bytes of its scan of JPEG belong to no pixel"
            )


def _ends(
    intervals: Sequence[bytes], frame: Frame, scan: Scan, restart_interval: int, samples: NDArray[Any] | None
) -> Iterator[int]:
    """Yield the bit after the last code of each restart interval, counted from its beginning."""
    rows, rest = divmod(restart_interval or scan.units, frame.columns)
    is_single = frame.is_lossless and len(frame.components) == 1 and not scan.point_transform
    if samples is not None and samples.shape == (frame.rows, frame.columns) and is_single and rest == 0:
        found = ends_of_intervals(
            samples,
            intervals,
            rows=rows,
            scan=scan,
            precision=frame.precision,
        )
        if found is not None:
            yield from found
            return
    walk = _Walk(b"".join(intervals), scan.plan)
    starts = accumulate((8 * len(interval) for interval in intervals), initial=0)
    for number, start in zip(range(len(intervals)), starts, strict=False):
        done = number * restart_interval
        count = min(restart_interval, scan.units - done) if restart_interval else scan.units
        yield walk.units(start, count) - start
