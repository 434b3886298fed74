"""Do the Grad-CAM maps point at the opacities that radiologists boxed, and not at corners, borders and letters?

Two measures: the pointing game (Zhang et al., IJCV 2018; no tolerance around the boxes), whether the map's maximum lies
in a box, and the share of the map's energy inside the boxes. Each has a meaning only beside what is had for nothing:
a uniform map, and maps that know where lungs are and have not seen the radiograph.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.training.dataset import Box, LabelledImage
from inference.training.evaluate import SEED, Scores
from inference.training.metrics import Floats, Share, mean_interval

SIZE = 224
"""Maps and boxes are compared at this size, about that of the networks' input."""
BORDER = 0.08
"""Outer share of the image, each side, that counts as border."""
CORNER = 0.15
"""Side of each corner square as a share of the image's."""
LUNGS = ((0.3, 0.5), (0.7, 0.5))
"""(x, y) of the centres of both lungs on a frontal radiograph."""
LUNG_WIDTH, LUNG_HEIGHT = 0.11, 0.17
"""Standard deviations of the prior around each centre."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Localisation:
    """How maps meet boxes, on the images that have boxes.

    Parameters
    ----------
    name
        Of the model, or of a map that needs none.
    without_evidence
        Images whose map is all zero; they count as missed, with no energy inside.
    pointing, pointing_interval
        Share of images whose maximum lies in a box, and its 95 % Wilson interval, None for maps of no model. A map
        with several maxima counts by the share of them that do: for a uniform map, the boxes' area.
    energy, energy_interval
        Mean share of the map's energy inside the boxes, and its 95 % bootstrap interval.
    """

    name: str
    images: int
    without_evidence: int
    pointing: float
    pointing_interval: tuple[float, float] | None
    energy: float
    energy_interval: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """Mean share of the energy of maps at the outer border and in the corners; ``uniform`` is what an even map has."""

    name: str
    source: str
    images: int
    border: float
    corners: float


def upsample(saliency: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map at ``SIZE``, interpolated as the pictures do it; (SIZE, SIZE) float32."""
    return np.asarray(cv2.resize(saliency, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def box_mask(boxes: Sequence[Box]) -> NDArray[np.bool_]:
    """(SIZE, SIZE) bool, True inside any box."""
    mask = np.zeros((SIZE, SIZE), dtype=np.bool_)
    for x, y, width, height in boxes:
        mask[round(y * SIZE) : round((y + height) * SIZE), round(x * SIZE) : round((x + width) * SIZE)] = True
    return mask


def energy_inside(energy: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Share of a map's sum inside a mask; 0 for an empty map."""
    total = float(energy.sum())
    return float(energy[mask].sum()) / total if total > 0 else 0.0


def points_inside(energy: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Share of a map's maxima inside a mask: 0 or 1 unless several are equal; 0 for an empty map."""
    highest = energy == energy.max()
    return float((highest & mask).sum() / highest.sum()) if energy.max() > 0 else 0.0


def lung_prior() -> NDArray[np.float32]:
    """A map that knows where lungs are: one Gaussian hill in each; (SIZE, SIZE) float32."""
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE
    hills = [np.exp(-(((x - cx) / LUNG_WIDTH) ** 2 + ((y - cy) / LUNG_HEIGHT) ** 2) / 2) for cx, cy in LUNGS]
    return np.asarray(np.maximum(hills[0], hills[1]), dtype=np.float32)


def localise(scores: Scores, known: Sequence[LabelledImage]) -> tuple[Localisation, ...]:
    """Measure all models on the images with boxes, and three maps that have seen no radiograph.

    Parameters
    ----------
    known
        Training images; the mean of their boxes is the best single guess. An image's own patient is left out of it.

    Returns
    -------
    One per model; then ``uniform``, ``lung centres`` and ``mean training box``. Empty without boxes.
    """
    images = [image for image in scores.images if image.row.boxes]
    if not images:
        return ()
    masks = [box_mask(image.row.boxes) for image in images]
    found = [
        _compare(
            model.name, [upsample(image.prediction(model.name).saliency) for image in images], masks, is_model=True
        )
        for model in scores.models
    ]
    uniform, lungs = np.ones((SIZE, SIZE), dtype=np.float32), lung_prior()
    found.append(_compare("uniform", [uniform] * len(images), masks))
    found.append(_compare("lung centres", [lungs] * len(images), masks))
    boxed = [(row.patient, box_mask(row.boxes).astype(np.float32)) for row in known if row.boxes]
    guesses: list[NDArray[np.float32]] = []
    for image in images:
        others = [mask for patient, mask in boxed if patient != image.row.patient]
        guesses.append(np.asarray(np.mean(others, axis=0), dtype=np.float32) if others else uniform)
    found.append(_compare("mean training box", guesses, masks))
    return tuple(found)


def _compare(
    name: str, maps: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]], *, is_model: bool = False
) -> Localisation:
    energies: Floats = np.array([energy_inside(m, mask) for m, mask in zip(maps, masks, strict=True)])
    hits = float(np.mean([points_inside(m, mask) for m, mask in zip(maps, masks, strict=True)]))
    return Localisation(
        name=name,
        images=len(maps),
        without_evidence=sum(1 for m in maps if not m.any()),
        pointing=hits,
        pointing_interval=Share(count=round(hits * len(maps)), total=len(maps)).interval if is_model else None,
        energy=float(energies.mean()),
        energy_interval=mean_interval(energies, SEED),
    )


def margins(scores: Scores) -> tuple[Margins, ...]:
    """Energy at the border and in the corners, of the maps of images that a model calls positive, per source."""
    edge = np.ones((SIZE, SIZE), dtype=np.bool_)
    depth = round(BORDER * SIZE)
    edge[depth:-depth, depth:-depth] = False
    corners = np.zeros((SIZE, SIZE), dtype=np.bool_)
    side = round(CORNER * SIZE)
    for rows in (slice(0, side), slice(SIZE - side, SIZE)):
        for columns in (slice(0, side), slice(SIZE - side, SIZE)):
            corners[rows, columns] = True
    found = []
    for model in scores.models:
        for source in sorted({image.row.source for image in scores.images}):
            said = [image.prediction(model.name) for image in scores.images if image.row.source == source]
            maps = [upsample(p.saliency) for p in said if p.is_positive and p.has_evidence]
            if maps:
                found.append(
                    Margins(
                        name=model.name,
                        source=source,
                        images=len(maps),
                        border=float(np.mean([energy_inside(m, edge) for m in maps])),
                        corners=float(np.mean([energy_inside(m, corners) for m in maps])),
                    )
                )
    if found:
        found.append(
            Margins(name="uniform", source="", images=0, border=float(edge.mean()), corners=float(corners.mean()))
        )
    return tuple(found)
