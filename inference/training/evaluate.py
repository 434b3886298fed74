"""Measure checkpoints on labelled radiographs, on the way the node goes: the engine reads, renders and judges.

Figures are given per source and kind of label, never pooled: a pooled figure rewards telling the data sets apart.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inference.errors import SourceError
from inference.models.checkpoint import Manifest
from inference.records import Analysis, Ineligibility, Prediction
from inference.training import metrics
from inference.training.dataset import NIH, LabelledImage
from inference.training.metrics import Floats, Labels, OperatingPoint

SEED = 20261123
"""Of the bootstrap; the same images give the same intervals."""


CURVE = (0.8, 0.9, 0.95, 0.98, 0.99, 1.0)
"""Sensitivities at which the ROC curve is told in numbers."""


class Analyser(Protocol):
    """What is measured: ``inference.engine.Engine``."""

    @property
    def models(self) -> tuple[Manifest, ...]:
        """The models, in the order of the predictions."""

    def analyse(self, file: Path, name: str | None = None) -> Analysis | Ineligibility:
        """Judge one file."""


class Kind(StrEnum):
    """Which labels a figure is measured against."""

    OWN = "own"
    """The data set's or site's own."""
    RSNA = "rsna"
    """NIH images that radiologists re-read: ``Lung Opacity`` against ``Normal``; few and far apart."""
    CONFIRMED = "confirmed"
    """The same positives, against ``Normal`` and NIH images without finding that nobody re-read."""
    RAW = "raw"
    """NIH labels as mined from report text; about half of "pneumonia" is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A radiograph that was judged."""

    row: LabelledImage
    predictions: tuple[Prediction, ...]
    notes: tuple[str, ...]

    def prediction(self, model: str) -> Prediction:
        """What one model says."""
        return next(prediction for prediction in self.predictions if prediction.model == model)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotJudged:
    """A file that has no place in the figures.

    Parameters
    ----------
    state
        ``unreadable``, or ``not_eligible``.
    """

    name: str
    state: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Everything that the models said of a data set."""

    models: tuple[Manifest, ...]
    images: tuple[Scored, ...]
    not_judged: tuple[NotJudged, ...]

    def probabilities(self, model: str, indices: NDArray[np.intp]) -> Floats:
        """Probabilities of one model for some images, (len(indices),) float64."""
        said = [self.images[i].prediction(model).probability for i in indices]
        return np.array(said, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Images of one source whose labels are of one kind.

    Parameters
    ----------
    indices
        (n,) positions in ``Scores.images``.
    truth
        (n,) bool, True = pneumonia.
    """

    source: str
    kind: Kind
    indices: NDArray[np.intp]
    truth: Labels

    @property
    def title(self) -> str:
        """For tables and legends."""
        return self.source if self.kind is Kind.OWN else f"{self.source} ({self.kind.value})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Figures of one model on one group.

    Parameters
    ----------
    auc, auc_interval
        None where only one class is there.
    at_threshold
        At the threshold in use.
    suggested
        Highest threshold that reaches the wanted sensitivity here; None where none does.
    curve
        The ROC curve in a few points: the highest thresholds that reach each of ``CURVE``.
    """

    model: str
    source: str
    kind: Kind
    images: int
    patients: int
    positives: int
    auc: float | None
    auc_interval: tuple[float, float] | None
    at_threshold: OperatingPoint
    suggested: OperatingPoint | None
    curve: tuple[OperatingPoint, ...]
    calibration_error: float
    brier: float

    def to_json(self) -> dict[str, object]:
        """The measurement as JSON values; what cannot be said is null."""
        return {
            "model": self.model,
            "source": self.source,
            "labels": self.kind.value,
            "images": self.images,
            "patients": self.patients,
            "positives": self.positives,
            "auc": self.auc,
            "auc_interval": self.auc_interval and list(self.auc_interval),
            "at_threshold": _point_to_json(self.at_threshold),
            "suggested": self.suggested and _point_to_json(self.suggested),
            "roc": [_point_to_json(point) for point in self.curve],
            "ece": self.calibration_error,
            "brier": self.brier,
        }


def score(analyser: Analyser, rows: Sequence[LabelledImage], advance: Callable[[], None] | None = None) -> Scores:
    """Let the models judge every image; files that cannot be judged are listed, not dropped.

    Parameters
    ----------
    advance
        Called after each image, for a progress bar.
    """
    images: list[Scored] = []
    not_judged: list[NotJudged] = []
    for row in rows:
        try:
            outcome = analyser.analyse(row.file, row.name)
        except SourceError as error:
            not_judged.append(NotJudged(name=row.name, state="unreadable", detail=error.detail))
        else:
            if isinstance(outcome, Ineligibility):
                detail = f"{outcome.reason.value}: {outcome.detail}"
                not_judged.append(NotJudged(name=row.name, state="not_eligible", detail=detail))
            else:
                images.append(Scored(row=row, predictions=outcome.predictions, notes=outcome.image.notes))
        if advance is not None:
            advance()
    return Scores(models=analyser.models, images=tuple(images), not_judged=tuple(not_judged))


def groups(rows: Sequence[LabelledImage]) -> tuple[Group, ...]:
    """Images by source and kind of label; NIH images in three ways, others by their own label."""
    found: list[Group] = []
    for source in sorted({row.source for row in rows}):
        inside = [i for i, row in enumerate(rows) if row.source == source]
        if source != NIH:
            found.append(_group(rows, source, Kind.OWN, inside))
            continue
        found.append(_group(rows, source, Kind.RSNA, [i for i in inside if _is_reread(rows[i])]))
        found.append(_group(rows, source, Kind.CONFIRMED, [i for i in inside if rows[i].is_confirmed]))
        found.append(_group(rows, source, Kind.RAW, inside))
    return tuple(group for group in found if len(group.indices))


def _is_reread(row: LabelledImage) -> bool:
    return row.rsna_label in ("Lung Opacity", "Normal")


def _group(rows: Sequence[LabelledImage], source: str, kind: Kind, indices: list[int]) -> Group:
    truth = [rows[i].is_labelled_positive if kind is Kind.RAW else rows[i].is_positive for i in indices]
    return Group(
        source=source, kind=kind, indices=np.array(indices, dtype=np.intp), truth=np.array(truth, dtype=np.bool_)
    )


def measure(scores: Scores, sensitivity: float = 0.95) -> tuple[Measurement, ...]:
    """Figures of every model on every group.

    Parameters
    ----------
    sensitivity
        Wanted, for the suggested threshold; in (0, 1].
    """
    rows = [image.row for image in scores.images]
    return tuple(
        _measure_group(scores, model.name, group, sensitivity) for model in scores.models for group in groups(rows)
    )


def _measure_group(scores: Scores, model: str, group: Group, sensitivity: float) -> Measurement:
    said = scores.probabilities(model, group.indices)
    truth = group.truth
    patients = np.array([scores.images[i].row.patient for i in group.indices])
    has_both = bool(truth.any() and not truth.all())
    threshold = scores.images[group.indices[0]].prediction(model).threshold
    return Measurement(
        model=model,
        source=group.source,
        kind=group.kind,
        images=len(truth),
        patients=len(np.unique(patients)),
        positives=int(truth.sum()),
        auc=metrics.auc(said, truth) if has_both else None,
        auc_interval=metrics.auc_interval(said, truth, patients, SEED) if has_both else None,
        at_threshold=metrics.operating_point(said, truth, threshold),
        suggested=metrics.threshold_for(said, truth, sensitivity),
        curve=tuple(point for wanted in CURVE if (point := metrics.threshold_for(said, truth, wanted))),
        calibration_error=metrics.calibration_error(said, truth),
        brier=metrics.brier(said, truth),
    )


def to_json(scores: Scores, measurements: Sequence[Measurement]) -> dict[str, object]:
    """The whole evaluation as JSON values."""
    thresholds = {m.model: m.at_threshold.threshold for m in measurements}
    return {
        "images": len(scores.images),
        "models": [
            {
                "model": m.name,
                "version": m.version,
                "weights_sha256": m.weights_sha256,
                "threshold": thresholds.get(m.name, m.threshold),
            }
            for m in scores.models
        ],
        "measurements": [measurement.to_json() for measurement in measurements],
        "not_judged": [{"file": n.name, "state": n.state, "detail": n.detail} for n in scores.not_judged],
    }


def _point_to_json(point: OperatingPoint) -> dict[str, object]:
    return {
        "threshold": point.threshold,
        "sensitivity": _share_to_json(point.sensitivity),
        "specificity": _share_to_json(point.specificity),
    }


def _share_to_json(share: metrics.Share) -> dict[str, object]:
    value = None if math.isnan(share.value) else share.value
    return {"value": value, "interval": list(share.interval), "count": share.count, "total": share.total}
