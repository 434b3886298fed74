"""Pictures of an evaluation as PNG files; needs matplotlib, from the extra ``training``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from inference.training.dataset import Box
from inference.training.evaluate import Group, Scores, groups
from inference.training.metrics import auc, reliability, roc

DPI = 100


def roc_plot(file: Path, scores: Scores, model: str, chosen: Sequence[Group] | None = None) -> None:
    """ROC curves of a model, one per group that has both classes, with the threshold in use marked."""
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    threshold = scores.images[0].prediction(model).threshold
    for group in groups([image.row for image in scores.images]) if chosen is None else chosen:
        said, truth = scores.probabilities(model, group.indices), group.truth
        if truth.all() or not truth.any():
            continue
        x, y = roc(said, truth)
        (line,) = axes.plot(x, y, label=f"{group.title}: AUC {auc(said, truth):.3f}, n = {len(truth)}", linewidth=1.5)
        positive = said >= threshold
        axes.plot((positive & ~truth).sum() / (~truth).sum(), positive[truth].mean(), "o", color=line.get_color())
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_title(f"{model}; dots: threshold {threshold:g}", fontsize=10)
    if len(axes.lines) > 1:  # beside the diagonal: a group of both classes
        axes.legend(loc="lower right", fontsize=8)
    _save(figure, file)


def reliability_plot(file: Path, scores: Scores, model: str) -> None:
    """Reliability diagrams of a model: share of pneumonia found against the probability said, one panel per group."""
    shown = groups([image.row for image in scores.images])
    figure = Figure(figsize=(3.2 * len(shown), 3.6), layout="constrained")
    for index, group in enumerate(shown):
        axes = figure.add_subplot(1, len(shown), index + 1)
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        bins = reliability(scores.probabilities(model, group.indices), group.truth)
        said = np.array([b.said for b in bins])
        found = np.array([b.found.value for b in bins])
        interval = np.array([b.found.interval for b in bins])
        axes.errorbar(said, found, yerr=np.abs(interval.T - found), fmt="o-", markersize=4, linewidth=1, capsize=2)
        for b in bins:
            axes.annotate(
                str(b.found.total), (b.said, b.found.value), fontsize=6, xytext=(3, -8), textcoords="offset points"
            )
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel="probability said")
        axes.set_title(f"{group.title}, n = {len(group.truth)}", fontsize=8)
        if index == 0:
            axes.set_ylabel("share with pneumonia (95 % interval)")
    _save(figure, file)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPanel:
    """One Grad-CAM map without its radiograph."""

    title: str
    saliency: NDArray[np.float32]
    boxes: tuple[Box, ...]


def maps_plot(file: Path, panels: Sequence[MapPanel], columns: int = 6) -> None:
    """A sheet of maps, with the radiologists' boxes where there are any."""
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(1.9 * columns, 2.1 * rows), layout="constrained")
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.imshow(panel.saliency, cmap="viridis", vmin=0, vmax=1, extent=(0, 1, 1, 0), interpolation="bilinear")
        _draw_boxes(axes, panel.boxes)
        axes.set_title(panel.title, fontsize=6)
        axes.set_xticks([])
        axes.set_yticks([])
    _save(figure, file)


def overlay_plot(file: Path, display_values: NDArray[np.uint8], saliency: NDArray[np.float32], title: str) -> None:
    """A radiograph that may be shown, and the map on top of it."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    for index in range(2):
        axes = figure.add_subplot(1, 2, index + 1)
        step = max(1, min(display_values.shape) // 512)
        axes.imshow(display_values[::step, ::step], cmap="gray", vmin=0, vmax=255, extent=(0, 1, 1, 0), aspect="auto")
        if index:
            axes.imshow(
                saliency,
                cmap="jet",
                vmin=0,
                vmax=1,
                alpha=0.4,
                extent=(0, 1, 1, 0),
                aspect="auto",
                interpolation="bilinear",
            )
        axes.set_axis_off()
    figure.suptitle(title, fontsize=9)
    _save(figure, file)


def _draw_boxes(axes: Axes, boxes: Sequence[Box]) -> None:
    for x, y, width, height in boxes:
        axes.plot([x, x + width, x + width, x, x], [y, y, y + height, y + height, y], color="white", linewidth=1)


def _save(figure: Figure, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=DPI, metadata={"Software": None})  # the same figures give the same bytes
