"""Maps against boxes: a map in the box wins, a map in a corner is caught, chance is the boxes' area."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from inference.models.checkpoint import Calibration, Manifest
from inference.models.preprocess import InputSpec
from inference.records import Prediction, RenderRule
from inference.training.dataset import LabelledImage
from inference.training.evaluate import Scored, Scores
from inference.training.localise import box_mask, localise, lung_prior, margins, points_inside

BOX = (0.25, 0.5, 0.25, 0.25)


def _manifest(name):
    return Manifest(
        name=name,
        title=name,
        architecture="resnet18",
        version="1",
        input=InputSpec(),
        rule=RenderRule.AUTO,
        threshold=0.5,
        calibration=Calibration(),
        training_data="",
        created=date(2026, 11, 23),
    )


def _scored(patient, saliency, boxes=(BOX,), probability=0.9):
    row = LabelledImage(
        file=Path(f"{patient}.png"),
        name=f"{patient}.png",
        source="nih-chestxray8",
        split="val",
        patient=patient,
        is_labelled_positive=True,
        is_positive=True,
        is_confirmed=True,
        target=1.0,
        weight=1.0,
        rsna_label="Lung Opacity",
        boxes=boxes,
    )
    prediction = Prediction(
        model="resnet18",
        title="ResNet18",
        version="1",
        weights_sha256="",
        target_layer="layer4",
        preprocessing="",
        calibration="platt;slope=1.0;intercept=0.0",
        probability=probability,
        threshold=0.5,
        saliency=saliency.astype(np.float32),
    )
    return Scored(row=row, predictions=(prediction,), notes=())


def _scores(*images):
    return Scores(models=(_manifest("resnet18"),), images=images, not_judged=())


def _map(row, column):
    saliency = np.zeros((8, 8))
    saliency[row, column] = 1
    return saliency


def test_map_in_the_box_points_and_map_outside_does_not():
    scores = _scores(_scored("a", _map(4, 2)), _scored("b", _map(0, 7)))
    model, *_ = localise(scores, ())
    assert model.name == "resnet18"
    assert model.pointing == 0.5
    assert 0.2 < model.energy < 0.5
    assert model.pointing_interval[0] < 0.5 < model.pointing_interval[1]


def test_chance_is_the_area_of_the_boxes():
    _, uniform, *_ = localise(_scores(_scored("a", _map(4, 2))), ())
    assert uniform.name == "uniform"
    assert uniform.pointing == pytest.approx(1 / 16, abs=1e-3)
    assert uniform.energy == pytest.approx(1 / 16, abs=1e-3)


def test_empty_map_is_a_miss_and_is_counted():
    model, *_ = localise(_scores(_scored("a", np.zeros((7, 7)))), ())
    assert (model.without_evidence, model.pointing, model.energy) == (1, 0.0, 0.0)


def test_images_without_boxes_have_no_part():
    assert localise(_scores(_scored("a", _map(4, 2), boxes=())), ()) == ()


def test_lung_prior_lies_in_the_lungs_on_both_sides():
    prior = lung_prior()
    left, right = box_mask([(0.2, 0.35, 0.2, 0.3)]), box_mask([(0.6, 0.35, 0.2, 0.3)])
    assert points_inside(prior, left) == points_inside(prior, right) == pytest.approx(0.5)


def test_mean_training_box_leaves_out_the_own_patient():
    """With one's own box in the mean, the guess would be perfect; with only another patient's it is wrong."""
    mine = _scored("a", _map(0, 0))
    other = _scored("b", _map(0, 0), boxes=((0.6, 0.0, 0.2, 0.2),))
    *_, guess = localise(_scores(mine), (mine.row, other.row))
    assert guess.name == "mean training box"
    assert guess.pointing == 0.0


def test_maps_in_a_corner_are_caught():
    found = {m.name: m for m in margins(_scores(_scored("a", _map(0, 0))))}
    assert found["resnet18"].corners > 0.7
    assert found["resnet18"].border > 0.7
    assert found["uniform"].border == pytest.approx(1 - 0.84**2, abs=0.01)
    assert found["uniform"].corners == pytest.approx(4 * 0.15**2, abs=0.01)


def test_maps_of_negatives_do_not_count_at_the_border():
    assert margins(_scores(_scored("a", _map(0, 0), probability=0.1))) == ()
