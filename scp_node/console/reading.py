"""What pages show of files: the models' cards, result pictures as PNG, reports as nested text. Blocks: for threads."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pydicom
from PIL import Image
from pydicom import Dataset

from config.settings import NodeSettings
from inference.models.checkpoint import Manifest, default_folder, read_manifests
from scp_node.jobs.records import ResultRecord

_DEEPEST = 12
"""Levels of a report that are shown; the node's own have five."""
_LONGEST = 2000


class DamagedError(Exception):
    """A stored result is not what this node wrote."""


@dataclass(frozen=True, slots=True)
class Line:
    """One content item of a report."""

    depth: int
    concept: str
    value: str
    kind: str


@dataclass(slots=True)
class Report:
    """A structured report in words; ``problem``: why it cannot be read."""

    title: str
    lines: list[Line] = field(default_factory=list)
    problem: str = ""


def models_of(settings: NodeSettings) -> tuple[Manifest, ...]:
    """The manifests of the models in use; raises CheckpointError."""
    return read_manifests(settings.analysis.checkpoints or default_folder(), settings.analysis.models)


def card_of(settings: NodeSettings, name: str) -> str | None:
    """The card of a model in use; None when there is no such model or no card."""
    if name not in settings.analysis.models:
        return None
    file = (settings.analysis.checkpoints or default_folder()) / name / "card.md"
    return file.read_text(encoding="utf-8") if file.exists() else None


def picture(result: ResultRecord, longest: int) -> bytes:
    """A Secondary Capture of this node's own as PNG, not larger than that; raises DamagedError."""
    dataset = _read(result)
    image = Image.fromarray(dataset.pixel_array)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def report(result: ResultRecord) -> Report:
    """Read a structured report of this node's own."""
    try:
        dataset = _read(result)
    except DamagedError as error:
        return Report(title="", problem=str(error))
    made = Report(title=_meaning(dataset, "ConceptNameCodeSequence"))
    made.lines += _lines(dataset, 0)
    return made


def content_of(result: ResultRecord) -> bytes:
    """The object, if it is still the one that was written; raises DamagedError.

    Anything else might show anything, or end in any error.
    """
    try:
        content = result.file.read_bytes()
    except OSError as error:
        raise DamagedError(f"the stored file cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != result.sha256:
        raise DamagedError("the stored file is damaged: it is not what was written")
    return content


def _read(result: ResultRecord) -> Dataset:
    return pydicom.dcmread(io.BytesIO(content_of(result)))


def _lines(dataset: Dataset, depth: int) -> Iterator[Line]:
    if depth > _DEEPEST:
        return
    for item in dataset.get("ContentSequence") or ():
        kind = str(item.get("ValueType", ""))
        yield Line(depth, _meaning(item, "ConceptNameCodeSequence"), _value(item, kind)[:_LONGEST], kind)
        yield from _lines(item, depth + 1)


def _value(item: Dataset, kind: str) -> str:  # noqa: PLR0911 - one line per value type
    match kind:
        case "TEXT":
            return str(item.get("TextValue", ""))
        case "CODE":
            return _meaning(item, "ConceptCodeSequence")
        case "NUM":
            return _measured(item)
        case "UIDREF":
            return str(item.get("UID", ""))
        case "PNAME":
            # Persons stay in the report itself.
            return "–"
        case "DATETIME" | "DATE" | "TIME":
            return str(item.get({"DATETIME": "DateTime", "DATE": "Date", "TIME": "Time"}[kind], ""))
        case "IMAGE" | "COMPOSITE":
            references: Any = item.get("ReferencedSOPSequence") or ()
            return ", ".join(str(one.get("ReferencedSOPInstanceUID", "")) for one in references)
        case _:
            return ""


def _measured(item: Dataset) -> str:
    values = item.get("MeasuredValueSequence") or ()
    return ", ".join(
        f"{one.get('NumericValue', '')} {_code(one, 'MeasurementUnitsCodeSequence', 'CodeValue')}".strip()
        for one in values
    )


def _meaning(item: Dataset, keyword: str) -> str:
    return _code(item, keyword, "CodeMeaning")


def _code(item: Dataset, keyword: str, attribute: str) -> str:
    codes: Any = item.get(keyword) or ()
    return str(codes[0].get(attribute, "")) if len(codes) else ""
