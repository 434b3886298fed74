"""How good probabilities are: discrimination, operating points and calibration, as pure functions of arrays.

Labels are (n,) bool, True = pneumonia; probabilities (n,) float64 in [0, 1].
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]

REPLICATES = 2000
BLOCK = 4_000_000
"""Weights of the bootstrap that are in memory at a time, 32 MB in each of a few copies."""
Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """``count`` of ``total`` with its 95 % Wilson score interval (Wilson 1927), which holds at 0 and 1 too."""

    count: int
    total: int

    @property
    def value(self) -> float:
        """The share in [0, 1]; not a number without cases."""
        return self.count / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval; (0, 1) without cases."""
        if not self.total:
            return 0.0, 1.0
        p, n, z2 = self.value, self.total, Z_95**2
        centre = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = Z_95 / (1 + z2 / n) * float(np.sqrt(p * (1 - p) / n + z2 / (4 * n * n)))
        return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """What a threshold does; positive at or above it."""

    threshold: float
    sensitivity: Share
    specificity: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """One bin of a reliability diagram: mean probability said and share of pneumonia found in it."""

    said: float
    found: Share


def auc(scores: Floats, labels: Labels) -> float:
    """Area under the ROC curve; ties count half (Mann-Whitney).

    Raises
    ------
    ValueError
        Only one class is there.
    """
    return float(_weighted_auc(scores, labels, np.ones((1, len(scores))))[0])


def auc_interval(
    scores: Floats, labels: Labels, patients: NDArray[np.str_], seed: int, replicates: int = REPLICATES
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the AUC, drawing patients, since images of one patient are alike.

    Draws that hold one class only are left out.
    """
    _, member = np.unique(patients, return_inverse=True)
    count = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    areas: list[Floats] = []
    rows = max(1, BLOCK // len(scores))
    for done in range(0, replicates, rows):
        drawn = rng.multinomial(count, np.full(count, 1.0 / count), size=min(rows, replicates - done))
        weights = drawn[:, member].astype(np.float64)
        both = (weights[:, labels].sum(1) > 0) & (weights[:, ~labels].sum(1) > 0)
        areas.append(_weighted_auc(scores, labels, weights[both]))
    low, high = np.percentile(np.concatenate(areas), (2.5, 97.5))
    return float(low), float(high)


def mean_interval(values: Floats, seed: int, replicates: int = REPLICATES) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (replicates, len(values)))].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _weighted_auc(scores: Floats, labels: Labels, weights: Floats) -> Floats:
    """AUC of each row of weights, (replicates, n)."""
    if labels.all() or not labels.any():
        raise ValueError("the area under the ROC curve needs both classes")
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # of runs of equal scores
    positive = np.add.reduceat(weights[:, order] * labels[order], starts, axis=1)
    negative = np.add.reduceat(weights[:, order] * ~labels[order], starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    areas: Floats = (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))
    return areas


def roc(scores: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Corner points of the ROC curve.

    Returns
    -------
    (1 - specificity, sensitivity), both (points,) from (0, 0) to (1, 1)
    """
    order = np.argsort(-scores, kind="stable")
    ordered, truth = scores[order], labels[order]
    last = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
    sensitivity = np.cumsum(truth)[last] / truth.sum()
    false_positive = np.cumsum(~truth)[last] / (~truth).sum()
    return np.r_[0.0, false_positive], np.r_[0.0, sensitivity]


def operating_point(probabilities: Floats, labels: Labels, threshold: float) -> OperatingPoint:
    """Sensitivity and specificity at a threshold."""
    positive = probabilities >= threshold
    return OperatingPoint(
        threshold=threshold,
        sensitivity=Share(count=int((positive & labels).sum()), total=int(labels.sum())),
        specificity=Share(count=int((~positive & ~labels).sum()), total=int((~labels).sum())),
    )


def threshold_for(probabilities: Floats, labels: Labels, sensitivity: float, digits: int = 4) -> OperatingPoint | None:
    """Highest threshold below 1, cut off after ``digits`` decimals, at which the wanted share of positives is found.

    Returns
    -------
    None without positives, or where the threshold would have to be 0.
    """
    wanted = int(np.ceil(sensitivity * labels.sum() - 1e-9))
    if not wanted:
        return None
    lowest = np.sort(probabilities[labels])[::-1][wanted - 1]
    threshold = float(min(np.floor(lowest * 10**digits), 10**digits - 1) / 10**digits)
    return operating_point(probabilities, labels, threshold) if threshold > 0 else None


def brier(probabilities: Floats, labels: Labels) -> float:
    """Mean squared difference between probability and truth (Brier 1950); 0 is perfect."""
    return float(np.mean((probabilities - labels) ** 2))


def reliability(probabilities: Floats, labels: Labels, bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """Bins of equal width that hold any image, from low to high."""
    member = np.minimum((probabilities * bins).astype(int), bins - 1)
    found = []
    for index in np.unique(member):
        inside = member == index
        share = Share(count=int(labels[inside].sum()), total=int(inside.sum()))
        found.append(ReliabilityBin(said=float(probabilities[inside].mean()), found=share))
    return tuple(found)


def calibration_error(probabilities: Floats, labels: Labels, bins: int = 10) -> float:
    """Expected calibration error over bins of equal width (Naeini et al., AAAI 2015)."""
    total = len(labels)
    return sum(b.found.total / total * abs(b.found.value - b.said) for b in reliability(probabilities, labels, bins))
