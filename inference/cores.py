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

    Two at least where there are two cores, then one for two cores: while one reads, draws or waits for the disk,
    another one uses what it leaves, and a radiograph that hangs holds up nobody. Each adds its threads and memory to
    those of the node's own process, which takes a core of many itself. A CUDA device is one child's.
    """
    if settings.processes:
        return settings.processes
    is_cuda_there = settings.device == "auto" and settings.runtime != "openvino" and _CUDA_DRIVER.exists()
    if settings.device == "cuda" or is_cuda_there:
        return 1
    cores = _cores()
    return min(_MOST_PROCESSES, max(min(2, cores), cores // 2))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
