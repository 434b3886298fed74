"""Lines of JSON that survive the process that wrote them: what a peer or a sender swears to have seen."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Record:
    """A file to which each line is durable before `write` returns.

    Used by several threads at once; a killed process leaves at most one incomplete last line, which readers pass over.
    """

    def __init__(self, file: Path) -> None:
        self._lock = threading.Lock()
        self._file = file

    def write(self, **values: Any) -> None:
        """Append one line and synchronise it."""
        # The line end comes first: a predecessor may have died within a line.
        line = b"\n" + json.dumps(values).encode()
        with self._lock, self._file.open("ab", buffering=0) as file:
            file.write(line)
            os.fsync(file.fileno())


def read(file: Path) -> list[dict[str, Any]]:
    """Return all complete lines so far."""
    return list(_lines(file)) if file.exists() else []


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_bytes().split(b"\n"):
        if not line:
            continue
        try:
            yield json.loads(line)
        except ValueError:
            continue  # cut off by a kill
