"""What the child of the full disk's test runs instead of an engine: two results for each object, through the spool."""

import hashlib

from config.storage import SpoolSettings
from scp_node.errors import SpoolFullError
from scp_node.jobs.records import PredictionRecord
from scp_node.jobs.summary import Analysed, NotNow, ResultFile, to_json
from scp_node.records import ResultKind
from scp_node.spool.store import Spool

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def open_analyser(arguments):
    spool = Spool(SpoolSettings.model_validate(arguments["spool"]))

    def result(request, number):
        uid = f"{request['name']}.{number}"
        content = uid.encode() * 4000
        return ResultFile(
            kind=ResultKind.SINGLE,
            model="resnet18",
            group=uid,
            rank=0,
            sop_class_uid=SECONDARY_CAPTURE,
            sop_instance_uid=uid,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            file=spool.write_durably(f"{request['folder']}/{uid}.dcm", content),
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
        )

    def handle(request):
        try:
            results = tuple(result(request, number) for number in (1, 2))
        except SpoolFullError as error:
            return to_json(NotNow(detail=str(error)))
        prediction = PredictionRecord(
            model="resnet18",
            title="ResNet-18",
            version="1",
            weights_sha256="ab" * 32,
            preprocessing="auto",
            probability=0.5,
            threshold=0.5,
            is_threshold_overridden=False,
            is_positive=True,
            has_evidence=True,
        )
        return to_json(
            Analysed(
                predictions=(prediction,),
                window_source="window_attributes",
                window_center=1.0,
                window_width=2.0,
                window_function="LINEAR",
                notes=(),
                duration_s=0.1,
                results=results,
            )
        )

    return handle
