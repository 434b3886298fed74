"""The display pipeline of PS3.4 N.2, case by case, against values worked out by hand."""

import numpy as np
import pytest
from ramps import X, image, near, ramp

from config.analysis import Polarity
from inference.imaging.render import render
from inference.records import RenderRule, WindowSource
from scp_node.demo import phantoms, sources

AUTO = RenderRule.AUTO


def test_eight_bits_without_voi_are_shown_as_they_are(shown):
    values, result = shown(image(bits=8))
    np.testing.assert_array_equal(values, np.arange(256))
    assert result.window.source is WindowSource.FULL_RANGE
    assert result.notes == ()


def test_monochrome1_is_inverted_once(shown):
    values, result = shown(image(bits=8, photometric="MONOCHROME1"))
    np.testing.assert_array_equal(values, 255 - np.arange(256))
    assert result.is_inverted


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (None, ((X - 1499.5) / 999 + 0.5) * 255),
        ("LINEAR", ((X - 1499.5) / 999 + 0.5) * 255),
        ("LINEAR_EXACT", ((X - 1500) / 1000 + 0.5) * 255),
        ("SIGMOID", 255 / (1 + np.exp(-4 * (X - 1500) / 1000))),
    ],
)
def test_window_functions(function, expected, shown):
    values, result = shown(image(WindowCenter=1500, WindowWidth=1000, VOILUTFunction=function))
    near(values, expected, 0)
    assert result.window.source is WindowSource.WINDOW_ATTRIBUTES
    assert (result.window.center, result.window.width) == (1500, 1000)
    assert result.window.function == (function or "LINEAR")


def test_a_window_of_width_one_is_a_step(shown):
    values, _ = shown(image(WindowCenter=2000, WindowWidth=1))
    np.testing.assert_array_equal(values, np.where(X > 1999.5, 255, 0))


def test_the_first_of_several_windows_counts(shown):
    values, result = shown(image(WindowCenter=[1500, 3000], WindowWidth=[1000, 100]))
    near(values, ((X - 1499.5) / 999 + 0.5) * 255, 0)
    assert result.window.center == 1500


def test_a_negative_slope_inverts(shown):
    """pydicom's own pipeline does not show this as the standard says."""
    values, _ = shown(image(RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2048, WindowWidth=4096))
    near(values, (4095 - X) / 4095 * 255, 0)


def test_a_negative_slope_of_eight_bits_without_voi_inverts(shown):
    values, _ = shown(image(bits=8, RescaleSlope=-1, RescaleIntercept=255))
    np.testing.assert_array_equal(values, 255 - np.arange(256))


def test_a_fractional_slope(shown):
    values, _ = shown(image(RescaleSlope="0.25", RescaleIntercept=-100, WindowCenter=400, WindowWidth=600))
    near(values, ((X * 0.25 - 100 - 399.5) / 599 + 0.5) * 255, 0)


def test_signed_values(shown):
    values, _ = shown(image(ramp(12, signed=True), WindowCenter=0, WindowWidth=2000))
    near(values, ((np.arange(-2048, 2048) + 0.5) / 1999 + 0.5) * 255, 0)


@pytest.mark.parametrize(
    ("photometric", "shape", "polarity", "inverted", "noted"),
    [
        ("MONOCHROME1", "INVERSE", Polarity.AUTO, True, False),
        ("MONOCHROME2", "IDENTITY", Polarity.AUTO, False, False),
        ("MONOCHROME1", None, Polarity.AUTO, True, False),
        ("MONOCHROME2", None, Polarity.AUTO, False, False),
        ("MONOCHROME1", "NONSENSE", Polarity.AUTO, True, False),
        ("MONOCHROME1", "IDENTITY", Polarity.AUTO, False, True),
        ("MONOCHROME2", "INVERSE", Polarity.AUTO, True, True),
        ("MONOCHROME1", "IDENTITY", Polarity.PHOTOMETRIC, True, True),
        ("MONOCHROME2", "INVERSE", Polarity.PHOTOMETRIC, False, True),
        ("MONOCHROME1", "IDENTITY", Polarity.SHAPE, False, True),
        ("MONOCHROME1", None, Polarity.SHAPE, False, False),
    ],
)
def test_polarity(photometric, shape, polarity, inverted, noted, shown):  # noqa: PLR0917 - a table's columns
    dataset = image(bits=8, photometric=photometric, PresentationLUTShape=shape)
    values, result = shown(dataset, AUTO, polarity)
    np.testing.assert_array_equal(values, 255 - np.arange(256) if inverted else np.arange(256))
    assert result.is_inverted == inverted
    assert any("Presentation LUT Shape" in note for note in result.notes) == noted


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_whatever_the_polarity(photometric, shown):
    dataset = image(photometric=photometric, WindowCenter=2048, WindowWidth=4096, PixelPaddingValue=1500)
    values, _ = shown(dataset)
    assert values[1500] == 0
    assert 0 < values[1499] < 255
    dataset = image(
        photometric=photometric,
        WindowCenter=2048,
        WindowWidth=4096,
        PixelPaddingValue=1600,
        PixelPaddingRangeLimit=1500,
    )
    values, _ = shown(dataset)
    assert values[1500:1601].max() == 0
    assert min(values[1499], values[1601]) > 0


def test_signed_padding(shown):
    values, _ = shown(
        image(
            ramp(12, signed=True), WindowCenter=0, WindowWidth=9000, PixelPaddingValue=-2048, photometric="MONOCHROME1"
        )
    )
    assert values[0] == 0
    assert values[1] > 100


def test_signed_padding_written_as_unsigned(shown):
    dataset = image(ramp(12, signed=True), WindowCenter=0, WindowWidth=9000)
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    values, _ = shown(dataset)
    assert values[48] == 0
    assert values[47] > 10


def test_padding_does_not_move_the_percentiles(shown):
    chest = phantoms.chest_array(200, 200).astype(np.uint16)
    plain, _ = shown(image(np.clip(chest, 1, 4095)))
    padded = np.clip(chest, 1, 4095)
    padded[:, :80] = 0
    values, result = shown(image(padded, PixelPaddingValue=0))
    assert result.window.source is WindowSource.PERCENTILES
    assert values.reshape(200, 200)[:, :80].max() == 0
    assert abs(values.reshape(200, 200)[:, 120:].mean() - plain.reshape(200, 200)[:, 120:].mean()) < 12


def test_more_than_eight_bits_without_voi_take_percentiles(shown):
    values, result = shown(image())
    assert result.window.source is WindowSource.PERCENTILES
    near(values, (X - 20) / (4075 - 20) * 255, 1)


def test_percentiles_of_a_negative_give_the_negative(shown):
    chest = phantoms.chest_array(200, 200)
    values, _ = shown(image(chest))
    negative, _ = shown(image(4095 - chest, photometric="MONOCHROME1"))
    np.testing.assert_allclose(values, negative, atol=1)


def test_raw_detector_data_are_shown_with_white_bones(image_of):
    raw = render(image_of(phantoms.dx_for_processing()), AUTO)
    chest = render(image_of(phantoms.dx()), AUTO)
    assert raw.is_inverted
    assert any("raw detector data" in note for note in raw.notes)
    correlation = np.corrcoef(raw.display_values.ravel(), chest.display_values.ravel())[0, 1]
    assert correlation > 0.95


def test_the_sign_of_raw_detector_data_decides_not_the_photometric_interpretation(image_of):
    same = phantoms.dx_for_processing(PhotometricInterpretation="MONOCHROME2", PresentationLUTShape="IDENTITY")
    assert render(image_of(same), AUTO).is_inverted


def test_grey_stored_as_colour_has_no_window(shown):
    grey = ramp(8)
    dataset = phantoms.secondary_capture(
        np.repeat(grey[..., None], 3, axis=2), photometric_interpretation="RGB", WindowCenter=5, WindowWidth=3
    )
    np.testing.assert_array_equal(shown(dataset)[0], np.arange(256))


@pytest.mark.parametrize("value", [0, 7, 4095])
def test_a_constant_picture_gives_a_constant_picture(value, shown):
    values, _ = shown(image(np.full((64, 64), value, np.uint16)))
    assert np.ptp(values) == 0


@pytest.mark.parametrize("name", sources.SOURCES)
def test_all_sources_show_bones_white_without_notes(name, image_of):
    result = render(image_of(sources.SOURCES[name]()), AUTO)
    rows, columns = result.display_values.shape
    heart = result.display_values[int(0.6 * rows) : int(0.68 * rows), int(0.54 * columns) : int(0.6 * columns)]
    lung = result.display_values[int(0.4 * rows) : int(0.5 * rows), int(0.24 * columns) : int(0.34 * columns)]
    assert heart.mean() > lung.mean() + 60
    assert result.notes == ()
