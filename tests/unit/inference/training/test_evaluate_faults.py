"""`scp-node evaluate` finds out what it cannot write before it measures, and a card is of the checkpoint alone."""

import json
import os
import shutil
from pathlib import Path

import pytest

from inference.engine import Engine
from scp_node.cli.main import main


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("SCP_NODE__ANALYSIS__THREADS", "1")
    monkeypatch.setenv("SCP_NODE__ANALYSIS__RUNTIME", "torch")


@pytest.fixture
def nothing_judged(monkeypatch):
    """Fails the test where an image is judged."""

    def judged(self, *arguments):
        pytest.fail("an image was judged")

    monkeypatch.setattr(Engine, "analyse", judged)


def _evaluate(data, checkpoints, *more):
    arguments = ["--data", str(data), "--split", "val", "--checkpoints", str(checkpoints), "--model", "resnet18"]
    return main(["evaluate", *arguments, *more])


@pytest.mark.usefixtures("nothing_judged")
def test_a_folder_that_cannot_be_written_is_said_first(phantoms, exported, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert _evaluate(phantoms, exported[0], "--out", str(tmp_path / "file" / "out")) == 1
    assert f"{tmp_path / 'file' / 'out'}: Not a directory" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_judged")
def test_notes_and_records_of_cards_are_looked_for_first(phantoms, exported, tmp_path, capsys):
    assert _evaluate(phantoms, exported[0], "--json", "--card", "--notes", str(tmp_path / "none.md")) == 1
    assert "none.md: No such file" in capsys.readouterr().err
    checkpoints = Path(shutil.copytree(exported[0], tmp_path / "checkpoints"))
    (checkpoints / "resnet18" / "training.json").unlink()
    assert _evaluate(phantoms, checkpoints, "--json", "--card") == 1
    assert "training.json" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_judged")
def test_a_folder_that_takes_no_card_is_said_first(phantoms, exported, monkeypatch, capsys):
    folder, access = exported[0] / "resnet18", os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and access(path, mode))
    assert _evaluate(phantoms, exported[0], "--json", "--card") == 1
    assert f"{folder}: Permission denied" in capsys.readouterr().err


def test_a_card_does_not_take_the_thresholds_of_a_site(phantoms, exported, tmp_path, monkeypatch, capsys):
    """It says "sensitivity at" the threshold of the weights, and must have measured there."""
    checkpoints = shutil.copytree(exported[0], tmp_path / "checkpoints")
    monkeypatch.setenv("SCP_NODE__ANALYSIS__THRESHOLDS", '{"resnet18": 0.987}')
    assert _evaluate(phantoms, checkpoints, "--json", "--card") == 0
    report = json.loads(capsys.readouterr().out)
    assert {m["at_threshold"]["threshold"] for m in report["measurements"]} == {exported[1].threshold}


def test_a_model_named_twice_is_measured_once(phantoms, exported, capsys):
    assert _evaluate(phantoms, exported[0], "--model", "resnet18", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [model["model"] for model in report["models"]] == ["resnet18"]
    assert len(report["measurements"]) == len({(m["source"], m["labels"]) for m in report["measurements"]})


@pytest.mark.filterwarnings("error")
def test_images_of_one_class_are_drawn_without_a_warning(phantoms, exported, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    for index in (0, 2):
        shutil.copy(phantoms / f"val-{index}.jpg", site)
    (site / "labels.csv").write_text("file,label,split\nval-0.jpg,pneumonia,val\nval-2.jpg,pneumonia,val\n")
    assert _evaluate(site, exported[0], "--out", str(tmp_path / "out")) == 0
