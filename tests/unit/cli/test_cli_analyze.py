"""`scp-node analyze` on real files of every kind: the documented fields, reasons, pictures and exit codes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from scp_node.cli.main import main
from scp_node.demo.phantoms import chest_array, cr

FIELDS = ["file", "sop_instance_uid", "eligible", "reason", "window", "predictions", "duration_s"]
MODELS = ["resnet18", "efficientnet_b0", "densenet121"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path, random_checkpoints, restore_logging):
    monkeypatch.setenv("SCP_NODE__ANALYSIS__CHECKPOINTS", str(random_checkpoints))
    monkeypatch.setenv("SCP_NODE__ANALYSIS__MODELS", '["resnet18"]')  # the smallest; loading takes most of the time
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def _all_models(monkeypatch):
    monkeypatch.delenv("SCP_NODE__ANALYSIS__MODELS")


def sample(name: str, folder: Path) -> Path:
    return Path(shutil.copy(get_testdata_file(name, download=False), folder))


@pytest.fixture
def inputs(tmp_path) -> Path:
    """RG1 (chest), RG3 (extremity), a PNG, a JPEG, a text and a file that only begins like DICOM."""
    folder = tmp_path / "in"
    (folder / "below").mkdir(parents=True)
    sample("RG1_UNCR.dcm", folder)
    sample("RG3_UNCR.dcm", folder / "below")
    grey = (chest_array(300, 260) >> 4).astype(np.uint8)
    Image.fromarray(grey).save(folder / "chest.png")
    Image.fromarray(grey).save(folder / "chest.jpg", quality=95)
    (folder / "notes.txt").write_text("no picture")
    (folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\x00")
    return folder


@pytest.mark.usefixtures("_all_models")
def test_json_has_one_line_per_file_with_the_documented_fields(inputs, capsys):
    assert main(["analyze", str(inputs), "--json"]) == 1
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    by_name = {Path(line["file"]).name: line for line in lines}
    assert sorted(by_name) == ["RG1_UNCR.dcm", "RG3_UNCR.dcm", "broken.dcm", "chest.jpg", "chest.png"]
    for line in lines:
        assert list(line) == FIELDS
        assert line["duration_s"] >= 0
    chest = by_name["RG1_UNCR.dcm"]
    source = pydicom.dcmread(inputs / "RG1_UNCR.dcm", stop_before_pixels=True)
    assert chest["sop_instance_uid"] == source.SOPInstanceUID
    assert chest["eligible"] is True
    assert chest["reason"] is None
    assert list(chest["window"]) == ["source", "center", "width", "function"]
    assert [prediction["model"] for prediction in chest["predictions"]] == MODELS
    for prediction in chest["predictions"]:
        assert list(prediction) == ["model", "version", "probability", "threshold", "is_positive"]
        assert prediction["is_positive"] is (prediction["probability"] >= prediction["threshold"])
    hand = by_name["RG3_UNCR.dcm"]
    assert hand["eligible"] is False
    assert hand["reason"] == "not_chest"
    assert hand["window"] is None
    assert hand["predictions"] == []
    assert hand["sop_instance_uid"]
    for picture in ("chest.png", "chest.jpg"):
        assert by_name[picture]["eligible"] is True
        assert by_name[picture]["sop_instance_uid"] is None
    assert by_name["broken.dcm"]["eligible"] is False
    assert by_name["broken.dcm"]["reason"] == "unreadable"
    assert "broken.dcm" in captured.err
    assert "RG3_UNCR.dcm: not eligible, not_chest" in captured.err


def test_a_missing_file_does_not_stop_the_others(inputs, capsys):
    assert main(["analyze", "none.dcm", str(inputs / "chest.png"), "--json"]) == 1
    captured = capsys.readouterr()
    first, second = (json.loads(line) for line in captured.out.splitlines())
    assert (first["file"], first["reason"]) == ("none.dcm", "unreadable")
    assert second["eligible"] is True
    assert captured.err.count("\n") == 1


def test_not_eligible_is_no_failure(inputs, capsys):
    assert main(["analyze", str(inputs / "below")]) == 0
    assert "not eligible" in capsys.readouterr().err


def test_the_table_is_for_people(inputs, capsys):
    assert main(["analyze", str(inputs / "RG1_UNCR.dcm")]) == 0
    text = capsys.readouterr().out
    for title in ("ResNet18", "0.0.1", "0.2500", "models at or above threshold", "research use only"):
        assert title in text
    assert "the image's own window 15000 / 30000" in text, "as in the picture, not the name of a code"


def test_a_folder_without_pictures_is_told_and_is_code_1(tmp_path, capsys):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "notes.txt").write_text("no picture")
    assert main(["analyze", str(folder)]) == 1
    assert capsys.readouterr().err == f"scp-node: {folder}: holds no DICOM, PNG or JPEG file\n"


def test_out_gets_pictures_and_for_dicom_the_result_objects(inputs, tmp_path):
    out = tmp_path / "out"
    twin = tmp_path / "RG1_UNCR.png"
    shutil.copy(inputs / "chest.png", twin)
    assert main(["analyze", str(inputs / "RG1_UNCR.dcm"), str(twin), "--out", str(out), "--json"]) == 0
    assert sorted(folder.name for folder in out.iterdir()) == ["RG1_UNCR", "RG1_UNCR-2"]
    pictures = ["montage.png", "resnet18.png"]
    assert sorted(file.name for file in (out / "RG1_UNCR-2").iterdir()) == sorted(pictures)
    for picture in pictures:
        assert np.asarray(Image.open(out / "RG1_UNCR" / picture)).ndim == 3
    source = pydicom.dcmread(inputs / "RG1_UNCR.dcm", stop_before_pixels=True)
    objects = {file.name: pydicom.dcmread(file) for file in (out / "RG1_UNCR").glob("*.dcm")}
    assert set(objects) == {
        "montage.dcm",
        "single_resnet18.dcm",
        "measurement_report.dcm",
        "text_summary.dcm",
    }
    assert {dataset.StudyInstanceUID for dataset in objects.values()} == {source.StudyInstanceUID}


def test_results_of_two_files_of_one_name_are_not_mixed(inputs, tmp_path):
    """Reports of one patient must not lie beside pictures of another."""
    out, own = tmp_path / "out", tmp_path / "out" / "chest" / "notes.dcm"
    file = Path(shutil.copy(inputs / "RG1_UNCR.dcm", tmp_path / "chest.dcm"))
    assert main(["analyze", str(file), "--out", str(out), "--json"]) == 0
    assert (out / "chest" / "measurement_report.dcm").exists()
    own.write_bytes(b"not ours")
    assert main(["analyze", str(inputs / "chest.png"), "--out", str(out), "--json"]) == 0
    assert sorted(file.name for file in (out / "chest").iterdir()) == ["montage.png", "notes.dcm", "resnet18.png"]


def test_only_what_an_earlier_run_wrote_is_removed(inputs, tmp_path, monkeypatch, random_checkpoints):
    """Also of a model that was imported; a user's own files stay, though they are named after a kind or a model."""
    folder = tmp_path / "out" / "chest"
    folder.mkdir(parents=True)
    own = ["resnet18.dcm", "single.png", "text_summary.png"]
    for name in (*own, "mine.png", "single_mine.dcm"):
        (folder / name).write_bytes(b"of another patient")
    checkpoints = Path(shutil.copytree(random_checkpoints / "resnet18", tmp_path / "checkpoints" / "mine")).parent
    manifest = checkpoints / "mine" / "model.json"
    manifest.write_text(manifest.read_text().replace('"name": "resnet18"', '"name": "mine"'))
    monkeypatch.setenv("SCP_NODE__ANALYSIS__CHECKPOINTS", str(checkpoints))
    monkeypatch.setenv("SCP_NODE__ANALYSIS__MODELS", '["mine"]')
    assert main(["analyze", str(inputs / "chest.png"), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert sorted(file.name for file in folder.iterdir()) == sorted([*own, "mine.png", "montage.png"])
    assert (folder / "mine.png").read_bytes().startswith(b"\x89PNG")


def test_no_name_of_a_file_leads_out_of_the_folder(inputs, tmp_path):
    file = Path(shutil.copy(inputs / "chest.png", tmp_path / "...png"))
    out = tmp_path / "deep" / "out"
    assert main(["analyze", str(file), "--out", str(out), "--json"]) == 0
    assert sorted(one.name for one in (tmp_path / "deep").iterdir()) == ["out"]
    assert sorted(one.name for one in (out / "file").iterdir()) == ["montage.png", "resnet18.png"]


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_folder_that_cannot_be_made_is_told_before_anything_is_computed(inputs, tmp_path, capsys, below):
    (tmp_path / "out").write_text("a file where the folder should be")
    assert main(["analyze", str(inputs / "chest.png"), "--out", str(tmp_path / "out" / below)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"scp-node: --out {tmp_path / 'out' / below}: cannot be written: ")
    assert said.err.count("\n") == 1


def test_one_that_cannot_be_written_is_told_and_is_code_1(inputs, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "chest").write_text("a file where the folder of its results should be")
    assert main(["analyze", str(inputs / "chest.png"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert said.err.endswith(f"results not written: {tmp_path / 'out' / 'chest'}: File exists\n")
    assert "results in" not in said.out
    assert main(["analyze", str(inputs / "chest.png"), "--out", str(tmp_path / "other")]) == 0
    assert f"results in {tmp_path / 'other' / 'chest'}" in "".join(capsys.readouterr().out.split("\n"))


def test_no_patient_data_on_standard_error(tmp_path, capsys):
    """Also when pydicom has something to say about the name."""
    dataset = cr(rows=64, columns=64, PatientName="Hong^Gildong", BodyPartExamined="HAND")
    dataset.save_as(tmp_path / "hand.dcm", enforce_file_format=True)
    main(["analyze", str(tmp_path / "hand.dcm")])
    captured = capsys.readouterr()
    assert "Hong" not in captured.out + captured.err


def test_weights_that_do_not_fit_refuse_to_start(inputs, tmp_path, monkeypatch, capsys, random_checkpoints):
    broken = tmp_path / "checkpoints"
    shutil.copytree(random_checkpoints / "resnet18", broken / "resnet18")
    with (broken / "resnet18" / "weights.safetensors").open("ab") as weights:
        weights.write(b"\0")
    monkeypatch.setenv("SCP_NODE__ANALYSIS__CHECKPOINTS", str(broken))
    assert main(["analyze", str(inputs / "chest.png")]) == 1
    captured = capsys.readouterr()
    assert "resnet18" in captured.err
    assert captured.err.count("\n") == 1
