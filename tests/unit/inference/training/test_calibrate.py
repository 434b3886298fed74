"""Platt scaling finds the scaling that is there, as scikit-learn does, and refuses what has none."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from inference.models.manifest import Calibration
from inference.training import calibrate, metrics


def _draw(slope, intercept, n, seed=1):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, n)
    truth = rng.random(n) < 1 / (1 + np.exp(-(slope * logits + intercept)))
    return logits, truth


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, -0.7), (1.0, 0.0), (1.8, 1.2)])
def test_known_scaling_is_recovered(slope, intercept):
    logits, truth = _draw(slope, intercept, 60_000)
    found = calibrate.fit_platt(logits, truth)
    assert found.slope == pytest.approx(slope, rel=0.04)
    assert found.intercept == pytest.approx(intercept, abs=0.05)


def test_weighted_fit_is_that_of_scikit_learn():
    """Platt's targets are nearly the labels when there are many images; scikit-learn fits the labels."""
    logits, truth = _draw(0.8, 0.4, 20_000)
    weights = calibrate.source_weights(["a" if i % 5 else "b" for i in range(len(logits))])
    found = calibrate.fit_platt(logits, truth, weights)
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logits[:, None], truth, weights)
    assert found.slope == pytest.approx(reference.coef_[0, 0], rel=5e-3)
    assert found.intercept == pytest.approx(reference.intercept_[0], abs=5e-3)


def test_separable_classes_get_a_finite_slope():
    logits = np.array([-3.0, -2.0, 2.0, 3.0])
    found = calibrate.fit_platt(logits, logits > 0)
    assert 0 < found.slope < 5


def test_calibration_lowers_the_error_of_overconfident_logits():
    logits, truth = _draw(0.3, 0.5, 5000)
    before = calibrate.probabilities(logits, Calibration())
    after = calibrate.probabilities(logits, calibrate.fit_platt(logits, truth))
    assert metrics.calibration_error(after, truth) < 0.3 * metrics.calibration_error(before, truth)


def test_calibration_keeps_the_order():
    logits, truth = _draw(0.3, 0.5, 500)
    after = calibrate.probabilities(logits, calibrate.fit_platt(logits, truth))
    assert metrics.auc(after, truth) == pytest.approx(metrics.auc(logits, truth), abs=1e-12)


def test_inverted_or_one_sided_data_are_refused():
    logits, truth = _draw(1.0, 0.0, 500)
    with pytest.raises(ValueError, match="slope"):
        calibrate.fit_platt(-logits, truth)
    with pytest.raises(ValueError, match="both classes"):
        calibrate.fit_platt(logits, np.ones(500, dtype=bool))


def test_sources_count_the_same():
    weights = calibrate.source_weights(["big"] * 90 + ["small"] * 10)
    assert weights[:90].sum() == pytest.approx(weights[90:].sum())
    assert weights.mean() == pytest.approx(1)


def test_logits_come_back_from_probabilities():
    scaling = Calibration(slope=0.7, intercept=-0.4)
    logits = np.array([-25.0, -3.0, 0.0, 4.5, 25.0])
    np.testing.assert_allclose(
        calibrate.logits_of(calibrate.probabilities(logits, scaling), scaling), logits, rtol=1e-6
    )


def test_cross_fitted_probabilities_never_use_the_own_patient():
    """One patient with absurd logits changes everybody's probabilities but those of the patient's own part."""
    logits, truth = _draw(1.0, 0.0, 400)
    patients = np.array([f"p{i // 4}" for i in range(400)])
    before = calibrate.cross_fitted(logits, truth, ["s"] * 400, patients, seed=3)
    changed = truth.copy()
    changed[:4] = ~changed[:4]
    after = calibrate.cross_fitted(logits, changed, ["s"] * 400, patients, seed=3)
    np.testing.assert_array_equal(before[:4], after[:4])
    assert not np.array_equal(before, after)
