"""What the headers of a Huffman-coded JPEG stream say about its scans: tables, sampling, prediction (ITU-T T.81)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
from numpy.typing import NDArray

from inference.errors import CodestreamError
from inference.imaging.jpeg import LOSSLESS_FRAME, Segment

_CODES = 1 << 16

# What a code does to the place in a block: these are beyond any legal sum of runs
INVALID, END_OF_BLOCK = 100, 200


@dataclass(frozen=True, slots=True)
class Component:
    """How many blocks (lossless: samples) a component has of an MCU (T.81 A.1.1), horizontally and vertically."""

    horizontal: int
    vertical: int


@dataclass(frozen=True, slots=True)
class Frame:
    """What a frame header says of its scans (T.81 B.2.2)."""

    rows: int
    columns: int
    components: dict[int, Component]
    is_lossless: bool
    precision: int


@dataclass(frozen=True, slots=True)
class Table:
    """One Huffman table by the next 16 bits.

    Parameters
    ----------
    steps
        (65536,) uint8: bits of code and of the number that follows it; 0 where there is no such code.
    runs
        (65536,) uint8: places in the block that it fills; `END_OF_BLOCK`, `INVALID`.
    lengths
        (17,) uint8: the bits of ``steps`` by category; 0 where it has no code.
    """

    steps: NDArray[np.uint8]
    runs: NDArray[np.uint8]
    lengths: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """One scan: the tables of each block of an MCU in order, its MCUs, and how its samples are predicted."""

    plan: Sequence[tuple[Table, Table | None]]
    units: int
    selection: int
    point_transform: int


def read_frame(segment: Segment) -> Frame:
    """Read a frame header; raises CodestreamError for a sampling that cannot be."""
    payload = segment.payload
    components = {
        payload[place]: Component(payload[place + 1] >> 4, payload[place + 1] & 0xF)
        for place in range(6, 6 + 3 * payload[5], 3)
    }
    if len(components) != payload[5] or any(
        not (1 <= one.horizontal <= 4 and 1 <= one.vertical <= 4) for one in components.values()
    ):
        raise CodestreamError("the frame header of JPEG is damaged")
    return Frame(
        int.from_bytes(payload[1:3], "big"),
        int.from_bytes(payload[3:5], "big"),
        components,
        segment.marker == LOSSLESS_FRAME,
        payload[0],
    )


def read_scan(payload: bytes, frame: Frame, dc: dict[int, Table], ac: dict[int, Table]) -> Scan:
    """Read a scan header, T.81 A.2 and B.2.3."""
    members = payload[1 : 1 + 2 * payload[0]] if payload else b""
    if not members or len(members) < 2 * payload[0] or not set(members[::2]) <= set(frame.components):
        raise CodestreamError("a scan header of JPEG is damaged")
    size = 1 if frame.is_lossless else 8
    widest = max(one.horizontal for one in frame.components.values())
    highest = max(one.vertical for one in frame.components.values())
    plan: list[tuple[Table, Table | None]] = []
    try:
        for member, numbers in zip(members[::2], members[1::2], strict=True):
            component = frame.components[member]
            tables = (dc[numbers >> 4], None if frame.is_lossless else ac[numbers & 0xF])
            plan += [tables] * (component.horizontal * component.vertical)
    except KeyError as error:
        raise CodestreamError("a scan of JPEG names a Huffman table that is not there") from error
    units = -(-frame.columns // (size * widest)) * -(-frame.rows // (size * highest))
    if len(members) == 2:  # one component alone: its own blocks, without those that only fill an MCU
        component = frame.components[members[0]]
        columns = -(-frame.columns * component.horizontal // widest)
        rows = -(-frame.rows * component.vertical // highest)
        plan, units = plan[:1], -(-columns // size) * -(-rows // size)
    selection, _, approximation = (*payload[1 + len(members) :], 0, 0, 0)[:3]
    return Scan(plan=plan, units=units, selection=selection, point_transform=approximation & 0xF)


def read_tables(payload: bytes, dc: dict[int, Table], ac: dict[int, Table]) -> None:
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


def _table(counts: bytes, symbols: bytes, *, is_ac: bool) -> Table:
    steps = np.zeros(_CODES, dtype=np.uint8)
    runs = np.full(_CODES, INVALID, dtype=np.uint8)
    by_category = np.zeros(17, dtype=np.uint8)
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
            by_category[category] = steps[first:after] = length + (category if category < 16 else 0)
            runs[first:after] = END_OF_BLOCK if symbol == 0 else run + 1
        first = after
    return Table(steps, runs, by_category)
