"""Reads what came back to the stand-in PACS: kind, numbers and references of each object, from its bytes alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
from PIL import Image
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    SecondaryCaptureImageStorage,
)

from scp_node.demo.pacs import StoredObject

if TYPE_CHECKING:
    from highdicom.sr import MeasurementsAndQualitativeEvaluations

PROBABILITY = Code("122157", "DCM", "Probability")
THRESHOLD = Code("122411", "DCM", "Threshold Value")
ALGORITHM_NAME = Code("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION = Code("111003", "DCM", "Algorithm Version")
PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
PRESENT = Code("52101004", "SCT", "Present")
MEASUREMENT_REPORTS = (Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage)


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
    """Read the measurement groups (TID 1501) of a report; empty for other reports.

    highdicom reads them, which had no part in writing them: what it finds, other readers of TID 1500 find too.
    """
    if report.SOPClassUID not in MEASUREMENT_REPORTS:
        return ()
    from highdicom.sr import ContentSequence, MeasurementReport  # slow to import

    content = ContentSequence.from_sequence([report], is_root=True)
    tree = MeasurementReport.from_sequence(content)
    return tuple(_statement(group) for group in tree.get_image_measurement_groups())


def _statement(group: "MeasurementsAndQualitativeEvaluations") -> Statement:
    verdict = group.get_qualitative_evaluations(PNEUMONIA)[0]
    return Statement(
        model=_text(group, ALGORITHM_NAME),
        version=_text(group, ALGORITHM_VERSION),
        probability=_percent(group, PROBABILITY),
        threshold=_percent(group, THRESHOLD),
        is_positive=verdict.value == PRESENT,
    )


def save_preview(dataset: Dataset, file: Path) -> None:
    """Write the picture of a Secondary Capture as PNG; quickly rather than small."""
    Image.fromarray(dataset.pixel_array).save(file, compress_level=1)


def _referenced(dataset: Dataset) -> Iterator[str]:
    for element in dataset.iterall():
        if element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)


def _text(group: "MeasurementsAndQualitativeEvaluations", name: Code) -> str:
    (item,) = (item for item in group[0].ContentSequence if item.name == name)
    return str(item.value)


def _percent(group: "MeasurementsAndQualitativeEvaluations", name: Code) -> float:
    return float(group.get_measurements(name)[0].value) / 100
