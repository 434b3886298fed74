"""How many child processes and threads the cores of a machine allow; imports nothing that is heavy."""

import os

from config.analysis import AnalysisSettings
from inference.runtime.devices import may_use_cuda

_CUDA_BATCH = 16
_MOST_PROCESSES = 8
"""Without being asked for more: each takes 0.7 GB with an 18 MB radiograph."""

_MOST_AT_A_TIME = 4
"""Pictures of one analysis: three models and all of them together."""


def batch_size(settings: AnalysisSettings) -> int:
    """Radiographs that the models judge at once when so many wait, in one process for all; 1: every child has its own.

    Where the processor runs the models nothing is gained (docs/performance.md), a CUDA device lives on it.
    """
    return settings.batch_size or (_CUDA_BATCH if may_use_cuda(settings) else 1)


def threads_for_models(settings: AnalysisSettings) -> int:
    """Threads of a process that runs models: as configured, or the cores that this process may run on, shared out."""
    sharers = processes(settings) if batch_size(settings) == 1 else 1
    return settings.threads or max(1, _cores() // sharers)


def threads_for_pictures(settings: AnalysisSettings) -> int:
    """Threads in which one process decodes and draws: as configured, or one for each core, four at most.

    They may be more than the cores have room for: while all children work they take turns, and when only one has
    something to do it has all cores.
    """
    return settings.threads or min(_MOST_AT_A_TIME, _cores())


def processes(settings: AnalysisSettings) -> int:
    """Child processes: as configured, or by the cores that this process may run on.

    Two at least where there are two cores, then one for two cores: while one reads, draws or waits for the disk,
    another one uses what it leaves, and a radiograph that hangs holds up nobody. Each adds its threads and memory to
    those of the node's own process, which takes a core of many itself. One only where each would load its models into
    the same CUDA device.
    """
    if settings.processes:
        return settings.processes
    if batch_size(settings) == 1 and may_use_cuda(settings):
        return 1
    cores = _cores()
    return min(_MOST_PROCESSES, max(min(2, cores), cores // 2))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
