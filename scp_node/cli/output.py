"""How commands speak: tables for people, one JSON object a line for programs; both on standard output."""

import errno
import json
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scp_node.figures import agreeing
from scp_node.telemetry.escape import escape


def console() -> Console:
    """Return a console on standard output; without a terminal it is wide enough never to cut a UID."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)


def cell(value: object, style: str = "") -> Text:
    """Return plain text for a table: no markup, no control characters from files or peers."""
    return Text(escape(str(value)), style=style)


def table(title: str, *columns: str, caption: str | None = None) -> Table:
    """Return an empty table; columns whose names begin with ``>`` are aligned to the right."""
    made = Table(
        title=cell(title) if title else None,
        caption=cell(caption) if caption else None,
        title_justify="left",
        caption_justify="left",
    )
    for column in columns:
        made.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold"
        )
    return made


def predictions_table(title: str, rows: Iterable[tuple[str, str, float, float, bool]]) -> Table:
    """Return the table of what the models say: (title, version, probability, threshold, is_positive) each."""
    made = table(title, "Model", "Version", ">Probability", ">Threshold", "Verdict")
    for model, version, probability, threshold, is_positive in rows:
        verdict = cell("positive", "bold red") if is_positive else cell("negative", "green")
        made.add_row(cell(model), cell(version), *agreeing(probability, threshold, is_positive=is_positive), verdict)
    return made


def write_json(value: Mapping[str, object]) -> None:
    """Write one object as one line."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def size(size_bytes: int) -> str:
    """Return a number of bytes for people."""
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if size_bytes >= 1000**power:
            return f"{size_bytes / 1000**power:.1f} {unit}"
    return f"{size_bytes} B"


def moment(time: datetime) -> str:
    """Return a time for people, in the zone of this machine, and as `jobs list --since` takes it."""
    return time.astimezone().isoformat(sep=" ", timespec="seconds")


def require_writable(folder: Path) -> None:
    """Raise PermissionError for a folder that takes no files, before anything is computed for it."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
