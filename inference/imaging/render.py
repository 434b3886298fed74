"""Stored values to display values in the order of PS3.4 N.2, by one table over all stored values; decodes nothing.

Modality LUT or rescale, then VOI, then polarity, then 8 bits; padding and what a shutter hides are black whatever the
polarity.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import DigitalXRayImageStorageForProcessing, ExplicitVRBigEndian

from config.analysis import Polarity
from inference.imaging.attributes import integer, is_there, word
from inference.imaging.modality_lut import is_hu, modality_values, rescale
from inference.imaging.polarity import is_inverted
from inference.imaging.shutter import Visible, visible_part
from inference.imaging.windowing import (
    LUNG_CENTER_HU,
    LUNG_WIDTH_HU,
    Windowed,
    by_full_range,
    by_percentiles,
    by_voi,
    lung_window_levels,
)
from inference.records import ChestImage, RenderRule, SourceImage, Window, WindowSource

_SATURATED = 0.995
"""Share of pixels at one end of the window beyond which the window is not meant for this picture."""
_SEED_SATURATED = 0.95
_OUTSIDE_LUNG_WINDOW = 0.5
"""Share of pixels outside the lung window beyond which values that are said to be in HU are none: a radiograph has no
more than 45 % of its pixels black or white (`eligibility.check_quality`)."""
_COUNTED_AT_ONCE = 1 << 23
_IMAGE_WITHOUT_HEADER = Dataset()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """What becomes of each legal stored value.

    Parameters
    ----------
    levels
        (n,) uint8.
    """

    levels: NDArray[np.uint8]
    window: Window
    is_inverted: bool
    notes: tuple[str, ...]


def render(image: SourceImage, rule: RenderRule, polarity: Polarity = Polarity.AUTO) -> ChestImage:
    """Make the display values of a radiograph.

    Parameters
    ----------
    rule
        ``AUTO``: lung window where values are in HU, the image's own VOI otherwise; ``DISPLAY``: own VOI always;
        ``SEED``: lung window always, no VOI, no polarity, no padding, no shutter.
    polarity
        Which attribute decides whether low values are white.

    Returns
    -------
    ChestImage
        Notes name every attribute that was damaged, contradictory or replaced.
    """
    dataset = image.header.dataset
    if dataset is None or not word(dataset, "PhotometricInterpretation").startswith("MONOCHROME"):
        dataset = _IMAGE_WITHOUT_HEADER  # grey stored as colour has no rescale, window or polarity (PS3.3 C.7.6.3.1.2)
    # Legal stored values in the order of their bit patterns, so that a pattern is an index.
    stored = _all_stored_values(image)
    visible: Visible | None = None
    notes: tuple[str, ...] = ()
    if rule is RenderRule.SEED:
        table = _seed_table(dataset, stored, _histogram(image))
    else:
        visible, notes = visible_part(dataset, *image.stored_values.shape)
        table = _display_table(image, dataset, stored, _histogram(image, visible), rule=rule, polarity=polarity)
    shown = _apply(table.levels, image.stored_values)
    return ChestImage(
        display_values=shown if visible is None else shown & visible,
        rule=rule,
        window=table.window,
        is_inverted=table.is_inverted,
        notes=(*table.notes, *notes, *_undrawn(dataset)),
    )


def _undrawn(dataset: Dataset) -> tuple[str, ...]:
    """Say that there are overlay graphics (PS3.3 C.9.2): a mark of the side may be among them."""
    for group in range(0x6000, 0x6020, 2):
        kind, graphics = group << 16 | 0x0040, group << 16 | 0x3000
        if is_there(dataset, graphics) and word(dataset, kind) in ("G", ""):
            return (f"Overlay Data ({group:04X},3000) are graphics that results do not show",)
    return ()


def _patterns(stored_values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the same memory as unsigned integers."""
    return np.ascontiguousarray(stored_values).view(f"u{stored_values.dtype.itemsize}")


def _all_stored_values(image: SourceImage) -> NDArray[np.float64]:
    """Return (n,) float64: the stored value of every bit pattern; patterns that cannot occur repeat the nearest one."""
    size = 256 if image.stored_values.dtype.itemsize == 1 else 65536
    values = np.arange(size, dtype=np.int64)
    if image.is_signed:
        values = np.where(values >= size // 2, values - size, values)
        low, high = -(1 << (image.bits_stored - 1)), (1 << (image.bits_stored - 1)) - 1
    else:
        low, high = 0, (1 << image.bits_stored) - 1
    return np.clip(values, low, high).astype(np.float64)


def _histogram(image: SourceImage, visible: Visible | None = None) -> NDArray[np.int64]:
    """Return (n,) int64: how many pixels, or of those that are visible, have each bit pattern."""
    size = 256 if image.stored_values.dtype.itemsize == 1 else 65536
    patterns = _patterns(image.stored_values)
    counts = np.zeros(size, dtype=np.int64)
    # OpenCV counts in float32, which is exact up to 2**24: no more pixels at once than fit into one bin.
    rows = max(1, _COUNTED_AT_ONCE // patterns.shape[1])
    for top in range(0, len(patterns), rows):
        mask = None if visible is None else visible[top : top + rows]
        counted = cv2.calcHist([patterns[top : top + rows]], [0], mask, [size], [0, size])
        counts += counted.ravel().astype(np.int64)
    return counts


def _apply(levels: NDArray[np.uint8], stored_values: NDArray[np.generic]) -> NDArray[np.uint8]:
    patterns = _patterns(stored_values)
    try:
        # 16-bit sources are looked up by OpenCV 5 and faster than by numpy.
        return np.asarray(cv2.LUT(patterns, levels), dtype=np.uint8)
    except cv2.error:
        return np.asarray(levels[patterns])


def _padding(image: SourceImage, dataset: Dataset, stored: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (n,) bool: whether a stored value is Pixel Padding (0028,0120) to its Range Limit (0028,0121).

    PS3.3 C.7.5.1.1.2: both are stored values and the range includes its ends, in either order.
    """
    value = integer(dataset, "PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=np.bool_)
    limit = integer(dataset, "PixelPaddingRangeLimit")
    ends = [value, value if limit is None else limit]
    if image.is_signed:  # the VR is ambiguous, and some write a negative value as US
        ends = [end - (1 << 16) if end > 0x7FFF else end for end in ends]
    return (stored >= min(ends)) & (stored <= max(ends))


def _quantise(fractions: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.floor(fractions * 255 + 0.5).astype(np.uint8)


def _rescaled(dataset: Dataset, stored: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rescale in float32, as the lung window's formula has it."""
    values = stored.astype(np.float32)
    if (line := rescale(dataset)) is not None:
        values = values * np.float32(line[0]) + np.float32(line[1])
    return values


def _seed_table(dataset: Dataset, stored: NDArray[np.float64], counts: NDArray[np.int64]) -> _Table:
    values = _rescaled(dataset, stored)
    levels = lung_window_levels(values)
    window = Window(source=WindowSource.SEED, center=LUNG_CENTER_HU, width=LUNG_WIDTH_HU, function="LINEAR_EXACT")
    outside = float(counts[(values <= -360) | (values >= 440)].sum()) / float(counts.sum())
    notes: tuple[str, ...] = ()
    if outside > _SEED_SATURATED:
        notes = (f"rule seed: {100 * outside:.0f} % of the pixels are outside the lung window, the picture is lost",)
    return _Table(levels=levels, window=window, is_inverted=False, notes=notes)


def _display_table(
    image: SourceImage,
    dataset: Dataset,
    stored: NDArray[np.float64],
    counts: NDArray[np.int64],
    *,
    rule: RenderRule,
    polarity: Polarity,
) -> _Table:
    little = _is_little_endian(dataset)
    transformed = modality_values(dataset, stored, is_signed=image.is_signed, is_little_endian=little)
    inverted, notes = is_inverted(dataset, polarity)
    notes = (*transformed.notes, *notes)
    padding = _padding(image, dataset, stored)
    counts = np.where(padding, 0, counts)
    values = transformed.values
    if rule is RenderRule.AUTO and is_hu(dataset):
        levels = lung_window_levels(_rescaled(dataset, stored))
        outside = float(counts[(levels == 0) | (levels == 255)].sum()) / max(float(counts.sum()), 1.0)
        if word(dataset, "Modality") == "CT" or outside <= _OUTSIDE_LUNG_WINDOW:
            window = Window(
                source=WindowSource.LUNG_HU, center=LUNG_CENTER_HU, width=LUNG_WIDTH_HU, function="LINEAR_EXACT"
            )
            levels = np.where(padding, 0, 255 - levels if inverted else levels).astype(np.uint8)
            return _Table(levels=levels, window=window, is_inverted=inverted, notes=notes)
        lost = f"{100 * outside:.0f} % of the pixels are outside the lung window"
        notes = (*notes, f"Rescale Type (0028,1054) is HU, but {lost}: not used")
    if is_for_processing(dataset):
        windowed, inverted, more = _best_effort(dataset, values, counts, inverted=inverted)
    else:
        windowed, more = _window(dataset, values, counts, bits_stored=image.bits_stored, is_little_endian=little)
    fractions = 1 - windowed.fractions if inverted else windowed.fractions
    levels = _quantise(np.where(padding, 0.0, fractions))
    return _Table(levels=levels, window=windowed.window, is_inverted=inverted, notes=(*notes, *more))


def _window(
    dataset: Dataset,
    values: NDArray[np.float64],
    counts: NDArray[np.int64],
    *,
    bits_stored: int,
    is_little_endian: bool,
) -> tuple[Windowed, tuple[str, ...]]:
    """Choose the window: the image's own VOI unless it hides the picture, else full range (8 bits) or percentiles."""
    windowed, notes = by_voi(dataset, values, is_little_endian=is_little_endian)
    if windowed is not None:
        pixels = float(counts.sum())
        levels = _quantise(windowed.fractions)
        saturated = max(float(counts[levels == 0].sum()), float(counts[levels == 255].sum()))
        if pixels == 0 or saturated <= _SATURATED * pixels:
            return windowed, notes
        note = (
            f"{100 * saturated / pixels:.1f} % of the pixels are at one end of the image's own window: percentiles used"
        )
        return by_percentiles(values, counts), (*notes, note)
    if bits_stored <= 8:
        return by_full_range(values), notes
    return by_percentiles(values, counts), notes


def is_for_processing(dataset: Dataset) -> bool:
    """Return whether the pixels are raw detector data (PS3.3 C.8.11.1, Presentation Intent Type)."""
    return (
        word(dataset, "PresentationIntentType") == "FOR PROCESSING"
        or word(dataset, "SOPClassUID") == DigitalXRayImageStorageForProcessing
    )


def _best_effort(
    dataset: Dataset, values: NDArray[np.float64], counts: NDArray[np.int64], *, inverted: bool
) -> tuple[Windowed, bool, tuple[str, ...]]:
    """Show raw detector data: logarithm if linear in dose, percentiles, bone white (PS3.3 C.8.11.3.1.2)."""
    if word(dataset, "PixelIntensityRelationship") in ("LIN", ""):
        values = np.log(np.maximum(values - float(values.min()) + 1, 1))
    sign = integer(dataset, "PixelIntensityRelationshipSign")
    if sign in (1, -1):
        inverted = sign == 1  # 1: higher values mean more X-ray intensity, so air is high
    return by_percentiles(values, counts), inverted, ("raw detector data: shown by logarithm and percentiles",)


def _is_little_endian(dataset: Dataset) -> bool:
    meta = getattr(dataset, "file_meta", None)
    return meta is None or meta.get("TransferSyntaxUID") != ExplicitVRBigEndian
