"""Smaller pictures for the eye and for statistics; what a model takes comes from `inference.models.preprocess` alone.

Averaging whole blocks of pixels is fifty times as fast as averaging areas whose edges lie within pixels.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.models.preprocess import resize


def by_whole_factor(values: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Average blocks of factor x factor pixels; rows and columns at the end that fill no block are left out.

    Parameters
    ----------
    values
        (rows, columns) uint8.

    Returns
    -------
    (rows // factor, columns // factor) uint8, each side at least 1; for a factor of 1 the picture itself.
    """
    if factor == 1:
        return values
    rows, columns = (max(1, side // factor) for side in values.shape)
    blocks = values[: rows * factor, : columns * factor]
    return np.asarray(cv2.resize(blocks, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def to_size(values: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """Reduce by averaging, by halves as long as that goes: edges are a little softer than by areas.

    Less than one pixel of the result is left out at its ends.

    A side that is to grow is interpolated.

    Parameters
    ----------
    values
        (any rows, any columns) uint8.

    Returns
    -------
    (rows, columns) uint8
    """
    smaller = values
    while min(smaller.shape[0] // rows, smaller.shape[1] // columns) >= 2:
        smaller = by_whole_factor(smaller, 2)
    return resize(smaller, rows, columns)
