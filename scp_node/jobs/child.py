"""Main program of a child process: loads once, then answers one request after another. Started by `children.py` only.

Requests and answers are JSON, one a line, over an inherited socket; standard output is nobody's protocol here, a C
library may print what it likes.
"""

import ctypes
import importlib
import json
import logging
import os
import resource
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from scp_node.errors import RefusedError, UnpreparedError
from scp_node.garbage import importing
from scp_node.jobs.causes import causes_of, place_of
from scp_node.security.confinement import confine

Handler = Callable[[dict[str, Any]], dict[str, Any]]
"""Answers one request; both sides JSON-able."""

_PR_SET_PDEATHSIG = 1
_NOT_PERMITTED = 77
"""Exit code, EX_NOPERM of BSD's sysexits."""


def main(descriptor: int, parent: int) -> int:
    """Serve the parent until it closes its end of the socket or dies."""
    # Ctrl-C reaches the whole group of processes; the parent alone decides when its children end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(parent)
    # Libraries put values of attributes into their warnings; none of it may reach a log.
    warnings.simplefilter("ignore")
    told = _listen()
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rw", encoding="utf-8") as lines:
        first = json.loads(lines.readline())
        sys.path[:] = first["path"]
        missing = None
        try:
            if first["writable"] is not None:
                # Before anything is imported: a library may start threads, and those would stay free.
                missing = confine([Path(folder) for folder in first["writable"]])
            with importing():
                factory = _load(first["factory"])
                handler = (
                    factory(first["arguments"], partial(_ask, lines))
                    if first["may_ask"]
                    else factory(first["arguments"])
                )
        except UnpreparedError:
            _say(lines, {"unprepared": True})
            return 0
        except Exception as error:  # top of the process: whatever it is, the parent must hear of it
            _say(lines, {"broken": f"{type(error).__name__}: {error}"})
            return 1
        if first["memory_limit_bytes"] and not _uses_cuda():
            _limit_memory(first["memory_limit_bytes"])
        # From here on there are patients.
        logging.disable(logging.CRITICAL)
        _say(lines, {"ready": True, "missing": missing, "told": told})
        for line in iter(lines.readline, ""):
            # From here on a death is this request's doing; before, the child was idle.
            _say(lines, {"begun": True})
            _say(lines, _answer(handler, json.loads(line), is_confined=missing is not None))
    return 0


def _listen() -> list[tuple[int, str]]:
    """Collect what our own modules log while they load: which device, and why not another one."""
    told: list[tuple[int, str]] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append((record.levelno, record.getMessage()))

    logging.getLogger().addHandler(logging.NullHandler())
    own = logging.getLogger("inference")
    own.setLevel(logging.INFO)
    own.addHandler(Collector())
    own.propagate = False
    return told


def _answer(handler: Handler, request: dict[str, Any], *, is_confined: bool) -> dict[str, Any]:
    try:
        return {"done": handler(request)}
    except PermissionError as error:
        if is_confined:
            # Where it may write was settled when it began: the same folder, mounted anew, is another one. The child
            # that takes its place knows it.
            os._exit(_NOT_PERMITTED)
        return _failed(error)
    except MemoryError:
        return {"failed": "memory", "detail": "the analysis asked for more memory than it may have"}
    except Exception as error:  # top of the process: one request must not end it
        return _failed(error)


def _ask(lines: TextIO, question: dict[str, Any]) -> dict[str, Any]:
    _say(lines, {"asks": question})
    reply: dict[str, Any] = json.loads(lines.readline())
    if "told" not in reply:
        raise RefusedError
    told: dict[str, Any] = reply["told"]
    return told


def _failed(error: Exception) -> dict[str, Any]:
    # Kind and place, never the message: it may quote a value of the data set.
    detail = f"{type(error).__name__} at {place_of(error)}"
    return {"failed": "internal", "detail": detail, "causes": list(causes_of(error))}


def _load(name: str) -> Callable[..., Handler]:
    module, _, attribute = name.partition(":")
    factory: Callable[..., Handler] = getattr(importlib.import_module(module), attribute)
    return factory


def _say(lines: TextIO, message: dict[str, Any]) -> None:
    lines.write(json.dumps(message) + "\n")
    lines.flush()


def _limit_memory(beyond_bytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + beyond_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _uses_cuda() -> bool:
    # Its driver reserves address space by the hundred gigabytes, now and whenever a library of its own is first needed.
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _die_with(parent: int) -> None:
    # An idle child sees the end of the socket. One that computes would not: the kernel is asked to end it.
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
