"""Execution with PyTorch, on the CPU or a CUDA device, in float32 and repeatable: same input, same numbers."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inference.errors import DeviceError
from inference.models.checkpoint import Manifest, architecture_of, load_network
from inference.models.gradcam import explain
from inference.runtime.catalog import Placement


def find_device(wanted: str) -> torch.device:
    """The device to run on.

    Parameters
    ----------
    wanted
        ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    DeviceError
        ``cuda`` is asked for and there is no CUDA device.
    """
    is_there = wanted != "cpu" and torch.cuda.is_available()
    if wanted == "cuda" and not is_there:
        raise DeviceError("device = 'cuda', but torch finds no CUDA device here; use 'auto' or 'cpu'")
    return torch.device("cuda" if is_there else "cpu")


def make_repeatable(threads: int) -> None:
    """Set what PyTorch keeps per process: threads, no TF32, no choice of algorithm by timing."""
    torch.set_num_threads(threads)
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined] # set through a module class that type checkers cannot see
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


class TorchRuntime:
    """One network in evaluation mode."""

    def __init__(self, folder: Path, manifest: Manifest, placement: Placement) -> None:
        self._device = find_device(placement.device)
        make_repeatable(placement.threads)
        self._architecture = architecture_of(manifest)
        network = load_network(folder, manifest)
        self._network = network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in torch's overloads
        self._shape = (3, manifest.input.rows, manifest.input.columns)
        self._precision = torch.bfloat16 if placement.precision == "bfloat16" else None
        self.name = f"torch {self._device.type} {placement.precision}"

    def run(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Execute the network on a batch; see ``Runtime.run``."""
        if batch.ndim != 4 or batch.shape[1:] != self._shape or batch.dtype != np.float32:
            raise ValueError(
                f"expected (n, {', '.join(map(str, self._shape))}) float32, got {batch.shape} {batch.dtype}"
            )
        tensor = torch.from_numpy(np.ascontiguousarray(batch))
        placed = tensor.to(self._device, memory_format=torch.channels_last)
        with torch.autocast(self._device.type, dtype=self._precision, enabled=self._precision is not None):
            logits, maps = explain(self._architecture, self._network, placed)
        return logits.float().cpu().numpy(), maps.float().cpu().numpy()
