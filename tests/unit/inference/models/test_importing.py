"""Foreign weights: what gets through, what is refused, and that a refusal leaves nothing behind."""

import io
import os
import pickle
from datetime import date
from pathlib import Path

import pytest
import torch

from inference.errors import CheckpointError
from inference.models.catalog import architectures
from inference.models.checkpoint import load_network, read_manifest
from inference.models.importing import IMAGENET_INPUT, import_weights
from inference.models.preprocess import InputSpec
from inference.records import RenderRule

ORIGINALS = {
    "251115_resnet18_NP.pth": "resnet18",
    "251115_efficientnet_NP.pth": "efficientnet_b0",
    "251115_densenet121_NP.pth": "densenet121",
}


@pytest.fixture(scope="module")
def states():
    """State dicts as torchvision's networks with one output have them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return {name: architecture.build().state_dict() for name, architecture in architectures().items()}


def bring_in(file, checkpoints, **changes):
    arguments = {"name": "mine", "architecture": "resnet18", "threshold": 0.3, "created": date(2026, 11, 23)} | changes
    return import_weights(file, checkpoints, **arguments)


def saved(folder, content, **options):
    torch.save(content, folder / "weights.pth", **options)
    return folder / "weights.pth"


def refused(folder, file, match, **changes):
    """The import is refused with a sentence, and nothing is written."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(CheckpointError, match=match) as refusal:
        bring_in(file, folder / "checkpoints", **changes)
    assert "\n" not in str(refusal.value)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(("file", "architecture"), ORIGINALS.items())
def test_weights_of_the_original_project_get_through(tmp_path, states, file, architecture):
    torch.save(states[architecture], tmp_path / file)
    manifest = bring_in(tmp_path / file, tmp_path, architecture=architecture, name="original", rule=RenderRule.SEED)
    assert read_manifest(tmp_path / "original") == manifest
    assert manifest.rule is RenderRule.SEED
    assert manifest.input == IMAGENET_INPUT
    assert manifest.version.startswith("sha256-")
    network = load_network(tmp_path / "original", manifest)
    for key, value in network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, states[architecture][key])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 7, "optimizer": {"lr": 0.1}},
        lambda state: {"model_state_dict": state},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
        lambda state: {key: value.double() if value.is_floating_point() else value for key, value in state.items()},
        lambda state: {key.replace("fc.", "fc.1."): value for key, value in state.items()},
    ],
    ids=["state_dict", "model_state_dict", "module", "both", "no-counters", "double", "dropout-before-last-layer"],
)
def test_usual_wrappings_are_taken_off(tmp_path, states, wrap):
    manifest = bring_in(saved(tmp_path, wrap(states["resnet18"])), tmp_path)
    network = load_network(tmp_path / "mine", manifest)
    assert torch.equal(network.state_dict()["fc.weight"], states["resnet18"]["fc.weight"])


def test_the_older_file_format_is_read(tmp_path, states):
    file = saved(tmp_path, states["resnet18"], _use_new_zipfile_serialization=False)
    assert bring_in(file, tmp_path).name == "mine"


class Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("writer", ["torch", "torch-legacy", "pickle"])
@pytest.mark.parametrize("place", ["alone", "in-state-dict"])
def test_code_in_the_file_never_runs(tmp_path, states, writer, place):
    mark = tmp_path.parent / f"{tmp_path.name}-ran"
    content = Harmful(mark) if place == "alone" else {**states["resnet18"], "extra": Harmful(mark)}
    file = tmp_path / "weights.pth"
    if writer == "pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=writer == "torch")
    refused(tmp_path, file, "more than tensors")
    assert not mark.exists()
    if writer == "pickle":
        pickle.loads(file.read_bytes())  # noqa: S301 - to show that the trap works
    else:
        torch.load(file, weights_only=False)
    assert mark.exists()


def test_a_whole_model_is_refused_with_advice(tmp_path):
    refused(
        tmp_path, saved(tmp_path, architectures()["resnet18"].build()), r"torch\.save\(model\.state_dict\(\), FILE\)"
    )


@pytest.mark.parametrize(("outputs", "says"), [(2, "2 outputs"), (1000, "1000 outputs")])
def test_another_number_of_outputs_is_refused(tmp_path, states, outputs, says):
    state = states["resnet18"] | {"fc.weight": torch.zeros(outputs, 512), "fc.bias": torch.zeros(outputs)}
    refused(tmp_path, saved(tmp_path, state), rf"fc.weight has shape \({outputs}, 512\).*{says}, and one is needed")


def test_weights_of_another_architecture_are_named(tmp_path, states):
    refused(tmp_path, saved(tmp_path, states["densenet121"]), "these are weights of densenet121")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 46827520\n", "git-LFS pointer"),
        (b"<html>404</html>", "no PyTorch weights file"),
        (b"\x80\x02}q\x00.", "no PyTorch weights file"),
        (b"PK\x03\x04" + bytes(100), "is truncated"),
    ],
)
def test_what_is_no_weights_file_is_refused(tmp_path, content, says):
    (tmp_path / "weights.pth").write_bytes(content)
    refused(tmp_path, tmp_path / "weights.pth", says)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("is_new_format", [True, False])
def test_a_truncated_file_is_refused(tmp_path, states, share, is_new_format):
    file = saved(tmp_path, states["resnet18"], _use_new_zipfile_serialization=is_new_format)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    refused(tmp_path, file, "is truncated" if is_new_format else "no PyTorch weights file")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([torch.zeros(1)], "holds no state dict"),
        ({}, "holds no state dict"),
        ({"epoch": 3}, "'epoch' is not a dense tensor"),
        ({"weights": {"fc.weight": torch.zeros(1, 512)}}, "'weights' is not a dense tensor"),
        ({1: torch.zeros(1)}, "1 is not a dense tensor"),
        ({"fc.weight": torch.zeros(1, 512).to_sparse()}, "'fc.weight' is not a dense tensor"),
        ({"fc.weight": torch.zeros(1, 512)}, "101 of 102 tensors are missing"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, says):
    refused(tmp_path, saved(tmp_path, content), says)


def test_weights_that_are_not_finite_are_refused(tmp_path, states):
    state = states["resnet18"] | {"fc.bias": torch.tensor([torch.nan])}
    refused(tmp_path, saved(tmp_path, state), "fc.bias holds a value that is not finite")
    state = states["resnet18"] | {"fc.weight": torch.full((1, 512), 3e38)}
    refused(tmp_path, saved(tmp_path, state), "gives numbers that are not finite")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "../mine"}, "name"),
        ({"name": "Mine"}, "name"),
        ({"name": "densenet121"}, "belongs to architecture densenet121"),
        ({"architecture": "resnet50"}, "is not one of resnet18, efficientnet_b0, densenet121"),
        ({"threshold": 1.5}, "threshold 1.5"),
        ({"title": "a\\b"}, "title"),
        ({"input_spec": InputSpec(rows=4096)}, "larger than"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, states, changes, says):
    refused(tmp_path, saved(tmp_path, states["resnet18"]), says, **changes)


def test_a_name_that_is_taken_is_refused(tmp_path, states):
    (tmp_path / "checkpoints" / "mine").mkdir(parents=True)
    refused(tmp_path, saved(tmp_path, states["resnet18"]), "exists already")


def test_a_missing_file_is_refused(tmp_path):
    refused(tmp_path, tmp_path / "none.pth", "cannot read")


def test_a_full_disk_leaves_nothing(tmp_path, states, monkeypatch):
    """The second of the two files cannot be written."""
    real = Path.open

    def full(self, *arguments, **options):
        if self.name == "model.json.part":
            raise OSError(28, "No space left on device")
        return real(self, *arguments, **options)

    file = saved(tmp_path, states["resnet18"])
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        bring_in(file, tmp_path)
    assert not (tmp_path / "mine").exists()


def test_flipped_bytes_end_in_a_refusal_or_in_other_weights(tmp_path, states):
    """Whatever the reader makes of damage, it is a CheckpointError and no other exception."""
    stream = io.BytesIO()
    torch.save({key: states["resnet18"][key] for key in ("fc.weight", "fc.bias")}, stream)
    content = stream.getvalue()
    file = tmp_path / "weights.pth"
    for position in range(0, len(content), 211):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            bring_in(file, tmp_path)
