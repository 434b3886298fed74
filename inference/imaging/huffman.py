"""Counts the codes in the Huffman-coded scans of a JPEG stream: are they as many as its pixels need? Decodes nothing.

Every JPEG decoder at hand fills up what a damaged scan lacks and says nothing. What a scan must hold follows from its
headers: each interval ends within the byte of its last code (ITU-T T.81 F.1.2.3, H.1.2). A damaged length of a code
puts all later ones out of step, and the count or the end does not fit any more.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
from numpy.typing import NDArray

from inference.errors import CodestreamError
from inference.imaging.jpeg import DHT, DRI, FRAME_MARKERS, LOSSLESS_FRAME, SOS, Segment

_RESTART = re.compile(rb"\xff+([\xd0-\xd7])")
_PIECE_BYTES = 1 << 18
_MARGIN_BYTES = 1 << 12
"""More than one MCU can take: 10 blocks (T.81 B.2.3) of 64 codes of 16 + 16 bits."""
_LONGEST_BITS = 32
_CODES = 1 << 16

# What a code does to the place in a block: these are beyond any legal sum of runs
_INVALID, _END_OF_BLOCK = 100, 200


@dataclass(frozen=True, slots=True)
class _Component:
    """How many blocks (lossless: samples) a component has of an MCU (T.81 A.1.1), horizontally and vertically."""

    horizontal: int
    vertical: int


@dataclass(frozen=True, slots=True)
class _Frame:
    rows: int
    columns: int
    components: dict[int, _Component]
    is_lossless: bool


@dataclass(frozen=True, slots=True)
class _Table:
    """One Huffman table by the next 16 bits.

    Parameters
    ----------
    steps
        (65536,) uint8: bits of code and of the number that follows it; 0 where there is no such code.
    runs
        (65536,) uint8: places in the block that it fills; `_END_OF_BLOCK`, `_INVALID`.
    """

    steps: NDArray[np.uint8]
    runs: NDArray[np.uint8]


class _Walk:
    """Goes from code to code through one scan, a piece at a time."""

    def __init__(self, data: bytes, plan: Sequence[tuple[_Table, _Table | None]]) -> None:
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
            if 64 < place < _END_OF_BLOCK:
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


def check_scans(content: Sequence[Segment]) -> None:
    """Look whether the scans hold exactly what the frame needs.

    Parameters
    ----------
    content
        All segments of a sequential or lossless Huffman-coded stream whose frame header is sound.

    Raises
    ------
    CodestreamError
        A scan is too short or too long, a code is none, restart markers are missing or out of order.
    """
    dc: dict[int, _Table] = {}
    ac: dict[int, _Table] = {}
    restart_interval = 0
    frame: _Frame | None = None
    missing: set[int] = set()
    for segment in content:
        if segment.marker == DHT:
            _read_tables(segment.payload, dc, ac)
        elif segment.marker == DRI and len(segment.payload) >= 2:
            restart_interval = int.from_bytes(segment.payload[:2], "big")
        elif segment.marker in FRAME_MARKERS:
            frame = _read_frame(segment)
            missing = set(frame.components)
        elif segment.marker == SOS and frame is not None:
            plan, units = _read_scan(segment.payload, frame, dc, ac)
            members = set(segment.payload[1 : 1 + 2 * segment.payload[0] : 2])
            if not members <= missing:
                raise CodestreamError("the compressed frame has a component of JPEG twice")
            missing -= members
            _check_scan(segment.scan, plan, units, restart_interval)
    if missing:
        raise CodestreamError("the compressed frame is truncated: it has no scan of JPEG for one of its components")


def _check_scan(scan: bytes, plan: Sequence[tuple[_Table, _Table | None]], units: int, restart_interval: int) -> None:
    parts = _RESTART.split(scan)
    intervals = [part.replace(b"\xff\x00", b"\xff") for part in parts[::2]]
    in_order = b"".join(bytes([0xD0 + number % 8]) for number in range(len(intervals) - 1))
    if b"".join(parts[1::2]) != in_order:
        raise CodestreamError("the compressed frame is damaged: restart markers of JPEG are out of order")
    expected = -(-units // restart_interval) if restart_interval else 1
    if len(intervals) != expected:
        raise CodestreamError(
            f"the compressed frame is damaged: {len(intervals)} restart intervals of JPEG, "
            f"its pixels ask for {expected}"
        )
    walk = _Walk(b"".join(intervals), plan)
    start = 0
    for number, interval in enumerate(intervals):
        end = start + 8 * len(interval)
        count = min(restart_interval, units - number * restart_interval) if restart_interval else units
        position = walk.units(start, count)
        if position > end:
            raise CodestreamError("the compressed frame is truncated: its scan of JPEG ends before its pixels")
        if position <= end - 8:
            raise CodestreamError(
                f"the compressed frame is damaged: {(end - position) // 8} bytes of its scan of JPEG belong to no pixel"
            )
        start = end


def _read_tables(payload: bytes, dc: dict[int, _Table], ac: dict[int, _Table]) -> None:
    """Read Huffman tables, T.81 B.2.4.2 and Annex C."""
    position = 0
    while position < len(payload):
        counts = payload[position + 1 : position + 17]
        symbols = payload[position + 17 : position + 17 + sum(counts)]
        if len(counts) < 16 or len(symbols) < sum(counts):
            raise CodestreamError("a Huffman table of JPEG is cut off")
        kind, number = divmod(payload[position], 16)
        (ac if kind else dc)[number] = _table(counts, symbols, is_ac=bool(kind))
        position += 17 + len(symbols)


def _table(counts: bytes, symbols: bytes, *, is_ac: bool) -> _Table:
    steps = np.zeros(_CODES, dtype=np.uint8)
    runs = np.full(_CODES, _INVALID, dtype=np.uint8)
    first = 0
    lengths = chain.from_iterable(repeat(length, count) for length, count in enumerate(counts, start=1))
    for length, symbol in zip(lengths, symbols, strict=True):
        after = first + (1 << (16 - length))
        if after > _CODES:
            raise CodestreamError("a Huffman table of JPEG has more codes than there are")
        run, category = divmod(symbol, 16) if is_ac else (0, symbol)
        if is_ac and category == 0 and run not in (0, 15):
            pass  # codes of progressive JPEG only
        elif category <= 16:
            # Category 16 of lossless JPEG stands for 32768 alone and no bits follow (T.81 H.1.2.2).
            steps[first:after] = length + (category if category < 16 else 0)
            runs[first:after] = _END_OF_BLOCK if symbol == 0 else run + 1
        first = after
    return _Table(steps, runs)


def _read_frame(segment: Segment) -> _Frame:
    payload = segment.payload
    components = {
        payload[place]: _Component(payload[place + 1] >> 4, payload[place + 1] & 0xF)
        for place in range(6, 6 + 3 * payload[5], 3)
    }
    if len(components) != payload[5] or any(
        not (1 <= one.horizontal <= 4 and 1 <= one.vertical <= 4) for one in components.values()
    ):
        raise CodestreamError("the frame header of JPEG is damaged")
    return _Frame(
        int.from_bytes(payload[1:3], "big"),
        int.from_bytes(payload[3:5], "big"),
        components,
        segment.marker == LOSSLESS_FRAME,
    )


def _read_scan(
    payload: bytes, frame: _Frame, dc: dict[int, _Table], ac: dict[int, _Table]
) -> tuple[list[tuple[_Table, _Table | None]], int]:
    """Return the tables of each block of an MCU in order, and how many MCUs the scan has (T.81 A.2, B.2.3)."""
    members = payload[1 : 1 + 2 * payload[0]] if payload else b""
    if not members or len(members) < 2 * payload[0] or not set(members[::2]) <= set(frame.components):
        raise CodestreamError("a scan header of JPEG is damaged")
    size = 1 if frame.is_lossless else 8
    widest = max(one.horizontal for one in frame.components.values())
    highest = max(one.vertical for one in frame.components.values())
    plan: list[tuple[_Table, _Table | None]] = []
    try:
        for member, numbers in zip(members[::2], members[1::2], strict=True):
            component = frame.components[member]
            tables = (dc[numbers >> 4], None if frame.is_lossless else ac[numbers & 0xF])
            plan += [tables] * (component.horizontal * component.vertical)
    except KeyError as error:
        raise CodestreamError("a scan of JPEG names a Huffman table that is not there") from error
    if len(members) == 2:  # one component alone: its own blocks, without those that only fill an MCU
        component = frame.components[members[0]]
        columns = -(-frame.columns * component.horizontal // widest)
        rows = -(-frame.rows * component.vertical // highest)
        return plan[:1], -(-columns // size) * -(-rows // size)
    return plan, -(-frame.columns // (size * widest)) * -(-frame.rows // (size * highest))
