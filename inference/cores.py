"""How many child processes and threads the cores of a machine allow; imports nothing that is heavy."""

import os
from pathlib import Path

from config.analysis import AnalysisSettings

_CUDA_DRIVER = Path("/dev/nvidiactl")
_MOST_PROCESSES = 8
"""Without being asked for more: each takes 0.7 GB with an 18 MB radiograph."""


def threads_per_process(settings: AnalysisSettings) -> int:
    """Threads one process may use: as configured, or the cores this process may run on divided by the processes."""
    return settings.threads or max(1, _cores() // processes(settings))


def processes(settings: AnalysisSettings) -> int:
    """Child processes: as configured, or by the cores that this process may run on.

    One for two cores: the node's own process, which receives and delivers, takes a part of the second, and reading and
    drawing keep a child to one core for two thirds of its time. A CUDA device is one child's.
    """
    if settings.processes:
        return settings.processes
    is_cuda_there = settings.device == "auto" and settings.runtime != "openvino" and _CUDA_DRIVER.exists()
    if settings.device == "cuda" or is_cuda_there:
        return 1
    return max(1, min(_MOST_PROCESSES, _cores() // 2))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
