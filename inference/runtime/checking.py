"""The inputs on which a faster way to run a network is compared with PyTorch in float32; runs no network."""

import numpy as np
import torch
from torch import Tensor, nn

CHECKED_IMAGES = 3


def check_batch(rows: int, columns: int) -> Tensor:
    """Inputs on which a compiled model is compared with PyTorch: structure of every size, always the same.

    Returns
    -------
    (CHECKED_IMAGES, 3, rows, columns) float32, about standard normal.
    """
    rng = np.random.default_rng(20261123)
    pictures = torch.zeros(CHECKED_IMAGES, 1, rows, columns)
    for cells in (3, 9, 27, 81):
        coarse = torch.from_numpy(rng.normal(0, 0.5, (CHECKED_IMAGES, 1, cells, cells)).astype(np.float32))
        pictures += nn.functional.interpolate(coarse, size=(rows, columns), mode="bilinear")
    return pictures.expand(-1, 3, -1, -1).contiguous()
