"""Long-lived child processes in which files are decoded and models run, so that a crash there is one job's and no more.

Not `concurrent.futures.ProcessPoolExecutor`: there one process that dies breaks the work of all others.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from scp_node.errors import NodeError
from scp_node.jobs.child_errors import ChildCrashError, ChildFailedError, ChildTimeLimitError, PoolStoppedError
from scp_node.jobs.child_loading import Loaded, Loading
from scp_node.jobs.child_process import Child, GoneError

log = structlog.get_logger(__name__)

_LOOK_S = 0.5
"""How often the supervisor looks after idle children."""
_SLOWEST_RESTART_S = 60.0
_DEATHS_THAT_TELL = 3
"""Children that die while loading, one after the other, before the models are to blame: one may have been killed."""


Answers = Callable[[dict[str, Any]], dict[str, Any]]
"""From what a child asks to what it is told, both JSON-able."""


class ChildPool:
    """A fixed number of child processes that all hold the same models.

    Parameters
    ----------
    factory
        ``module:function``; called once in each child with ``arguments``, it returns what answers requests.
    arguments
        JSON-able.
    time_limit_s
        For one answer; loading has ``start_limit_s``.
    memory_limit_bytes
        Address space of a child beyond what it has after loading; 0: no limit.
    environment
        Variables for the children, over those of this process.
    writable
        Children are confined (`security.confinement`) and write below these folders only. When they find that models
        are not compiled yet, one that is not confined compiles them, ends, and is followed by one that is. None: no
        child is confined.
    answers
        Answers what children ask on their way; the factory is then called with a function that asks, too. It may raise
        what `run` raises, which is then what became of the request.
    ends_failed
        Whether a child that reports an error is ended as if it had died of it: what it holds may be damaged.
    """

    def __init__(
        self,
        factory: str,
        arguments: dict[str, Any],
        *,
        count: int,
        time_limit_s: float,
        memory_limit_bytes: int = 0,
        start_limit_s: float = 600.0,
        environment: Mapping[str, str] | None = None,
        writable: tuple[Path, ...] | None = None,
        answers: Answers | None = None,
        ends_failed: bool = False,
    ) -> None:
        self._answers = answers
        self._ends_failed = ends_failed
        self._loading = Loading(
            factory,
            arguments,
            memory_limit_bytes=memory_limit_bytes,
            limit_s=start_limit_s,
            environment=environment or {},
            writable=writable,
            may_ask=answers is not None,
            is_stopping=lambda: self._stopping,
        )
        self._told_missing = False
        self._count = count
        self._time_limit_s = time_limit_s
        self._changed = threading.Condition()
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._starting = 0
        self._stopping = False
        self._all_ended = threading.Event()
        self._loaded_once = False
        self._broken: str | None = None
        self._failures = 0
        self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._supervisor = threading.Thread(target=self._supervise, name="child-supervisor", daemon=True)
        self._loaders: list[threading.Thread] = []

    def start(self) -> None:
        """Start the children; returns at once, they load in the background."""
        self._supervisor.start()

    @property
    def broken(self) -> str | None:
        """Why the last child that was started could not load; None when it could."""
        with self._changed:
            return self._broken

    @property
    def processes(self) -> tuple[int, ...]:
        """Process ids of the children that have loaded."""
        with self._changed:
            return tuple(child.process.pid for child in (*self._idle, *self._busy))

    @property
    def busy_processes(self) -> tuple[int, ...]:
        """Process ids of the children that work on a request."""
        with self._changed:
            return tuple(child.process.pid for child in self._busy)

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until a child has loaded, or until one could not; see ``broken``."""
        with self._changed:
            self._changed.wait_for(lambda: self._loaded_once or self._broken is not None, timeout_s)
            return self._loaded_once

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Have a request answered by the next idle child.

        Raises
        ------
        ChildCrashError, ChildTimeLimitError
            The child is gone and replaced by another one.
        ChildFailedError
            The child reports an error of its own.
        PoolStoppedError
            The pool is being stopped.
        """
        while True:
            child = self._take()
            try:
                child.send(request)
                child.receive(self._time_limit_s)
                break
            except GoneError:
                # It died while it was idle: not this request's doing.
                self._lose(child, child.how_it_ended())
            except TimeoutError:
                self._lose(child, child.end())
        try:
            answer, refusal = self._hear(child)
        except TimeoutError as error:
            self._lose(child, child.end())
            raise ChildTimeLimitError(f"the analysis took longer than {self._time_limit_s:g} s") from error
        except (GoneError, ValueError) as error:
            how = child.how_it_ended()
            self._lose(child, how)
            if self._stopping:
                raise PoolStoppedError from error
            raise ChildCrashError(f"the child process ended on it: {how}") from error
        except PoolStoppedError:
            self._lose(child, child.end())
            raise
        if "failed" in answer and self._ends_failed:
            self._lose(child, child.end())
            raise ChildCrashError(f"the child process was ended after {answer['detail']}")
        self._give(child)
        if refusal is not None:
            raise refusal
        if "failed" in answer:
            raise ChildFailedError(answer["failed"], answer["detail"], tuple(answer.get("causes", ())))
        done: dict[str, Any] = answer["done"]
        return done

    def _hear(self, child: Child) -> tuple[dict[str, Any], NodeError | None]:
        """Return a child's answer, and what went wrong with something that it asked on the way.

        The time in which it waits to be told is not its own.
        """
        left_s, refusal = self._time_limit_s, None
        while True:
            began = time.monotonic()
            message = child.receive(left_s)
            left_s -= time.monotonic() - began
            if "asks" not in message or self._answers is None:
                return message, refusal
            try:
                child.send({"told": self._answers(message["asks"])})
            except (ChildCrashError, ChildTimeLimitError, ChildFailedError) as error:
                refusal = error
                child.send({"refused": True})

    def stop(self, timeout_s: float = 30.0) -> None:
        """Take no more requests, let running ones end within the limit, then end the children."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._busy, timeout_s)
            idle, busy = list(self._idle), list(self._busy)
            self._idle.clear()
        self._wanted.put(False)
        for child in busy:
            # Only the signal: the thread that waits for its answer sees the end and takes the rest away.
            child.process.kill()
        for child in idle:
            child.end(patience_s=2.0)
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, 5.0)
        self._all_ended.set()
        if self._supervisor.is_alive():
            self._supervisor.join()

    def _take(self) -> Child:
        with self._changed:
            self._changed.wait_for(lambda: self._idle or self._stopping)
            if self._stopping:
                raise PoolStoppedError
            child = self._idle.pop()
            self._busy.add(child)
            return child

    def _give(self, child: Child) -> None:
        with self._changed:
            self._busy.discard(child)
            self._idle.append(child)
            self._changed.notify_all()

    def _lose(self, child: Child, how: str) -> None:
        with self._changed:
            self._busy.discard(child)
            self._changed.notify_all()
        if not self._stopping:
            log.warning("child ended", pid=child.process.pid, how=how)
        self._wanted.put(True)

    def _supervise(self) -> None:
        # All children are started by this one thread: on Linux a child is told of the death of the *thread* that
        # started it, and a thread that serves jobs may end long before the process does. For the same reason it stays
        # until the last child has ended.
        while not self._stopping:
            try:
                self._replace_idle_dead()
                self._start_missing()
            except Exception as error:  # top of the thread: no memory, no descriptors, no room for a folder
                self._cannot_start(f"a child process cannot be started: {type(error).__name__}: {error}")
            with suppress(queue.Empty):
                self._wanted.get(timeout=_LOOK_S)
        for loader in self._loaders:
            loader.join()
        self._all_ended.wait()

    def _replace_idle_dead(self) -> None:
        with self._changed:
            dead = [child for child in self._idle if child.process.poll() is not None]
            self._idle = [child for child in self._idle if child not in dead]
        for child in dead:
            log.warning("child ended", pid=child.process.pid, how=child.end())

    def _start_missing(self) -> None:
        with self._changed:
            missing = 0 if self._stopping else self._count - len(self._idle) - len(self._busy) - self._starting
        for _ in range(missing):
            self._start_one()

    def _cannot_start(self, broken: str) -> None:
        with self._changed:
            if not self._stopping:
                self._broken = broken
            self._changed.notify_all()
        self._pause(broken)

    def _start_one(self) -> None:
        child = self._loading.start()
        with self._changed:
            self._starting += 1
        loader = threading.Thread(target=self._load, args=(child,), name="child-loader", daemon=True)
        self._loaders = [one for one in self._loaders if one.is_alive()] + [loader]
        loader.start()

    def _load(self, child: Child) -> None:
        started = time.monotonic()
        try:
            found = self._loading.load(child)
        except Exception as error:  # top of the thread: its slot must not stay taken
            found = Loaded(broken=f"{type(error).__name__}: {error}")
        is_loaded = found.is_ready and not self._stopping
        if is_loaded:
            # Before anybody gets it: who has been served may end the program's output.
            self._tell_ready(child, found, time.monotonic() - started)
        else:
            child.end()
        with self._changed:
            is_telling = not found.is_death or self._failures + 1 >= _DEATHS_THAT_TELL
            if is_telling and not self._stopping and (is_loaded or found.broken is not None):
                self._broken = found.broken
            if is_loaded:
                self._loaded_once = True
                self._failures = 0
                self._starting -= 1
                self._idle.append(child)
            self._changed.notify_all()
        if is_loaded:
            return
        if found.broken is not None:
            self._pause(found.broken)
        with self._changed:
            # Until here the slot was taken: nothing else would be started in its place.
            self._starting -= 1
        self._wanted.put(True)

    def _tell_ready(self, child: Child, found: Loaded, duration_s: float) -> None:
        pid = child.process.pid
        log.info("child ready", pid=pid, duration_s=round(duration_s, 2), confined=found.missing == [])
        for level, detail in found.told:
            log.log(level, "child says", pid=pid, detail=detail)
        if found.missing and not self._told_missing:
            self._told_missing = True
            log.warning("children are not fully confined", missing=", ".join(found.missing))

    def _pause(self, broken: str) -> None:
        with self._changed:
            self._failures += 1
            pause_s = min(_SLOWEST_RESTART_S, 2.0 ** min(self._failures, 6))
        if not self._stopping:
            log.error("child cannot load", detail=broken, again_in_s=pause_s)
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, pause_s)
