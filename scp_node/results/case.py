"""One analysis on its way into results, and the objects that are made of it."""

import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from io import BytesIO
from typing import Protocol, TypeVar

from pydicom import Dataset, FileDataset

from config.results import ResultSettings
from inference.records import Analysis
from scp_node.errors import ResultError
from scp_node.records import ResultKind
from scp_node.results import context, uids
from scp_node.results.predecessors import Predecessor
from scp_node.results.raw import encoded, tag_of

_Thing = TypeVar("_Thing")
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultObject:
    """One object to send.

    Parameters
    ----------
    model
        Catalog key of the model; None if the object speaks of all.
    group
        Objects of one group are alternatives; the peer gets the one of lowest rank that it accepts.
    dataset
        Complete, ready for ``save_as(enforce_file_format=True)``. Names lie in it as undecoded bytes: write it before
        reading text from it.
    """

    kind: ResultKind
    model: str | None
    group: str
    rank: int
    dataset: FileDataset

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID (0008,0016)."""
        return str(self.dataset.SOPClassUID)

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID (0008,0018)."""
        return str(self.dataset.SOPInstanceUID)

    @property
    def transfer_syntax_uid(self) -> str:
        """Transfer Syntax UID (0002,0010)."""
        return str(self.dataset.file_meta.TransferSyntaxUID)

    def encode(self) -> bytes:
        """The object as a Part 10 file (PS3.10 7)."""
        return b"".join(self.parts())

    def parts(self) -> tuple[bytes, ...]:
        """The pieces of that file, one after the other; pixels are a piece of their own, which nobody copies."""
        buffer = BytesIO()
        pixels = self.dataset.get("PixelData")
        if pixels is None or self.dataset["PixelData"].is_undefined_length:
            self.dataset.save_as(buffer, enforce_file_format=True)
            return (buffer.getvalue(),)
        # Plain pixels are the last element and are put there as they are: pydicom would copy them four times.
        element = self.dataset["PixelData"]
        del self.dataset["PixelData"]
        try:
            self.dataset.save_as(buffer, enforce_file_format=True)
        finally:
            self.dataset["PixelData"] = element
        head = struct.pack("<HH2sxxL", element.tag.group, element.tag.element, element.VR.encode(), len(pixels))
        return (buffer.getvalue() + head, pixels)


class Each(Protocol):
    """Does what `map` does, perhaps with several things at once; results come in the order of the things."""

    def __call__(self, function: Callable[[_Thing], _Made], things: Iterable[_Thing], /) -> Iterable[_Made]:
        """Call the function for each thing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One analysis on its way into results.

    Parameters
    ----------
    source
        What results need of the source, undecoded.
    context
        What every result copies of it.
    made_at
        Aware; in the source's time zone where that is known.
    predecessors
        Reports of an earlier analysis that those of this one replace.
    each
        For what can be made independently of each other.
    """

    analysis: Analysis
    settings: ResultSettings
    source: Dataset
    context: Dataset
    made_at: datetime
    predecessors: tuple[Predecessor, ...] = ()
    each: Each = map

    def replaced(self, kind: ResultKind) -> tuple[Predecessor, ...]:
        """Reports of a kind that this one's replaces, always in the same order."""
        return tuple(sorted((p for p in self.predecessors if p.kind is kind), key=lambda p: p.sop_instance_uid))

    @property
    def sop_instance_uid(self) -> str:
        """Of the source."""
        return uid_of(self.source, "SOPInstanceUID")

    @property
    def sop_class_uid(self) -> str:
        """Of the source."""
        return uid_of(self.source, "SOPClassUID")

    @property
    def series_instance_uid(self) -> str:
        """Of the source."""
        return uid_of(self.source, "SeriesInstanceUID")

    @property
    def equipment_parts(self) -> tuple[str, ...]:
        """Identity of this node as parts of UIDs: two nodes at one archive make two sets of results."""
        s = self.settings
        return (s.manufacturer, s.manufacturer_model_name, s.device_serial_number, s.institution_name)

    @property
    def common_parts(self) -> tuple[str, ...]:
        """What every object of this analysis depends on beside its own parameters, as parts of UIDs."""
        image = self.analysis.image
        window = image.window
        return (
            image.rule.value,
            window.source.value,
            repr(window.center),
            repr(window.width),
            window.function,
            str(image.is_inverted),
            self.settings.charset,
            self.settings.contributing_equipment_purpose,
            *self.equipment_parts,
            uids.ENCODER_VERSION,
            uids.software_version(),
        )


def open_case(
    analysis: Analysis,
    settings: ResultSettings,
    made_at: datetime,
    predecessors: tuple[Predecessor, ...] = (),
    each: Each = map,
) -> Case:
    """Check that results can be built for an analysis, and read its source.

    Raises
    ------
    ResultError
        The input is no DICOM object, lacks a UID that results refer to, or no model has judged it.
    """
    name = analysis.header.name
    if made_at.tzinfo is None:
        raise ValueError("made_at needs a time zone")
    if analysis.header.dataset is None:
        raise ResultError(name, "the input is no DICOM object, so there is no study to put results in")
    if not analysis.predictions:
        raise ResultError(name, "no model has judged it")
    source = context.read(analysis.header)
    for keyword in ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID"):
        value = uid_of(source, keyword)
        if not re.fullmatch(r"[0-9.]{1,64}", value):
            raise ResultError(name, f"{keyword} {tag_of(keyword)} of the source is missing or no UID")
    return Case(
        analysis=analysis,
        settings=settings,
        source=source,
        context=context.build(source, settings.charset),
        made_at=made_at.astimezone(_zone(source)) if _zone(source) else made_at,
        predecessors=predecessors,
        each=each,
    )


def uid_of(source: Dataset, keyword: str) -> str:
    """A UID of the source without padding; empty when absent."""
    return (encoded(source, tag_of(keyword)) or b"").decode("ascii", "replace").strip(" \0")


def _zone(source: Dataset) -> tzinfo | None:
    """Time zone of the source's dates and times (0008,0201), which a result copies and must follow."""
    offset = context.text(source, "TimezoneOffsetFromUTC")
    return datetime.strptime(offset, "%z").tzinfo if offset else None
