"""The explorer's child processes: started with the first file, ended when nobody has needed them for a while."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from config.settings import NodeSettings
from scp_node.jobs.analysis_children import AnalysisChildren
from scp_node.jobs.child_errors import ChildCrashError, ChildFailedError, ChildTimeLimitError, PoolStoppedError

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
        What the children load, see `AnalysisChildren`; for tests.
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
        self._children: AnalysisChildren | None = None
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
            return self._children is not None and self._children.is_loaded

    def analyse(
        self, file: Path, name: str, *, picture_size: int = 0, objects_folder: Path | None = None
    ) -> dict[str, Any]:
        """Judge one file; blocks. Returns what `scp_node.jobs.explore.Explorer.run` says.

        Raises
        ------
        ExplorerError
            The models cannot be loaded, or the console is being stopped.
        """
        children = self._acquire()
        try:
            if not children.wait_ready(_START_LIMIT_S):
                raise ExplorerError(f"the models cannot be loaded: {children.broken or 'it takes too long'}")
            return children.run(
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
            children, self._children = self._children, None
        if children is not None:
            children.stop(1.0)
        if self._watcher.is_alive():
            self._watcher.join()

    def _acquire(self) -> AnalysisChildren:
        with self._lock:
            if self._closing.is_set():
                raise ExplorerError("the console is being stopped")
            self._users += 1
            if self._children is None:
                self._children = AnalysisChildren(
                    self._factory,
                    self._settings,
                    count=self._settings.console.explorer_processes,
                    writable=self._writable,
                )
                self._children.start()
            return self._children

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
            if self._children is None or self._users or idle_s < self._settings.console.explorer_idle_s:
                return False
            children, self._children = self._children, None
        log.info("explorer idle, its child processes are ended")
        children.stop()
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
