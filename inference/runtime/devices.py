"""Which devices machine and installation have, found out without loading a framework: what may run, not what runs."""

import ctypes
import importlib.metadata
import importlib.util
from pathlib import Path

from config.analysis import AnalysisSettings

_LIBRARY = "libcuda.so.1"
_DEVICE_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""Of the driver, and of the one that Linux has inside Windows."""


def may_use_cuda(settings: AnalysisSettings) -> bool:
    """Whether a process that runs the models may come to use CUDA: asked for, or chosen where all it takes is there."""
    if settings.device == "cpu" or settings.runtime == "openvino":
        return False
    return settings.device == "cuda" or (
        any(file.exists() for file in _DEVICE_FILES) and torch_is_for_cuda() and _driver() is not None
    )


def torch_is_for_cuda() -> bool:
    """Whether PyTorch is installed and its version does not say that it is for CPUs only."""
    if importlib.util.find_spec("torch") is None:
        return False
    try:
        return not importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return True


def cuda_is_there() -> bool:
    """Whether the CUDA driver is installed and knows a device; what a framework then makes of it is another matter."""
    driver = _driver()
    if driver is None:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
