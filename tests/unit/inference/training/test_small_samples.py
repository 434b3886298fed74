"""Figures of few images, of very many, and of models that are very sure."""

import tracemalloc

import numpy as np
import pytest

from config.analysis import AnalysisSettings
from inference.training.calibrate import fit_platt, source_weights
from inference.training.metrics import auc_interval, threshold_for


@pytest.mark.parametrize(("images", "seed"), [(5, 1146), (20, 126), (20, 449), (50, 437), (100, 209), (100, 658)])
def test_calibration_settles_where_rounding_hides_the_last_steps(images, seed):
    """At the minimum a step may change the loss by less than its rounding; these samples once went on for ever."""
    rng = np.random.default_rng(seed)
    labels = rng.random(images) < rng.uniform(0.2, 0.8)
    logits = rng.normal(0, 1.5, images) + np.where(labels, 1.5, -1.5)
    weights = source_weights(rng.choice(["a", "b"], images))
    found = fit_platt(logits, labels, weights)
    said = 1 / (1 + np.exp(-(found.slope * logits + found.intercept)))
    positives, negatives = labels.sum(), (~labels).sum()
    targets = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    slope = weights * (said - targets)
    assert abs(slope.sum()) < 1e-7
    assert abs((slope * logits).sum()) < 1e-7


def test_a_suggested_threshold_is_one_that_the_configuration_takes():
    """Logits beyond 37 are probabilities of exactly 1."""
    labels = np.array([True, True, True, False])
    point = threshold_for(np.array([1.0, 1.0, 1.0, 0.2]), labels, 0.95)
    assert point.threshold == 0.9999
    assert (point.sensitivity.count, point.specificity.count) == (3, 1)
    AnalysisSettings(thresholds={"resnet18": point.threshold})


def test_an_interval_of_many_images_does_not_take_memory_by_their_number():
    """All draws of the images of a public data set at once would be some GB, after hours of judging."""
    rng = np.random.default_rng(4)
    labels = rng.random(20_000) < 0.3
    scores = np.where(labels, 0.5, 0.4) + rng.normal(0, 0.2, labels.size)
    patients = np.array([f"p{index // 3}" for index in range(labels.size)])
    tracemalloc.start()
    low, high = auc_interval(scores, labels, patients, 1, replicates=500)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 300e6
    assert (low, high) == pytest.approx((0.6255, 0.6426), abs=1e-4)  # of all draws at once
