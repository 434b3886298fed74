"""What every result has in common: the equipment that made it, its models, its references and its times."""

import pydicom
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from inference.records import Prediction
from scp_node import implementation
from scp_node.results import context, uids, wording
from scp_node.results.case import Case, ResultObject, uid_of
from scp_node.results.codes import Concept
from scp_node.results.raw import seal

# A misspelt keyword would otherwise become a Python attribute and never be written.
pydicom.config.INVALID_KEYWORD_BEHAVIOR = "RAISE"

MAXIMUM_INSTANCE_NUMBER = 10**6
"""Of a source. Some make numbers of a date and a time, whose multiples Integer String cannot hold (PS3.5 6.2)."""


def start(case: Case, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str = "") -> FileDataset:
    """Begin a result: File Meta Information, SOP Common, equipment and times."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = sop_class_uid
    meta.MediaStorageSOPInstanceUID = sop_instance_uid
    meta.TransferSyntaxUID = transfer_syntax_uid or ExplicitVRLittleEndian
    meta.ImplementationClassUID = implementation.CLASS_UID
    meta.ImplementationVersionName = implementation.version_name()
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
                p.calibration,
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


def instance_number(case: Case, place: int = 1, size: int = 1) -> int:
    """Instance Number (0020,0013), by which viewers sort a series.

    Radiographs of one series share the series of their results; those of one radiograph lie together there. A source
    without a usable number counts as the first of its series.

    Parameters
    ----------
    place
        Among the results of one radiograph in one series, from 1.
    size
        How many those are.
    """
    header = case.analysis.header.dataset
    said = "" if header is None else context.text(header, "InstanceNumber").removeprefix("+")
    number = int(said) if said.isdecimal() else 1
    return ((number if 1 <= number <= MAXIMUM_INSTANCE_NUMBER else 1) - 1) * size + place


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
