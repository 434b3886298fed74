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

_PROBABILITY, _MAP = 1e-3, 1e-2
"""What a device or half precision may move: a probability before calibration, and a map as a share of its maximum."""
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
    # Before PyTorch 2.14 what is set for all does not reach convolutions, which have TF32 by default.
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined] # as above
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


class Staging:
    """Memory in which batches are put together for a device; every batch fills it, the last places with nothing.

    The numbers of a radiograph then never depend on how many others were waiting: libraries choose by the size of a
    batch how they compute, and another order of adding is another last digit.

    Parameters
    ----------
    shape
        Of one image.
    places
        Images in a batch; a larger batch than ever before makes it larger.
    is_pinned
        Whether the memory stays where it is: a device reads it by itself, and at twice the speed.
    """

    def __init__(self, shape: tuple[int, int, int], places: int, *, is_pinned: bool) -> None:
        self._shape = shape
        self._is_pinned = is_pinned
        self.memory = self._allocate(places)

    def put(self, batch: Tensor) -> Tensor:
        """Return the memory with these images in its first places; it is the next batch's as well."""
        if len(batch) > len(self.memory):
            self.memory = self._allocate(len(batch))
        self.memory[: len(batch)].copy_(batch)
        self.memory[len(batch) :].zero_()
        return self.memory

    def _allocate(self, places: int) -> Tensor:
        size = (places, *self._shape)
        return torch.empty(size, pin_memory=self._is_pinned, memory_format=torch.channels_last).zero_()


class TorchRuntime:
    """One network in evaluation mode.

    Raises
    ------
    CheckpointError
        The weights are missing or altered.
    DeviceError
        A CUDA device is asked for and not there, or it computes something else than the CPU.
    """

    def __init__(self, folder: Path, manifest: Manifest, placement: Placement) -> None:
        self._device = find_device(placement.device)
        make_repeatable(placement.threads)
        self._architecture = architecture_of(manifest)
        self._network = load_network(folder, manifest).to(memory_format=torch.channels_last)
        self._shape = (3, manifest.input.rows, manifest.input.columns)
        self._staging: Staging | None = None
        self._precision = _DTYPES[placement.precision]
        if self._device.type == "cuda":
            self._move(manifest.name, placement.batch_size)
        if self._precision is torch.float16 and (
            fault := difference(self._checked(None), self._checked(torch.float16))
        ):
            _log.warning("%s runs in float32: float16 %s", manifest.name, fault)
            self._precision = None
        self.name = f"torch {self._device.type} {str(self._precision or torch.float32).removeprefix('torch.')}"

    def run(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Execute the network on a batch; see ``Runtime.run``."""
        if batch.ndim != 4 or batch.shape[1:] != self._shape or batch.dtype != np.float32:
            raise ValueError(
                f"expected (n, {', '.join(map(str, self._shape))}) float32, got {batch.shape} {batch.dtype}"
            )
        images = torch.from_numpy(np.ascontiguousarray(batch))
        logits, maps = self._explain(images, self._precision)
        if self._precision is torch.float16 and not (logits.isfinite().all() and maps.isfinite().all()):
            # Half precision ends at 65,504.
            logits, maps = self._explain(images, None)
        return logits.numpy(), maps.numpy()

    def _explain(self, batch: Tensor, precision: torch.dtype | None) -> tuple[Tensor, Tensor]:
        """Logits and maps of a batch, in memory of the CPU."""
        if self._staging is None:
            placed = batch.contiguous(memory_format=torch.channels_last)
        else:
            # In order with what follows on the device; and results are fetched before the memory is used again.
            placed = self._staging.put(batch).to(self._device, non_blocking=True)
        with torch.autocast(self._device.type, dtype=precision, enabled=precision is not None):
            logits, maps = explain(self._architecture, self._network, placed)
        return logits[: len(batch)].float().cpu(), maps[: len(batch)].float().cpu()

    def _checked(self, precision: torch.dtype | None) -> tuple[Tensor, Tensor]:
        return self._explain(check_batch(*self._shape[1:]), precision)

    def _move(self, name: str, batch_size: int) -> None:
        """Take the network to the device, and see that it says there what it said here."""
        expected = self._checked(None)
        self._network = self._network.to(self._device)
        self._staging = Staging(self._shape, batch_size, is_pinned=True)
        if fault := difference(expected, self._checked(None)):
            raise DeviceError(f"{name} on {torch.cuda.get_device_name(self._device)} {fault}, against the CPU")


def difference(expected: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> str | None:
    """How much logits and maps of the same images differ, in words; None: not more than they may.

    Parameters
    ----------
    expected, found
        (n,) and (n, map rows, map columns) float32.
    """
    (logits, maps), (found_logits, found_maps) = expected, found
    probability = float((found_logits.sigmoid() - logits.sigmoid()).abs().max())
    share = float((found_maps - maps).abs().max() / maps.abs().max().clamp_min(1e-12))
    if probability <= _PROBABILITY and share <= _MAP:  # and not "not more": NaN is a fault
        return None
    return f"moves a probability by {probability:.2g} and a map by {share:.2g}"
