"""The explorer's picture of a radiograph has square pixels, as the node's own pictures have."""

import base64
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from inference.imaging.source import read_header
from scp_node.demo.phantoms import cr
from scp_node.jobs.explore import _Findings, _picture


def picture_of(folder, size, **attributes):
    dataset = cr(rows=512, columns=480, **attributes)
    return _shown(folder, dataset, size)


def _shown(folder, dataset, size):
    file = folder / "cr.dcm"
    dataset.save_as(file, enforce_file_format=True)
    image = SimpleNamespace(display_values=np.zeros((dataset.Rows, dataset.Columns), np.uint8))
    return _picture(_Findings(header=read_header(file, "cr.dcm"), image=image), size)


@pytest.mark.parametrize(
    ("spacing", "rows", "columns"),
    [
        (None, 512, 480),
        ([0.1, 0.1], 512, 480),
        ([0.2, 0.1], 1024, 480),
        ([0.1, 0.2], 512, 960),
    ],
)
@pytest.mark.parametrize("size", [2048, 256])
def test_pixels_are_square(tmp_path, spacing, rows, columns, size):
    shown = picture_of(tmp_path, size, PixelSpacing=spacing, ImagerPixelSpacing=spacing)
    factor = min(1, size / max(rows, columns))
    assert (shown["rows"], shown["columns"]) == (round(rows * factor), round(columns * factor))
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(shown["png"]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded.shape[:2] == (shown["rows"], shown["columns"])


@pytest.mark.parametrize("spacing", [b"wide\\0.1", b"9e999\\9e999 ", b"9e999\\9e307 "])
def test_a_spacing_that_is_no_number_is_none(tmp_path, spacing):
    """A Decimal String may be larger than any float."""
    dataset = cr(rows=512, columns=480)
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        tag = Tag(keyword)
        dataset[tag] = RawDataElement(tag, "DS", len(spacing), spacing, 0, False, True)
    shown = _shown(tmp_path, dataset, 2048)
    assert (shown["rows"], shown["columns"]) == (512, 480)
