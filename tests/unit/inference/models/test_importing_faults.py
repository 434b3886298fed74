"""Imports that meet damage or each other: a folder is there whole or not at all, and is what the file says."""

import zipfile
from datetime import date

import pytest
import torch
from safetensors.torch import save_file

from inference.errors import CheckpointError
from inference.models import importing
from inference.models.catalog import find_model
from inference.models.checkpoint import read_manifest, verify_weights
from inference.models.importing import import_weights
from inference.models.manifest import Manifest


@pytest.fixture(scope="module")
def state():
    return find_model("resnet18").architecture.build().state_dict()


def bring_in(file, checkpoints, **changes):
    arguments = {"name": "mine", "architecture": "resnet18", "threshold": 0.3, "created": date(2026, 11, 23)} | changes
    return import_weights(file, checkpoints, **arguments)


def test_changed_bytes_inside_a_tensor_are_refused(tmp_path, state):
    """PyTorch loads them; the archive's checksums tell."""
    file = tmp_path / "weights.pth"
    torch.save(state, file)
    with zipfile.ZipFile(file) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(file.read_bytes())
    middle = largest.header_offset + largest.file_size // 2
    content[middle : middle + 64] = bytes(64)
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged, or .* does not match its checksum"):
        bring_in(file, tmp_path / "checkpoints")
    assert not (tmp_path / "checkpoints").exists()


def test_tensors_without_values_are_refused(tmp_path, state):
    torch.save({key: value.to("meta") for key, value in state.items()}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="not a dense tensor"):
        bring_in(tmp_path / "weights.pth", tmp_path)


def test_a_safetensors_file_is_called_one(tmp_path, state):
    file = tmp_path / "weights.safetensors"
    save_file(state, file)
    with pytest.raises(CheckpointError, match=r"looks like a safetensors file; save its tensors with torch\.save"):
        bring_in(file, tmp_path)


def test_of_two_imports_of_one_name_the_first_that_is_done_stays(tmp_path, state, monkeypatch):
    ours, theirs = tmp_path / "ours.pth", tmp_path / "theirs.pth"
    torch.save(state, ours)
    torch.save({key: value * 0.5 if value.is_floating_point() else value for key, value in state.items()}, theirs)
    write = importing.write_checkpoint

    def overtaken(*arguments):
        monkeypatch.setattr(importing, "write_checkpoint", write)
        bring_in(theirs, tmp_path, title="theirs")
        return write(*arguments)

    monkeypatch.setattr(importing, "write_checkpoint", overtaken)
    with pytest.raises(CheckpointError, match="exists already"):
        bring_in(ours, tmp_path, title="ours")
    manifest = read_manifest(tmp_path / "mine")
    assert manifest.title == "theirs"
    verify_weights(tmp_path / "mine", manifest)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine", "ours.pth", "theirs.pth"]


def test_a_file_where_the_folder_of_all_should_be_is_not_called_a_model(tmp_path, state):
    """Another name would help nobody."""
    torch.save(state, tmp_path / "weights.pth")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot write .*: File exists"):
        bring_in(tmp_path / "weights.pth", tmp_path / "file")


def test_an_interrupted_import_leaves_no_folder(tmp_path, state, monkeypatch):
    torch.save(state, tmp_path / "weights.pth")

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Manifest, "to_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bring_in(tmp_path / "weights.pth", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["weights.pth"]


def test_text_that_no_file_can_hold_is_refused(tmp_path, state):
    """What a command line in another encoding becomes."""
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="training_data holds a character that UTF-8 cannot"):
        bring_in(tmp_path / "weights.pth", tmp_path, training_data="Kinder\udcff")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("key", ["threshold", "mean"])
def test_a_number_too_large_for_any_float_is_refused_by_name(random_checkpoints, key):
    text = (random_checkpoints / "resnet18" / "model.json").read_text()
    huge = "1" + 400 * "0"
    changed = text.replace('"threshold": 0.25', f'"threshold": {huge}')
    if key == "mean":
        changed = text.replace('"mean": [\n      0.5', f'"mean": [\n      {huge}')
    assert changed != text
    with pytest.raises(ValueError, match=f"{key} is not finite"):
        Manifest.from_json(changed)
