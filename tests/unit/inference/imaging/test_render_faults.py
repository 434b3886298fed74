"""What a header gets wrong is passed over and noted, and keeps no radiograph from being shown."""

import numpy as np
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from ramps import X, image, near

from inference.imaging.render import render
from inference.records import RenderRule, WindowSource

AUTO = RenderRule.AUTO


@pytest.mark.parametrize("center", [-5000, 50000])
def test_a_window_that_hides_the_picture_is_replaced_and_noted(center, shown):
    values, result = shown(image(WindowCenter=center, WindowWidth=100))
    assert result.window.source is WindowSource.PERCENTILES
    assert values.std() > 50
    assert any("one end of the image's own window" in note for note in result.notes)


@pytest.mark.parametrize(
    ("center", "width"), [(100, 0), (100, -50), ("", 100), (100, ""), (None, 300), (100, "1e300"), (100, 0.5)]
)
def test_an_unusable_window_is_passed_over_and_noted(center, width, shown):
    dataset = image()
    dataset.WindowCenter = center
    dataset.WindowWidth = width
    values, result = shown(dataset)
    assert result.window.source is WindowSource.PERCENTILES
    assert values.std() > 50
    assert any("Window Center" in note for note in result.notes)


@pytest.mark.parametrize("raw", [b"nan ", b"inf ", b"1,5 ", b"abc "])
def test_a_window_that_is_no_number_is_passed_over(raw, store):
    from inference.imaging.source import read_header, read_pixels

    file = store(image(WindowCenter="1234", WindowWidth=400))
    data = file.read_bytes()
    assert data.count(b"DS\x04\x001234") == 1
    file.write_bytes(data.replace(b"DS\x04\x001234", b"DS\x04\x00" + raw))
    result = render(read_pixels(read_header(file)), AUTO)
    assert result.window.source is WindowSource.PERCENTILES
    assert any("Window Center" in note for note in result.notes)


@pytest.mark.parametrize(("slope", "intercept"), [(0, 5), (None, 5), (2, None), ("", 5)])
def test_an_unusable_rescale_is_passed_over_and_noted(slope, intercept, shown):
    dataset = image(bits=8)
    if slope is not None:
        dataset.RescaleSlope = slope
    if intercept is not None:
        dataset.RescaleIntercept = intercept
    values, result = shown(dataset)
    np.testing.assert_array_equal(values, np.arange(256))
    assert any("Rescale Slope" in note for note in result.notes)


def test_an_unknown_window_function_is_linear_and_noted(shown):
    values, result = shown(image(WindowCenter=2048, WindowWidth=4096, VOILUTFunction="CURVED"))
    near(values, X / 4095 * 255, 0)
    assert any("VOI LUT Function" in note for note in result.notes)


def test_overlay_graphics_that_are_not_drawn_are_noted(shown):
    dataset = image()
    dataset.add_new(0x60020040, "CS", "R")
    dataset.add_new(0x60023000, "OW", b"\1\0")
    assert shown(dataset)[1].notes == ()
    dataset[0x60020040].value = "G"
    assert shown(dataset)[1].notes == ("Overlay Data (6002,3000) are graphics that results do not show",)


@pytest.mark.parametrize(("tag", "vr"), [(0x60000040, "US"), (0x60003000, "US"), (0x60003000, "FD")])
def test_overlays_of_another_type_than_is_legal_keep_no_radiograph_from_being_shown(tag, vr, image_of):
    subject = image_of(image())
    for one, kind in ((0x60000040, "CS"), (0x60003000, "OW"), (tag, vr)):
        raw = RawDataElement(Tag(one), kind, 3, b"G \1", 0, is_implicit_VR=False, is_little_endian=True)
        subject.header.dataset[Tag(one)] = raw
    assert render(subject, AUTO).display_values.shape == (64, 64)
