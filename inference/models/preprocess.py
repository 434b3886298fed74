"""From display values to the tensor a model takes; serving and training both call this module, nothing else does it."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

DISPLAY_MAX = 255.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """What a network was trained to take; it travels with the weights in ``model.json``.

    Parameters
    ----------
    rows, columns
        Size of the network's input in pixels. The whole radiograph is resized to it, without cropping and
        without keeping the aspect ratio, so that a map covers the whole radiograph.
    mean, std
        Normalisation per channel of values in [0, 1].
    """

    rows: int = 224
    columns: int = 224
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) < 32:
            raise ValueError(
                f"input of {self.rows} x {self.columns} pixels is too small for these networks (32 at least)"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError("mean and std need three values each, and std must be positive")


def resize(display_values: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """Resize a whole radiograph, averaging areas where it shrinks (no aliasing).

    Parameters
    ----------
    display_values
        (any rows, any columns) uint8, 255 = white.

    Returns
    -------
    (rows, columns) uint8
    """
    if display_values.ndim != 2 or display_values.dtype != np.uint8:
        raise ValueError(f"expected (rows, columns) uint8, got {display_values.shape} {display_values.dtype}")
    if display_values.shape == (rows, columns):
        return display_values
    shrinks = display_values.shape[0] >= rows and display_values.shape[1] >= columns
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(display_values, (columns, rows), interpolation=interpolation), dtype=np.uint8)


def normalise(resized: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """Scale to [0, 1] and normalise per channel.

    Parameters
    ----------
    resized
        (rows, columns) uint8.

    Returns
    -------
    (3, rows, columns) float32; the one grey channel three times, each with its own mean and std.
    """
    table = np.arange(256, dtype=np.float32) / np.float32(DISPLAY_MAX)
    channels = [((table - np.float32(m)) / np.float32(s))[resized] for m, s in zip(spec.mean, spec.std, strict=True)]
    return np.stack(channels)


def to_model_input(display_values: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """Resize and normalise one radiograph.

    Parameters
    ----------
    display_values
        (any rows, any columns) uint8, 255 = white, as ``imaging.render`` makes them.

    Returns
    -------
    (3, spec.rows, spec.columns) float32
    """
    return normalise(resize(display_values, spec.rows, spec.columns), spec)
