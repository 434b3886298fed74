"""Compile one checkpoint for OpenVINO: one graph with logit and class activation map. Run as a program by `compiled`.

For a head that is affine (pooling and one linear layer), Grad-CAM's weights are the same for every image, so the map
becomes a fixed sum over channels and needs no gradient. Other heads are refused.
"""

import sys
from pathlib import Path

import numpy as np
import openvino
import torch
from torch import Tensor, nn

from inference.models.catalog import Architecture
from inference.models.checkpoint import architecture_of, load_network, read_manifest
from inference.models.gradcam import differentiate, explain
from inference.runtime.checking import check_batch
from inference.runtime.compiled import CHECK_FILE, MODEL_FILE, ConversionError

_MAXIMUM_BATCH = 64
_AFFINE = 1e-5
"""Largest difference between two gradients, as a share of the largest of them, that counts as none."""


class _Explained(nn.Module):
    """Forward pass that returns logits (n,) and signed maps (n, map rows, map columns)."""

    weights: Tensor

    def __init__(self, architecture: Architecture, network: nn.Module, weights: Tensor) -> None:
        super().__init__()
        self._architecture = architecture
        self.network = network
        self.register_buffer("weights", weights)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        activations = self._architecture.trunk(self.network, x)
        logits = self._architecture.head(self.network, activations)[:, 0]
        return logits, (self.weights * activations).sum(1)


def channel_weights(architecture: Architecture, network: nn.Module, batch: Tensor) -> Tensor:
    """Grad-CAM's weight of each channel, where it is the same for every image.

    Parameters
    ----------
    batch
        (2 or more, 3, rows, columns) float32; images that differ.

    Returns
    -------
    (1, channels, 1, 1) float32

    Raises
    ------
    ConversionError
        The gradient of the logit depends on the image: the head is not affine.
    """
    _, _, gradient = differentiate(architecture, network, batch)
    spread = float((gradient - gradient[:1]).abs().max())
    if spread > _AFFINE * float(gradient.abs().max()):
        raise ConversionError(f"the head of {architecture.name} is not affine; it runs with PyTorch")
    return gradient[:1].mean(dim=(2, 3), keepdim=True)


def convert(folder: Path, target: Path) -> None:
    """Write the compiled model of a checkpoint, and what PyTorch makes of the inputs of the check.

    Raises
    ------
    CheckpointError
        The checkpoint cannot be used.
    ConversionError
        The network cannot be compiled.
    """
    manifest = read_manifest(folder)
    architecture = architecture_of(manifest)
    network = load_network(folder, manifest)
    batch = check_batch(manifest.input.rows, manifest.input.columns)
    module = _Explained(architecture, network, channel_weights(architecture, network, batch)).eval()
    with torch.no_grad():
        exported = torch.export.export(
            module, (batch,), dynamic_shapes={"x": {0: torch.export.Dim("n", min=1, max=_MAXIMUM_BATCH)}}
        )
    graph = openvino.convert_model(exported)
    openvino.save_model(graph, target / MODEL_FILE, compress_to_fp16=False)
    logits, maps = explain(architecture, network, batch)
    np.savez(target / CHECK_FILE, batch=batch.numpy(), logits=logits.numpy(), maps=maps.numpy())


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:  # top of the process: the last line is what its caller reports
        sys.exit(f"{type(error).__name__}: {error}")
