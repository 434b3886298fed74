"""Draws text, captions and the colour bar of result pictures; knows nothing of DICOM or of models.

Text is set in the scalable font that comes with Pillow, so that no system font is needed and every machine draws the
same picture. All of it lies on strips of its own, never on the anatomy.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, floor
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

CARD: Colour = (20, 24, 29)
WHITE: Colour = (240, 243, 246)
GREY: Colour = (160, 168, 178)
AMBER: Colour = (255, 176, 32)
"""For positive verdicts: seen at once, and not the red of an alarm that nobody has measured."""
DARK: Colour = (24, 18, 4)
SLATE: Colour = (52, 60, 70)

Weight = Literal["regular", "bold"]
SMALLEST = 8
"""Font size in pixels below which nobody can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A line, or a part of one, in one size and colour.

    Parameters
    ----------
    size
        Font size in pixels.
    chip
        Fill of a rounded box behind the text; None for none.
    """

    text: str
    size: int
    colour: Colour = WHITE
    weight: Weight = "regular"
    chip: Colour | None = None


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own scalable font.

    Basic layout whatever text engine is installed: the same letters at the same places everywhere.
    """
    loaded = ImageFont.load_default(size)
    if not isinstance(loaded, ImageFont.FreeTypeFont):  # Pillow without FreeType
        raise OSError("Pillow has been built without FreeType, so no text can be drawn")
    return loaded.font_variant(layout_engine=ImageFont.Layout.BASIC)


@dataclass(frozen=True, slots=True)
class _Mask:
    """Where a shape covers the pixels around it.

    Parameters
    ----------
    left, top
        Offset of its first column and row from where it is put.
    shares
        (rows, columns x 3) uint16, 255 = all of the pixel; as many columns as a picture has bytes.
    """

    left: int
    top: int
    shares: NDArray[np.uint16]


@lru_cache(maxsize=256)
def _letters(text: str, size: int, stroke: float) -> _Mask:
    """Set a text once: most of what stands under a picture stands under the next one too."""
    begin_x, begin_y, end_x, end_y = font(size).getbbox(text, stroke_width=stroke)
    left, top = floor(begin_x) - 1, floor(begin_y) - 1
    # A pixel around it: a stroke may have a part of one, which the box does not count.
    mask = Image.new("L", (ceil(end_x) + 1 - left, ceil(end_y) + 1 - top))
    ImageDraw.Draw(mask).text((-left, -top), text, font=font(size), fill=255, stroke_width=stroke)
    return _Mask(left, top, _shares(mask))


@lru_cache(maxsize=64)
def _box(columns: int, rows: int, radius: int) -> _Mask:
    mask = Image.new("L", (columns, rows))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, columns - 1, rows - 1), radius=radius, fill=255)
    return _Mask(0, 0, _shares(mask))


def _shares(mask: Image.Image) -> NDArray[np.uint16]:
    return np.repeat(np.asarray(mask, dtype=np.uint16), 3, axis=1)


@lru_cache(maxsize=1024)
def _length(text: str, size: int) -> int:
    return round(font(size).getlength(text))


class Canvas:
    """Draws on an RGB picture.

    Parameters
    ----------
    pixels
        (rows, columns, 3) uint8, written to; may be a part of a larger picture.
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels

    @staticmethod
    def width_of(text: Text) -> int:
        """Width of a text in pixels, chip included."""
        return _length(text.text, text.size) + 2 * _stroke(text) + (2 * _padding(text) if text.chip else 0)

    def picture(self, left: int, top: int, rgb: NDArray[np.uint8]) -> None:
        """Place a (rows, columns, 3) uint8 RGB picture."""
        self.pixels[top : top + rgb.shape[0], left : left + rgb.shape[1]] = rgb

    def card(self, left: int, top: int, right: int, bottom: int, radius: int) -> None:
        """Draw a plain rounded area for a picture and its caption."""
        # Its corners as a small box has them; between them there is nothing to cut off.
        end = bottom - radius
        self._fill(_box(right - left, 2 * radius, radius), left, top, CARD)
        self._fill(_box(right - left, 2 * radius, radius), left, end - radius, CARD)
        cv2.rectangle(self.pixels, (left, top + radius), (right - 1, end - 1), CARD, cv2.FILLED)

    def line(self, left: int, right: int, middle: int, start: list[Text], end: list[Text]) -> None:
        """Draw a line of text on a common middle height: some parts from the left, others up to the right margin.

        All parts shrink together until they fit.
        """
        gap = max((text.size for text in (*start, *end)), default=0) // 2
        parts = [*start, *end]
        while (
            sum(map(self.width_of, parts)) + gap * len(parts) > right - left
            and max(text.size for text in parts) > SMALLEST
        ):
            parts = [replace(text, size=max(SMALLEST, text.size - 1)) for text in parts]
        x = left
        for text in parts[: len(start)]:
            self._put(x, middle, text)
            x += self.width_of(text) + gap
        x = right
        for text in reversed(parts[len(start) :]):
            x -= self.width_of(text)
            self._put(x, middle, text)
            x -= gap

    def colour_bar(self, left: int, right: int, middle: int, height: int, colours: NDArray[np.uint8]) -> None:
        """Draw a horizontal bar of (n, 3) uint8 colours, first at the left."""
        index = np.linspace(0, len(colours) - 1, max(2, right - left)).round().astype(int)
        bar = np.broadcast_to(colours[index], (height, len(index), 3))
        self.picture(left, middle - height // 2, np.ascontiguousarray(bar))

    def _put(self, x: int, middle: int, text: Text) -> None:
        if text.chip:
            half = round(text.size * 0.68)
            box = _box(self.width_of(text) + 1, 2 * half + 1, round(text.size * 0.28))
            self._fill(box, x, middle - half, text.chip)
            x += _padding(text)
        stroke = _stroke(text)
        # Placed by capitals and not by the letters at hand, so that lines stand level.
        ascent = font(text.size).getbbox("H")
        y = middle - (ascent[1] + ascent[3]) / 2
        letters = _letters(text.text, text.size, text.size / 40 if stroke else 0)
        self._fill(letters, x + stroke, round(y), text.colour)

    def _fill(self, mask: _Mask, x: int, y: int, colour: Colour) -> None:
        """Colour what a mask covers; what lies outside the picture is left out."""
        left, top = x + mask.left, y + mask.top
        shares = mask.shares[max(0, -top) :, 3 * max(0, -left) :]
        left, top = max(0, left), max(0, top)
        place = self.pixels[top : top + len(shares), left : left + shares.shape[1] // 3]
        shares = shares[: len(place), : 3 * place.shape[1]]
        present = place.reshape(len(place), -1)
        # n / 255, rounded, as n + 128 + its own 256th part, over 256: exact for every sum of two shares of 255 levels.
        mixed = present * (255 - shares) + np.tile(np.array(colour, np.uint16), place.shape[1]) * shares + 128
        place[...] = ((mixed + (mixed >> 8)) >> 8).reshape(place.shape)


def _stroke(text: Text) -> int:
    return max(1, round(text.size / 40)) if text.weight == "bold" else 0


def _padding(text: Text) -> int:
    return round(text.size * 0.45)
