"""Reports that a later report replaces: read from their files, named in Predecessor Documents Sequence (0040,A360)."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom import Dataset

from scp_node.errors import ResultError
from scp_node.records import ResultKind

REPORTS = (ResultKind.MEASUREMENT_REPORT, ResultKind.TEXT_SUMMARY)
"""Kinds of results that replace earlier ones of their kind; a picture has no such attribute."""

_ATTRIBUTES = ["StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """One report that was sent and is replaced."""

    kind: ResultKind
    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


def read_predecessor(kind: ResultKind, file: Path, name: str) -> Predecessor:
    """Read what it takes to refer to a report.

    Raises
    ------
    ResultError
        The file is gone or is no object of ours; ``name`` is the source it reports on.
    """
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_ATTRIBUTES)
        study, series, sop_class, instance = (str(header[keyword].value) for keyword in _ATTRIBUTES)
    except (OSError, KeyError, pydicom.errors.InvalidDicomError) as error:
        raise ResultError(name, "the report that is to be replaced cannot be read from the spool") from error
    return Predecessor(
        kind=kind,
        study_instance_uid=study,
        series_instance_uid=series,
        sop_class_uid=sop_class,
        sop_instance_uid=instance,
    )


def sequence(predecessors: Iterable[Predecessor]) -> list[Dataset]:
    """Items of Predecessor Documents Sequence: studies, in them series, in them instances (PS3.3 C.17.2, C.17-3)."""
    studies: dict[str, dict[str, list[Predecessor]]] = {}
    for one in predecessors:
        studies.setdefault(one.study_instance_uid, {}).setdefault(one.series_instance_uid, []).append(one)
    return [_study(uid, of_study) for uid, of_study in studies.items()]


def _study(uid: str, of_study: dict[str, list[Predecessor]]) -> Dataset:
    study = Dataset()
    study.StudyInstanceUID = uid
    study.ReferencedSeriesSequence = [_series(series, reports) for series, reports in of_study.items()]
    return study


def _series(uid: str, reports: list[Predecessor]) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = uid
    series.ReferencedSOPSequence = [_reference(one) for one in reports]
    return series


def _reference(report: Predecessor) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = report.sop_class_uid
    item.ReferencedSOPInstanceUID = report.sop_instance_uid
    return item
