"""What a Display Shutter hides is black and counts for nothing, as in a viewer (PS3.3 C.7.6.11)."""

import numpy as np
import pytest

from inference.imaging.eligibility import check_quality
from inference.imaging.render import render
from inference.records import RenderRule, WindowSource
from scp_node.demo import phantoms

ROWS, COLUMNS = 60, 40
RECTANGLE = {
    "ShutterShape": "RECTANGULAR",
    "ShutterLeftVerticalEdge": 11,
    "ShutterRightVerticalEdge": 30,
    "ShutterUpperHorizontalEdge": 21,
    "ShutterLowerHorizontalEdge": 50,
}


@pytest.fixture
def shown(image_of):
    """Display values and notes of a picture that is bright everywhere."""

    def show(rule=RenderRule.AUTO, photometric="MONOCHROME2", values=None, **attributes):
        values = np.full((ROWS, COLUMNS), 3000, np.uint16) if values is None else values
        window = {"WindowCenter": 2048, "WindowWidth": 4096} | attributes
        dataset = phantoms.cr(values, bits_stored=12, photometric_interpretation=photometric, **window)
        found = render(image_of(dataset), rule)
        return found.display_values, found

    return show


def test_the_pixels_on_the_edges_of_a_rectangle_are_visible(shown):
    values, found = shown(**RECTANGLE)
    expected = np.zeros((ROWS, COLUMNS), bool)
    expected[20:50, 10:30] = True
    np.testing.assert_array_equal(values > 0, expected)
    assert found.notes == ("Display Shutter (0018,1600) hides 75 % of the picture: shown black, not looked at",)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_what_is_hidden_is_black_whatever_the_polarity(photometric, shown):
    values, _ = shown(photometric=photometric, **RECTANGLE)
    assert values[0, 0] == 0
    assert 0 < values[30, 20] < 255


def test_edges_may_lie_outside_the_picture(shown):
    edges = {"ShutterLeftVerticalEdge": 0, "ShutterRightVerticalEdge": COLUMNS + 1, "ShutterLowerHorizontalEdge": 999}
    values, _ = shown(**RECTANGLE | edges)
    assert (values[20:] > 0).all()
    assert (values[:20] == 0).all()


def test_a_shutter_that_hides_nothing_is_not_mentioned(shown):
    edges = dict(zip(list(RECTANGLE)[1:], (1, COLUMNS, 1, ROWS), strict=True))
    values, found = shown(**RECTANGLE | edges)
    assert (values > 0).all()
    assert found.notes == ()


def test_a_circle_is_row_column_and_radius(shown):
    values, _ = shown(ShutterShape="CIRCULAR", CenterOfCircularShutter=[31, 11], RadiusOfCircularShutter=10)
    row, column = np.mgrid[1 : ROWS + 1, 1 : COLUMNS + 1]
    np.testing.assert_array_equal(values > 0, (row - 31) ** 2 + (column - 11) ** 2 <= 100)


def test_a_polygon_is_rows_and_columns_in_turns(shown):
    corners = [21, 11, 21, 30, 50, 30, 50, 11]
    values, _ = shown(ShutterShape="POLYGONAL", VerticesOfThePolygonalShutter=corners)
    np.testing.assert_array_equal(values, shown(**RECTANGLE)[0])


def test_of_several_shapes_only_what_is_inside_all_is_visible(shown):
    circle = {"CenterOfCircularShutter": [21, 11], "RadiusOfCircularShutter": 15}
    values, _ = shown(**RECTANGLE | circle | {"ShutterShape": ["RECTANGULAR", "CIRCULAR"]})
    alone = shown(ShutterShape="CIRCULAR", **circle)[0] & shown(**RECTANGLE)[0]
    np.testing.assert_array_equal(values, alone)


@pytest.mark.parametrize(
    "attributes",
    [
        {"ShutterShape": "BITMAP"},
        {"ShutterLeftVerticalEdge": 31},
        {"ShutterUpperHorizontalEdge": None},
        {"ShutterShape": "CIRCULAR"},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [1, 2], "RadiusOfCircularShutter": 0},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 2, 3, 4]},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 2, 3, 4, 5]},
    ],
)
def test_a_damaged_shutter_hides_nothing_and_is_noted(attributes, shown):
    values, found = shown(**RECTANGLE | attributes)
    assert (values > 0).all()
    assert found.notes == ("Display Shutter (0018,1600) is damaged or of an unknown shape and was passed over",)


def test_a_shutter_that_leaves_next_to_nothing_is_passed_over(shown):
    values, found = shown(**RECTANGLE | {"ShutterRightVerticalEdge": 12})
    assert (values > 0).all()
    assert found.notes == ("Display Shutter (0018,1600) leaves 2.5 % of the picture: passed over",)


def test_what_is_hidden_does_not_move_the_window(shown, image_of):
    """Without a window of its own a radiograph is shown from darkest to brightest: of what is to be seen."""
    rng = np.random.default_rng(1)
    values = np.full((ROWS, COLUMNS), 4095, np.uint16)
    values[20:50, 10:30] = rng.integers(500, 1000, (30, 20))
    window = {"WindowCenter": None, "WindowWidth": None}
    found = shown(values=values, **window, **RECTANGLE)[1]
    assert found.window.source is WindowSource.PERCENTILES
    assert 500 <= found.window.center - found.window.width / 2 < found.window.center + found.window.width / 2 <= 1000


def test_the_first_versions_formula_knows_no_shutter(shown):
    np.testing.assert_array_equal(shown(RenderRule.SEED, **RECTANGLE)[0], shown(RenderRule.SEED)[0])


def test_a_chest_behind_a_shutter_is_judged(image_of):
    dataset = phantoms.cr()
    rows, columns = dataset.Rows, dataset.Columns
    edges = (columns // 10, columns - columns // 10, rows // 10, rows - rows // 10)
    for keyword, edge in zip(list(RECTANGLE)[1:], edges, strict=True):
        setattr(dataset, keyword, edge)
    dataset.ShutterShape = "RECTANGULAR"
    found = render(image_of(dataset), RenderRule.AUTO)
    assert check_quality(found) is None
    assert found.display_values[0, 0] == 0
