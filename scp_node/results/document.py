"""What both reports share: the SR document modules (PS3.3 C.17.1, C.17.2) and the observation context (TID 1001)."""

from pydicom import FileDataset

from scp_node.records import ResultKind
from scp_node.results import codes, evidence, predecessors, uids
from scp_node.results.case import Case, ResultObject
from scp_node.results.codes import Concept
from scp_node.results.content import Relation, code, image, text, uidref

COMPLETE = "COMPLETE"
PARTIAL = "PARTIAL"
"""Completion Flag (0040,A491) of a report that lacks a model that should have judged."""


def start(
    case: Case, kind: ResultKind, *, sop_class_uid: str, sop_instance_uid: str, series: tuple[int, str]
) -> FileDataset:
    """Begin a document.

    Parameters
    ----------
    series
        Offset from the first Series Number, and Series Description.
    """
    offset, description = series
    number = case.settings.series_number_base + offset
    dataset = evidence.start(case, sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid)
    dataset.Modality = "SR"
    dataset.SeriesNumber = number
    dataset.SeriesInstanceUID = evidence.series_uid(case, kind.value, "SR", number)
    dataset.SeriesDescription = description
    dataset.InstanceNumber = evidence.instance_number(case)
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = []
    if replaced := case.replaced(kind):
        dataset.PredecessorDocumentsSequence = predecessors.sequence(replaced)
    dataset.CompletionFlag = COMPLETE
    # Nobody has looked at it (PS3.3 C.17.2): only a person verifies and finalises.
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
    return dataset


def observation_context(case: Case) -> list[bytes]:
    """Language and observing device (TID 1204, TID 1001, TID 1004); no person took part."""
    s = case.settings
    relation = Relation.HAS_OBS_CONTEXT
    items = [
        code(Relation.HAS_CONCEPT_MOD, codes.LANGUAGE, codes.ENGLISH),
        code(relation, codes.OBSERVER_TYPE, codes.DEVICE),
        uidref(relation, codes.DEVICE_OBSERVER_UID, uids.uid("observer", *case.equipment_parts)),
    ]
    named = (
        (codes.DEVICE_OBSERVER_NAME, s.manufacturer_model_name),
        (codes.DEVICE_OBSERVER_MANUFACTURER, s.manufacturer),
        (codes.DEVICE_OBSERVER_MODEL_NAME, s.manufacturer_model_name),
        (codes.DEVICE_OBSERVER_SERIAL_NUMBER, s.device_serial_number),
    )
    return [*items, *(text(relation, concept, value) for concept, value in named if value)]


def picture_of(results: tuple[ResultObject, ...], model: str | None) -> ResultObject | None:
    """The picture that shows a model, or all of them: its own, else the montage."""
    pictures = [one for one in results if one.kind in (ResultKind.MONTAGE, ResultKind.SINGLE)]
    own = [one for one in pictures if one.model == model]
    montages = [one for one in pictures if one.kind is ResultKind.MONTAGE]
    return next(iter((*own, *montages)), None)


def pictures(results: tuple[ResultObject, ...]) -> tuple[ResultObject, ...]:
    """Those of the results that are pictures."""
    return tuple(one for one in results if one.kind in (ResultKind.MONTAGE, ResultKind.SINGLE))


def source_image(case: Case, concept: Concept, relation: Relation = Relation.CONTAINS) -> bytes:
    """IMAGE item of the source."""
    return image(relation, concept, sop_class_uid=case.sop_class_uid, sop_instance_uid=case.sop_instance_uid)


def result_image(result: ResultObject, concept: Concept) -> bytes:
    """IMAGE item of a picture."""
    return image(
        Relation.CONTAINS,
        concept,
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
    )
