"""PyTorch as a runtime: devices, shapes, repeatability."""

import math

import cv2
import numpy as np
import pytest
import torch

from inference.errors import CheckpointError, DeviceError
from inference.models import gradcam
from inference.models.catalog import MODELS
from inference.models.checkpoint import architecture_of, load_network, read_manifest
from inference.runtime import torch_runtime
from inference.runtime.catalog import RUNTIMES, Placement
from inference.runtime.torch_runtime import Staging, TorchRuntime, difference, find_device, make_repeatable

ONE_CORE = Placement(device="cpu", threads=1)
MAP_SHAPES = {"resnet18": (7, 7), "efficientnet_b0": (7, 7), "densenet121": (7, 7)}


@pytest.fixture(autouse=True)
def threads_as_before():
    """The number of threads belongs to the process: leave it as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def batch(count=2):
    """Smooth pictures: (count, 3, 224, 224) float32, about as spread as normalised radiographs."""
    coarse = np.random.default_rng(3).normal(0, 1, (count, 9, 9)).astype(np.float32)
    return np.stack([np.repeat(cv2.resize(picture, (224, 224))[None], 3, axis=0) for picture in coarse])


@pytest.mark.parametrize("name", [spec.name for spec in MODELS])
def test_logits_and_maps_are_those_of_the_network(random_checkpoints, name):
    manifest = read_manifest(random_checkpoints / name)
    logits, maps = RUNTIMES["torch"](random_checkpoints / name, manifest, ONE_CORE).run(batch())
    assert logits.shape == (2,)
    assert maps.shape == (2, *MAP_SHAPES[name])
    assert logits.dtype == maps.dtype == np.float32
    network = load_network(random_checkpoints / name, manifest)
    expected, expected_maps = gradcam.explain(architecture_of(manifest), network, torch.from_numpy(batch()))
    assert np.abs(logits - expected.numpy()).max() < 1e-4
    assert np.abs(maps - expected_maps.numpy()).max() < 1e-4 * np.abs(expected_maps.numpy()).max()


def test_the_same_input_gives_the_same_numbers(random_checkpoints):
    manifest = read_manifest(random_checkpoints / "densenet121")
    first, second = (TorchRuntime(random_checkpoints / "densenet121", manifest, ONE_CORE) for _ in range(2))
    for found, again in zip((*first.run(batch()), *first.run(batch())), (*second.run(batch()),) * 2, strict=True):
        assert np.array_equal(found, again)


def test_the_configured_number_of_threads_is_used(random_checkpoints):
    manifest = read_manifest(random_checkpoints / "resnet18")
    TorchRuntime(random_checkpoints / "resnet18", manifest, Placement(device="cpu", threads=2))
    assert torch.get_num_threads() == 2
    with pytest.raises(ValueError, match="0 threads"):
        Placement(device="cpu", threads=0)


@pytest.mark.parametrize(
    "wrong", [np.zeros((3, 224, 224), np.float32), np.zeros((1, 3, 200, 224), np.float32), np.zeros((1, 3, 224, 224))]
)
def test_a_batch_of_another_shape_or_type_is_refused(random_checkpoints, wrong):
    manifest = read_manifest(random_checkpoints / "resnet18")
    with pytest.raises(ValueError, match=r"expected \(n, 3, 224, 224\) float32"):
        TorchRuntime(random_checkpoints / "resnet18", manifest, ONE_CORE).run(wrong)


def test_a_device_that_is_not_there_is_refused(monkeypatch, random_checkpoints):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    manifest = read_manifest(random_checkpoints / "resnet18")
    with pytest.raises(DeviceError, match="no CUDA device"):
        TorchRuntime(random_checkpoints / "resnet18", manifest, Placement(device="cuda", threads=1))
    assert find_device("auto").type == find_device("cpu").type == "cpu"


def test_auto_takes_a_cuda_device_and_cpu_does_not(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device("auto").type == find_device("cuda").type == "cuda"
    assert find_device("cpu").type == "cpu"


def test_altered_weights_do_not_run(random_checkpoints, tmp_path):
    folder = tmp_path / "resnet18"
    folder.mkdir()
    manifest = read_manifest(random_checkpoints / "resnet18")
    (folder / "weights.safetensors").write_bytes(b"altered")
    with pytest.raises(CheckpointError, match="SHA-256"):
        RUNTIMES["torch"](folder, manifest, ONE_CORE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", [spec.name for spec in MODELS])
def test_cuda_gives_the_numbers_of_the_cpu(random_checkpoints, name):
    manifest = read_manifest(random_checkpoints / name)
    logits, maps = TorchRuntime(random_checkpoints / name, manifest, ONE_CORE).run(batch())
    cuda = TorchRuntime(random_checkpoints / name, manifest, Placement(device="cuda", threads=1))
    found, found_maps = cuda.run(batch())
    assert np.abs(found - logits).max() < 1e-3
    assert np.abs(found_maps - maps).max() < 1e-3 * np.abs(maps).max()
    assert all(np.array_equal(a, b) for a, b in zip(cuda.run(batch()), (found, found_maps), strict=True))


def opened(folder, name, **placement):
    return TorchRuntime(
        folder / name, read_manifest(folder / name), Placement(**{"device": "cpu", "threads": 1} | placement)
    )


@pytest.mark.parametrize("name", [spec.name for spec in MODELS])
def test_half_precision_is_taken_only_where_it_agrees(random_checkpoints, name):
    """The same code decides on a CUDA device."""
    half, full = (opened(random_checkpoints, name, precision=precision) for precision in ("float16", "float32"))
    (logits, maps), (expected, expected_maps) = half.run(batch()), full.run(batch())
    if half.name == full.name:
        assert np.array_equal(logits, expected)
        return
    assert half.name == "torch cpu float16"
    assert not np.array_equal(logits, expected)
    # Other pictures than those of the check: twice its limits.
    assert np.abs(1 / (1 + np.exp(-logits)) - 1 / (1 + np.exp(-expected))).max() <= 2e-3
    assert np.abs(maps - expected_maps).max() <= 2e-2 * np.abs(expected_maps).max()


def test_what_half_precision_cannot_hold_is_computed_again_in_full(random_checkpoints, monkeypatch):
    half, full = (opened(random_checkpoints, "resnet18", precision=precision) for precision in ("float16", "float32"))
    half._precision = torch.float16
    found = half._explain

    def overflowing(images, precision):
        logits, maps = found(images, precision)
        return (logits * float("inf"), maps) if precision is torch.float16 else (logits, maps)

    monkeypatch.setattr(half, "_explain", overflowing)
    for one, other in zip(half.run(batch()), full.run(batch()), strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_operation_uses_tf32():
    make_repeatable(1)
    assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "ieee"


def test_half_precision_that_does_not_agree_is_left(random_checkpoints, monkeypatch, caplog):
    monkeypatch.setattr(torch_runtime, "_PROBABILITY", -1.0)
    runtime = opened(random_checkpoints, "resnet18", precision="float16")
    assert runtime.name == "torch cpu float32"
    assert "resnet18 runs in float32: float16 moves a probability by" in caplog.text
    assert np.array_equal(runtime.run(batch())[0], opened(random_checkpoints, "resnet18").run(batch())[0])


def test_half_precision_runs_with_pytorch(random_checkpoints, tmp_path):
    half = Placement(device="cpu", threads=1, precision="float16", cache=tmp_path)
    manifest = read_manifest(random_checkpoints / "resnet18")
    assert RUNTIMES["auto"](random_checkpoints / "resnet18", manifest, half).name.startswith("torch cpu")
    with pytest.raises(DeviceError, match="needs runtime = 'torch'"):
        RUNTIMES["openvino"](random_checkpoints / "resnet18", manifest, half)


@pytest.mark.parametrize("name", [spec.name for spec in MODELS])
def test_a_batch_gives_what_its_images_give_alone(random_checkpoints, name):
    runtime = opened(random_checkpoints, name)
    logits, maps = runtime.run(batch(5))
    for place, picture in enumerate(batch(5)):
        alone, alone_map = runtime.run(picture[None])
        assert abs(alone[0] - logits[place]) < 1e-4
        assert np.abs(alone_map[0] - maps[place]).max() < 1e-4 * np.abs(maps[place]).max()


def test_a_batch_that_is_filled_up_gives_the_same_numbers_whoever_else_is_in_it(random_checkpoints):
    """As on a CUDA device; there `Staging` is pinned, too."""
    runtime = opened(random_checkpoints, "efficientnet_b0")
    plain, _ = runtime.run(batch(3))
    runtime._staging = Staging((3, 224, 224), 4, is_pinned=False)
    logits, maps = runtime.run(batch(3))
    assert np.abs(logits - plain).max() < 1e-4
    for place, picture in enumerate(batch(3)):
        alone, alone_map = runtime.run(picture[None])
        assert np.array_equal(alone, logits[place : place + 1])
        assert np.array_equal(alone_map, maps[place : place + 1])


def test_staging_is_filled_by_every_batch_and_grows():
    staging = Staging((3, 32, 32), 2, is_pinned=False)
    images = torch.randn(3, 3, 32, 32)
    for count in (2, 1):
        put = staging.put(images[:count])
        assert len(put) == 2
        assert torch.equal(put[:count], images[:count])
        assert not put[count:].any()
        assert put.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(staging.put(images), images)
    assert len(staging.put(images[:1])) == 3


@pytest.mark.parametrize(
    ("logit", "map_value", "said"),
    [
        (0.003, 1.009, None),
        (0.1, 1.0, "moves a probability by 0.025"),
        (0.0, 1.1, "a map by 0.1"),
        (math.nan, 1.0, "nan"),
        (0.0, math.nan, "nan"),
    ],
)
def test_a_device_that_computes_something_else_is_found_out(logit, map_value, said):
    expected = (torch.zeros(2), torch.ones(2, 7, 7))
    found = (torch.tensor([0.0, logit]), torch.stack([torch.ones(7, 7), torch.full((7, 7), map_value)]))
    fault = difference(expected, found)
    assert fault is None if said is None else said in fault


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_a_radiograph_has_the_same_numbers_in_every_batch(random_checkpoints):
    runtime = opened(random_checkpoints, "resnet18", device="cuda", batch_size=8)
    assert runtime._staging.memory.is_pinned()
    logits, maps = runtime.run(batch(8))
    for count in (3, 1):
        found, found_maps = runtime.run(batch(8)[:count])
        assert np.array_equal(found, logits[:count])
        assert np.array_equal(found_maps, maps[:count])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_that_differs_from_the_cpu_is_refused(random_checkpoints, monkeypatch):
    monkeypatch.setattr(torch_runtime, "_PROBABILITY", -1.0)
    with pytest.raises(DeviceError, match=r"resnet18 on .* moves a probability by .*, against the CPU"):
        opened(random_checkpoints, "resnet18", device="cuda")
