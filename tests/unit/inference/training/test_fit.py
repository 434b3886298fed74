"""Training for two epochs on a dozen phantoms: resuming changes nothing, export and reload give the same output."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from config.analysis import AnalysisSettings
from inference.engine import Engine
from inference.errors import CheckpointError
from inference.models.catalog import MODELS
from inference.models.preprocess import to_model_input
from inference.training.dataset import read_display_values, read_labels
from inference.training.export import averaged_weights, read_record
from inference.training.fit import Fit
from inference.training.recipe import Recipe, RunError

SPEC = next(spec for spec in MODELS if spec.name == "resnet18")
RECIPE = Recipe(stages=((1, 64), (1, 64)), samples_per_epoch=16, batch_size=8, seed=3)
"""The one of the fixture ``trained``."""


def _run(rows, folder, spec=SPEC, recipe=RECIPE, until=None):
    records = []
    fit = Fit(spec.architecture, rows, folder, recipe)
    fit.run(records.append, until=until)
    fit.close()
    return fit, records


def test_each_epoch_is_logged(trained):
    folder, _, records = trained
    assert [record["epoch"] for record in records] == [1, 2]
    logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert logged == records


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_resumed_run_is_the_uninterrupted_one(phantoms, tmp_path, name):
    """EfficientNet-B0 drops out and skips at random: those draws must resume too."""
    spec = next(spec for spec in MODELS if spec.name == name)
    recipe = replace(RECIPE, samples_per_epoch=8, stages=((2, 32),), mix_probability=0.0)
    rows = read_labels(phantoms, "train")
    whole, _ = _run(rows, tmp_path / "whole", spec, recipe)
    first, _ = _run(rows, tmp_path / "parts", spec, recipe, until=1)
    assert first.epoch == 1
    rest, records = _run(rows, tmp_path / "parts", spec, recipe)
    assert [record["epoch"] for record in records] == [2]
    expected = whole.average.state_dict()
    for key, value in rest.average.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_run_of_another_recipe_is_not_gone_on_with(phantoms, trained):
    folder, *_ = trained
    with pytest.raises(RunError, match="seed"):
        Fit(SPEC.architecture, read_labels(phantoms, "train"), folder, replace(RECIPE, seed=4))


def test_run_folder_belongs_to_one_process(phantoms, trained):
    folder, *_ = trained
    rows = read_labels(phantoms, "train")
    holder = Fit(SPEC.architecture, rows, folder, RECIPE)
    with pytest.raises(RunError, match="in use"):
        Fit(SPEC.architecture, rows, folder, RECIPE)
    holder.close()


def test_damaged_state_is_refused(phantoms, trained, tmp_path):
    folder, *_ = trained
    (tmp_path / "state.pt").write_bytes((folder / "state.pt").read_bytes()[:5000])
    with pytest.raises(RunError, match="cannot be read"):
        Fit(SPEC.architecture, read_labels(phantoms, "train"), tmp_path, RECIPE)
    with pytest.raises(RunError, match="no finished epoch"):
        averaged_weights(tmp_path / "nothing")


def test_exported_and_reloaded_network_says_what_the_trained_one_says(trained, exported, phantoms):
    """The engine on files, against the averaged network on arrays: same rendering, same input, same probability."""
    _, fit, _ = trained
    checkpoints, manifest = exported
    engine = Engine(AnalysisSettings(checkpoints=checkpoints, models=("resnet18",), threads=1, runtime="torch"))
    rows = read_labels(phantoms, "val")
    network = fit.average.module.eval().float()
    tolerance = 1e-5 if read_record(checkpoints / "resnet18").precision == "float32" else 2e-3
    said = []
    for row in rows:
        values = to_model_input(read_display_values(row.file), manifest.input)
        with torch.inference_mode():
            logit = float(network(torch.from_numpy(values)[None])[0, 0])
        analysis = engine.analyse(row.file)
        assert analysis.predictions[0].probability == pytest.approx(
            manifest.calibration.probability(logit), abs=tolerance
        )
        said.append(analysis.predictions[0].probability)
    assert np.ptp(said) > 10 * tolerance, "an output that is the same for all images proves nothing"


def test_record_tells_how_the_checkpoint_came_about(exported):
    checkpoints, manifest = exported
    record = read_record(checkpoints / "resnet18")
    content = (checkpoints / "resnet18" / "weights.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == manifest.weights_sha256
    assert len(content) == (record.bytes_float16 if record.precision == "float16" else record.bytes_float32)
    assert record.epochs == 2
    assert record.recipe == RECIPE
    assert record.duration_s > 0
    assert record.calibration_images == 12
    assert record.calibration_prevalence == pytest.approx(0.5)
    assert "12 images" not in manifest.training_data
    assert "8 images" in manifest.training_data


def test_threshold_is_the_projects_or_lower_and_then_reaches_what_is_wanted(exported):
    checkpoints, manifest = exported
    record = read_record(checkpoints / "resnet18")
    if record.default_sensitivity >= record.wanted_sensitivity:
        assert manifest.threshold == SPEC.default_threshold
    else:
        assert manifest.threshold < SPEC.default_threshold


def test_record_of_another_shape_is_refused(tmp_path):
    (tmp_path / "training.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"training\.json"):
        read_record(tmp_path)


def test_maps_outside_the_boxes_and_at_the_border_cost(phantoms, tmp_path):
    """Activations that the last layer weighs positively: in the box they cost least, at the border most."""
    fit = Fit(SPEC.architecture, read_labels(phantoms, "train"), tmp_path, RECIPE)
    with torch.no_grad():
        fit.network.fc.weight.fill_(1.0)
    masks = torch.zeros(1, 64, 64)
    masks[:, 16:32, 16:32] = 1

    def cost(row, column, *, is_positive=True, has_boxes=True):
        activations = torch.zeros(1, 512, 4, 4)
        activations[:, :, row, column] = 1
        with torch.no_grad():
            return float(
                fit._explanation_loss(activations, masks, torch.tensor([has_boxes]), torch.tensor([is_positive]))
            )

    assert cost(1, 1) < cost(2, 2) < cost(0, 3)
    # Lung fields weigh less than what radiologists drew; images without pneumonia have no map worth asking of.
    assert 0 < cost(2, 2, has_boxes=False) < cost(2, 2)
    assert cost(0, 3, is_positive=False) == 0.0
    fit.close()
