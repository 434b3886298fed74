"""Grad-CAM from the head alone against autograd through the whole network and against the package `grad-cam`."""

import copy

import cv2
import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from inference.models import gradcam
from inference.models.catalog import MODELS, architectures
from inference.models.checkpoint import load_network, read_manifest
from inference.models.preprocess import InputSpec, to_model_input

NAMES = tuple(spec.name for spec in MODELS)


class RectifiedDenseNet(nn.Module):
    """torchvision's DenseNet with the last ReLU as a module of its own, not in place.

    torchvision rectifies the output of ``features`` in place: what a hook keeps of it are activations after the ReLU
    with gradients before it, which is no definition of Grad-CAM at all.
    """

    def __init__(self, network):
        super().__init__()
        self.features = network.features
        self.rectified = nn.ReLU(inplace=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = network.classifier

    def forward(self, x):
        return self.classifier(self.pool(self.rectified(self.features(x))).flatten(1))


def hookable(name, network):
    """A network whose own ``forward`` passes the explained activations through a module; and that module."""
    if name == "densenet121":
        network = RectifiedDenseNet(copy.deepcopy(network))
        return network, network.rectified
    return network, network.get_submodule(architectures()[name].target_layer)


def pictures(count=4):
    """(count, 3, 224, 224) normalised pictures with structure of several sizes."""
    rng = np.random.default_rng(7)
    rows, columns = np.mgrid[0:300, 0:260] / 40.0
    drawn = []
    for _ in range(count):
        a, b, c, d = rng.uniform(0, 6, 4)
        values = 128 + 60 * np.sin(rows * a + b) * np.cos(columns * c + d) + rng.normal(0, 20, rows.shape)
        drawn.append(to_model_input(np.clip(values, 0, 255).astype(np.uint8), InputSpec()))
    return np.stack(drawn)


@pytest.fixture(scope="module", params=NAMES)
def model(request, random_checkpoints):
    """(name, network) of each model of the catalog."""
    folder = random_checkpoints / request.param
    return request.param, load_network(folder, read_manifest(folder))


def exact(network, layer, batch):
    """Logits and signed maps by autograd through the whole network, one image at a time, nothing of ours."""
    logits, maps = [], []
    for image in batch:
        kept = []
        with layer.register_forward_hook(lambda module, inputs, output, kept=kept: kept.append(output)):
            x = image[None].clone().requires_grad_(True)
            logit = network(x)[0, 0]
        (gradient,) = torch.autograd.grad(logit, kept[0])
        maps.append((gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1)[0].detach())
        logits.append(logit.detach())
    return torch.stack(logits).numpy(), torch.stack(maps).numpy()


def test_equal_to_autograd_through_the_whole_network(model):
    name, network = model
    batch = torch.from_numpy(pictures())
    logits, maps = gradcam.explain(architectures()[name], network, batch)
    exact_logits, exact_maps = exact(*hookable(name, network), batch)
    assert np.abs(logits.numpy() - exact_logits).max() < 1e-5
    assert np.abs(maps.numpy() - exact_maps).max() < 1e-5 * np.abs(exact_maps).max()
    found = [gradcam.saliency(signed) for signed in maps.numpy()]
    expected = [np.maximum(signed, 0) / signed.max() for signed in exact_maps]
    assert any(signed.max() > 0 for signed in exact_maps)
    assert np.abs(np.stack(found) - np.stack(expected)).max() < 1e-5


def test_equal_to_the_package_grad_cam_where_there_is_evidence(model):
    name, network = model
    batch = pictures()
    _, maps = gradcam.explain(architectures()[name], network, torch.from_numpy(batch))
    # The package goes backward through everything, so everything must allow it.
    other, layer = hookable(name, copy.deepcopy(network).requires_grad_(True))
    compared = 0
    with GradCAM(model=other, target_layers=[layer]) as package:
        for image, signed in zip(batch, maps.numpy(), strict=True):
            if signed.max() <= 0.01 * np.abs(signed).max():
                continue
            tensor = torch.from_numpy(image[None])
            resized = package(input_tensor=tensor, targets=[ClassifierOutputTarget(0)])[0]
            # The package enlarges the rectified map to the input's size and normalises again; so do we, to compare.
            enlarged = cv2.resize(gradcam.saliency(signed), (224, 224))
            enlarged = (enlarged - enlarged.min()) / enlarged.max()
            resized = resized / resized.max()
            assert np.abs(enlarged - resized).max() < 1e-4
            compared += 1
    assert compared >= 2


def test_forward_pass_in_two_parts_is_the_network(model):
    name, network = model
    batch = torch.from_numpy(pictures(2))
    logits, _ = gradcam.explain(architectures()[name], network, batch)
    with torch.no_grad():
        assert torch.equal(logits, network(batch)[:, 0])


def test_signed_map_adds_up_to_the_logit(model):
    """Pooling and one linear layer: mean of the map times its size is the logit without the bias."""
    name, network = model
    batch = torch.from_numpy(pictures(2))
    logits, maps = gradcam.explain(architectures()[name], network, batch)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    assert torch.allclose(maps.sum((1, 2)) + last.bias, logits, atol=1e-4)


def test_images_of_a_batch_do_not_touch_each_other(model):
    name, network = model
    batch = torch.from_numpy(pictures(3))
    logits, maps = gradcam.explain(architectures()[name], network, batch)
    for i in range(3):
        logit, single = gradcam.explain(architectures()[name], network, batch[i : i + 1])
        assert torch.allclose(logit[0], logits[i], atol=1e-5)
        assert torch.allclose(single[0], maps[i], atol=1e-5 * float(maps[i].abs().max()))


def test_no_gradient_is_kept_and_none_reaches_the_trunk(model):
    name, network = model
    for parameter in network.parameters():
        assert parameter.grad is None
    _, maps = gradcam.explain(architectures()[name], network, torch.from_numpy(pictures(1)))
    assert not maps.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_network_in_training_mode_is_refused(model):
    name, network = model
    with pytest.raises(ValueError, match="evaluation mode"):
        gradcam.explain(architectures()[name], copy.deepcopy(network).train(), torch.from_numpy(pictures(1)))


def test_saliency_is_rectified_and_scaled():
    found = gradcam.saliency(np.array([[-4, 0], [1, 2]], dtype=np.float32))
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 0], [0.5, 1]]


@pytest.mark.parametrize("values", [[[-1, -2]], [[0, 0]], [[-1, 1e-7]], [[-1, -0.0]]])
def test_without_evidence_the_map_is_zero_and_not_noise(values):
    """The third is what rounding leaves of a map that is negative everywhere."""
    assert not gradcam.saliency(np.array(values, dtype=np.float32)).any()


def test_weak_evidence_is_shown():
    assert gradcam.saliency(np.array([[-1, 1e-3]], dtype=np.float32)).tolist() == [[0, 1]]
