"""The explorer's child processes: started with the first file, ended when nobody has needed them for a while."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from config.settings import NodeSettings
from scp_node.jobs.child_errors import ChildCrashError, ChildFailedError, ChildTimeLimitError, PoolStoppedError
from scp_node.jobs.children import ChildPool, writable_by_children

log = structlog.get_logger(__name__)

PICTURE_SIZE = 1024
"""Longest side of a picture in the page, in pixels."""
_LOOK_S = 5.0
_START_LIMIT_S = 600.0

Opened = Callable[[], None]


class ExplorerError(Exception):
    """The explorer cannot work now; the message says why."""


class Explorer:
    """Judges files in child processes of its own, so that they never delay what the node received.

    Parameters
    ----------
    factory
        What the children load, see `ChildPool`; for tests.
    writable
        Folder in which children may write: objects that are asked for.
    clock
        Seconds since any moment.
    """

    def __init__(
        self,
        settings: NodeSettings,
        *,
        writable: Path | None = None,
        factory: str = "scp_node.jobs.explore:open_explorer",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._factory = factory
        self._writable = () if writable is None else (writable,)
        self._clock = clock
        self._lock = threading.Lock()
        self._pool: ChildPool | None = None
        self._users = 0
        self._used_at = clock()
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="explorer-watcher", daemon=True)

    def start(self) -> None:
        """Begin to look after children that nobody needs; starts none."""
        self._watcher.start()

    @property
    def is_loaded(self) -> bool:
        """Whether a file would be judged at once."""
        with self._lock:
            return self._pool is not None and bool(self._pool.processes)

    def analyse(
        self, file: Path, name: str, *, picture_size: int = 0, objects_folder: Path | None = None
    ) -> dict[str, Any]:
        """Judge one file; blocks. Returns what `scp_node.jobs.explore.Explorer.run` says.

        Raises
        ------
        ExplorerError
            The models cannot be loaded, or the console is being stopped.
        """
        pool = self._acquire()
        try:
            if not pool.wait_ready(_START_LIMIT_S):
                raise ExplorerError(f"the models cannot be loaded: {pool.broken or 'it takes too long'}")
            return pool.run(
                {
                    "file": str(file),
                    "name": name,
                    "picture_size": picture_size,
                    "objects_folder": None if objects_folder is None else str(objects_folder),
                }
            )
        except (ChildCrashError, ChildTimeLimitError) as error:
            return _failed(file, "crashed" if isinstance(error, ChildCrashError) else "time_limit", str(error))
        except ChildFailedError as error:
            return _failed(file, error.kind, error.detail)
        except PoolStoppedError as error:
            raise ExplorerError("the console is being stopped") from error
        finally:
            self._release()

    def close(self) -> None:
        """End the children."""
        self._closing.set()
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop(1.0)
        if self._watcher.is_alive():
            self._watcher.join()

    def _acquire(self) -> ChildPool:
        with self._lock:
            if self._closing.is_set():
                raise ExplorerError("the console is being stopped")
            self._users += 1
            if self._pool is None:
                analysis = self._settings.analysis
                self._pool = ChildPool(
                    self._factory,
                    {
                        "analysis": analysis.model_dump(mode="json"),
                        "results": self._settings.results.model_dump(mode="json"),
                    },
                    count=self._settings.console.explorer_processes,
                    time_limit_s=analysis.time_limit_s,
                    memory_limit_bytes=analysis.memory_limit_bytes,
                    writable=writable_by_children(analysis, *self._writable),
                )
                self._pool.start()
            return self._pool

    def _release(self) -> None:
        with self._lock:
            self._users -= 1
            self._used_at = self._clock()

    def _watch(self) -> None:
        while not self._closing.wait(_LOOK_S):
            self.end_idle()

    def end_idle(self) -> bool:
        """End the children if nobody has needed them for ``console.explorer_idle_s``; whether that was so."""
        with self._lock:
            idle_s = self._clock() - self._used_at
            if self._pool is None or self._users or idle_s < self._settings.console.explorer_idle_s:
                return False
            pool, self._pool = self._pool, None
        log.info("explorer idle, its child processes are ended")
        pool.stop()
        return True


def _failed(file: Path, reason: str, detail: str) -> dict[str, Any]:
    """What `run` would have said, for a child that cannot say it any more."""
    return {
        "outcome": "failed",
        "reason": reason,
        "detail": detail,
        "information": {"size_bytes": file.stat().st_size},
        "window": None,
        "notes": [],
        "predictions": [],
        "picture": None,
        "objects": [],
        "duration_s": 0.0,
    }
