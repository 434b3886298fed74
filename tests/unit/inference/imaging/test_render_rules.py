"""The rule seed is its formula, and Hounsfield Units have the lung window, where they are any."""

import numpy as np
import pytest
from ramps import image, ramp

from inference.records import RenderRule, WindowSource

DISPLAY, SEED = RenderRule.DISPLAY, RenderRule.SEED


def seed_formula(stored, slope=None, intercept=None):
    values = stored.astype(np.float32)
    if slope is not None:
        values = values * slope + intercept
    return (np.clip((values + 360) / 800, 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize(("slope", "intercept"), [(None, None), (1, -1024), (0.5, -300.5)])
def test_the_rule_seed_is_the_formula_bit_for_bit(slope, intercept, shown):
    attributes = {} if slope is None else {"RescaleSlope": slope, "RescaleIntercept": intercept}
    dataset = image(photometric="MONOCHROME1", WindowCenter=5, WindowWidth=9, PixelPaddingValue=0, **attributes)
    values, result = shown(dataset, SEED)
    np.testing.assert_array_equal(values, seed_formula(ramp(), slope, intercept).ravel())
    assert (result.window.source, result.is_inverted) == (WindowSource.SEED, False)


def test_the_rule_seed_says_when_the_picture_is_lost(shown):
    values, result = shown(image(np.clip(ramp(), 1000, 4000)), SEED)
    assert values.min() == 255
    assert any("rule seed: 100 %" in note for note in result.notes)


@pytest.mark.parametrize(("modality", "rescale_type"), [("CR", "HU"), ("CT", "HU"), ("CT", None)])
def test_hounsfield_units_get_the_lung_window(modality, rescale_type, shown):
    stored = (500 + ramp().astype(int) * 1000 // 4096).astype(np.uint16)
    dataset = image(
        stored,
        Modality=modality,
        RescaleType=rescale_type,
        RescaleSlope=1,
        RescaleIntercept=-1024,
        WindowCenter=9,
        WindowWidth=9,
    )
    values, result = shown(dataset)
    np.testing.assert_array_equal(values, seed_formula(stored, 1, -1024).ravel())
    assert result.window.source is WindowSource.LUNG_HU
    assert shown(dataset, DISPLAY)[1].window.source is WindowSource.WINDOW_ATTRIBUTES


def test_a_radiograph_that_hounsfield_units_would_hide_has_its_own_window(shown):
    """Some say HU of detector values: in the lung window they are white all over."""
    units = {"RescaleType": "HU", "RescaleSlope": 1, "RescaleIntercept": 0}
    dataset = image(**units, WindowCenter=2048, WindowWidth=4096)
    values, result = shown(dataset)
    assert result.window.source is WindowSource.WINDOW_ATTRIBUTES
    note = "Rescale Type (0028,1054) is HU, but 89 % of the pixels are outside the lung window: not used"
    assert note in result.notes
    np.testing.assert_array_equal(values, shown(image(WindowCenter=2048, WindowWidth=4096))[0])
    # Air and lungs of a CT slice are outside, and meant to be.
    assert shown(image(Modality="CT", **units))[1].window.source is WindowSource.LUNG_HU


@pytest.mark.parametrize(("modality", "rescale_type"), [("CR", None), ("CR", "US"), ("DX", "US"), ("CT", "US")])
def test_radiographs_have_no_hounsfield_units(modality, rescale_type, shown):
    dataset = image(
        Modality=modality,
        RescaleType=rescale_type,
        RescaleSlope=1,
        RescaleIntercept=0,
        WindowCenter=40,
        WindowWidth=800,
    )
    assert shown(dataset)[1].window.source is WindowSource.WINDOW_ATTRIBUTES


def test_hounsfield_units_without_rescale_are_none(shown):
    assert shown(image(RescaleType="HU"))[1].window.source is WindowSource.PERCENTILES
