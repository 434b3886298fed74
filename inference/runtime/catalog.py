"""The one place a runtime is added: how the network of a checkpoint is executed. Imports no backend itself."""

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from inference.errors import DeviceError
from inference.models.checkpoint import Manifest
from inference.runtime.devices import cuda_is_there, torch_is_for_cuda

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a network runs.

    Parameters
    ----------
    device
        ``auto`` takes a CUDA device when there is one.
    threads
        Threads of one process on the CPU; at least 1.
    precision
        Of the arithmetic; ``bfloat16`` and ``float16`` are for runtimes that offer them.
    batch_size
        Radiographs that are judged at once at most; at least 1.
    cache
        Folder for models that a runtime compiles; None: nothing is compiled.
    may_compile
        Whether this process may write there.
    """

    device: Literal["auto", "cpu", "cuda"]
    threads: int
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: int = 1
    cache: Path | None = None
    may_compile: bool = True

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"{self.threads} threads; 1 at least")
        if self.batch_size < 1:
            raise ValueError(f"batches of {self.batch_size}; 1 at least")


class Runtime(Protocol):
    """One loaded model."""

    name: str
    """What runs it, in words: ``openvino float32``."""

    def run(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Execute the network on a batch.

        Parameters
        ----------
        batch
            (n, 3, rows, columns) float32, normalised; the size that the manifest names.

        Returns
        -------
        logits
            (n,) float32, not calibrated; not checked to be finite.
        maps
            (n, map rows, map columns) float32, signed and not normalised, see ``gradcam.explain``.
        """


OpenRuntime = Callable[[Path, Manifest, Placement], Runtime]


def _torch(folder: Path, manifest: Manifest, placement: Placement) -> Runtime:
    if importlib.util.find_spec("torch") is None:
        raise DeviceError(
            f"{manifest.name} is not compiled and PyTorch is not installed: run `scp-node models compile` where it is, "
            "and copy the folder analysis.cache"
        )
    from inference.runtime.torch_runtime import TorchRuntime

    return TorchRuntime(folder, manifest, placement)


def _openvino(folder: Path, manifest: Manifest, placement: Placement) -> Runtime:
    from inference.runtime.openvino_runtime import OpenvinoRuntime

    return OpenvinoRuntime(folder, manifest, placement)


def _torch_finds_cuda() -> bool:
    if not (torch_is_for_cuda() and cuda_is_there()):
        return False
    from inference.runtime.torch_runtime import find_device

    if find_device("auto").type == "cuda":
        return True
    _log.warning("there is a CUDA device that PyTorch cannot use (its driver may be too old): the CPU runs the models")
    return False


def _auto(folder: Path, manifest: Manifest, placement: Placement) -> Runtime:
    """PyTorch on a CUDA device where there is one; else OpenVINO, and PyTorch for what OpenVINO cannot run."""
    from inference.runtime.compiled import ConversionError

    if placement.precision == "float16":
        return _torch(folder, manifest, placement)
    on_cuda = placement.device == "cuda" or (placement.device == "auto" and _torch_finds_cuda())
    if on_cuda or importlib.util.find_spec("openvino") is None:
        return _torch(folder, manifest, placement)
    try:
        return _openvino(folder, manifest, placement)
    except ConversionError as error:
        _log.warning("%s; it runs with PyTorch, slower and with the same result", error)
        return _torch(folder, manifest, placement)


RUNTIMES: dict[str, OpenRuntime] = {"auto": _auto, "torch": _torch, "openvino": _openvino}
"""Each opens a checkpoint folder; raises CheckpointError, and DeviceError for a device that is not there."""
