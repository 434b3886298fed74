"""Adds up the codes of a lossless JPEG scan from its decoded samples: `huffman`'s walk without its steps.

Which code a sample was made of follows from the sample and those before it, and so does its length. All lengths put
next to each other say where each code must begin; where the scan has a code of that length at each of these places, a
walk from code to code goes through exactly them. Says nothing about a scan where that is not so.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.imaging.scans import Scan

_SAMPLES_AT_ONCE = 1 << 15
"""What is computed for them fits into a processor's cache."""
_LONGEST_BYTES = 4
_SIGNED = np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.int32)
_CATEGORIES = np.frexp(np.abs(_SIGNED).astype(np.float64))[1].astype(np.intp)
"""(65536,) SSSS of T.81 H.1.2.2 by difference modulo 2**16: bits of its magnitude, 16 for 32768."""


def ends_of_intervals(
    samples: NDArray[Any],
    intervals: Sequence[bytes],
    *,
    rows: int,
    scan: Scan,
    precision: int,
) -> list[int] | None:
    """Find the bit after the last code of each restart interval.

    Parameters
    ----------
    samples
        (rows, columns) uint8 or uint16, decoded.
    intervals
        Entropy-coded data without stuffed zeros.
    rows
        Of each interval but the last, which may have fewer.
    scan
        Of a single component, without point transform.
    precision
        Bits of a sample.

    Returns
    -------
    list or None
        None: the samples were not decoded from this, or are not to be predicted like this.
    """
    if not 1 <= scan.selection <= 7:
        return None
    samples = samples.astype(np.uint16, copy=False)
    by_difference = scan.plan[0][0].lengths[_CATEGORIES]
    ends = []
    for number, interval in enumerate(intervals):
        part = samples[number * rows : (number + 1) * rows]
        end = _follow(part, np.frombuffer(interval, dtype=np.uint8), scan, by_difference, precision)
        if end is None:
            return None
        ends.append(end)
    return ends


def _follow(
    samples: NDArray[np.uint16], data: NDArray[np.uint8], scan: Scan, by_difference: NDArray[np.uint8], precision: int
) -> int | None:
    steps = scan.plan[0][0].steps
    end = 0
    for differences in _differences(samples, scan.selection, precision):
        found = cv2.LUT(differences, by_difference).ravel()
        after = np.cumsum(found, dtype=np.int64)
        last = end + int(after[-1])
        if last > 8 * len(data):
            return None
        first_byte = end >> 3
        place = after
        place -= found
        place += end - 8 * first_byte
        piece = np.zeros((last >> 3) - first_byte + _LONGEST_BYTES, dtype=np.uint32)
        content = data[first_byte : first_byte + len(piece)]
        piece[: len(content)] = content
        three = piece[:-2] << 16
        three |= piece[1:-1] << 8
        three |= piece[2:]
        window = three[place >> 3]
        window <<= (place & 7).astype(np.uint32)
        window >>= 8
        there = cv2.LUT(window.astype(np.uint16), steps).ravel()
        if not np.array_equal(there, found) or not there.all():
            return None
        end = last
    return end


def _differences(samples: NDArray[np.uint16], selection: int, precision: int) -> Iterator[NDArray[np.uint16]]:
    """Yield the differences of some rows at a time, modulo 2**16 (T.81 H.1.2.1)."""
    rows = max(1, _SAMPLES_AT_ONCE // samples.shape[1])
    for top in range(0, len(samples), rows):
        part = samples[top : top + rows]
        made = np.empty_like(part)
        here = made
        if top == 0:
            # The first line is predicted from the left, its first sample from the middle of the range.
            made[0, 0] = (int(part[0, 0]) - (1 << precision >> 1)) & 0xFFFF
            np.subtract(part[0, 1:], part[0, :-1], out=made[0, 1:])
            here, part = made[1:], part[1:]
        if len(part):
            above = samples[max(top, 1) - 1 : max(top, 1) - 1 + len(part)]
            np.subtract(part[:, 0], above[:, 0], out=here[:, 0])
            np.subtract(part[:, 1:], _predicted(part, above, selection), out=here[:, 1:])
        yield made


def _predicted(part: NDArray[np.uint16], above: NDArray[np.uint16], selection: int) -> NDArray[np.uint16]:
    """Return what T.81 table H.1 predicts of all columns but the first."""
    left, top, corner = part[:, :-1], above[:, 1:], above[:, :-1]
    match selection:
        case 1:
            return left
        case 2:
            return top
        case 3:
            return corner
        case 4:
            return left + top - corner
    a, b, c = (one.astype(np.int32) for one in (left, top, corner))
    match selection:
        case 5:
            predicted = a + ((b - c) >> 1)
        case 6:
            predicted = b + ((a - c) >> 1)
        case _:
            predicted = (a + b) >> 1
    return predicted.astype(np.uint16)
