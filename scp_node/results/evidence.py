"""What every result has in common: the analysis it reports, its equipment, its references, and how to recognise it."""

import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from io import BytesIO
from typing import Protocol, TypeVar

import pydicom
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from config.results import ResultSettings
from inference.records import Analysis, Prediction
from scp_node.errors import ResultError
from scp_node.records import ResultKind
from scp_node.results import context, uids, wording
from scp_node.results.codes import Concept
from scp_node.results.predecessors import Predecessor
from scp_node.results.raw import encoded, seal, tag_of

# A misspelt keyword would otherwise become a Python attribute and never be written.
pydicom.config.INVALID_KEYWORD_BEHAVIOR = "RAISE"

DIGEST = re.compile(r"[0-9a-f]{64}")
_Thing = TypeVar("_Thing")
_Made = TypeVar("_Made")
TIMEZONE = re.compile(r"([+-])(\d\d)(\d\d)")


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


def start(case: Case, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str = "") -> FileDataset:
    """Begin a result: File Meta Information, SOP Common, equipment and times."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = sop_class_uid
    meta.MediaStorageSOPInstanceUID = sop_instance_uid
    meta.TransferSyntaxUID = transfer_syntax_uid or ExplicitVRLittleEndian
    meta.ImplementationClassUID = uids.IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = uids.implementation_version_name()
    result = FileDataset(None, {}, preamble=b"\0" * 128, file_meta=meta)
    result.SOPClassUID = sop_class_uid
    result.SOPInstanceUID = sop_instance_uid
    today, now = case.made_at.strftime("%Y%m%d"), case.made_at.strftime("%H%M%S")
    result.InstanceCreationDate, result.InstanceCreationTime = today, now
    result.ContentDate, result.ContentTime = today, now
    s = case.settings
    result.Manufacturer = s.manufacturer
    result.ManufacturerModelName = s.manufacturer_model_name
    result.DeviceSerialNumber = s.device_serial_number
    result.SoftwareVersions = wording.software()
    if s.institution_name:
        result.InstitutionName = s.institution_name
    return result


def finish(case: Case, result: FileDataset, predictions: tuple[Prediction, ...]) -> FileDataset:
    """Complete a result: contributing equipment, then patient and study, the same in every object."""
    result.ContributingEquipmentSequence = [_contributing_equipment(case, one) for one in predictions]
    context.apply(case.context, result)
    seal(result)
    return result


def prediction_parts(predictions: tuple[Prediction, ...]) -> tuple[str, ...]:
    """What makes up a set of models, as parts of UIDs, whatever their order; probabilities do not belong here.

    A repeat on other hardware may differ in the last digit of a probability, and must still be the same object.
    """
    return tuple(
        "/".join(
            (
                p.model,
                p.title,
                p.version,
                p.weights_sha256,
                p.target_layer,
                p.preprocessing,
                repr(p.threshold),
                str(p.is_threshold_overridden),
            )
        )
        for p in sorted(predictions, key=lambda p: p.model)
    )


def series_uid(case: Case, kind: str, modality: str, number: int) -> str:
    """Series of one kind of results of one source series, by one node with one set of models."""
    models = (f"{p.model}/{p.version}/{p.weights_sha256}" for p in case.analysis.predictions)
    return uids.uid(
        "series",
        kind,
        case.series_instance_uid,
        modality,
        str(number),
        *case.equipment_parts,
        uids.software_version(),
        *sorted(models),
    )


def reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """One item of the SOP Instance Reference Macro (PS3.3 10.8)."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def current_evidence(case: Case, results: tuple[ResultObject, ...]) -> Dataset:
    """One item of Current Requested Procedure Evidence Sequence (PS3.3 C.17.2): the source and pictures of it."""
    by_series: dict[str, list[Dataset]] = {
        case.series_instance_uid: [reference(case.sop_class_uid, case.sop_instance_uid)]
    }
    for result in results:
        series = by_series.setdefault(str(result.dataset.SeriesInstanceUID), [])
        series.append(reference(result.sop_class_uid, result.sop_instance_uid))
    study = Dataset()
    study.StudyInstanceUID = uid_of(case.source, "StudyInstanceUID")
    study.ReferencedSeriesSequence = []
    for series_instance_uid, references in by_series.items():
        item = Dataset()
        item.SeriesInstanceUID = series_instance_uid
        item.ReferencedSOPSequence = references
        study.ReferencedSeriesSequence.append(item)
    return study


def is_own_result(dataset: Dataset, settings: ResultSettings) -> bool:
    """Whether an object was made by this node or by another one of its kind.

    Recognised by equipment and by the Device UIDs of our models, which archives leave alone; never by Image Type,
    series description or patient. The File Meta Information says only who wrote the file last, so it is not asked.

    Parameters
    ----------
    dataset
        Header of a received object.
    settings
        Of this node; another node's own names are not needed to recognise it.
    """
    software_versions = context.text(dataset, "SoftwareVersions").split("\\")
    if any(version.startswith(f"{uids.PRODUCT} ") for version in software_versions):
        return True
    maker = (context.text(dataset, "Manufacturer"), context.text(dataset, "ManufacturerModelName"))
    own = (settings.manufacturer, settings.manufacturer_model_name)
    if maker in (own, (uids.PRODUCT, uids.PRODUCT)) and any(maker):
        return True
    return any(_is_own_device(item) for item in context.items_of(dataset, "ContributingEquipmentSequence"))


def _is_own_device(item: Dataset) -> bool:
    digests = DIGEST.findall(context.text(item, "ContributionDescription"))
    return uid_of(item, "DeviceUID") in {uids.device_uid(digest) for digest in digests}


def _contributing_equipment(case: Case, prediction: Prediction) -> Dataset:
    item = Dataset()
    purpose = Concept.from_setting(case.settings.contributing_equipment_purpose)
    item.PurposeOfReferenceCodeSequence = [purpose.item()]
    item.Manufacturer = case.settings.manufacturer
    item.ManufacturerModelName = wording.plain(prediction.title, 64)
    item.SoftwareVersions = wording.plain(prediction.version, 64)
    item.DeviceUID = uids.device_uid(prediction.weights_sha256)
    # The digest proves the Device UID to be ours, see is_own_result.
    item.ContributionDescription = (
        f"Classifier for pneumonia with Grad-CAM at {prediction.target_layer}; "
        f"weights SHA-256 {prediction.weights_sha256}"
    )
    return item


def _zone(source: Dataset) -> timezone | None:
    """Time zone of the source's dates and times (0008,0201), which a result copies and must follow."""
    match = TIMEZONE.fullmatch(context.text(source, "TimezoneOffsetFromUTC"))
    if not match:
        return None
    sign = -1 if match[1] == "-" else 1
    minutes = int(match[2]) * 60 + int(match[3])
    return timezone(sign * timedelta(minutes=minutes)) if minutes <= 14 * 60 else None
