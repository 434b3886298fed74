"""Execution with OpenVINO on the CPU: one compiled graph gives logit and map; needs no PyTorch once it is compiled."""

import threading
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from inference.errors import CheckpointError, DeviceError
from inference.models.checkpoint import Manifest
from inference.runtime import compiled
from inference.runtime.catalog import Placement

_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3}
"""Largest error against PyTorch in float32: of a logit (a share of it beyond 1), of a map as a share of its maximum."""
_PRECISION = {"float32": "f32", "bfloat16": "bf16"}


class OpenvinoRuntime:
    """One compiled network.

    Raises
    ------
    CheckpointError
        The weights are missing or altered, or the compiled model does not say what PyTorch said of the same inputs.
    ConversionError
        The network cannot be compiled.
    DeviceError
        A CUDA device is asked for.
    NotCompiledError
        There is no sound compiled model, and this process may not make one.
    """

    def __init__(self, folder: Path, manifest: Manifest, placement: Placement) -> None:
        if placement.device == "cuda":
            raise DeviceError("runtime = 'openvino' runs on the CPU; device = 'cuda' needs runtime = 'torch'")
        if placement.precision not in _PRECISION:
            raise DeviceError(f"precision = {placement.precision!r} needs runtime = 'torch'")
        self._shape = (3, manifest.input.rows, manifest.input.columns)
        self._lock = threading.Lock()
        entry = compiled.ensure(folder, manifest, placement.cache, may_compile=placement.may_compile)
        try:
            self._request = self._open(entry, placement)
            fault = self._fault(entry, placement)
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            # A damaged entry: whatever it was, it is made anew by the next start.
            fault = f"cannot be loaded ({type(error).__name__})"
        if fault is not None and not placement.may_compile:
            raise compiled.NotCompiledError(f"the compiled model of {manifest.name} {fault}")
        if fault is not None:
            compiled.discard(entry)
            raise CheckpointError(manifest.name, f"the compiled model {fault}; {entry.folder} was removed")
        self.name = f"openvino {placement.precision}"

    @staticmethod
    def _open(entry: compiled.Entry, placement: Placement) -> "openvino.InferRequest":
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": placement.threads,
            "INFERENCE_PRECISION_HINT": _PRECISION[placement.precision],
            # Pinned, two processes of one thread each would share a core.
            "ENABLE_CPU_PINNING": False,
        }
        return openvino.Core().compile_model(entry.model, "CPU", options).create_infer_request()

    def _fault(self, entry: compiled.Entry, placement: Placement) -> str | None:
        with np.load(entry.check) as known:
            batch, logits, maps = known["batch"], known["logits"], known["maps"]
        # One at a time, as most are served: the memory that a larger batch once took is kept, 40 MiB for each model.
        found_logits, found_maps = map(np.concatenate, zip(*(self.run(image[None]) for image in batch), strict=True))
        tolerance = _TOLERANCE[placement.precision]
        logit_error = float((np.abs(found_logits - logits) / np.maximum(1, np.abs(logits))).max())
        map_error = float(np.abs(found_maps - maps).max() / max(float(np.abs(maps).max()), 1e-12))
        if logit_error <= tolerance and map_error <= tolerance:  # and not "not more": NaN is a fault
            return None
        return f"differs from PyTorch by {logit_error:.2g} in the logit and {map_error:.2g} in the map"

    def run(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Execute the network on a batch; see ``Runtime.run``."""
        if batch.ndim != 4 or batch.shape[1:] != self._shape or batch.dtype != np.float32:
            raise ValueError(
                f"expected (n, {', '.join(map(str, self._shape))}) float32, got {batch.shape} {batch.dtype}"
            )
        # One request holds one set of outputs: a second thread would read what was said of another radiograph.
        with self._lock:
            self._request.infer([np.ascontiguousarray(batch)])
            logits, maps = (self._request.get_output_tensor(index).data.copy() for index in range(2))
        return logits, maps
