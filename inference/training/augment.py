"""Random changes to a training radiograph: what differs between hospitals and must not change the answer.

Geometry, contrast and gamma, resolution and blur, noise, borders and collimation, side markers. Never inversion:
polarity is settled by ``imaging.polarity`` before a model sees anything.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.training.dataset import Box

MARKERS = ("L", "R", "PA", "AP", "SUPINE", "PORTABLE", "ERECT", "SEMI", "LT", "RT")
"""What is found burned into radiographs; drawn at random so that no model learns a hospital by its letters."""


def augment(
    image: NDArray[np.uint8], boxes: tuple[Box, ...], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return a changed copy of one radiograph at the network's input size, and where its opacities went.

    Parameters
    ----------
    image
        (rows, columns) uint8, 255 = white.
    boxes
        Radiologists' boxes; empty when there are none.
    rng
        Source of randomness; the same state gives the same picture.

    Returns
    -------
    image
        (rows, columns) uint8
    mask
        (rows, columns) float32, 1 inside the boxes, 0 elsewhere.
    """
    before = _mask(boxes, image.shape)
    affine = _affine(image.shape, rng, may_zoom=True)
    mask = _warp(before, affine, cv2.BORDER_CONSTANT)
    if mask.sum() < 0.4 * before.sum():  # the zoom lost what the label is about
        affine = _affine(image.shape, rng, may_zoom=False)
        mask = _warp(before, affine, cv2.BORDER_CONSTANT)
    mode = cv2.BORDER_REPLICATE if rng.random() < 0.3 else cv2.BORDER_CONSTANT
    return _appearance(_warp(image, affine, mode).astype(np.uint8), rng), mask.astype(np.float32)


def _appearance(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """All changes that leave anatomy where it is."""
    out = _tones(image, rng)
    if rng.random() < 0.35:
        out = _resolution(out, rng)
    if rng.random() < 0.3:
        out = _noise(out, rng)
    if rng.random() < 0.3:
        out = _marker(out, rng)
    if rng.random() < 0.3:
        out = _border(out, rng)
    if rng.random() < 0.25:
        out = _occlusion(out, rng)
    return out


def _mask(boxes: tuple[Box, ...], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """1 inside the boxes, 0 elsewhere, as (rows, columns) float32; shape is (rows, columns)."""
    mask = np.zeros(shape, dtype=np.float32)
    rows, columns = shape
    for x, y, width, height in boxes:
        mask[
            int(y * rows) : int(np.ceil((y + height) * rows)), int(x * columns) : int(np.ceil((x + width) * columns))
        ] = 1
    return mask


def _affine(shape: tuple[int, ...], rng: np.random.Generator, *, may_zoom: bool) -> NDArray[np.float64]:
    """A 2 x 3 matrix: rotation, scale, aspect, shear, mirror and shift; ``may_zoom`` allows a crop now and then."""
    rows, columns = shape
    angle = np.deg2rad(rng.normal(0, 6))
    scale = np.exp(rng.uniform(-0.16, 0.2))
    reach = 0.07
    if may_zoom and rng.random() < 0.25:
        scale = np.exp(rng.uniform(0.2, 0.4))
        reach = (scale - 1) / 2
    aspect = np.exp(rng.uniform(-0.14, 0.14))
    shear = rng.uniform(-0.08, 0.08)
    flip = -1.0 if rng.random() < 0.5 else 1.0
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotate @ np.array([[1, shear], [0, 1]]) @ np.diag([flip * scale * aspect, scale / aspect])
    centre = np.array([columns - 1, rows - 1]) / 2
    shift = rng.uniform(-reach, reach, 2) * (columns, rows)
    return np.column_stack([matrix, centre - matrix @ centre + shift])


def _warp(image: NDArray[Any], affine: NDArray[np.float64], mode: int) -> NDArray[Any]:
    rows, columns = image.shape
    warped = cv2.warpAffine(image, affine, (columns, rows), flags=cv2.INTER_LINEAR, borderMode=mode, borderValue=0)
    return np.asarray(warped)


def _tones(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Gamma, S-curve, contrast and brightness as one table, now and then local equalisation."""
    x = np.arange(256, dtype=np.float64) / 255
    x = x ** np.exp(rng.normal(0, 0.28))
    if rng.random() < 0.5:  # an S-curve, as a film's or a vendor's sigmoid window gives it
        k = rng.uniform(-0.9, 1.6)
        x = x + k * x * (1 - x) * (2 * x - 1) * 0.5
    contrast, brightness = np.exp(rng.normal(0, 0.2)), rng.normal(0, 0.07)
    x = (x - 0.5) * contrast + 0.5 + brightness
    table = (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)
    out: NDArray[np.uint8] = table[image]
    if rng.random() < 0.08:
        tile = int(rng.integers(2, 7))
        out = np.asarray(cv2.createCLAHE(float(rng.uniform(1, 2.5)), (tile, tile)).apply(out), dtype=np.uint8)
    return out


def _resolution(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Lower resolution, blur or sharpening."""
    rows, columns = image.shape
    choice = rng.random()
    if choice < 0.5:
        factor = rng.uniform(0.5, 0.95)
        small = cv2.resize(image, (int(columns * factor), int(rows * factor)), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, (columns, rows), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    blurred = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.1)))
    if choice < 0.75:
        return np.asarray(blurred, dtype=np.uint8)
    amount = rng.uniform(0.3, 1.2)  # unsharp mask, as many modalities apply it
    return np.asarray(cv2.addWeighted(image, 1 + amount, blurred, -amount, 0), dtype=np.uint8)


def _noise(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Gaussian noise of 1 to 7 grey levels."""
    noise = rng.normal(0, rng.uniform(1, 7), image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _marker(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """One or two letters or words where technicians put them."""
    out = image.copy()
    rows, columns = out.shape
    for _ in range(int(rng.integers(1, 3))):
        text = str(rng.choice(MARKERS))
        size = rows / 128 * rng.uniform(0.25, 0.6)
        x = int(columns * (rng.uniform(0, 0.15) if rng.random() < 0.5 else rng.uniform(0.75, 0.95)))
        y = int(rows * (rng.uniform(0.06, 0.25) if rng.random() < 0.8 else rng.uniform(0.8, 0.98)))
        value, weight = int(rng.integers(170, 256)), int(rng.integers(1, 3))
        cv2.putText(out, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, value, weight, cv2.LINE_AA)
    return out


def _border(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Bars at the sides, as collimators and film holders leave them."""
    out = image.copy()
    value = int(rng.choice([0, 0, 0, 255, int(rng.integers(0, 256))]))
    for side in range(4):
        if rng.random() < 0.5:
            depth = int(out.shape[0] * rng.uniform(0.01, 0.09))
            np.rot90(out, side)[:depth] = value
    return out


def _occlusion(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """One grey rectangle, so that no single spot decides."""
    out = image.copy()
    rows, columns = out.shape
    height, width = (rng.uniform(0.08, 0.25, 2) * (rows, columns)).astype(int)
    y, x = int(rng.integers(0, rows - height)), int(rng.integers(0, columns - width))
    out[y : y + height, x : x + width] = int(rng.integers(0, 256))
    return out
