"""What is said is what was measured."""

import dataclasses
import math

import pytest

from scp_node.results import wording


@pytest.mark.parametrize(
    ("value", "shown"),
    [(25.0, "25"), (15.5, "15.5"), (87.34210000001, "87.3421"), (0.00001, "0"), (100.0, "100"), (-0.0, "0")],
)
def test_decimals(value, shown):
    assert wording.decimal(value) == shown


@pytest.mark.parametrize(
    ("probability", "threshold", "shown"),
    [
        (0.873421, 0.25, "87.34 %"),
        (0.25, 0.25, "25.00 %"),
        (0.249996, 0.25, "24.9996 %"),
        (0.2500001, 0.25, "25.00 %"),
        (0.0, 0.25, "0.00 %"),
        (1.0, 0.25, "100.00 %"),
        (0.2499999999, 0.25, "24.99999999 %"),
        (0.2500002, 0.2500004, "25.00002 %"),
        (0.1837, 0.18370001, "18.370000 %"),
    ],
)
def test_a_probability_never_contradicts_its_verdict(predictions, probability, threshold, shown):
    prediction = dataclasses.replace(predictions[0], probability=probability, threshold=threshold)
    text = wording.probability_percent(prediction)
    assert text == shown
    shown_threshold = wording.threshold_percent(prediction)
    assert (float(text[:-2]) >= float(shown_threshold[:-2])) == prediction.is_positive


@pytest.mark.parametrize("threshold", [0.25, 0.15, 0.18, 0.1837465, 0.2500004, 0.3333333333333333, 1 - 2**-53, 1e-12])
@pytest.mark.parametrize("steps", [0, 1, 2, 40, 10**6, 10**11])
def test_numbers_agree_with_the_verdict_however_close(predictions, threshold, steps):
    """The next float below a threshold is below it, and reads so in 16 characters, a Decimal String (PS3.5 6.2)."""
    for side in (-1, 1):
        probability = min(1.0, max(0.0, threshold + side * steps * math.ulp(threshold)))
        prediction = dataclasses.replace(predictions[0], probability=probability, threshold=threshold)
        numbers = wording.percent_numbers(prediction)
        texts = wording.probability_percent(prediction)[:-2], wording.threshold_percent(prediction)[:-2]
        for shown, cutoff in (numbers, texts):
            assert (float(shown) >= float(cutoff)) == prediction.is_positive, (shown, cutoff)
            assert float(shown) == pytest.approx(probability * 100, abs=0.005)
        assert max(map(len, numbers)) <= 16


def test_numbers_have_four_decimals_at_most_where_those_will_do(predictions):
    assert [wording.percent_numbers(one) for one in predictions] == [("87.3421", "25"), ("4.32", "15"), ("31", "18")]


def test_sentences(predictions):
    positive, negative, site = map(wording.sentence, predictions)
    assert positive == (
        "ResNet18 version 1.0.0: probability of pneumonia 87.34 %, threshold 25 %, POSITIVE (at or above threshold)."
    )
    assert negative == (
        "EfficientNet-B0 version 1.0.0: probability of pneumonia 4.32 %, threshold 15 %, negative (below threshold). "
        "Grad-CAM shows no positive evidence."
    )
    assert "threshold 18 %, POSITIVE (at or above threshold set by this site)." in site


def test_models_are_counted_and_not_fused(analysis):
    assert wording.summary(analysis) == (
        "AI result - not a diagnosis. Research use only - not for diagnostic use. "
        "Pneumonia: 2 of 3 models at or above threshold."
    )


def test_own_text_is_valid_in_every_character_set():
    assert wording.plain("Modell \u00e9\ud55c\\x\n", 64) == "Modell ???x?"
    assert len(wording.plain("x" * 100, 64)) == 64
