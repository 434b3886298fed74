"""Reads what came back to the stand-in PACS: kind, numbers and references of each object, from its bytes alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from PIL import Image
from pydicom import Dataset
from pydicom.uid import UID, SecondaryCaptureImageStorage

from scp_node.demo.pacs import StoredObject

PROBABILITY = ("122157", "DCM")
THRESHOLD = ("122411", "DCM")
ALGORITHM_NAME = ("111001", "DCM")
ALGORITHM_VERSION = ("111003", "DCM")
PNEUMONIA = ("233604007", "SCT")
PRESENT = ("52101004", "SCT")
MEASUREMENT_GROUP = ("125007", "DCM")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One object that came back.

    Parameters
    ----------
    belongs
        Whether it is in the source's study and refers to the source instance.
    """

    stored: StoredObject
    modality: str
    series_number: int | None
    series_description: str
    instance_number: int | None
    belongs: bool

    @property
    def sop_class(self) -> str:
        """Name of the SOP Class."""
        return str(UID(self.stored.sop_class_uid).name)

    @property
    def is_secondary_capture(self) -> bool:
        """Whether it is a picture."""
        return bool(self.stored.sop_class_uid == SecondaryCaptureImageStorage)

    @property
    def is_report(self) -> bool:
        """Whether it is a structured report."""
        return self.modality == "SR"

    @property
    def label(self) -> str:
        """A name for its file: series, number and kind; never an attribute's text."""
        kind = "secondary-capture" if self.is_secondary_capture else "report" if self.is_report else "object"
        return f"{self.series_number or 0}-{self.instance_number or 0}-{kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a TID 1500 report says of one model: probability and threshold in [0, 1]."""

    model: str
    version: str
    probability: float
    threshold: float
    is_positive: bool


def read(stored: StoredObject, source: Dataset) -> tuple[Arrival, Dataset]:
    """Read one object and compare it with the source it should refer to."""
    dataset = pydicom.dcmread(stored.file)
    in_study = dataset.StudyInstanceUID == source.StudyInstanceUID
    refers = source.SOPInstanceUID in set(_referenced(dataset))
    arrival = Arrival(
        stored=stored,
        modality=str(dataset.get("Modality", "")),
        series_number=dataset.get("SeriesNumber"),
        series_description=str(dataset.get("SeriesDescription", "")),
        instance_number=dataset.get("InstanceNumber"),
        belongs=in_study and refers,
    )
    return arrival, dataset


def statements(report: Dataset) -> tuple[Statement, ...]:
    """Read the measurement groups (TID 1501) of a report; empty for other reports."""
    found = []
    for item in _items(report):
        if _code(item.get("ConceptNameCodeSequence")) != MEASUREMENT_GROUP:
            continue
        inside: dict[tuple[str, str], Dataset] = {}
        for child in item.get("ContentSequence", ()):
            if (name := _code(child.get("ConceptNameCodeSequence"))) is not None:
                inside.setdefault(name, child)
        if {PROBABILITY, THRESHOLD, PNEUMONIA, ALGORITHM_NAME, ALGORITHM_VERSION} <= set(inside):
            found.append(
                Statement(
                    model=str(inside[ALGORITHM_NAME].TextValue),
                    version=str(inside[ALGORITHM_VERSION].TextValue),
                    probability=_percent(inside[PROBABILITY]),
                    threshold=_percent(inside[THRESHOLD]),
                    is_positive=_code(inside[PNEUMONIA].get("ConceptCodeSequence")) == PRESENT,
                )
            )
    return tuple(found)


def save_preview(dataset: Dataset, file: Path) -> None:
    """Write the picture of a Secondary Capture as PNG; quickly rather than small."""
    Image.fromarray(dataset.pixel_array).save(file, compress_level=1)


def _referenced(dataset: Dataset) -> Iterator[str]:
    for element in dataset.iterall():
        if element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)


def _items(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from _items(item)


def _code(sequence: Sequence[Dataset] | None) -> tuple[str, str] | None:
    return (str(sequence[0].CodeValue), str(sequence[0].CodingSchemeDesignator)) if sequence else None


def _percent(item: Dataset) -> float:
    return float(item.MeasuredValueSequence[0].NumericValue) / 100
