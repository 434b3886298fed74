"""Execution with PyTorch, on the CPU or a CUDA device, and repeatable: same input, same numbers."""

import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.errors import DeviceError
from inference.models.checkpoint import Manifest, architecture_of, load_network
from inference.models.gradcam import explain
from inference.runtime.catalog import Placement
from inference.runtime.checking import check_batch

_log = logging.getLogger(__name__)

_HALF_PROBABILITY, _HALF_MAP = 1e-3, 1e-2
"""What half precision may move: a probability before calibration, and a map as a share of its maximum."""
_DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
        self._staging: Tensor | None = None
        self._precision = _DTYPES[placement.precision]
        if self._precision is torch.float16 and (fault := self._fault()) is not None:
            _log.warning("%s runs in float32: float16 %s", manifest.name, fault)
            self._precision = None
        self.name = f"torch {self._device.type} {str(self._precision or torch.float32).removeprefix('torch.')}"

    def run(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Execute the network on a batch; see ``Runtime.run``."""
        if batch.ndim != 4 or batch.shape[1:] != self._shape or batch.dtype != np.float32:
            raise ValueError(
                f"expected (n, {', '.join(map(str, self._shape))}) float32, got {batch.shape} {batch.dtype}"
            )
        logits, maps = self._explain(torch.from_numpy(np.ascontiguousarray(batch)), self._precision)
        return logits.cpu().numpy(), maps.cpu().numpy()

    def _explain(self, batch: Tensor, precision: torch.dtype | None) -> tuple[Tensor, Tensor]:
        with torch.autocast(self._device.type, dtype=precision, enabled=precision is not None):
            logits, maps = explain(self._architecture, self._network, self._placed(batch))
        return logits.float(), maps.float()

    def _placed(self, batch: Tensor) -> Tensor:
        """Copy a batch to the device; through pinned memory, which a device reads by itself and at twice the speed."""
        if self._device.type != "cuda":
            return batch.to(self._device, memory_format=torch.channels_last)
        if self._staging is None or len(self._staging) < len(batch):
            self._staging = torch.empty(batch.shape, pin_memory=True, memory_format=torch.channels_last)
        staged = self._staging[: len(batch)].copy_(batch)
        # In order with what follows on the device; and `run` fetches its results before the memory is used again.
        return staged.to(self._device, non_blocking=True)

    def _fault(self) -> str | None:
        """Compare half precision with float32 on this device; None: they agree."""
        batch = check_batch(*self._shape[1:])
        logits, maps = self._explain(batch, None)
        found_logits, found_maps = self._explain(batch, self._precision)
        probability = float((found_logits.sigmoid() - logits.sigmoid()).abs().max())
        share = float((found_maps - maps).abs().max() / maps.abs().max().clamp_min(1e-12))
        if probability <= _HALF_PROBABILITY and share <= _HALF_MAP:  # and not "not more": NaN is a fault
            return None
        return f"moves a probability by {probability:.2g} and a map by {share:.2g}"
