"""The part of a radiograph that its Display Shutter lets be seen (PS3.3 C.7.6.11): what lies outside is collimation.

Changes no pixel itself. The models were trained on pictures as they are looked at; what a viewer hides, they must not
see either.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from inference.imaging.attributes import is_present, numbers, words

_SMALLEST_SHARE = 0.05
"""Of the picture: a shutter that leaves less hides what it should show."""

Visible = NDArray[np.uint8]
"""(rows, columns) uint8, 255 where the picture is to be seen and 0 elsewhere."""


def visible_part(dataset: Dataset, rows: int, columns: int) -> tuple[Visible | None, tuple[str, ...]]:
    """Read Shutter Shape (0018,1600) and what belongs to it; several shapes hide what lies outside any of them.

    Returns
    -------
    Visible or None
        None where everything is visible: no shutter, or none that can be used.
    tuple of str
        What was applied, or damaged and passed over.
    """
    if not is_present(dataset, "ShutterShape"):
        return None, ()
    shapes = words(dataset, "ShutterShape")
    visible = np.full((rows, columns), 255, dtype=np.uint8)
    for shape in shapes:
        draw = _SHAPES.get(shape)
        inside = None if draw is None else draw(dataset, rows, columns)
        if inside is None:
            return None, ("Display Shutter (0018,1600) is damaged or of an unknown shape and was passed over",)
        visible &= inside
    share = cv2.countNonZero(visible) / visible.size
    if share == 1:
        return None, ()
    if share < _SMALLEST_SHARE:
        return None, (f"Display Shutter (0018,1600) leaves {100 * share:.1f} % of the picture: passed over",)
    hidden = 100 - 100 * share
    return visible, (f"Display Shutter (0018,1600) hides {hidden:.0f} % of the picture: shown black, not looked at",)


def _rectangle(dataset: Dataset, rows: int, columns: int) -> Visible | None:
    """Edges are columns and rows, counted from 1; the pixels on them are visible. They may lie outside the picture."""
    edges = []
    for keyword in (
        "ShutterLeftVerticalEdge",
        "ShutterRightVerticalEdge",
        "ShutterUpperHorizontalEdge",
        "ShutterLowerHorizontalEdge",
    ):
        found = numbers(dataset, keyword)
        if len(found) != 1:
            return None
        edges.append(round(found[0]))
    left, right, upper, lower = edges
    if left >= right or upper >= lower:
        return None
    inside = np.zeros((rows, columns), dtype=np.uint8)
    inside[max(upper - 1, 0) : max(lower, 0), max(left - 1, 0) : max(right, 0)] = 255
    return inside


def _circle(dataset: Dataset, rows: int, columns: int) -> Visible | None:
    """The center is row and column, the radius in pixels along a row."""
    center, radius = numbers(dataset, "CenterOfCircularShutter"), numbers(dataset, "RadiusOfCircularShutter")
    if len(center) != 2 or len(radius) != 1 or radius[0] <= 0:
        return None
    y, x = np.ogrid[1 : rows + 1, 1 : columns + 1]
    return np.where((y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius[0] ** 2, np.uint8(255), np.uint8(0))


def _polygon(dataset: Dataset, rows: int, columns: int) -> Visible | None:
    """Vertices are row and column in turns; the last one is joined to the first."""
    found = numbers(dataset, "VerticesOfThePolygonalShutter")
    if len(found) < 6 or len(found) % 2 or max(map(abs, found)) > 1 << 20:
        return None
    corners = np.array([(x - 1, y - 1) for y, x in zip(found[::2], found[1::2], strict=True)])
    inside = np.zeros((rows, columns), dtype=np.uint8)
    cv2.fillPoly(inside, [np.rint(corners).astype(np.int32)], 255)
    return inside


_SHAPES = {"RECTANGULAR": _rectangle, "CIRCULAR": _circle, "POLYGONAL": _polygon}
