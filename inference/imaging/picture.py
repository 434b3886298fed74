"""Reads PNG and JPEG radiographs as grey values; Pillow decodes them, restricted to these two formats."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from inference.errors import SourceError, UnsupportedPixelsError
from inference.records import FileFormat, SourceHeader, SourceImage

MAXIMUM_PIXELS = 1 << 26
"""67 million: no detector for projection radiography has half of it; a decoder asked for more serves an attack."""
COLOUR_TOLERANCE = 24
"""Largest difference of a pixel's channels, of 255, that JPEG's colour transform makes of grey."""
COLOURED_FRACTION = 0.01
"""Share of pixels that may be coloured: a stamp or a side marker."""

_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def grey_of(name: str, colour: NDArray[Any], maximum: int) -> NDArray[Any]:
    """Return the grey values of a picture that is grey although it has three channels.

    Parameters
    ----------
    colour
        (rows, columns, 3) unsigned, red, green, blue.
    maximum
        White.

    Returns
    -------
    (rows, columns) of the same type: the luma of ITU-R BT.601 in integers exactly as Pillow's ``convert("L")`` makes
    it, and therefore the channel itself where all three are equal

    Raises
    ------
    UnsupportedPixelsError
        More than `COLOURED_FRACTION` of the pixels are coloured.
    """
    red, green, blue = (colour[..., index] for index in range(3))
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return np.ascontiguousarray(red)
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    coloured = float(np.mean(spread > COLOUR_TOLERANCE * maximum // 255))
    if coloured > COLOURED_FRACTION:
        raise UnsupportedPixelsError(name, f"{100 * coloured:.0f} % of the pixels are coloured, a radiograph is grey")
    luma = red.astype(np.uint32) * 19595 + green.astype(np.uint32) * 38470 + blue.astype(np.uint32) * 7471 + 0x8000
    return np.asarray(luma >> 16, dtype=colour.dtype)


def read_picture(header: SourceHeader) -> SourceImage:
    """Decode a PNG or JPEG file.

    Returns
    -------
    SourceImage
        8 or 16 bits, unsigned. Transparent parts lie on black; the orientation of EXIF is applied.

    Raises
    ------
    SourceError
        Truncated, damaged, larger than `MAXIMUM_PIXELS` or not of that format.
    UnsupportedPixelsError
        A coloured or animated picture, or one in inks (CMYK).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; what matters raises
            pixels = _load(header)
    except SourceError:
        raise
    except Exception as error:  # a decoder of foreign bytes raises nearly anything, MemoryError included
        raise SourceError(header.name, f"cannot be decoded as {header.file_format} ({type(error).__name__})") from error
    return SourceImage(header=header, stored_values=pixels, bits_stored=8 * pixels.dtype.itemsize, is_signed=False)


def _load(header: SourceHeader) -> NDArray[Any]:
    with Image.open(header.file, formats=(header.file_format.value,)) as image:
        if image.width * image.height > MAXIMUM_PIXELS:
            raise SourceError(header.name, f"{image.width} x {image.height} pixels are more than this node reads")
        if header.file_format is FileFormat.PNG and getattr(image, "n_frames", 1) > 1:
            raise UnsupportedPixelsError(header.name, "the picture is animated")
        image.load()
        return _grey(header.name, ImageOps.exif_transpose(image))


def _grey(name: str, image: Image.Image) -> NDArray[Any]:
    if image.mode in _SIXTEEN_BIT_MODES:
        return np.asarray(np.clip(np.asarray(image), 0, 65535), dtype=np.uint16)
    if image.mode == "CMYK":
        raise UnsupportedPixelsError(name, "the picture is in inks (CMYK)")
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return np.asarray(image.convert("L"))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return grey_of(name, np.asarray(image.convert("RGB")), 255)
