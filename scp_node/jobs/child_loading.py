"""How a child process is started and loads, and how models are compiled first by one that is not confined."""

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from scp_node.jobs.child_process import Child, GoneError

log = structlog.get_logger(__name__)

_LOOK_S = 0.5
"""How often a loading child is asked whether it is wanted still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """How loading ended; neither ready nor broken: it is to be started again, or nobody wants it any more.

    Parameters
    ----------
    broken
        Why the child cannot load.
    is_death
        It died of it, or of something else: one may have been killed.
    missing
        What its confinement lacks; None: it is not confined.
    told
        Levels and messages of what it logged while it loaded.
    """

    is_ready: bool = False
    broken: str | None = None
    is_death: bool = False
    missing: list[str] | None = None
    told: tuple[tuple[int, str], ...] = ()


class Loading:
    """Starts children and has them load; its parameters are those of `children.ChildPool`.

    Parameters
    ----------
    limit_s
        For loading.
    is_stopping
        Asked now and then: whether no child is wanted any more.
    """

    def __init__(
        self,
        factory: str,
        arguments: dict[str, Any],
        *,
        memory_limit_bytes: int,
        limit_s: float,
        environment: Mapping[str, str],
        writable: tuple[Path, ...] | None,
        may_ask: bool,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._factory = factory
        self._arguments = arguments
        self._memory_limit_bytes = memory_limit_bytes
        self._limit_s = limit_s
        self._environment = dict(environment)
        self._writable = writable
        self._may_ask = may_ask
        self._is_stopping = is_stopping
        self._preparing = threading.Lock()
        self._is_prepared = False

    def start(self) -> Child:
        """Start a process; it waits for `load`. The thread that calls this must outlive it."""
        return Child(self._environment)

    def load(self, child: Child) -> Loaded:
        """Have a child load; blocks."""
        started = time.monotonic()
        try:
            child.send(self._first(child))
            message = self._wait(child, started)
        except GoneError:
            return Loaded(broken=f"the child process ended while loading: {child.how_it_ended()}", is_death=True)
        except TimeoutError:
            return Loaded(broken=f"loading took longer than {self._limit_s:g} s")
        if "ready" in message:
            self._is_prepared = False
            told = tuple((int(level), str(text)) for level, text in message["told"])
            return Loaded(is_ready=True, missing=message["missing"], told=told)
        if "unprepared" in message:
            return self._prepare()
        return Loaded(broken=message.get("broken"))

    def _first(self, child: Child, *, is_preparing: bool = False) -> dict[str, Any]:
        """What a child is told first."""
        arguments, writable = self._arguments, None
        if self._writable is not None:
            arguments = arguments | {"may_compile": is_preparing or self._is_prepared}
            if not is_preparing:
                writable = [str(folder) for folder in (*self._writable, child.temporary)]
        return {
            "factory": self._factory,
            "arguments": arguments,
            "memory_limit_bytes": self._memory_limit_bytes,
            "path": sys.path,
            "writable": writable,
            "may_ask": self._may_ask,
        }

    def _prepare(self) -> Loaded:
        """Have a child that is not confined load, and compile what there is to be."""
        with self._preparing:
            if self._is_prepared:  # while this thread waited
                return Loaded()
            log.info("models are compiled first")
            child, started = self.start(), time.monotonic()
            try:
                child.send(self._first(child, is_preparing=True))
                found = Loaded(broken=self._wait(child, started).get("broken"))
            except GoneError:
                broken = f"the child process ended while compiling: {child.how_it_ended()}"
                found = Loaded(broken=broken, is_death=True)
            except TimeoutError:
                found = Loaded(broken=f"compiling took longer than {self._limit_s:g} s")
            finally:
                child.end()
            self._is_prepared = found.broken is None
            return found

    def _wait(self, child: Child, started: float) -> dict[str, Any]:
        while True:
            try:
                return child.receive(_LOOK_S)
            except TimeoutError:
                if self._is_stopping():
                    return {}
                if time.monotonic() - started > self._limit_s:
                    raise
