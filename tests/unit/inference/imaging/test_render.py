"""The display pipeline of PS3.4 N.2, case by case, against values worked out by hand."""

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from config.analysis import Polarity
from inference.imaging.render import render
from inference.records import RenderRule, WindowSource
from scp_node.demo import encodings, phantoms, sources

AUTO, DISPLAY, SEED = RenderRule.AUTO, RenderRule.DISPLAY, RenderRule.SEED


def ramp(bits=12, signed=False):
    """Every stored value once, as (64, n)."""
    low = -(1 << bits - 1) if signed else 0
    dtype = np.int16 if signed else (np.uint8 if bits == 8 else np.uint16)
    return np.arange(low, low + (1 << bits)).astype(dtype).reshape(64 if bits > 8 else 16, -1)


def image(values=None, bits=12, photometric="MONOCHROME2", **attributes):
    values = ramp(bits) if values is None else values
    window = {"WindowCenter": None, "WindowWidth": None} if "WindowCenter" not in attributes else {}
    return phantoms.cr(values, bits_stored=bits, photometric_interpretation=photometric, **window, **attributes)


def lut(first, bits, data, keyword="VOI"):
    item = Dataset()
    count = len(data)
    item.add_new("LUTDescriptor", "US", [count & 0xFFFF, first & 0xFFFF, bits])
    if count > 32767:  # too long for US in explicit VR
        item.add_new("LUTData", "OW", np.asarray(data, "<u2").tobytes())
    else:
        item.add_new("LUTData", "US", [int(value) for value in data])
    if keyword == "Modality":
        item.ModalityLUTType = "US"
    return Sequence([item])


@pytest.fixture
def shown(image_of):
    """Render a data set and return the display values, flat, with the record."""

    def show(dataset, rule=AUTO, polarity=Polarity.AUTO):
        result = render(image_of(dataset), rule, polarity)
        return result.display_values.ravel().astype(int), result

    return show


def near(values, expected, tolerance=1):
    expected = np.clip(np.asarray(expected), 0, 255)
    np.testing.assert_array_less(np.abs(values - expected), tolerance + 0.501)


X = np.arange(4096.0)


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


@pytest.mark.parametrize("uid", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_a_voi_lut_of_any_depth(bits, uid, shown):
    """More than 256 entries of 8 bits are garbage in pydicom's own pipeline."""
    curve = np.rint((np.arange(4096) / 4095) ** 2 * (2**bits - 1)).astype(int)
    dataset = image(VOILUTSequence=lut(0, bits, curve), WindowCenter=100, WindowWidth=10)
    values, result = shown(encodings.encode(dataset, uid) if uid else dataset)
    near(values, (X / 4095) ** 2 * 255, 1)
    assert result.window.source is WindowSource.VOI_LUT_SEQUENCE
    assert result.window.function == "TABLE"


def test_a_voi_lut_with_entries_packed_into_words(shown):
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 8]
    item.add_new("LUTData", "OW", (np.arange(4096) // 16).astype(np.uint8).tobytes())
    values, _ = shown(image(VOILUTSequence=Sequence([item])))
    near(values, X // 16, 0)


def test_a_voi_lut_of_65536_entries(shown):
    values, _ = shown(image(ramp(16), bits=16, VOILUTSequence=lut(0, 16, 65535 - np.arange(65536))))
    near(values, (65535 - np.arange(65536)) / 65535 * 255, 0)


def test_a_voi_lut_that_uses_more_bits_than_it_states(shown):
    values, _ = shown(image(VOILUTSequence=lut(0, 8, range(4096))))
    near(values, X / 4095 * 255, 0)


def test_a_voi_lut_that_starts_elsewhere_holds_its_ends(shown):
    values, _ = shown(image(VOILUTSequence=lut(1000, 8, range(256))))
    near(values, np.clip(X - 1000, 0, 255), 0)


def test_a_voi_lut_of_signed_values(shown):
    dataset = image(ramp(12, signed=True), VOILUTSequence=lut(-2048, 8, np.arange(4096) // 16))
    values, _ = shown(dataset)
    near(values, X // 16, 0)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_a_modality_lut_of_any_depth(bits, shown):
    """10 and 12 bits raise in pydicom's own pipeline."""
    curve = np.rint(np.sqrt(np.arange(4096) / 4095) * (2**bits - 1)).astype(int)
    dataset = image(
        ModalityLUTSequence=lut(0, bits, curve, "Modality"), WindowCenter=2 ** (bits - 1), WindowWidth=2**bits
    )
    values, _ = shown(dataset)
    near(values, curve / (2**bits - 1) * 255, 1)


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


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_damaged_table_is_passed_over_and_noted(keyword, shown):
    values, result = shown(image(bits=8, **{keyword: Sequence([Dataset()])}))
    np.testing.assert_array_equal(values, np.arange(256))
    assert any("is damaged" in note for note in result.notes)


def test_an_unknown_window_function_is_linear_and_noted(shown):
    values, result = shown(image(WindowCenter=2048, WindowWidth=4096, VOILUTFunction="CURVED"))
    near(values, X / 4095 * 255, 0)
    assert any("VOI LUT Function" in note for note in result.notes)


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


@pytest.mark.parametrize(("bits", "stated", "taken_for"), [(12, 16, 12), (12, 14, 12), (12, 13, 13), (16, 16, 16)])
def test_a_table_that_states_more_bits_than_it_uses_is_not_shown_dark(bits, stated, taken_for, shown):
    entries = np.linspace(0, 2**bits - 1, 4096).astype(int)
    values, result = shown(image(VOILUTSequence=lut(0, stated, entries)))
    near(values, 255 * entries.reshape(64, -1).ravel() / (2**taken_for - 1))
    note = "LUT Data (0028,3006) use 12 bits, fewer than stated for them"
    assert result.notes == (() if taken_for == stated else (note,))


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
