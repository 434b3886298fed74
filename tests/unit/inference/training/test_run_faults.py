"""Runs that meet a full disk, numbers that are not finite, or a command that lacks what the run began with."""

import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.models.catalog import find_model
from inference.models.checkpoint import Calibration, load_network
from inference.training import export as exporting
from inference.training.dataset import read_labels
from inference.training.fit import Fit, read_state
from inference.training.recipe import Recipe, RunError, read_recipe, write_recipe
from inference.training.state import duration_s
from scp_node.cli.main import main

ARCHITECTURE = find_model("resnet18").architecture
RECIPE = Recipe(stages=((1, 64), (1, 64)), samples_per_epoch=16, batch_size=8, seed=3)
"""The one of the fixture ``trained``."""
QUICK = ("--stages", "1x32", "--samples-per-epoch", "8", "--batch-size", "8")


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the finished run, of which one epoch counts as finished."""
    folder = Path(shutil.copytree(trained[0], tmp_path / "run"))
    state = read_state(folder)
    torch.save(state | {"epoch": 1}, folder / "state.pt")
    return folder


@pytest.fixture
def small_files(run):
    """No file of more than 1 MB can be written by this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_an_epoch_that_cannot_be_written_leaves_the_one_before(phantoms, run):
    before = (run / "state.pt").read_bytes()
    fit = Fit(ARCHITECTURE, read_labels(phantoms, "train"), run, RECIPE)
    with pytest.raises(RunError, match=r"state\.pt cannot be written"):
        fit.run(lambda record: None)
    fit.close()
    assert (run / "state.pt").read_bytes() == before
    assert not (run / "state.pt.part").exists()
    assert fit.epoch == 1


def test_an_epoch_that_is_not_finite_is_not_kept(phantoms, run, monkeypatch):
    fit = Fit(ARCHITECTURE, read_labels(phantoms, "train"), run, RECIPE)
    monkeypatch.setattr(fit, "_loss", lambda images, rng: fit.network.fc.bias.sum() * float("nan"))
    with pytest.raises(RunError, match="epoch 2 ended with a loss of nan and is not kept"):
        fit.run(lambda record: None)
    fit.close()
    assert read_state(run)["epoch"] == 1


def test_a_run_that_began_with_weights_asks_for_them_until_an_epoch_is_finished(phantoms, exported, tmp_path, capsys):
    checkpoint = exported[0] / "resnet18"
    recipe = replace(RECIPE, begins_from=exported[1].weights_sha256, stages=((1, 32),), learning_rate=1e-12)
    run = tmp_path / "run"
    write_recipe(run, recipe)  # interrupted before its first epoch was finished
    command = ["train", "--model", "resnet18", "--data", str(phantoms), "--run", str(run), "--epochs", "1"]
    assert main(command) == 1
    assert "has no finished epoch; give them again (--from)" in capsys.readouterr().err
    rows = read_labels(phantoms, "train")
    fit = Fit(ARCHITECTURE, rows, run, recipe, load_network(checkpoint, exported[1]).state_dict())
    fit.run(lambda record: None)
    fit.close()
    Fit(ARCHITECTURE, rows, run, recipe).close()  # and then it is the run's own


def test_a_line_of_the_log_that_was_cut_off_keeps_nobody_from_exporting(run):
    log = run / "log.jsonl"
    whole = duration_s(run, 2)
    log.write_text(log.read_text() + '{"epoch": 2, "si')
    assert duration_s(run, 2) == whole > 0
    assert duration_s(run, 1) == json.loads(log.read_text().splitlines()[0])["duration_s"]


def test_a_recipe_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(self, *arguments, **options):
        self.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(RunError, match="cannot be written: No space left on device"):
            write_recipe(tmp_path / "run", RECIPE)
    assert read_recipe(tmp_path / "run") is None


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (("--learning-rate", "nan"), "learning_rate nan is not above 0"),
        (("--learning-rate", "-0.1"), "learning_rate -0.1 is not above 0"),
        (("--seed", "-1"), "seed -1 is below 0"),
        (("--threads", "0"), "threads 0 is below 1"),
        (("--batch-size", "1"), "batch_size 1 needs stages of 64 pixels"),
    ],
)
def test_a_value_that_cannot_be_is_named(phantoms, tmp_path, capsys, option, says):
    run = tmp_path / "run"
    assert main(["train", "--model", "resnet18", "--data", str(phantoms), "--run", str(run), *QUICK, *option]) == 1
    assert says in capsys.readouterr().err
    assert not run.exists()


def test_no_epoch_at_all_is_wrong_usage(phantoms, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--model", "resnet18", "--data", str(phantoms), "--epochs", "0"])
    assert stop.value.code == 2
    assert "'0' is not a whole number above 0" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_sentence(phantoms, run, tmp_path, capsys):
    (tmp_path / "file").touch()
    command = ["train", "--model", "resnet18", "--data", str(phantoms), "--run"]
    assert main([*command, "/proc/run", *QUICK]) == 1
    assert "/proc/run cannot be written" in capsys.readouterr().err
    assert main([*command, str(run), "--export-only", "--checkpoints", str(tmp_path / "file")]) == 1
    assert f"{tmp_path / 'file' / 'resnet18'}: Not a directory" in capsys.readouterr().err


def test_the_threshold_is_chosen_where_there_is_pneumonia_to_find(phantoms, tmp_path):
    """A hospital that sent normal images only says nothing of a sensitivity."""
    lines = ["file,label,source", *(f"n{i},normal,aaa" for i in range(4))]
    lines += [f"p{i},{'pneumonia' if i % 2 else 'normal'},bbb" for i in range(4)]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    rows = read_labels(tmp_path)
    at_default, threshold, source = exporting._operating_point(np.array([0.1] * 4 + [0.05, 0.9] * 2), rows, 0.25)
    assert (source, threshold, at_default.sensitivity.value) == ("bbb", 0.25, 1.0)


def test_few_images_of_which_the_first_cannot_be_read_are_enough_to_export(phantoms, trained, tmp_path, monkeypatch):
    """Both precisions are compared on images that were judged."""
    monkeypatch.setattr(exporting, "fit_platt", lambda *arguments: Calibration())  # whatever two epochs have learnt
    validation = read_labels(phantoms, "val")[:5]
    validation[0] = replace(validation[0], file=tmp_path / "none.jpg")
    facts = {"training": read_labels(phantoms, "train"), "checkpoints": tmp_path, "command": "train"}
    exporting.export(trained[0], find_model("resnet18"), validation=validation, **facts)
    assert exporting.read_record(tmp_path / "resnet18").precision_images == 1
