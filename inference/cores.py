"""How many child processes and threads the cores of a machine allow; imports nothing that is heavy."""

import os
from pathlib import Path

from config.analysis import AnalysisSettings

_CUDA_DRIVER = Path("/dev/nvidiactl")
_MOST_PROCESSES = 8
"""Without being asked for more: each takes 0.7 GB with an 18 MB radiograph."""

_MOST_AT_A_TIME = 4
"""Pictures of one analysis: three models and all of them together."""


def threads_per_process(settings: AnalysisSettings) -> int:
    """Threads one process may use: as configured, or the cores this process may run on divided by the processes."""
    return settings.threads or max(1, _cores() // processes(settings))


def threads_for_results(settings: AnalysisSettings) -> int:
    """Results that one process makes at a time: as threads are configured, or one for each core, four at most.

    They may be more than the cores have room for: while all children draw they take turns, and when only one has
    something to do it has all cores.
    """
    return settings.threads or min(_MOST_AT_A_TIME, _cores())


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
