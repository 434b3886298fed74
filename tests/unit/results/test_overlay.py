"""Pictures: the heat map lies where the map says, the radiograph stays itself, words stand beside it."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from config.results import SecondaryCaptureSettings
from inference.imaging.shrink import to_size
from scp_node.demo import phantoms
from scp_node.results import canvas, captions, overlay, wording

SETTINGS = SecondaryCaptureSettings()


def grey(values):
    return np.repeat(values[:, :, None], 3, axis=2)


@pytest.fixture
def radiograph(analysis_of):
    """An analysis of a PNG: no DICOM header at all."""
    return analysis_of(None)


def test_without_evidence_the_radiograph_is_shown_as_it_is(radiograph):
    values = radiograph.image.display_values
    assert np.array_equal(overlay.blend(values, np.zeros((7, 7), np.float32), "jet", 0.4), grey(values))
    plain = overlay.single(radiograph, radiograph.predictions[1], SETTINGS)
    assert np.array_equal(plain[: values.shape[0], : values.shape[1]], grey(values))


@pytest.mark.parametrize("colormap", ["jet", "inferno", "viridis", "cividis"])
def test_colour_grows_with_saliency_and_is_nothing_at_zero(colormap):
    values = np.full((70, 256), 128, np.uint8)
    ramp = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (70, 1))
    blended = overlay.blend(values, ramp, colormap, 0.4).astype(int)
    assert (blended[:, 0] == 128).all()
    change = np.abs(blended[35] - 128).max(axis=1)
    assert change[-1] == change.max() or change[-1] > 25
    assert change[10] <= 3
    # Never more than alpha of the way from grey to the colour.
    assert np.abs(blended - 128).max() <= 0.4 * 128 + 1


def test_the_strongest_colour_is_where_the_map_is_strongest():
    """Rows down, columns to the right: the picture is neither mirrored nor turned."""
    saliency = np.zeros((7, 7), np.float32)
    saliency[1, 5] = 1
    values = np.full((700, 420), 100, np.uint8)
    change = overlay.blend(values, saliency, "jet", 0.4)[:, :, 0].astype(int) - 100
    row, column = np.unravel_index(change.argmax(), change.shape)
    assert abs(row - 150) < 30
    assert abs(column - 330) < 20
    assert (change[350:] == 0).all()
    assert (change[:, :180] == 0).all()


def test_alpha_zero_shows_the_radiograph(radiograph):
    values = radiograph.image.display_values
    assert np.array_equal(overlay.blend(values, np.ones((7, 7), np.float32), "jet", 0.0), grey(values))


def test_words_stand_beside_the_anatomy(radiograph):
    prediction = radiograph.predictions[0]
    with_words = overlay.single(radiograph, prediction, SETTINGS)
    without = overlay.single(radiograph, prediction, SETTINGS, burn_in=False)
    rows, columns = radiograph.image.display_values.shape
    assert without.shape == (rows, columns, 3)
    assert np.array_equal(with_words[:rows, :columns], without)
    strip = with_words[rows:]
    assert strip.max() > 200
    assert 0.15 < strip.shape[0] / columns < 0.3


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        (640, 560, (640, 560, 0, False, True)),
        (1955, 1841, (1955, 1841, 0, False, True)),
        (3000, 2500, (1500, 1250, 0, True, False)),
        (2500, 3001, (1250, 1500, 0, True, False)),
        (4280, 3521, (1426, 1173, 0, True, False)),
        (2049, 300, (1024, 150, 181, True, False)),
        (400, 300, (512, 384, 64, True, False)),
        (1600, 400, (1600, 400, 56, False, False)),
    ],
)
def test_geometry_of_a_single(rows, columns, expected):
    place = overlay.geometry((rows, columns), SETTINGS)
    assert (place.rows, place.columns, place.left, place.is_resampled, place.keeps_locations) == expected
    assert place.width % 2 == 0
    assert place.width >= place.left + place.columns


@pytest.mark.parametrize(
    ("rows", "columns", "aspect", "expected"),
    [
        (300, 500, 2.0, (600, 500, 6, True, False)),
        (600, 300, 0.5, (600, 600, 0, True, False)),
        (3000, 2500, 2.0, (2000, 833, 0, True, False)),
        (600, 600, 1.0005, (600, 600, 0, False, True)),
    ],
)
def test_geometry_of_a_single_whose_pixels_are_made_square(rows, columns, aspect, expected):
    place = overlay.geometry((rows, columns), SETTINGS, aspect)
    assert (place.rows, place.columns, place.left, place.is_resampled, place.keeps_locations) == expected


def disc(rows, columns):
    """A radiograph with a disc in its middle that fills most of the shorter side, given square pixels of one area."""
    y, x = np.mgrid[0:rows, 0:columns]
    return np.where(((y - rows / 2) / rows) ** 2 + ((x - columns / 2) / columns) ** 2 < 0.16, 255, 0).astype(np.uint8)


def extent(picture):
    """Rows and columns that the disc takes; words and heat map are left out of what is passed."""
    grey_values = picture.max(axis=2) > 128
    return np.ptp(np.flatnonzero(grey_values.any(axis=1))) + 1, np.ptp(np.flatnonzero(grey_values.any(axis=0))) + 1


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((300, 600), {"ImagerPixelSpacing": [0.8, 0.4]}),
        ((600, 300), {"ImagerPixelSpacing": None, "PixelAspectRatio": [1, 2]}),
        ((1500, 3000), {"PixelSpacing": [0.2, 0.1]}),
        ((250, 2500), {"ImagerPixelSpacing": None, "PixelAspectRatio": [10, 1]}),
    ],
)
def test_what_is_round_looks_round(analysis_of, shape, attributes):
    """A viewer shows pixels as squares where a picture does not say otherwise."""
    analysis = analysis_of(phantoms.cr(rows=shape[0], columns=shape[1], **attributes))
    image = dataclasses.replace(analysis.image, display_values=disc(*shape))
    analysis = dataclasses.replace(analysis, image=image)
    # The second model has no evidence: nothing is drawn over the disc.
    rows, columns = extent(overlay.single(analysis, analysis.predictions[1], SETTINGS, burn_in=False))
    assert abs(rows - columns) <= 0.01 * rows
    picture = overlay.montage(analysis, SETTINGS)
    head, gap = captions.head_height(picture.shape[1]), round(768 * 0.022)
    rows, columns = extent(picture[head + gap : head + gap + 768, 2 * gap : 2 * gap + 768])
    assert abs(rows - columns) <= 0.01 * rows
    assert rows == pytest.approx(0.8 * 768, abs=6)


def test_the_map_is_stretched_with_the_radiograph(analysis_of):
    """Row 1 of 7 and column 5 of 7 stay that, of a picture twice as high."""
    analysis = analysis_of(phantoms.cr(rows=350, columns=700, ImagerPixelSpacing=[0.8, 0.4]))
    saliency = np.zeros((7, 7), np.float32)
    saliency[1, 5] = 1
    prediction = dataclasses.replace(analysis.predictions[0], saliency=saliency)
    values = np.full((350, 700), 100, np.uint8)
    analysis = dataclasses.replace(analysis, image=dataclasses.replace(analysis.image, display_values=values))
    change = overlay.single(analysis, prediction, SETTINGS, burn_in=False)[:, :, 0].astype(int) - 100
    assert change.shape == (700, 700)
    row, column = np.unravel_index(change.argmax(), change.shape)
    assert abs(row - 150) < 30
    assert abs(column - 550) < 30


@pytest.mark.parametrize("shape", [(640, 560), (501, 701), (2100, 1801), (90, 2000), (2000, 90), (1, 1)])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_any_number_of_models_and_any_shape_gives_a_whole_picture(radiograph, shape, count):
    settings = SecondaryCaptureSettings(panel_size=256, maximum_size=512)
    image = dataclasses.replace(radiograph.image, display_values=np.full(shape, 90, np.uint8))
    predictions = (radiograph.predictions * 3)[:count]
    analysis = dataclasses.replace(radiograph, image=image, predictions=predictions)
    for picture in (overlay.montage(analysis, settings), overlay.single(analysis, predictions[0], settings)):
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert picture.shape[0] % 2 == picture.shape[1] % 2 == 0


def test_the_montage_of_three_is_two_by_two_with_the_input_first(radiograph):
    picture = overlay.montage(radiograph, SETTINGS)
    values = radiograph.image.display_values
    panel = to_size(values, 768, 672)
    height, width = picture.shape[:2]
    gap = round(768 * 0.022)
    head = captions.head_height(width)
    assert np.array_equal(picture[head + gap : head + gap + 768, 2 * gap : 2 * gap + 672], grey(panel))
    # The second model of the three has no evidence: its panel, in the second row, is the plain radiograph too.
    card = 768 + gap + captions.panel_height(672)
    top = head + card + gap + gap
    assert np.array_equal(picture[top : top + 768, 2 * gap : 2 * gap + 672], grey(panel))
    assert not np.array_equal(picture[top : top + 768, width - 2 * gap - 672 : width - 2 * gap], grey(panel))
    assert height > width * 0.9


def test_a_repeat_draws_the_same_pixels(radiograph):
    assert np.array_equal(overlay.montage(radiograph, SETTINGS), overlay.montage(radiograph, SETTINGS))


def said(monkeypatch, draw):
    """The texts that a picture shows, and the sizes they have when the picture is shown 400 pixels wide."""
    shown = {}
    original = canvas.Canvas._put

    def record(self, x, middle, text):
        width = self.pixels.shape[1]
        shown[text.text] = text.size * 400 / width
        assert x >= 0
        assert x + self.width_of(text) <= width
        original(self, x, middle, text)

    monkeypatch.setattr(canvas.Canvas, "_put", record)
    draw()
    return shown


REQUIRED = (wording.RESEARCH_USE, wording.NOT_A_DIAGNOSIS)


@pytest.mark.parametrize("shape", [(640, 560), (560, 900), (2500, 2048)])
def test_a_single_says_all_that_it_must_and_can_be_read(radiograph, monkeypatch, shape):
    image = dataclasses.replace(radiograph.image, display_values=np.zeros(shape, np.uint8))
    analysis = dataclasses.replace(radiograph, image=image)
    for prediction, expected in zip(
        analysis.predictions,
        (
            ("ResNet18", "87.34 %", "POSITIVE", "Probability of pneumonia, threshold 25 %"),
            ("EfficientNet-B0", "4.32 %", "negative", "Grad-CAM: no positive evidence"),
            ("DenseNet121", "31.00 %", "POSITIVE", "Probability of pneumonia, site threshold 18 %"),
        ),
        strict=True,
    ):
        shown = said(monkeypatch, lambda prediction=prediction: overlay.single(analysis, prediction, SETTINGS))
        for text in (*REQUIRED, "version 1.0.0", wording.software(), *expected):
            assert shown[text] >= 10, text
        assert ("Grad-CAM saliency  low" in shown) == prediction.has_evidence


@pytest.mark.parametrize("shape", [(640, 560), (560, 900)])
def test_the_montage_says_all_that_it_must_and_can_be_read(radiograph, monkeypatch, shape):
    image = dataclasses.replace(radiograph.image, display_values=np.zeros(shape, np.uint8))
    analysis = dataclasses.replace(radiograph, image=image)
    shown = said(monkeypatch, lambda: overlay.montage(analysis, SETTINGS))
    for text in (
        *REQUIRED,
        "Probability of pneumonia",
        "Input radiograph",
        "2 of 3 models at or above threshold",
        "ResNet18",
        "EfficientNet-B0",
        "DenseNet121",
        "87.34 %",
        "4.32 %",
        "31.00 %",
        "threshold 25 %",
        "threshold 15 %",
        "site threshold 18 %",
        "POSITIVE",
        "negative",
    ):
        assert shown[text] >= 10, text
    for text in ("version 1.0.0", "Grad-CAM: no positive evidence", "the image's own window 2048 / 4096"):
        assert shown[text] >= 7, text


def test_long_names_shrink_instead_of_running_out_of_the_picture(radiograph, monkeypatch):
    long = dataclasses.replace(
        radiograph.predictions[0], title="A network with a very long name " * 4, version="9" * 64
    )
    analysis = dataclasses.replace(radiograph, predictions=(long,) * 3)
    said(monkeypatch, lambda: overlay.montage(analysis, SETTINGS))
    said(monkeypatch, lambda: overlay.single(analysis, long, SETTINGS))


def test_the_font_needs_no_system_font():
    assert canvas.font(24).getname()[0] == "Aileron"
    picture = canvas.Canvas(np.zeros((40, 200, 3), np.uint8))
    picture.line(0, 200, 20, [canvas.Text(text="Text", size=24)], [])
    edges = np.unique(picture.pixels)
    assert len(edges) > 10, "text is not anti-aliased"
    assert Image.fromarray(picture.pixels).size == (200, 40)
