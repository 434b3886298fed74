"""`scp-node demo` as a person runs it: a node, a PACS and a sender, and an exit code that tells the truth."""

import os
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

PROGRAM = Path(sys.executable).with_name("scp-node")


def demo(folder: Path, checkpoints: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SCP_NODE__")}
    environ |= {"SCP_NODE__ANALYSIS__CHECKPOINTS": str(checkpoints), "SCP_NODE__ANALYSIS__MODELS": '["resnet18"]'}
    return subprocess.run(
        [PROGRAM, "demo", *arguments], cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=280
    )


@pytest.mark.integration
def test_a_real_radiograph_comes_back_as_pictures_and_reports(tmp_path, random_checkpoints):
    done = demo(tmp_path, random_checkpoints)
    assert done.returncode == 0, done.stdout + done.stderr
    source = pydicom.dcmread(get_testdata_file("RG1_UNCR.dcm", download=False), stop_before_pixels=True)
    objects = [pydicom.dcmread(file) for file in sorted((tmp_path / "demo-out").glob("*.dcm"))]
    assert {dataset.StudyInstanceUID for dataset in objects} == {source.StudyInstanceUID}
    assert {"OT", "SR"} == {dataset.Modality for dataset in objects}
    for preview in (tmp_path / "demo-out").glob("*.png"):
        with Image.open(preview) as picture:
            assert min(picture.size) > 200
    for text in (
        "ResNet18",
        "Probability",
        "Comprehensive 3D SR",
        "9001",
        "last result stored",
        "not a medical device",
    ):
        assert text in done.stdout
    assert "loading the models" in done.stderr
    log = (tmp_path / "demo-out" / "node.log").read_text(encoding="utf-8")
    assert str(source.SOPInstanceUID) in log
    assert str(source.PatientID) not in log
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo-out"]


@pytest.mark.integration
def test_an_extremity_gets_no_results_and_no_success(tmp_path, random_checkpoints):
    """And a second demonstration leaves nothing of the first in the same folder, but all that is not its own."""
    out = tmp_path / "out"
    out.mkdir()
    (out / ".scp-node-demo").touch()
    (out / "9001-1-secondary-capture.png").touch()
    (out / "mine.png").touch()
    hand = get_testdata_file("RG3_UNCR.dcm", download=False)
    done = demo(tmp_path, random_checkpoints, "--input", hand, "--out", "out")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "not_eligible (not_chest)" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == [".scp-node-demo", "mine.png", "node.log"]


@pytest.mark.integration
def test_a_file_that_is_no_dicom_is_a_sentence_before_anything_starts(tmp_path, random_checkpoints):
    (tmp_path / "notes.txt").write_text("no picture")
    done = demo(tmp_path, random_checkpoints, "--input", get_testdata_file("RG1_UNCR.dcm", download=False), "notes.txt")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("scp-node: notes.txt: is no DICOM file")
    assert "starting the node" not in done.stderr
