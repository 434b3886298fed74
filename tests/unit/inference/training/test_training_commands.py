"""`scp-node train` and `scp-node evaluate` as a person calls them, on phantoms; cards hold what was measured."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from inference.models.checkpoint import load_network
from inference.training.fit import read_state
from scp_node.cli.main import main


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("SCP_NODE__ANALYSIS__THREADS", "1")
    monkeypatch.setenv("SCP_NODE__ANALYSIS__RUNTIME", "torch")  # nothing trained here is worth compiling


def test_training_stops_after_the_epochs_asked_for_and_goes_on(phantoms, tmp_path, capsys):
    run = tmp_path / "run"
    command = ["train", "--model", "resnet18", "--data", str(phantoms), "--run", str(run), "--epochs", "1"]
    assert main([*command, "--stages", "2x32", "--samples-per-epoch", "8", "--batch-size", "8"]) == 0
    assert "the same command goes on" in capsys.readouterr().err
    (line,) = (run / "val.jsonl").read_text().splitlines()
    assert {"epoch", "loss", "kermany-2018", "nih-chestxray8 (rsna)"} <= json.loads(line).keys()
    assert main([*command, "--seed", "99"]) == 1
    assert "another recipe (seed differ)" in capsys.readouterr().err


def test_a_run_begins_with_the_weights_of_a_checkpoint(phantoms, exported, tmp_path, capsys):
    run = tmp_path / "run"
    command = ["train", "--data", str(phantoms), "--run", str(run), "--from", str(exported[0] / "resnet18")]
    quick = ["--stages", "1x32", "--samples-per-epoch", "8", "--batch-size", "8", "--learning-rate", "1e-12"]
    assert main([*command, "--model", "densenet121", *quick]) == 1
    assert "architecture resnet18, not densenet121" in capsys.readouterr().err
    assert not run.exists()
    assert main([*command, "--model", "resnet18", *quick, "--epochs", "1"]) == 0
    assert json.loads((run / "recipe.json").read_text())["begins_from"] == exported[1].weights_sha256
    # At such a rate the weights are still those of the checkpoint, but for its storing in float16.
    begun = read_state(run)["network"]["layer1.0.conv1.weight"]
    known = load_network(exported[0] / "resnet18", exported[1]).state_dict()["layer1.0.conv1.weight"]
    assert torch.allclose(begun, known, atol=1e-3)
    assert float(known.abs().max()) > 0.01


def test_export_of_a_run_that_is_there(phantoms, trained, exported, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    command = ["train", "--model", "resnet18", "--data", str(phantoms), "--run", str(run), "--export-only"]
    assert main([*command, "--version", "0.0.1"]) == 0
    written = json.loads((run / "checkpoints" / "resnet18" / "model.json").read_text())
    assert written["weights_sha256"] == exported[1].weights_sha256
    recorded = json.loads((run / "checkpoints" / "resnet18" / "training.json").read_text())
    assert recorded["command"] == (
        "scp-node train --model resnet18 --data DIR --stages 1x64,1x64 --samples-per-epoch 16 --batch-size 8 --seed 3"
    )
    assert main([*command[:-2], str(tmp_path / "none"), "--export-only"]) == 1
    assert "holds no run" in capsys.readouterr().err


def _evaluate(data, exported, *more):
    return main(["evaluate", "--data", str(data), "--checkpoints", str(exported[0]), "--model", "resnet18", *more])


def test_site_gets_figures_plots_and_the_list_of_what_was_not_judged(exported, phantoms, tmp_path, capsys):
    site = tmp_path / "site"
    site.mkdir()
    lines = ["file,label"]
    for index in range(8):
        name = f"val-{index}.{'png' if index == 3 else 'jpg'}"
        shutil.copy(phantoms / name, site / name)
        lines.append(f"{name},{'normal' if index % 2 else 'pneumonia'}")
    (site / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    Image.fromarray(np.full((64, 64), 7, dtype=np.uint8)).save(site / "black.png")
    lines += ["broken.jpg,normal", "black.png,normal", "absent.dcm,pneumonia"]
    (site / "labels.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    assert _evaluate(site, exported, "--out", str(out), "--sensitivity", "0.75") == 0
    told = capsys.readouterr().out
    assert "suggested threshold for a sensitivity of 0.75" in told
    assert "2 files unreadable" in told
    assert "1 files not eligible" in told
    assert "poor_quality" in told
    assert all(name in told for name in ("broken.jpg", "black.png", "absent.dcm"))
    for plot in ("roc-resnet18.png", "reliability-resnet18.png"):
        with Image.open(out / plot) as picture:
            assert min(picture.size) > 200
    assert len((out / "scores.csv").read_text().splitlines()) == 9
    (figures,) = json.loads((out / "evaluation.json").read_text())["measurements"]
    assert (figures["source"], figures["images"], figures["positives"]) == ("site", 8, 4)


def test_json_is_one_object_and_writes_nothing(exported, phantoms, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert _evaluate(phantoms, exported, "--split", "val", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    report = json.loads(line)
    found = {(m["source"], m["labels"]): m["images"] for m in report["measurements"]}
    assert found == {
        ("kermany-2018", "own"): 8,
        ("nih-chestxray8", "rsna"): 4,
        ("nih-chestxray8", "confirmed"): 4,
        ("nih-chestxray8", "raw"): 4,
    }
    assert report["models"][0]["weights_sha256"] == exported[1].weights_sha256
    assert not list(tmp_path.iterdir())


def test_site_threshold_of_the_configuration_is_what_is_measured(exported, phantoms, monkeypatch, capsys):
    monkeypatch.setenv("SCP_NODE__ANALYSIS__THRESHOLDS", '{"resnet18": 0.987}')
    assert _evaluate(phantoms, exported, "--split", "val", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["models"][0]["threshold"] == 0.987
    assert {m["at_threshold"]["threshold"] for m in report["measurements"]} == {0.987}


def test_card_holds_what_was_measured_and_no_radiograph_of_the_data(exported, phantoms, tmp_path, capsys):
    notes = tmp_path / "notes.md"
    notes.write_text("Two epochs on phantoms were tried.")
    assert _evaluate(phantoms, exported, "--split", "val", "--json", "--card", "--notes", str(notes)) == 0
    report = json.loads(capsys.readouterr().out)
    folder = exported[0] / "resnet18"
    card = (folder / "card.md").read_text()
    assert exported[1].weights_sha256 in card
    assert "Two epochs on phantoms were tried." in card
    for measurement in report["measurements"]:
        assert f"{measurement['auc']:.3f} [{measurement['auc_interval'][0]:.3f}" in card
    for part in ("CC BY 4.0", "mean training box", "uniform", "ECE cross-fitted", "RG1_UNCR.dcm"):
        assert part in card
    pictures = {file.name for file in folder.glob("*.png")}
    assert (
        {"roc.png", "reliability.png", "rg1.png"}
        <= pictures
        <= {"roc.png", "reliability.png", "rg1.png", "failures.png"}
    )
    for name in pictures:
        assert f"({name})" in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sensitivity", "1.5"], "not above 0 and at most 1"),
        (["--sensitivity", "often"], "not above 0 and at most 1"),
    ],
)
def test_wrong_usage_is_one_sentence_and_code_2(exported, phantoms, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        _evaluate(phantoms, exported, *arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_bad_table_is_one_sentence_and_code_1(exported, tmp_path, capsys):
    (tmp_path / "labels.csv").write_text("file,label\na.png,perhaps\n")
    assert _evaluate(tmp_path, exported) == 1
    assert "line 2: label 'perhaps'" in capsys.readouterr().err
