"""TID 1500 Imaging Measurement Report, in every SOP class that can hold it."""

from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from inference.records import Prediction
from scp_node.records import ResultKind
from scp_node.results import codes, context, document, evidence, uids, wording
from scp_node.results.case import Case, ResultObject
from scp_node.results.codes import Concept
from scp_node.results.content import Relation, code, container, date, image, number, put_container, text, time, uidref
from scp_node.results.raw import encoded, tag_of

SERIES = (1, "AI pneumonia SR")
SOP_CLASSES = {
    "comprehensive_3d": str(Comprehensive3DSRStorage),
    "comprehensive": str(ComprehensiveSRStorage),
    "enhanced": str(EnhancedSRStorage),
}
"""By the name in the settings, best first; the content tree is valid in all three."""


def build(case: Case, earlier: tuple[ResultObject, ...]) -> tuple[ResultObject, ...]:
    """Build the report, once per SOP class that may be needed; the alternatives form one group.

    Parameters
    ----------
    earlier
        Results that were built before; pictures among them are referred to.
    """
    chosen = case.settings.report.sop_class
    names = tuple(SOP_CLASSES) if chosen == "auto" else (chosen,)
    content = _content(case, earlier)
    return tuple(_build_one(case, earlier, content, SOP_CLASSES[name], rank) for rank, name in enumerate(names))


def _content(case: Case, earlier: tuple[ResultObject, ...]) -> list[bytes]:
    """Items of TID 1500, the same in every SOP class."""
    groups = [_measurement_group(case, prediction, earlier) for prediction in case.analysis.predictions]
    return [
        *document.observation_context(case),
        *_procedures(case),
        _image_library(case),
        container(Relation.CONTAINS, codes.IMAGING_MEASUREMENTS, groups),
        container(Relation.CONTAINS, codes.QUALITATIVE_EVALUATIONS, _sentences(case)),
    ]


def _build_one(
    case: Case, earlier: tuple[ResultObject, ...], content: list[bytes], sop_class_uid: str, rank: int
) -> ResultObject:
    settings = case.settings.report
    pictures = document.pictures(earlier)
    sop_instance_uid = uids.uid(
        ResultKind.MEASUREMENT_REPORT.value,
        case.sop_instance_uid,
        *evidence.prediction_parts(case.analysis.predictions),
        *(prediction.model for prediction in case.analysis.predictions),
        *(picture.sop_instance_uid for picture in pictures),
        *wording.notes(case.analysis),
        *(one.sop_instance_uid for one in case.replaced(ResultKind.MEASUREMENT_REPORT)),
        settings.title_code,
        settings.procedure_code,
        str(settings.threshold),
        *case.common_parts,
        sop_class_uid,
    )
    dataset = document.start(
        case,
        ResultKind.MEASUREMENT_REPORT,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        series=SERIES,
    )
    put_container(dataset, Concept.from_setting(settings.title_code), content, template="1500")
    dataset.CurrentRequestedProcedureEvidenceSequence = [evidence.current_evidence(case, pictures)]
    evidence.finish(case, dataset, case.analysis.predictions)
    kind = ResultKind.MEASUREMENT_REPORT
    return ResultObject(kind=kind, model=None, group=kind.value, rank=rank, dataset=dataset)


def _procedures(case: Case) -> list[bytes]:
    """What was done to the patient, as the source says it, and as every reader knows it; not the analysis.

    DCMTK 3.6.7 refuses a whole report for a code without a scheme, a URN's for example, and for a meaning of which a
    character's second byte looks like the delimiter of values. Those stay in Procedure Code Sequence only.
    """
    configured = Concept.from_setting(case.settings.report.procedure_code)
    own = [
        one
        for one in context.items_of(case.context, "ProcedureCodeSequence")
        if encoded(one, tag_of("CodingSchemeDesignator")) and b"\\" not in (encoded(one, tag_of("CodeMeaning")) or b"")
    ]
    return [code(Relation.HAS_CONCEPT_MOD, codes.PROCEDURE_REPORTED, value) for value in (*own, configured)]


def _image_library(case: Case) -> bytes:
    """TID 1600 with the source as its only entry."""
    entry = image(
        Relation.CONTAINS,
        codes.SOURCE,
        sop_class_uid=case.sop_class_uid,
        sop_instance_uid=case.sop_instance_uid,
        children=_descriptors(case),
    )
    group = container(Relation.CONTAINS, codes.IMAGE_LIBRARY_GROUP, [entry])
    return container(Relation.CONTAINS, codes.IMAGE_LIBRARY, [group], template="1600")


def _descriptors(case: Case) -> list[bytes]:
    """What the source says of itself (TID 1602, TID 1603); nothing for what it does not say."""
    relation, source = Relation.HAS_ACQ_CONTEXT, case.source
    items = []
    if modality := codes.MODALITIES.get(context.text(source, "Modality")):
        items.append(code(relation, codes.MODALITY, modality))
    items.append(code(relation, codes.TARGET_REGION, codes.CHEST))
    if study_date := context.text(source, "StudyDate"):
        items.append(date(relation, codes.STUDY_DATE, study_date))
    if study_time := context.text(source, "StudyTime"):
        items.append(time(relation, codes.STUDY_TIME, study_time))
    rows, columns = case.analysis.image.display_values.shape
    items.append(number(relation, codes.PIXEL_DATA_ROWS, rows, codes.PIXELS))
    items.append(number(relation, codes.PIXEL_DATA_COLUMNS, columns, codes.PIXELS))
    if view := codes.VIEWS.get(context.text(source, "ViewPosition")):
        items.append(code(relation, codes.IMAGE_VIEW, view))
    orientation = context.text(source, "PatientOrientation").split("\\")
    if len(orientation) == 2 and all(orientation):
        # The first value is the direction of the rows (PS3.3 C.7.6.1.1.1).
        items.append(text(relation, codes.PATIENT_ORIENTATION_ROW, orientation[0]))
        items.append(text(relation, codes.PATIENT_ORIENTATION_COLUMN, orientation[1]))
    spacing = context.text(source, "ImagerPixelSpacing").split("\\")
    if len(spacing) == 2 and all(spacing):
        # The first value is the distance between rows (PS3.3 10.7.1.3).
        items.append(number(relation, codes.HORIZONTAL_PIXEL_SPACING, float(spacing[1]), codes.MILLIMETRE))
        items.append(number(relation, codes.VERTICAL_PIXEL_SPACING, float(spacing[0]), codes.MILLIMETRE))
    return items


def _measurement_group(case: Case, prediction: Prediction, earlier: tuple[ResultObject, ...]) -> bytes:
    """TID 1501 of one model."""
    modifier, contains = Relation.HAS_CONCEPT_MOD, Relation.CONTAINS
    title, version = wording.plain(prediction.title, 64), wording.plain(prediction.version, 64)
    probability, threshold = wording.percent_numbers(prediction)
    tracking_uid = uids.uid("tracking", case.sop_instance_uid, prediction.model, prediction.version)
    items = [
        text(Relation.HAS_OBS_CONTEXT, codes.TRACKING_IDENTIFIER, f"Pneumonia {title} {version}"),
        uidref(Relation.HAS_OBS_CONTEXT, codes.TRACKING_UNIQUE_IDENTIFIER, tracking_uid),
    ]
    if prediction.is_positive:
        # Only then: readers that list findings would otherwise show pneumonia for a negative.
        items.append(code(contains, codes.FINDING, codes.PNEUMONIA))
    items += [
        code(modifier, codes.FINDING_SITE, codes.LUNG),
        text(modifier, codes.ALGORITHM_NAME, title),
        text(modifier, codes.ALGORITHM_VERSION, version),
        *(text(modifier, codes.ALGORITHM_PARAMETERS, one) for one in _parameters(case, prediction)),
        code(modifier, codes.ALGORITHM_FAMILY, codes.ARTIFICIAL_INTELLIGENCE),
        number(contains, codes.PROBABILITY, probability, codes.PERCENT),
    ]
    if case.settings.report.threshold:
        items.append(number(contains, codes.THRESHOLD_VALUE, threshold, codes.PERCENT))
    items += [
        code(contains, codes.PNEUMONIA, codes.PRESENT if prediction.is_positive else codes.ABSENT),
        document.source_image(case, codes.SOURCE_OF_MEASUREMENT),
    ]
    if picture := document.picture_of(earlier, prediction.model):
        items.append(document.result_image(picture, codes.ILLUSTRATION_OF_ROI))
    return container(contains, codes.MEASUREMENT_GROUP, items, template="1501")


def _parameters(case: Case, prediction: Prediction) -> tuple[str, ...]:
    """What it takes to repeat the result (TID 4019)."""
    owner = "site" if prediction.is_threshold_overridden else "weights"
    parameters = (
        f"threshold={prediction.threshold!r}",
        f"threshold_source={owner}",
        f"target_layer={prediction.target_layer}",
        f"preprocessing={prediction.preprocessing}",
        f"calibration={prediction.calibration}",
        f"rendering={wording.window(case.analysis)}",
        f"weights_sha256={prediction.weights_sha256}",
        f"explanation={codes.GRADIENT_WEIGHTED_CLASS_ACTIVATION.meaning}",
    )
    return tuple(wording.plain(parameter, 1024) for parameter in parameters)


def _sentences(case: Case) -> list[bytes]:
    """TID 1500 rows 12 to 14, in words."""
    contains = Relation.CONTAINS
    return [
        *(text(contains, codes.SUMMARY, line) for line in wording.lines(case.analysis)),
        *(text(contains, codes.COMMENT, note) for note in wording.notes(case.analysis)),
    ]
