"""Lookup tables as Modality LUT Sequence and VOI LUT Sequence hold them (PS3.3 C.11.1.1.1, C.11.2.1.1)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupTable:
    """A table from consecutive integers to values.

    Parameters
    ----------
    first
        The input that the first entry is for; inputs below take the first entry, inputs beyond take the last one.
    entries
        (n,) float64.
    maximum
        Largest value that the entries may have, from their bit depth.
    bits_in_use
        Bits of the entries where that is two fewer at least than the descriptor states; None where it is right.
    """

    first: int
    entries: NDArray[np.float64]
    maximum: float
    bits_in_use: int | None = None

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Look values up; they are rounded to integers, as the table has no entries between."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.intp)
        return np.asarray(self.entries[index])


def read_table(item: Dataset, *, is_little_endian: bool, first_is_signed: bool) -> LookupTable | None:
    """Read LUT Descriptor (0028,3002) and LUT Data (0028,3006) of a sequence item.

    Parameters
    ----------
    is_little_endian
        Byte order of the file: LUT Data of VR OW come as bytes.
    first_is_signed
        Whether the first input may be negative; its VR is ambiguous (US or SS).

    Returns
    -------
    LookupTable or None
        None when descriptor or data are missing, empty or no numbers.
    """
    try:
        count, first, bits = (int(value) for value in item.LUTDescriptor)
        data = _entries(item.LUTData, count & 0xFFFF or 1 << 16, bits & 0xFFFF, is_little_endian=is_little_endian)
    except Exception:  # values are converted at first access, and faulty ones raise nearly anything
        return None
    if data.size == 0:
        return None
    first &= 0xFFFF
    if first_is_signed and first > 0x7FFF:
        first -= 1 << 16
    # Writers exist that state fewer bits than they use, and such as state 16 for entries of 12: what is there counts.
    largest = int(data.max())
    stated, used = bits & 0xFFFF, max(largest.bit_length(), 1)
    is_overstated = 8 <= used <= stated - 2 <= 14
    declared = 2 ** (used if is_overstated else stated) - 1 if 1 <= stated <= 16 else 0
    return LookupTable(
        first=first,
        entries=data.astype(np.float64),
        maximum=float(max(declared, largest, 1)),
        bits_in_use=used if is_overstated else None,
    )


def _entries(data: Any, count: int, bits: int, *, is_little_endian: bool) -> NDArray[Any]:  # noqa: ANN401 - US, SS or OW
    if not isinstance(data, bytes):
        numbers = np.atleast_1d(np.asarray(data, dtype=np.int64))
        return numbers[:count] & 0xFFFF
    data_words = np.frombuffer(data[: len(data) // 2 * 2], dtype="<u2" if is_little_endian else ">u2")
    if bits <= 8 and len(data) < 2 * count:  # two entries of 8 bits a word
        return np.frombuffer(data_words.astype("<u2").tobytes(), dtype=np.uint8)[:count]
    return data_words[:count]
