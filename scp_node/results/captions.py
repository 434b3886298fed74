"""The words on result pictures: where they stand and how large they are.

Every size is a share of the picture's width, so that a picture that a viewer shows 400 pixels wide can still be read.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.records import Analysis, Prediction
from scp_node.results import wording
from scp_node.results.canvas import AMBER, DARK, GREY, SLATE, Canvas, Text

SALIENCY = "Grad-CAM saliency"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a caption stands: between two columns, from a row downwards; pixels."""

    left: int
    right: int
    top: int

    @property
    def width(self) -> int:
        """Columns between the margins."""
        return self.right - self.left


def single_height(width: int) -> int:
    """Rows of the caption below a single of this width."""
    return round(width * 0.222)


def draw_single(canvas: Canvas, prediction: Prediction, *, top: int, width: int, colours: NDArray[np.uint8]) -> None:
    """Draw the caption of a single: model and verdict, threshold, what it is and what it is not."""
    left, right = round(width * 0.025), width - round(width * 0.025)
    large, small = round(width * 0.038), round(width * 0.029)
    rows = [top + round(width * share) for share in (0.046, 0.100, 0.145, 0.190)]
    canvas.line(
        left, right, rows[0], _model(prediction, large), [_probability(prediction, large), _chip(prediction, large)]
    )
    canvas.line(
        left,
        right,
        rows[1],
        [Text(text=f"Probability of pneumonia, {_threshold(prediction)}", size=small)],
        [_version(prediction, small)],
    )
    bar = colours if prediction.has_evidence else None
    _legend(canvas, Place(left=left, right=right, top=rows[2]), wording.NOT_A_DIAGNOSIS, small, bar)
    canvas.line(
        left,
        right,
        rows[3],
        [Text(text=wording.RESEARCH_USE, size=small)],
        [Text(text=wording.software(), size=small, colour=GREY)],
    )


def panel_height(width: int) -> int:
    """Rows of the caption below one panel of a montage."""
    return round(width * 0.262)


def draw_panel(canvas: Canvas, prediction: Prediction, place: Place) -> None:
    """Draw the caption of one model's panel."""
    large, small = _panel_sizes(place)
    rows = _panel_rows(place)
    canvas.line(place.left, place.right, rows[0], _model(prediction, large), [_probability(prediction, large)])
    canvas.line(
        place.left, place.right, rows[1], [Text(text=_threshold(prediction), size=large)], [_chip(prediction, large)]
    )
    evidence = [] if prediction.has_evidence else [Text(text=f"Grad-CAM: {wording.NO_EVIDENCE}", size=small)]
    canvas.line(place.left, place.right, rows[2], [_version(prediction, small)], evidence)


def draw_input(canvas: Canvas, analysis: Analysis, place: Place) -> None:
    """Draw the caption of the radiograph itself: what the models say together."""
    large, small = _panel_sizes(place)
    rows = _panel_rows(place)
    canvas.line(place.left, place.right, rows[0], [Text(text="Input radiograph", size=large, weight="bold")], [])
    canvas.line(place.left, place.right, rows[1], [Text(text=analysis.agreement, size=large)], [])
    canvas.line(
        place.left, place.right, rows[2], [Text(text=wording.window_in_words(analysis), size=small, colour=GREY)], []
    )


def head_height(width: int) -> int:
    """Rows above the panels of a montage."""
    return round(width * 0.056)


def draw_head(canvas: Canvas, *, width: int, margin: int) -> None:
    """Draw what the numbers of a montage are."""
    size = round(width * 0.029)
    canvas.line(
        margin,
        width - margin,
        head_height(width) // 2,
        [Text(text="Probability of pneumonia", size=size, weight="bold")],
        [Text(text=wording.NOT_A_DIAGNOSIS, size=size)],
    )


def foot_height(width: int) -> int:
    """Rows below the panels of a montage."""
    return round(width * 0.088)


def draw_foot(canvas: Canvas, *, top: int, width: int, margin: int, colours: NDArray[np.uint8] | None) -> None:
    """Draw the intended use, the colour bar (None: no panel has colours) and the software."""
    size = round(width * 0.029)
    right = width - margin
    canvas.line(margin, right, top + round(width * 0.062), [], [Text(text=wording.software(), size=size, colour=GREY)])
    canvas.line(margin, right, top + round(width * 0.062), [Text(text=wording.RESEARCH_USE, size=size)], [])
    if colours is not None:
        _legend(canvas, Place(left=margin, right=right, top=top + round(width * 0.020)), "", size, colours)


def _legend(canvas: Canvas, place: Place, text: str, size: int, colours: NDArray[np.uint8] | None) -> None:
    """Draw a line that ends in the colour bar; ``place.top`` is its middle."""
    left, right, middle = place.left, place.right, place.top
    start = [Text(text=text, size=size)] if text else []
    if colours is None:
        canvas.line(left, right, middle, start, [Text(text=f"Grad-CAM: {wording.NO_EVIDENCE}", size=size)])
        return
    bar = size * 5
    high, low = Text(text="high", size=size, colour=GREY), Text(text=f"{SALIENCY}  low", size=size, colour=GREY)
    canvas.line(left, right, middle, [], [high])
    end = right - canvas.width_of(high) - size // 2
    canvas.colour_bar(end - bar, end, middle, round(size * 0.7), colours)
    canvas.line(left, end - bar - size // 2, middle, start, [low])


def _model(prediction: Prediction, size: int) -> list[Text]:
    return [Text(text=wording.plain(prediction.title, 32), size=size, weight="bold")]


def _probability(prediction: Prediction, size: int) -> Text:
    return Text(text=wording.probability_percent(prediction), size=size, weight="bold")


def _version(prediction: Prediction, size: int) -> Text:
    return Text(text=f"version {wording.plain(prediction.version, 24)}", size=size, colour=GREY)


def _threshold(prediction: Prediction) -> str:
    owner = "site threshold" if prediction.is_threshold_overridden else "threshold"
    return f"{owner} {wording.threshold_percent(prediction)}"


def _chip(prediction: Prediction, size: int) -> Text:
    if prediction.is_positive:
        return Text(text=wording.POSITIVE, size=size, colour=DARK, weight="bold", chip=AMBER)
    return Text(text=wording.NEGATIVE, size=size, chip=SLATE)


def _panel_sizes(place: Place) -> tuple[int, int]:
    return round(place.width * 0.059), round(place.width * 0.045)


def _panel_rows(place: Place) -> list[int]:
    return [place.top + round(place.width * share) for share in (0.062, 0.145, 0.218)]
