"""Grad-CAM (Selvaraju et al. 2017, doi:10.1109/ICCV.2017.74) from a network's trunk and head.

The gradient is taken from the logit back to the activations that are explained and no further: the trunk, where nearly
all the work is, runs once and without autograd. For a head of pooling and one linear layer the signed map adds up to
the logit but for the bias, so red areas are what the logit is made of.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inference.models.catalog import Architecture

if TYPE_CHECKING:
    from torch import Tensor, nn

# Sums of a thousand products in float32 are good to about this share of the largest; a maximum below it is rounding.
_ROUNDING = 1e-5


def explain(architecture: Architecture, network: "nn.Module", batch: "Tensor") -> "tuple[Tensor, Tensor]":
    """Logits and signed class activation maps of a batch in one pass.

    Parameters
    ----------
    network
        In evaluation mode: only then does no image of the batch touch another one's logit, and the gradient of the
        sum of the logits is each image's own gradient.
    batch
        (n, 3, rows, columns) float32, normalised.

    Returns
    -------
    logits
        (n,) float32
    maps
        (n, map rows, map columns) float32: activations weighted by the mean gradient of their channel, summed over
        the channels, before rectification.
    """
    logits, activations, gradient = differentiate(architecture, network, batch)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return logits, (weights * activations).sum(dim=1)


def differentiate(architecture: Architecture, network: "nn.Module", batch: "Tensor") -> "tuple[Tensor, Tensor, Tensor]":
    """Logits, the activations that are explained, and the gradient of each image's logit at its activations.

    Parameters
    ----------
    network, batch
        As of ``explain``.

    Returns
    -------
    logits
        (n,) float32
    activations, gradient
        (n, channels, map rows, map columns) float32
    """
    import torch

    if network.training:
        raise ValueError("the network must be in evaluation mode")
    with torch.no_grad():
        activations = architecture.trunk(network, batch).detach()
    activations.requires_grad_(True)
    with torch.enable_grad():
        # A copy: a head may begin with an operation in place (VGG), which autograd does not allow on the tensor itself
        # and which would change what is weighted afterwards.
        logits = architecture.head(network, activations.clone())[:, 0]
        (gradient,) = torch.autograd.grad(logits.sum(), activations)
    return logits.detach(), activations.detach(), gradient


def saliency(signed_map: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rectify a map and divide it by its maximum.

    Parameters
    ----------
    signed_map
        (rows, columns) float32, as ``explain`` makes them; finite.

    Returns
    -------
    (rows, columns) float32 in [0, 1]; all zero where nothing speaks for the finding, so that no noise is drawn.
    """
    maximum = float(signed_map.max())
    if maximum <= _ROUNDING * float(np.abs(signed_map).max()):
        return np.zeros_like(signed_map)
    return np.asarray(np.maximum(signed_map, 0) / np.float32(maximum), dtype=np.float32)
