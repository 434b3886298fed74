"""The one place a model is added: name, network, target layer and operating point of each.

Importing this module does not import torch; building a network does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A network family: how to build it with one output, and where its last convolutional activations are.

    Parameters
    ----------
    name
        Key in ``model.json``.
    target_layer
        Name of the module whose output Grad-CAM explains, as the literature names it.
    build
        Makes the network with random weights and one output (a logit, shape (batch, 1)).
    trunk, head
        ``head(network, trunk(network, x))`` is the network's forward pass; the trunk's result, (batch, channels,
        rows, columns), is what Grad-CAM explains.
    """

    name: str
    target_layer: str
    build: Callable[[], "nn.Module"]
    trunk: Callable[["nn.Module", "Tensor"], "Tensor"]
    head: Callable[["nn.Module", "Tensor"], "Tensor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One classifier of this node; its weights lie in ``checkpoints/<name>/``."""

    name: str
    title: str
    architecture: Architecture
    default_threshold: float


def _resnet18() -> "nn.Module":
    from torchvision.models import resnet18

    network: nn.Module = resnet18(weights=None, num_classes=1)
    return network


def _resnet_trunk(network: "nn.Module", x: "Tensor") -> "Tensor":
    n: dict[str, nn.Module] = dict(network.named_children())
    x = n["maxpool"](n["relu"](n["bn1"](n["conv1"](x))))
    return n["layer4"](n["layer3"](n["layer2"](n["layer1"](x))))  # type: ignore[no-any-return]


def _resnet_head(network: "nn.Module", activations: "Tensor") -> "Tensor":
    n: dict[str, nn.Module] = dict(network.named_children())
    return n["fc"](n["avgpool"](activations).flatten(1))  # type: ignore[no-any-return]


def _efficientnet_b0() -> "nn.Module":
    from torchvision.models import efficientnet_b0

    network: nn.Module = efficientnet_b0(weights=None, num_classes=1)
    return network


def _features_trunk(network: "nn.Module", x: "Tensor") -> "Tensor":
    return network.get_submodule("features")(x)  # type: ignore[no-any-return]


def _efficientnet_head(network: "nn.Module", activations: "Tensor") -> "Tensor":
    n: dict[str, nn.Module] = dict(network.named_children())
    return n["classifier"](n["avgpool"](activations).flatten(1))  # type: ignore[no-any-return]


def _densenet121() -> "nn.Module":
    from torchvision.models import densenet121

    network: nn.Module = densenet121(weights=None, num_classes=1)
    return network


def _densenet_trunk(network: "nn.Module", x: "Tensor") -> "Tensor":
    # torchvision rectifies the output of `features` in place before pooling. The activations that Grad-CAM explains
    # here are those that enter the pooling, after the ReLU: only then does the map add up to the logit.
    return network.get_submodule("features")(x).relu()  # type: ignore[no-any-return]


def _densenet_head(network: "nn.Module", activations: "Tensor") -> "Tensor":
    from torch.nn.functional import adaptive_avg_pool2d

    return network.get_submodule("classifier")(adaptive_avg_pool2d(activations, (1, 1)).flatten(1))  # type: ignore[no-any-return]


MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        name="resnet18",
        title="ResNet18",
        architecture=Architecture(
            name="resnet18", target_layer="layer4", build=_resnet18, trunk=_resnet_trunk, head=_resnet_head
        ),
        default_threshold=0.25,
    ),
    ModelSpec(
        name="efficientnet_b0",
        title="EfficientNet-B0",
        architecture=Architecture(
            name="efficientnet_b0",
            target_layer="features",
            build=_efficientnet_b0,
            trunk=_features_trunk,
            head=_efficientnet_head,
        ),
        default_threshold=0.15,
    ),
    ModelSpec(
        name="densenet121",
        title="DenseNet121",
        architecture=Architecture(
            name="densenet121", target_layer="features", build=_densenet121, trunk=_densenet_trunk, head=_densenet_head
        ),
        default_threshold=0.18,
    ),
)


def architectures() -> dict[str, Architecture]:
    """All architectures by name; weights under any other model name can use one of them too."""
    return {spec.architecture.name: spec.architecture for spec in MODELS}


def find_model(name: str) -> ModelSpec | None:
    """The entry of a model; None for a name that is no one's, such as that of imported weights."""
    return next((spec for spec in MODELS if spec.name == name), None)
