"""The compiled runtime says what PyTorch says, is made once, and nothing damaged or foreign in its cache is run."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from inference.errors import CheckpointError, DeviceError
from inference.models.catalog import MODELS
from inference.models.checkpoint import read_manifest
from inference.runtime import catalog, compiled, conversion
from inference.runtime.catalog import RUNTIMES, Placement
from inference.runtime.openvino_runtime import OpenvinoRuntime
from inference.runtime.torch_runtime import TorchRuntime

NAMES = [spec.name for spec in MODELS]


@pytest.fixture
def placement(cache_folder):
    return Placement(device="cpu", threads=1, cache=cache_folder)


def pictures(count):
    """(count, 3, 224, 224) float32 that the check of the cache has not seen."""
    coarse = np.random.default_rng(5).normal(0, 1, (count, 11, 11)).astype(np.float32)
    return np.stack([np.repeat(cv2.resize(picture, (224, 224))[None], 3, axis=0) for picture in coarse])


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_maps_are_those_of_pytorch(random_checkpoints, placement, name):
    """Within a thousandth of a logit and of a map's largest value: far inside what a report prints."""
    folder = random_checkpoints / name
    manifest = read_manifest(folder)
    batch = pictures(3)
    logits, maps = OpenvinoRuntime(folder, manifest, placement).run(batch)
    expected, expected_maps = TorchRuntime(folder, manifest, placement).run(batch)
    assert logits.dtype == maps.dtype == np.float32
    assert maps.shape == expected_maps.shape
    assert np.abs(logits - expected).max() < 1e-3
    assert np.abs(maps - expected_maps).max() < 1e-3 * np.abs(expected_maps).max()
    one, one_map = OpenvinoRuntime(folder, manifest, placement).run(batch[1:2])
    assert one[0] == pytest.approx(logits[1], abs=1e-4)
    assert np.allclose(one_map[0], maps[1], atol=1e-3 * np.abs(maps[1]).max())


def test_a_compiled_model_needs_no_pytorch(random_checkpoints, placement):
    """What makes a child process small and quick to start."""
    compiled.ensure(random_checkpoints / "resnet18", read_manifest(random_checkpoints / "resnet18"), placement.cache)
    script = f"""
import sys
from pathlib import Path
from inference.ensemble import LoadedEnsemble
from config.analysis import AnalysisSettings
settings = AnalysisSettings(checkpoints=Path({str(random_checkpoints)!r}), models=("resnet18",), device="cpu")
print(*LoadedEnsemble(settings).runtime_names, "torch" in sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "openvino float32 False"


def test_a_model_is_compiled_once(random_checkpoints, placement, monkeypatch):
    folder = random_checkpoints / "resnet18"
    manifest = read_manifest(folder)
    entry = compiled.ensure(folder, manifest, placement.cache)
    monkeypatch.setattr(compiled, "_convert", lambda *_: pytest.fail("compiled again"))
    assert compiled.ensure(folder, manifest, placement.cache) == entry
    assert compiled.entry_of(placement.cache, replace(manifest, weights_sha256="0" * 64)) != entry


def _copied(entry, cache):
    copy = compiled.Entry(folder=cache / entry.folder.name)
    shutil.copytree(entry.folder, copy.folder)
    return copy


@pytest.mark.parametrize("damage", ["weights", "graph", "check", "other network"])
def test_a_damaged_or_foreign_entry_is_refused_and_removed(random_checkpoints, placement, tmp_path, damage):
    folder = random_checkpoints / "resnet18"
    manifest = read_manifest(folder)
    entry = _copied(compiled.ensure(folder, manifest, placement.cache), tmp_path)
    weights = entry.model.with_suffix(".bin")
    match damage:
        case "weights":
            weights.write_bytes(bytes(weights.stat().st_size))
        case "graph":
            entry.model.write_text("<net>")
        case "check":
            entry.check.write_bytes(b"PK")
        case "other network":
            known = dict(np.load(entry.check))
            known["logits"] = known["logits"] + np.float32(0.01)
            np.savez(entry.check, **known)
    with pytest.raises(CheckpointError, match="compiled model"):
        OpenvinoRuntime(folder, manifest, Placement(device="cpu", threads=1, cache=tmp_path))
    assert not entry.folder.exists()


def test_a_head_that_is_not_affine_runs_with_pytorch(random_checkpoints, placement, monkeypatch):
    """Grad-CAM's weights then differ from image to image; no fixed sum is the map."""
    architecture = MODELS[0].architecture
    bent = replace(architecture, head=lambda network, x: architecture.head(network, x) ** 2)
    network = architecture.build().eval()
    with pytest.raises(compiled.ConversionError, match="not affine"):
        conversion.channel_weights(bent, network, torch.from_numpy(pictures(2)))

    def refuse(*_, **__):
        raise compiled.ConversionError("resnet18: not affine")

    monkeypatch.setattr(compiled, "ensure", refuse)
    folder = random_checkpoints / "resnet18"
    assert RUNTIMES["auto"](folder, read_manifest(folder), placement).name == "torch cpu float32"


def test_a_cache_that_cannot_be_written_costs_speed_only(random_checkpoints, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    folder = random_checkpoints / "resnet18"
    manifest = read_manifest(folder)
    for cache in (blocked / "cache", None):
        placement = Placement(device="cpu", threads=1, cache=cache)
        with pytest.raises(compiled.ConversionError, match="cache"):
            OpenvinoRuntime(folder, manifest, placement)
        assert RUNTIMES["auto"](folder, manifest, placement).name.startswith("torch")


def test_altered_weights_are_refused_although_a_compiled_model_is_there(random_checkpoints, placement, tmp_path):
    folder = tmp_path / "resnet18"
    shutil.copytree(random_checkpoints / "resnet18", folder)
    manifest = read_manifest(folder)
    compiled.ensure(folder, manifest, placement.cache)
    weights = folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        RUNTIMES["auto"](folder, manifest, placement)


def test_devices(random_checkpoints, placement, monkeypatch, caplog):
    folder = random_checkpoints / "resnet18"
    manifest = read_manifest(folder)
    cuda = Placement(device="cuda", threads=1, cache=placement.cache)
    with pytest.raises(DeviceError, match="runs on the CPU"):
        OpenvinoRuntime(folder, manifest, cuda)
    assert RUNTIMES["auto"](folder, manifest, placement).name == "openvino float32"
    opened = []
    monkeypatch.setitem(vars(catalog), "_torch", lambda *_: opened.append("torch"))
    auto = Placement(device="auto", threads=1, cache=placement.cache)
    monkeypatch.setattr(catalog, "cuda_is_there", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    RUNTIMES["auto"](folder, manifest, auto)
    assert opened == ["torch"]
    # A device that PyTorch cannot use is none: no PyTorch, a build for CPUs, a driver that is too old for it.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert RUNTIMES["auto"](folder, manifest, auto).name == "openvino float32"
    assert "PyTorch cannot use" in caplog.text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(catalog, "torch_is_for_cuda", lambda: False)
    assert RUNTIMES["auto"](folder, manifest, auto).name == "openvino float32"
    assert opened == ["torch"]


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_bfloat16_is_offered_and_near(random_checkpoints, placement, runtime):
    folder = random_checkpoints / "resnet18"
    manifest = read_manifest(folder)
    batch = pictures(2)
    coarse = Placement(device="cpu", threads=1, precision="bfloat16", cache=placement.cache)
    opened = RUNTIMES[runtime](folder, manifest, coarse)
    assert opened.name.endswith("bfloat16")
    logits, maps = opened.run(batch)
    expected, expected_maps = TorchRuntime(folder, manifest, placement).run(batch)
    assert logits.dtype == maps.dtype == np.float32
    assert np.abs(logits - expected).max() < 0.3
    assert np.abs(maps - expected_maps).max() < 0.3 * np.abs(expected_maps).max()


def test_input_of_another_size_or_type_is_refused(random_checkpoints, placement):
    folder = random_checkpoints / "resnet18"
    runtime = OpenvinoRuntime(folder, read_manifest(folder), placement)
    with pytest.raises(ValueError, match=r"expected \(n, 3, 224, 224\) float32"):
        runtime.run(np.zeros((1, 3, 128, 128), np.float32))
