"""Figures agree with scikit-learn, and intervals hold where normal approximations fail."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

from inference.training import metrics


def _sample(seed, n=300, digits=2):
    """Labels and scores with many ties."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.4
    scores = np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1).round(digits)
    return scores, truth


@pytest.mark.parametrize("digits", [1, 2, 12])
def test_auc_is_that_of_scikit_learn_ties_included(digits):
    scores, truth = _sample(1, digits=digits)
    assert metrics.auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_auc_needs_both_classes():
    with pytest.raises(ValueError, match="both classes"):
        metrics.auc(np.array([0.1, 0.2]), np.array([True, True]))


def test_roc_corners_are_those_of_scikit_learn():
    scores, truth = _sample(2)
    x, y = metrics.roc(scores, truth)
    expected_x, expected_y, _ = roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(x, expected_x)
    np.testing.assert_allclose(y, expected_y)


def test_brier_is_that_of_scikit_learn():
    scores, truth = _sample(3)
    assert metrics.brier(scores, truth) == pytest.approx(brier_score_loss(truth, scores))


def test_bootstrap_draws_patients_not_images():
    """The same images ten times over, as ten images of each patient, tell nothing new: the interval stays as wide."""
    scores, truth = _sample(4, n=80)
    patients = np.array([f"p{i}" for i in range(80)])
    once = metrics.auc_interval(scores, truth, patients, seed=5)
    again = metrics.auc_interval(np.tile(scores, 10), np.tile(truth, 10), np.tile(patients, 10), seed=5)
    as_if_new = metrics.auc_interval(
        np.tile(scores, 10), np.tile(truth, 10), np.array([f"p{i}" for i in range(800)]), seed=5
    )
    assert again == pytest.approx(once)
    assert as_if_new[1] - as_if_new[0] < 0.5 * (once[1] - once[0])


def test_bootstrap_interval_is_repeatable_and_holds_the_value():
    scores, truth = _sample(6)
    patients = np.arange(len(truth)).astype(str)
    low, high = metrics.auc_interval(scores, truth, patients, seed=7)
    assert low < metrics.auc(scores, truth) < high
    assert (low, high) == metrics.auc_interval(scores, truth, patients, seed=7)


def test_bootstrap_leaves_out_draws_of_one_class():
    scores, truth = np.array([0.2, 0.9, 0.4]), np.array([False, True, False])
    low, high = metrics.auc_interval(scores, truth, np.array(["a", "b", "c"]), seed=1)
    assert np.isfinite([low, high]).all()


def test_wilson_interval_of_all_found_is_not_a_point():
    """Values of Wilson's formula for 13 of 13 and 5 of 10, computed by hand."""
    low, high = metrics.Share(count=13, total=13).interval
    assert (low, high) == pytest.approx((0.7719, 1.0), abs=1e-4)
    assert metrics.Share(count=5, total=10).interval == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert metrics.Share(count=0, total=0).interval == (0.0, 1.0)


def test_operating_point_counts_equality_as_positive():
    said, truth = np.array([0.1, 0.25, 0.25, 0.9]), np.array([False, True, False, True])
    point = metrics.operating_point(said, truth, 0.25)
    assert (point.sensitivity.count, point.sensitivity.total) == (2, 2)
    assert (point.specificity.count, point.specificity.total) == (1, 2)


@pytest.mark.parametrize("wanted", [0.8, 0.9, 0.95, 1.0])
def test_suggested_threshold_is_the_highest_that_reaches_the_sensitivity(wanted):
    scores, truth = _sample(8, digits=12)
    found = metrics.threshold_for(scores, truth, wanted)
    assert found.sensitivity.value >= wanted
    higher = np.sort(scores[truth & (scores >= found.threshold)])[0] + 1e-9
    assert metrics.operating_point(scores, truth, higher).sensitivity.value < wanted


def test_no_threshold_is_suggested_where_it_would_be_zero():
    assert metrics.threshold_for(np.array([0.00001, 0.9]), np.array([True, True]), 1.0) is None
    assert metrics.threshold_for(np.array([0.4]), np.array([False]), 0.9) is None


def test_calibration_error_by_hand():
    """Two bins: three images said 0.2, one positive; one image said 0.9, positive."""
    said, truth = np.array([0.2, 0.2, 0.2, 0.9]), np.array([True, False, False, True])
    assert metrics.calibration_error(said, truth) == pytest.approx(0.75 * (1 / 3 - 0.2) + 0.25 * 0.1)


def test_certainty_lies_in_the_last_bin():
    bins = metrics.reliability(np.array([1.0, 0.0]), np.array([True, False]))
    assert [(b.said, b.found.count) for b in bins] == [(0.0, 0), (1.0, 1)]
