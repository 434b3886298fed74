"""Basic Text SR for people whose viewer shows no TID 1500 (PS3.3 A.35.1)."""

from pydicom.uid import BasicTextSRStorage

from scp_node.records import ResultKind
from scp_node.results import codes, document, evidence, uids, wording
from scp_node.results.case import Case, ResultObject
from scp_node.results.content import Relation, container, put_container, text

SERIES = (2, "AI pneumonia summary")


def build(case: Case, earlier: tuple[ResultObject, ...]) -> tuple[ResultObject, ...]:
    """Build the summary.

    Parameters
    ----------
    earlier
        Results that were built before; the picture of all models, or else the first one, is referred to.
    """
    sop_class_uid = str(BasicTextSRStorage)
    picture = document.picture_of(earlier, None)
    shown = () if picture is None else (picture,)
    sop_instance_uid = uids.uid(
        ResultKind.TEXT_SUMMARY.value,
        case.sop_instance_uid,
        *evidence.prediction_parts(case.analysis.predictions),
        *(prediction.model for prediction in case.analysis.predictions),
        *(one.sop_instance_uid for one in shown),
        *wording.notes(case.analysis),
        *(one.sop_instance_uid for one in case.replaced(ResultKind.TEXT_SUMMARY)),
        *case.common_parts,
        sop_class_uid,
    )
    dataset = document.start(
        case, ResultKind.TEXT_SUMMARY, sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid, series=SERIES
    )
    contains = Relation.CONTAINS
    findings = [
        *(text(contains, codes.FINDING, line) for line in wording.lines(case.analysis)),
        *(text(contains, codes.COMMENT, note) for note in wording.notes(case.analysis)),
    ]
    key_images = [
        document.source_image(case, codes.SOURCE_OF_MEASUREMENT),
        *(document.result_image(one, codes.BEST_ILLUSTRATION_OF_FINDING) for one in shown),
    ]
    children = [
        *document.observation_context(case),
        container(contains, codes.FINDINGS, findings),
        container(contains, codes.KEY_IMAGES, key_images),
    ]
    # No diagnostic imaging report (18748-4): nobody has diagnosed anything.
    put_container(dataset, codes.CHEST_CAD_REPORT, children)
    dataset.CurrentRequestedProcedureEvidenceSequence = [evidence.current_evidence(case, shown)]
    evidence.finish(case, dataset, case.analysis.predictions)
    kind = ResultKind.TEXT_SUMMARY
    return (ResultObject(kind=kind, model=None, group=kind.value, rank=0, dataset=dataset),)
