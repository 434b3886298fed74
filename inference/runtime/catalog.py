"""The one place a runtime is added: how the network of a checkpoint is executed. Imports no backend itself."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from inference.models.checkpoint import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a network runs.

    Parameters
    ----------
    device
        ``auto`` takes a CUDA device when there is one.
    threads
        Threads of one process on the CPU; at least 1.
    """

    device: Literal["auto", "cpu", "cuda"]
    threads: int

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"{self.threads} threads; 1 at least")


class Runtime(Protocol):
    """One loaded model."""

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
    from inference.runtime.torch_runtime import TorchRuntime

    return TorchRuntime(folder, manifest, placement)


RUNTIMES: dict[str, OpenRuntime] = {"torch": _torch}
"""Each opens a checkpoint folder; raises CheckpointError, and DeviceError for a device that is not there."""
