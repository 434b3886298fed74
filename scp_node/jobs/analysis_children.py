"""Child processes that read, draw and write, and where it pays one that runs the models for all of them."""

import time
from pathlib import Path
from typing import Any

from config.analysis import AnalysisSettings
from config.settings import NodeSettings
from inference.cores import batch_size
from inference.runtime.devices import may_use_cuda
from scp_node.jobs import allocator
from scp_node.jobs.batching import Batches, Message
from scp_node.jobs.child_errors import ChildCrashError, ChildFailedError, ChildTimeLimitError, ModelsFailedError
from scp_node.jobs.children import ChildPool

_STOP_S = 1.0
"""For the models to end, when nobody is left who asks them."""


class AnalysisChildren:
    """What `ChildPool` is to one kind of children, for both.

    Where the models run one radiograph at a time (`cores.batch_size` is 1) each child has its own, and there is one
    kind only. Otherwise a file that ends its reader never touches the models, and those that read are confined and
    limited in memory whatever device the models need.

    Parameters
    ----------
    factory
        Of the children that read.
    count
        Of these.
    writable
        Folders in which they write.
    """

    def __init__(self, factory: str, settings: NodeSettings, *, count: int, writable: tuple[Path, ...]) -> None:
        analysis = settings.analysis
        arguments = {
            "analysis": analysis.model_dump(mode="json"),
            "results": settings.results.model_dump(mode="json"),
            "spool": settings.spool.model_dump(mode="json"),
        }
        size = batch_size(analysis)
        self._models = _models(settings) if size > 1 else None
        self._batches = None if self._models is None else batches_for(self._models, size)
        self.pool = ChildPool(
            factory,
            arguments,
            count=count,
            time_limit_s=analysis.time_limit_s,
            memory_limit_bytes=analysis.memory_limit_bytes,
            environment=allocator.FOR_CHILDREN,
            writable=writable_by_children(analysis, *writable, run_models=self._models is None),
            answers=None if self._batches is None else self._batches.ask,
        )

    @property
    def processes(self) -> tuple[int, ...]:
        """Process ids of all that have loaded."""
        return tuple(pid for pool in self._pools for pid in pool.processes)

    @property
    def is_loaded(self) -> bool:
        """Whether a request would be answered at once, were it the only one."""
        return all(pool.processes for pool in self._pools)

    @property
    def broken(self) -> str | None:
        """Why the last child that was started could not load; None when it could."""
        return next((pool.broken for pool in self._pools if pool.broken is not None), None)

    def start(self) -> None:
        """Start them; returns at once, they load in the background."""
        for pool in self._pools:
            pool.start()

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until one of each kind has loaded, or until one could not; see ``broken``."""
        deadline = time.monotonic() + timeout_s
        return all(pool.wait_ready(max(0.0, deadline - time.monotonic())) for pool in self._pools)

    def run(self, request: Message) -> Message:
        """Have a request answered; raises as `ChildPool.run`."""
        return self.pool.run(request)

    def stop(self, timeout_s: float = 30.0) -> None:
        """Take no more requests, let running ones end within the limit, then end the children."""
        if self._models is not None and not self._models.processes:
            # Nobody can answer what children wait for.
            self._models.stop(0)
        self.pool.stop(timeout_s)
        if self._models is not None:
            self._models.stop(_STOP_S)

    @property
    def _pools(self) -> tuple[ChildPool, ...]:
        # The models first: when they cannot be loaded, that is what is to be told.
        return (self.pool,) if self._models is None else (self._models, self.pool)


def writable_by_children(
    settings: AnalysisSettings, *folders: Path, run_models: bool = True
) -> tuple[Path, ...] | None:
    """Return these folders, for a pool whose children are to be confined; None for one whose are not.

    The driver of a CUDA device needs more than a confined process has.
    """
    is_free = run_models and may_use_cuda(settings)
    return folders if settings.confine_children and not is_free else None


def batches_for(models: ChildPool, size: int) -> Batches:
    """Put questions together for a pool of `judging.open_models`; asking raises ModelsFailedError."""

    def ask(questions: list[Message]) -> list[Message]:
        try:
            answers: list[Message] = models.run({"questions": questions})["answers"]
        except (ChildCrashError, ChildTimeLimitError, ChildFailedError) as error:
            raise ModelsFailedError(f"the models: {error}") from error
        return answers

    return Batches(ask, size)


def _models(settings: NodeSettings) -> ChildPool:
    analysis = settings.analysis
    arguments: dict[str, Any] = {"analysis": analysis.model_dump(mode="json")}
    return ChildPool(
        "scp_node.jobs.judging:open_models",
        arguments,
        count=1,
        time_limit_s=analysis.time_limit_s,
        memory_limit_bytes=analysis.memory_limit_bytes,
        environment=allocator.FOR_CHILDREN,
        writable=writable_by_children(analysis),
        # A device that failed once fails until its process has ended.
        ends_failed=True,
    )
