"""Pictures of an analysis: the heat map over the radiograph, one by one or side by side; needs no DICOM header.

Their pixels are square, whatever the radiograph's are: captions are part of them, and a viewer that knows no Pixel
Aspect Ratio shows them right too.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, isfinite, sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

from config.results import SecondaryCaptureSettings
from inference.imaging.shrink import by_whole_factor, to_size
from inference.records import Analysis, Prediction, SourceHeader
from scp_node.results import captions, context
from scp_node.results.canvas import Canvas

SMALLEST_SIDE = 512
"""Longest side of a single in pixels at least, so that its caption can be read."""

SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
"""Of rows and of columns (PS3.3 10.7.1.3), in the order in which they are asked."""
MAXIMUM_ASPECT = 10.0
"""Pixels that are longer or wider are a mistake in the header, and count as square."""

COLORMAPS = {
    "jet": cv2.COLORMAP_JET,
    "inferno": cv2.COLORMAP_INFERNO,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "cividis": cv2.COLORMAP_CIVIDIS,
}
ENDS = {"jet": 0.89, "inferno": 0.82}
"""Share of a colour map that is used, 1 for others: jet ends in dark red and inferno in pale yellow, and over a
radiograph both look weaker than the colour before them."""

GREY_UNDER_BAR = 128
"""What the colour bar is blended over, so that it shows the colours as they look on a radiograph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Where the radiograph lies in a single.

    Parameters
    ----------
    rows, columns
        Of the radiograph as drawn.
    left
        Offset of its first column; its first row is the picture's.
    width
        Of the whole picture.
    factor
        Rows and columns of the radiograph that make one of the picture; 1 if its pixels are not square.
    """

    rows: int
    columns: int
    left: int
    width: int
    factor: int
    is_resampled: bool

    @property
    def keeps_locations(self) -> bool:
        """Whether a pixel of the radiograph has the same row and column in the picture."""
        return not self.is_resampled and self.left == 0


def pixel_aspect(header: SourceHeader) -> float:
    """Height of a pixel over its width; 1 where the source does not say.

    Pixel Aspect Ratio (0028,0034) counts where no spacing is known (PS3.3 C.7.6.3.1.7).
    """
    for keyword in (*SPACINGS, "PixelAspectRatio") if header.dataset is not None else ():
        values = context.text(header.dataset, keyword).split("\\")
        if len(values) == 2 and all(values):
            vertical, horizontal = map(float, values)
            longest, shortest = max(vertical, horizontal), min(vertical, horizontal)
            # A Decimal String may be larger than any float.
            if isfinite(longest) and 0 < longest <= MAXIMUM_ASPECT * shortest:
                return vertical / horizontal
    return 1.0


def geometry_of(analysis: Analysis, settings: SecondaryCaptureSettings) -> Geometry:
    """Geometry of the singles of an analysis."""
    return geometry(analysis.image.display_values.shape, settings, pixel_aspect(analysis.header))


def geometry(shape: tuple[int, ...], settings: SecondaryCaptureSettings, aspect: float = 1.0) -> Geometry:
    """Geometry of a single for a radiograph of this size, and of pixels as ``pixel_aspect`` gives them."""
    sides = square(shape, aspect)
    longest, smallest = max(sides), min(SMALLEST_SIDE, settings.maximum_size)
    factor = ceil(longest / settings.maximum_size)
    # By a whole factor: each pixel is the mean of a block of the radiograph's, none is mixed from parts.
    drawn_rows, drawn_columns = (max(1, side // factor) for side in sides)
    if longest < smallest:
        drawn_rows, drawn_columns = (_even(max(1, round(side * smallest / longest))) for side in sides)
    width = _even(max(drawn_columns, smallest))
    # A single odd column more at the right keeps locations; a narrow radiograph is centred instead.
    left = 0 if width - drawn_columns <= 1 else (width - drawn_columns) // 2
    are_square = sides == tuple(shape)
    return Geometry(
        rows=drawn_rows,
        columns=drawn_columns,
        left=left,
        width=width,
        factor=factor if are_square else 1,
        is_resampled=factor > 1 or longest < smallest or not are_square,
    )


def blend(
    display_values: NDArray[np.uint8],
    saliency: NDArray[np.float32],
    colormap: str,
    alpha: float,
    *,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Lay a heat map over a radiograph; where saliency is low the radiograph shows as it is.

    Parameters
    ----------
    display_values
        (rows, columns) uint8, 255 = white.
    saliency
        (any rows, any columns) float32 in [0, 1], over the whole radiograph.
    alpha
        Share of the colour where saliency is 1; it falls with the saliency.
    out
        (rows, columns, 3) uint8, a part of a larger picture for example: drawn there.

    Returns
    -------
    (rows, columns, 3) uint8 RGB
    """
    rows, columns = display_values.shape
    picture = np.empty((rows, columns, 3), np.uint8) if out is None else out
    if not saliency.any():
        cv2.merge([display_values] * 3, dst=picture)
        return picture
    # Cubic interpolation shows no squares, but overshoots; saturation takes that back. In 8 bits: of 255 levels the
    # result differs by one at most from interpolation in float32, which takes forty times as long.
    levels = np.round(saliency * 255).astype(np.uint8)
    index = cv2.resize(levels, (columns, rows), interpolation=cv2.INTER_CUBIC)
    # Both bytes of a pixel beside each other are its place in the table.
    both = cv2.merge([display_values, index]).view("<u2")[:, :, 0]
    cv2.merge([cv2.LUT(both, table) for table in _blended(colormap, alpha)], dst=picture)
    return picture


def colour_bar(settings: SecondaryCaptureSettings) -> NDArray[np.uint8]:
    """The colours of saliency 0 to 1 as ``blend`` draws them on grey; (256, 3) uint8 RGB."""
    channels = _blended(settings.colormap, settings.alpha)
    return np.stack([table.reshape(256, 256)[:, GREY_UNDER_BAR] for table in channels], axis=1)


def drawn(analysis: Analysis, settings: SecondaryCaptureSettings) -> NDArray[np.uint8]:
    """Return the radiograph at the size of the singles, which all share it: (rows, columns) uint8."""
    place = geometry_of(analysis, settings)
    return _resampled(by_whole_factor(analysis.image.display_values, place.factor), place.rows, place.columns)


def single(
    analysis: Analysis,
    prediction: Prediction,
    settings: SecondaryCaptureSettings,
    burn_in: bool = True,
    *,
    radiograph: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Draw one model's heat map over the radiograph, with a caption below it.

    Parameters
    ----------
    radiograph
        What ``drawn`` returns, for who draws several; None: made here.
    burn_in
        Whether to add the caption; without it the radiograph fills the picture.

    Returns
    -------
    (rows, columns, 3) uint8 RGB; both sizes even when there is a caption.
    """
    place = geometry_of(analysis, settings)
    radiograph = drawn(analysis, settings) if radiograph is None else radiograph
    if not burn_in:
        return blend(radiograph, prediction.saliency, settings.colormap, settings.alpha)
    whole = np.zeros((_even(place.rows + captions.single_height(place.width)), place.width, 3), np.uint8)
    picture = whole[: place.rows, place.left : place.left + place.columns]
    blend(radiograph, prediction.saliency, settings.colormap, settings.alpha, out=picture)
    captions.draw_single(Canvas(whole), prediction, top=place.rows, width=place.width, colours=colour_bar(settings))
    return whole


def montage(analysis: Analysis, settings: SecondaryCaptureSettings) -> NDArray[np.uint8]:
    """Draw the radiograph and every model's heat map side by side, 2 x 2 for three models.

    Returns
    -------
    (rows, columns, 3) uint8 RGB; both sizes even.
    """
    values = analysis.image.display_values
    sides = square(values.shape, pixel_aspect(analysis.header))
    scale = settings.panel_size / max(sides)
    rows, columns = (max(1, round(side * scale)) for side in sides)
    panel = _resampled(values, rows, columns)
    # A narrow radiograph still needs room for its caption.
    cell = max(columns, round(settings.panel_size * 0.8))
    gap = round(settings.panel_size * 0.022)
    card_columns, card_rows = cell + 2 * gap, rows + gap + captions.panel_height(cell)
    count = len(analysis.predictions) + 1
    across = ceil(sqrt(count))
    down = ceil(count / across)
    width = _even(across * card_columns + (across + 1) * gap)
    head, foot = captions.head_height(width), captions.foot_height(width)
    canvas = Canvas(np.zeros((_even(head + down * (card_rows + gap) + foot), width, 3), np.uint8))
    captions.draw_head(canvas, width=width, margin=2 * gap)
    for position, prediction in enumerate((None, *analysis.predictions)):
        row, column = divmod(position, across)
        missing = across - min(across, count - row * across)
        left = gap + missing * (card_columns + gap) // 2 + column * (card_columns + gap)
        top = head + row * (card_rows + gap)
        canvas.card(left, top, left + card_columns, top + card_rows, gap)
        saliency = np.zeros((1, 1), np.float32) if prediction is None else prediction.saliency
        first = left + gap + (cell - columns) // 2
        picture = canvas.pixels[top + gap : top + gap + rows, first : first + columns]
        blend(panel, saliency, settings.colormap, settings.alpha, out=picture)
        place = captions.Place(left=left + 2 * gap, right=left + card_columns - 2 * gap, top=top + gap + rows)
        if prediction is None:
            captions.draw_input(canvas, analysis, place)
        else:
            captions.draw_panel(canvas, prediction, place)
    captions.draw_foot(
        canvas,
        top=head + down * (card_rows + gap),
        width=width,
        margin=2 * gap,
        colours=colour_bar(settings) if any(p.has_evidence for p in analysis.predictions) else None,
    )
    return canvas.pixels


@lru_cache(maxsize=8)
def _blended(colormap: str, alpha: float) -> tuple[NDArray[np.uint8], ...]:
    """Every blend there is, one table for red, green and blue: three look-ups a pixel instead of nine multiplications.

    Returns
    -------
    Three times (1, 65536) uint8, at 256 x saliency (in steps of 1/255) + display value.
    """
    saliency = np.arange(256) / 255
    index = np.round(255 * saliency * ENDS.get(colormap, 1.0)).astype(np.uint8)
    rgb = cv2.applyColorMap(index[:, None], COLORMAPS[colormap])[:, 0, ::-1].astype(np.uint32)
    weight = np.round(256 * alpha * saliency).astype(np.uint32)[:, None]
    grey = np.arange(256, dtype=np.uint32)[None, :]
    return tuple(
        ((grey * (256 - weight) + rgb[:, channel : channel + 1] * weight + 128) >> 8).astype(np.uint8).reshape(1, -1)
        for channel in range(3)
    )


def square(shape: tuple[int, ...], aspect: float) -> tuple[int, int]:
    """Rows and columns that show a radiograph with square pixels and lose none of its own."""
    rows, columns = shape
    return (round(rows * aspect), columns) if aspect > 1 else (rows, round(columns / aspect))


def _resampled(values: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """Average along the side that shrinks before the other one grows: interpolation of both at once would alias."""
    smaller = to_size(values, min(rows, values.shape[0]), min(columns, values.shape[1]))
    return to_size(smaller, rows, columns)


def _even(value: int) -> int:
    """Even sizes make an even number of bytes, and whole chroma samples in JPEG 4:2:2."""
    return value + value % 2
