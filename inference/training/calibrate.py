"""Platt scaling: slope and intercept that make a logit's sigmoid mean a probability; knows nothing of thresholds."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference.errors import InferenceError
from inference.models.manifest import Calibration
from inference.training.metrics import Floats, Labels

MAXIMUM_STEPS = 100
_ROUNDING = 1e-13
"""Share of the loss that its own rounding may come to: at the minimum no step need lower it by more."""


class CalibrationError(InferenceError, ValueError):
    """There is no scaling that makes these logits probabilities; the message says why."""


def source_weights(sources: Sequence[str]) -> Floats:
    """Weights under which each source counts the same, whatever its number of images; mean 1.

    Without them a large source alone decides what a probability means everywhere.
    """
    names, member, counts = np.unique(np.asarray(sources), return_inverse=True, return_counts=True)
    weights: Floats = len(sources) / (len(names) * counts[member])
    return weights


def fit_platt(logits: Floats, labels: Labels, weights: Floats | None = None) -> Calibration:
    """Fit p = sigmoid(slope * logit + intercept) by maximum likelihood, with Newton's method.

    Targets are Platt's, (N+ + 1) / (N+ + 2) and 1 / (N- + 2) (Platt 1999, as corrected by Lin et al. 2007): without
    them a model that separates the classes would ask for an infinite slope.

    Parameters
    ----------
    logits
        (n,) of the uncalibrated model.
    weights
        (n,) positive; all equal when None.

    Raises
    ------
    CalibrationError
        Only one class is there, or higher logits do not mean pneumonia more often.
    """
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        raise CalibrationError("calibration needs both classes")
    weights = np.ones(len(logits)) if weights is None else weights
    targets = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.column_stack([logits, np.ones(len(logits))])
    parameters = np.array([1.0, 0.0])
    loss = _loss(parameters, design, targets, weights)
    for _ in range(MAXIMUM_STEPS):
        p = _sigmoid(design @ parameters)
        gradient = design.T @ (weights * (p - targets))
        hessian = (design * (weights * p * (1 - p))[:, None]).T @ design + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        limit = loss * (1 + _ROUNDING)
        while size > 1e-10 and _loss(parameters - size * step, design, targets, weights) > limit:
            size /= 2
        parameters = parameters - size * step
        loss = _loss(parameters, design, targets, weights)
        if np.abs(gradient).max() < 1e-9 * len(logits):
            break
    else:
        raise CalibrationError(f"calibration did not settle in {MAXIMUM_STEPS} steps")
    if parameters[0] <= 0:
        raise CalibrationError(f"slope {parameters[0]:.3f}: higher logits do not mean pneumonia more often")
    return Calibration(slope=float(parameters[0]), intercept=float(parameters[1]))


def probabilities(logits: Floats, calibration: Calibration) -> Floats:
    """Calibrated probabilities of many logits, as ``Calibration.probability`` gives them one by one."""
    return np.array([calibration.probability(float(logit)) for logit in logits], dtype=np.float64)


def logits_of(calibrated: Floats, calibration: Calibration) -> Floats:
    """Logits behind calibrated probabilities, the inverse of ``probabilities``; exact up to a logit of about 30."""
    inside = np.clip(calibrated, 1e-15, 1 - 1e-15)
    logits: Floats = (np.log(inside) - np.log1p(-inside) - calibration.intercept) / calibration.slope
    return logits


def cross_fitted(
    logits: Floats, labels: Labels, sources: Sequence[str], patients: NDArray[np.str_], *, seed: int, folds: int = 5
) -> Floats:
    """Probabilities of each image by a scaling that was fitted on other patients.

    The calibration that is shipped uses all images of the split; measured on the same images it looks better than it
    is, measured like this it does not.

    Returns
    -------
    (n,) probabilities
    """
    _, member = np.unique(patients, return_inverse=True)
    order = np.random.default_rng(seed).permutation(int(member.max()) + 1)
    fold = (order % folds)[member]
    out = np.empty(len(logits))
    for index in range(folds):
        inside = fold == index
        if not inside.any():
            continue
        rest = source_weights([source for source, held in zip(sources, inside, strict=True) if not held])
        out[inside] = probabilities(logits[inside], fit_platt(logits[~inside], labels[~inside], rest))
    return out


def _sigmoid(x: Floats) -> Floats:
    power = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + power), power / (1 + power))


def _loss(parameters: Floats, design: Floats, targets: Floats, weights: Floats) -> float:
    x = design @ parameters
    return float((weights * (np.logaddexp(0, x) - targets * x)).sum())
