"""Checkpoint folders: strict manifests, verified weights."""

import hashlib
import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import date

import pytest
import torch

from inference.errors import CheckpointError
from inference.models import catalog
from inference.models.checkpoint import (
    Calibration,
    Manifest,
    default_folder,
    load_network,
    read_manifest,
    read_manifests,
    verify_weights,
    write_checkpoint,
)
from inference.models.preprocess import InputSpec
from inference.records import RenderRule

MANIFEST = Manifest(
    name="resnet18",
    title="ResNet18",
    architecture="resnet18",
    version="1.0.0",
    input=InputSpec(),
    rule=RenderRule.AUTO,
    threshold=0.25,
    calibration=Calibration(slope=1.25, intercept=-0.5),
    training_data="Kermany 2018, RSNA 2018",
    created=date(2026, 11, 23),
)


@pytest.fixture
def checkpoint(random_checkpoints, tmp_path):
    """A copy of one checkpoint, to be damaged."""
    shutil.copytree(random_checkpoints / "resnet18", tmp_path / "resnet18")
    return tmp_path / "resnet18"


@pytest.fixture
def described(random_checkpoints, tmp_path):
    """A copy of one manifest without its weights, to be damaged."""
    (tmp_path / "resnet18").mkdir()
    shutil.copy(random_checkpoints / "resnet18" / "model.json", tmp_path / "resnet18")
    return tmp_path / "resnet18"


def edit(folder, change):
    """Change the parsed model.json in place."""
    fields = json.loads((folder / "model.json").read_text())
    change(fields)
    (folder / "model.json").write_text(json.dumps(fields))


def test_manifest_survives_the_file():
    manifest = replace(MANIFEST, weights_sha256="ab" * 32, title="폐렴 모델")
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda f: f.update(extra=1), "unknown key extra"),
        (lambda f: f["input"].update(crop=1), "unknown key input.crop"),
        (lambda f: f["calibration"].update(bias=1), "unknown key calibration.bias"),
        (lambda f: f.pop("threshold"), "threshold is missing"),
        (lambda f: f["input"].pop("mean"), "input.mean is missing"),
        (lambda f: f.update(schema=2), "schema is 2"),
        (lambda f: f.update(schema=True), "schema must be an integer"),
        (lambda f: f.update(threshold="0.25"), "threshold must be a number"),
        (lambda f: f.update(threshold=True), "threshold must be a number"),
        (lambda f: f.update(threshold=1.0), "threshold 1.0"),
        (lambda f: f.update(threshold=0), "threshold 0.0"),
        (lambda f: f.update(input=[224, 224]), "input must be an object"),
        (lambda f: f["input"].update(rows=224.5), "input.rows must be an integer"),
        (lambda f: f["input"].update(rows=8), "too small"),
        (lambda f: f["input"].update(rows=100000), "larger than"),
        (lambda f: f["input"].update(mean=[0.5, 0.5]), "input.mean must be a list of three"),
        (lambda f: f["input"].update(std=[0.5, 0.5, "x"]), "input.std must be a list of three"),
        (lambda f: f["input"].update(std=[0.5, 0.5, 0]), "std must be positive"),
        (lambda f: f.update(rule="hu"), "rule is 'hu'"),
        (lambda f: f["calibration"].update(slope=-1), "slope"),
        (lambda f: f.update(created="yesterday"), "created must be a date"),
        (lambda f: f.update(weights_sha256=""), "weights_sha256 is empty"),
        (lambda f: f.update(weights_sha256="ABC"), "weights_sha256"),
        (lambda f: f.update(title="a\\b"), "title"),
        (lambda f: f.update(version="1\n2"), "version"),
        (lambda f: f.update(name="../resnet18"), "name"),
        (lambda f: f.update(name="resnet19"), "folder's name"),
        (lambda f: f.update(architecture="resnet50"), "architecture 'resnet50'"),
        (lambda f: f.update(architecture="densenet121"), "belongs to architecture resnet18"),
    ],
)
def test_a_mistake_in_the_manifest_is_refused_by_name(described, change, named):
    edit(described, change)
    with pytest.raises(CheckpointError, match=r"^checkpoint resnet18: ") as refusal:
        read_manifest(described)
    assert named in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"schema": 1, "schema": 1}', "given twice"),
        ('{"threshold": NaN}', "NaN"),
        ("[]", "object"),
        ("{", "model.json"),
        ("\xff", "model.json"),
        ("[" * 60000, "model.json"),
        (" " * 70000, "70000 bytes"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-LFS pointer"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(described, text, named):
    (described / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"model\.json") as refusal:
        read_manifest(described)
    assert named in str(refusal.value)


def test_missing_files_are_named(tmp_path, checkpoint):
    with pytest.raises(CheckpointError, match=r"model\.json: No such file"):
        read_manifest(tmp_path / "vgg16")
    manifest = read_manifest(checkpoint)
    (checkpoint / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: No such file"):
        load_network(checkpoint, manifest)


def test_one_changed_bit_is_refused(checkpoint):
    manifest = read_manifest(checkpoint)
    assert verify_weights(checkpoint, manifest)
    weights = checkpoint / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1000] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="has SHA-256"):
        load_network(checkpoint, manifest)


def test_lfs_pointer_instead_of_weights_is_said_to_be_one(checkpoint):
    manifest = read_manifest(checkpoint)
    (checkpoint / "weights.safetensors").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{manifest.weights_sha256}\nsize 45\n"
    )
    with pytest.raises(CheckpointError, match="git lfs pull"):
        load_network(checkpoint, manifest)


def test_a_file_with_the_right_hash_that_is_no_safetensors_file_is_refused(checkpoint):
    content = b"\x80\x04not safetensors" * 10
    (checkpoint / "weights.safetensors").write_bytes(content)
    edit(checkpoint, lambda f: f.update(weights_sha256=hashlib.sha256(content).hexdigest()))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_network(checkpoint, read_manifest(checkpoint))


def changed_state(change):
    state = catalog.find_model("resnet18").architecture.build().state_dict()
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s.pop("fc.bias"), "1 of 102 tensors are missing, first fc.bias"),
        (lambda s: s.update(more=torch.zeros(1)), "1 tensors are unknown, first more"),
        (lambda s: s.update({"fc.weight": torch.zeros(2, 512)}), r"fc.weight has shape \(2, 512\)"),
        (lambda s: s.update({"fc.bias": torch.zeros(1, dtype=torch.int64)}), "fc.bias is torch.int64"),
        (lambda s: s.update({"fc.bias": torch.tensor([math.nan])}), "fc.bias holds a value"),
    ],
)
def test_tensors_that_do_not_fit_are_neither_written_nor_loaded(tmp_path, change, named):
    with pytest.raises(CheckpointError, match=named):
        write_checkpoint(tmp_path / "resnet18", changed_state(change), MANIFEST)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_not_loaded(checkpoint):
    """Written by another program, hash and shapes right."""
    from safetensors.torch import load_file, save_file

    state = load_file(checkpoint / "weights.safetensors")
    state["fc.bias"][0] = math.inf
    save_file(state, checkpoint / "weights.safetensors")
    digest = hashlib.sha256((checkpoint / "weights.safetensors").read_bytes()).hexdigest()
    edit(checkpoint, lambda f: f.update(weights_sha256=digest))
    with pytest.raises(CheckpointError, match=r"fc.bias holds a value that is not finite"):
        load_network(checkpoint, read_manifest(checkpoint))


def test_half_precision_that_overflows_is_not_written(tmp_path):
    state = changed_state(lambda s: s.update({"fc.bias": torch.tensor([1e6])}))
    with pytest.raises(CheckpointError, match="float16"):
        write_checkpoint(tmp_path / "resnet18", state, MANIFEST, "float16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_written_weights_load_as_float32_and_the_same_state_gives_the_same_bytes(tmp_path, dtype):
    state = changed_state(lambda s: None)
    assert any(key.endswith("num_batches_tracked") for key in state)
    written = write_checkpoint(tmp_path / "a" / "resnet18", state, MANIFEST, dtype)
    again = write_checkpoint(tmp_path / "b" / "resnet18", dict(reversed(state.items())), MANIFEST, dtype)
    assert written == again == read_manifest(tmp_path / "a" / "resnet18")
    assert sorted(file.name for file in (tmp_path / "a" / "resnet18").iterdir()) == [
        "model.json",
        "weights.safetensors",
    ]
    network = load_network(tmp_path / "a" / "resnet18", written)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    for key, value in network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert value.dtype == torch.float32
            assert torch.equal(value, state[key].to(getattr(torch, dtype)).float())


def test_a_folder_of_another_name_is_not_written(tmp_path):
    with pytest.raises(CheckpointError, match="same name"):
        write_checkpoint(tmp_path / "export", changed_state(lambda s: None), MANIFEST)


def test_manifests_come_in_the_order_asked_for(random_checkpoints):
    names = ("densenet121", "resnet18")
    assert tuple(manifest.name for manifest in read_manifests(random_checkpoints, names)) == names


def test_preprocessing_names_rule_size_and_normalisation():
    assert MANIFEST.preprocessing == "auto;224x224;mean=0.5;std=0.25"
    imagenet = InputSpec(rows=256, columns=192, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    other = replace(MANIFEST, rule=RenderRule.SEED, input=imagenet)
    assert other.preprocessing == "seed;256x192;mean=0.485,0.456,0.406;std=0.229,0.224,0.225"


def test_calibrated_probability():
    assert Calibration().probability(0.0) == 0.5
    assert Calibration(slope=2.0, intercept=-1.0).probability(1.5) == pytest.approx(1 / (1 + math.exp(-2.0)), abs=1e-15)
    assert Calibration().probability(1e308) == 1.0
    assert Calibration(slope=1e10).probability(-1e308) == 0.0
    with pytest.raises(ValueError, match="not finite"):
        Calibration().probability(math.nan)


def test_manifests_and_hashes_need_no_torch(random_checkpoints):
    code = (
        "import sys; from pathlib import Path; from inference.models.checkpoint import read_manifest, verify_weights\n"
        f"folder = Path({str(random_checkpoints)!r}) / 'resnet18'\n"
        "verify_weights(folder, read_manifest(folder)); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_shipped_checkpoints_lie_beside_the_packages():
    assert default_folder().name == "checkpoints"
    assert (default_folder().parent / "inference").is_dir()
