"""Modality values to the range from black to white: VOI LUT, window, or what stands in for a missing one.

PS3.4 N.2.1.2 and PS3.3 C.11.2. A result is 0 for black and 1 for white before polarity.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from inference.imaging.attributes import is_present, items, number, word
from inference.imaging.lookup import read_table
from inference.records import Window, WindowSource

LUNG_CENTER_HU, LUNG_WIDTH_HU = 40.0, 800.0
_TAIL = 0.005
"""Share of pixels outside the percentile window at each end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windowed:
    """What a window makes of every modality value.

    Parameters
    ----------
    fractions
        (n,) float64 in [0, 1].
    """

    fractions: NDArray[np.float64]
    window: Window


def by_voi(
    dataset: Dataset, modality_values: NDArray[np.float64], *, is_little_endian: bool
) -> tuple[Windowed | None, tuple[str, ...]]:
    """Apply the image's own VOI: item 1 of VOI LUT Sequence (0028,3010), else the first window.

    Returns
    -------
    Windowed or None
        None without a usable VOI.
    tuple of str
        What was damaged and passed over.
    """
    notes: list[str] = []
    if is_present(dataset, "VOILUTSequence"):
        sequence = items(dataset, "VOILUTSequence")
        # The table's inputs are modality values: negative ones need a signed first input (PS3.3 C.11.2.1.1).
        signed = bool(modality_values.min() < 0)
        table = read_table(sequence[0], is_little_endian=is_little_endian, first_is_signed=signed) if sequence else None
        if table is not None:
            window = Window(source=WindowSource.VOI_LUT_SEQUENCE, center=None, width=None, function="TABLE")
            used = table.bits_in_use
            found = () if used is None else (f"LUT Data (0028,3006) use {used} bits, fewer than stated for them",)
            return Windowed(fractions=table.apply(modality_values) / table.maximum, window=window), found
        notes.append("VOI LUT Sequence (0028,3010) is damaged and was passed over")
    if not is_present(dataset, "WindowCenter") and not is_present(dataset, "WindowWidth"):
        return None, tuple(notes)
    center, width = number(dataset, "WindowCenter"), number(dataset, "WindowWidth")
    function = word(dataset, "VOILUTFunction") or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        notes.append("VOI LUT Function (0028,1056) is unknown: LINEAR was used")
        function = "LINEAR"
    if center is None or width is None or width <= 0 or (function == "LINEAR" and width < 1):
        notes.append("Window Center (0028,1050) or Width (0028,1051) is no usable number: passed over")
        return None, tuple(notes)
    window = Window(source=WindowSource.WINDOW_ATTRIBUTES, center=center, width=width, function=function)
    return Windowed(fractions=apply_window(modality_values, center, width, function), window=window), tuple(notes)


def apply_window(values: NDArray[np.float64], center: float, width: float, function: str) -> NDArray[np.float64]:
    """Apply a window, PS3.3 C.11.2.1.2.1 (LINEAR) and C.11.2.1.3.

    Parameters
    ----------
    width
        At least 1 for LINEAR, positive for the others.
    """
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700))))
    if function == "LINEAR":
        if width == 1:  # a step; the formula would divide by 0
            return (values > center - 0.5).astype(np.float64)
        fractions = (values - (center - 0.5)) / (width - 1) + 0.5
    else:
        fractions = (values - center) / width + 0.5
    return np.clip(fractions, 0, 1)


def by_full_range(modality_values: NDArray[np.float64]) -> Windowed:
    """Map the whole range of possible values, for images of 8 bits without VOI: they are meant as they are."""
    low, high = float(modality_values.min()), float(modality_values.max())
    return _between(modality_values, low, high, WindowSource.FULL_RANGE)


def by_percentiles(modality_values: NDArray[np.float64], counts: NDArray[np.int64]) -> Windowed:
    """Map the range that holds all but 0.5 % of the pixels at each end, for images without a usable VOI.

    Parameters
    ----------
    counts
        (n,) how many pixels, padding excluded, have each value.
    """
    order = np.argsort(modality_values, kind="stable")
    values, weights = modality_values[order], counts[order]
    tail = _TAIL * float(weights.sum())
    # From both ends in the same way, so that the negative of a picture gets the negative window.
    rising, falling = np.cumsum(weights), np.cumsum(weights[::-1])
    if rising[-1] == 0:
        return by_full_range(modality_values)
    low = float(values[int(np.argmax(rising > tail))])
    high = float(values[::-1][int(np.argmax(falling > tail))])
    if low == high:
        used = values[weights > 0]
        low, high = float(used[0]), float(used[-1])
    return _between(modality_values, low, high, WindowSource.PERCENTILES)


def _between(values: NDArray[np.float64], low: float, high: float, source: WindowSource) -> Windowed:
    width = high - low if high > low else 1.0
    window = Window(source=source, center=low + width / 2, width=width, function="LINEAR_EXACT")
    return Windowed(fractions=np.clip((values - low) / width, 0, 1), window=window)


def lung_window_levels(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Apply the lung window in the arithmetic of the first version: float32, cut off and not rounded.

    Parameters
    ----------
    values
        (n,) float32 Hounsfield units, or with the rule ``seed`` whatever the values are.
    """
    low = np.float32(LUNG_CENTER_HU - LUNG_WIDTH_HU / 2)
    fractions = np.clip((values - low) / np.float32(LUNG_WIDTH_HU), 0.0, 1.0)
    return np.asarray(fractions * np.float32(255.0)).astype(np.uint8)
