"""What a child answers when it has analysed something, for tests of what becomes of it."""

from collections.abc import Sequence

from scp_node.jobs.records import PredictionRecord
from scp_node.jobs.summary import Analysed, ResultFile
from scp_node.records import ResultKind

PREDICTION = PredictionRecord(
    model="m1",
    title="Model 1",
    version="1.0",
    weights_sha256="ab" * 32,
    preprocessing="auto",
    probability=0.75,
    threshold=0.5,
    is_threshold_overridden=False,
    is_positive=True,
    has_evidence=True,
)


def analysed(*uids: str, predictions: Sequence[PredictionRecord] = (PREDICTION,)) -> Analysed:
    """An analysis with a result of each of these UIDs."""
    return Analysed(
        predictions=tuple(predictions),
        window_source="window_attributes",
        window_center=2047.5,
        window_width=4096.0,
        window_function="LINEAR",
        notes=("view unknown",),
        duration_s=0.25,
        results=tuple(
            ResultFile(
                kind=ResultKind.SINGLE,
                model="m1",
                group=uid,
                rank=0,
                sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
                sop_instance_uid=uid,
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                file=f"results/aa/bb/cc/{uid}.dcm",
                sha256="00",
                size_bytes=1,
            )
            for uid in uids
        ),
    )
