"""A copy of what was received and all that is known of it, for whoever has to find out what went wrong.

What was received holds patient data: files are readable by their owner only, and nothing that exists is written over.
"""

import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from enum import Enum
from pathlib import Path

from scp_node.errors import NodeError
from scp_node.jobs.records import ConflictRecord, InstanceDetail
from scp_node.jobs.trace import TraceRecord
from scp_node.spool.incoming import open_private

OBJECT_FILE = "received.dcm"
KNOWN_FILE = "job.json"


class ExportError(NodeError):
    """The received file is gone, or the place cannot be written to."""


def describe(detail: InstanceDetail, history: Iterable[TraceRecord]) -> dict[str, object]:
    """Return all that is known of an instance, JSON-able; files by their place on this machine."""
    return {**_plain(asdict(detail)), "history": [record.as_json() for record in history]}


def describe_conflict(record: ConflictRecord, history: Iterable[TraceRecord]) -> dict[str, object]:
    """Return all that is known of an object that was set aside, JSON-able."""
    return {"conflict": _plain(asdict(record)), "history": [record.as_json() for record in history]}


def write(to: Path, file: Path, known: Mapping[str, object]) -> Path:
    """Write the received file and what is known to a new folder, or to a new ZIP file; return what was written.

    Raises
    ------
    ExportError
    """
    content = json.dumps(known, indent=2, ensure_ascii=False).encode()
    try:
        if to.suffix.lower() == ".zip":
            with (
                os.fdopen(open_private(to), "wb") as stream,
                zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as zipped,
            ):
                zipped.write(file, OBJECT_FILE)
                zipped.writestr(KNOWN_FILE, content)
        else:
            to.mkdir(mode=0o700)
            with file.open("rb") as source, os.fdopen(open_private(to / OBJECT_FILE), "wb") as stream:
                shutil.copyfileobj(source, stream)
            with os.fdopen(open_private(to / KNOWN_FILE), "wb") as stream:
                stream.write(content)
    except OSError as error:
        raise ExportError(f"cannot export to {to}: {error.strerror} ({error.filename})") from error
    return to


def _plain(value: object) -> dict[str, object]:
    made: dict[str, object] = json.loads(json.dumps(value, default=_text))
    return made


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value.value if isinstance(value, Enum) else value)
