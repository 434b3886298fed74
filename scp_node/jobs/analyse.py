"""What a child process does: read, judge, build results, write them durably. Loaded in children only: imports torch."""

import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from config.analysis import AnalysisSettings
from config.results import ResultSettings
from config.storage import SpoolSettings
from inference.cores import threads_for_pictures
from inference.engine import Engine
from inference.errors import InferenceError, SourceError
from inference.imaging.source import read_header
from inference.records import Analysis, Prediction, Reason
from scp_node.errors import ResultError, SpoolFullError
from scp_node.jobs.causes import causes_of
from scp_node.jobs.loading import open_engine
from scp_node.jobs.model_messages import Ask
from scp_node.jobs.records import PredictionRecord
from scp_node.jobs.states import DeadLetterReason
from scp_node.jobs.summary import Analysed, Hopeless, NotEligible, NotNow, ResultFile, Summary, to_json
from scp_node.jobs.together import Together
from scp_node.records import ResultKind
from scp_node.results.case import ResultObject
from scp_node.results.catalog import build_results
from scp_node.results.predecessors import Predecessor, read_predecessor
from scp_node.results.recognition import is_own_result
from scp_node.spool.store import Spool


def open_analyser(arguments: dict[str, Any], ask: Ask | None = None) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Load the models, or have them asked; the factory of the children."""
    analyser = Analyser(
        open_engine(arguments, ask),
        ResultSettings.model_validate(arguments["results"]),
        Spool(SpoolSettings.model_validate(arguments["spool"])),
        threads=threads_for_pictures(AnalysisSettings.model_validate(arguments["analysis"])),
    )

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        replaces = tuple((ResultKind(kind), Path(file)) for kind, file in request.get("replaces", ()))
        return to_json(analyser.run(Path(request["file"]), request["name"], request["folder"], replaces))

    return handle


class Analyser:
    """From a file in the spool to results in the spool.

    A repeat writes the same UIDs.

    Parameters
    ----------
    threads
        Results that are made at a time.
    """

    def __init__(self, engine: Engine, settings: ResultSettings, spool: Spool, *, threads: int = 1) -> None:
        self._together = Together(threads)
        self._engine = engine
        self._settings = settings
        self._spool = spool

    def run(self, file: Path, name: str, folder: str, replaces: tuple[tuple[ResultKind, Path], ...] = ()) -> Summary:
        """Analyse one instance.

        Parameters
        ----------
        name
            SOP Instance UID, for messages.
        folder
            Relative name in the spool for the results.
        replaces
            Kind and file of reports of an earlier analysis, which the new ones name as their predecessors.
        """
        try:
            predecessors = tuple(read_predecessor(kind, report, name) for kind, report in replaces)
            return self._judge(file, name, folder, predecessors)
        except SourceError as error:
            return Hopeless(reason=DeadLetterReason.UNREADABLE, detail=error.detail, causes=causes_of(error))
        except ResultError as error:
            return Hopeless(reason=DeadLetterReason.RESULTS, detail=error.detail, causes=causes_of(error))
        except InferenceError as error:
            return Hopeless(reason=DeadLetterReason.INTERNAL, detail=str(error), causes=causes_of(error))
        except SpoolFullError as error:
            return NotNow(detail=str(error))

    def _judge(self, file: Path, name: str, folder: str, predecessors: tuple[Predecessor, ...]) -> Summary:
        header = read_header(file, name)
        if header.dataset is not None and is_own_result(header.dataset, self._settings):
            detail = "made by this node or another one of its kind (equipment or Device UID)"
            return NotEligible(reason=Reason.OWN_RESULT.value, detail=detail)
        outcome = self._engine.analyse_header(header)
        if not isinstance(outcome, Analysis):
            return NotEligible(reason=outcome.reason.value, detail=outcome.detail)
        return self._summary(outcome, self._write(outcome, folder, predecessors))

    def _write(self, analysis: Analysis, folder: str, predecessors: tuple[Predecessor, ...]) -> tuple[ResultFile, ...]:
        now = datetime.now().astimezone()
        results = build_results(
            analysis, self._settings, made_at=now, predecessors=predecessors, each=self._together.each
        )
        return tuple(self._together.each(lambda item: self._store(item, folder), results))

    def _store(self, item: ResultObject, folder: str) -> ResultFile:
        parts = item.parts()
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        sha256 = digest.hexdigest()
        return ResultFile(
            kind=item.kind,
            model=item.model,
            group=item.group,
            rank=item.rank,
            sop_class_uid=item.sop_class_uid,
            sop_instance_uid=item.sop_instance_uid,
            transfer_syntax_uid=item.transfer_syntax_uid,
            # A UID of our own making: digits and dots. With the digest, because a worker that was paused and
            # replaced must not write over what its successor has sent.
            file=self._spool.write_durably(
                f"{folder}/{item.sop_instance_uid}-{sha256[:12]}.dcm", lambda file: file.writelines(parts)
            ),
            sha256=sha256,
            size_bytes=sum(map(len, parts)),
        )

    @staticmethod
    def _summary(analysis: Analysis, results: tuple[ResultFile, ...]) -> Analysed:
        window = analysis.image.window
        return Analysed(
            predictions=tuple(_prediction(prediction) for prediction in analysis.predictions),
            window_source=window.source.value,
            window_center=window.center,
            window_width=window.width,
            window_function=window.function,
            notes=analysis.image.notes,
            duration_s=analysis.duration_s,
            results=results,
        )


def _prediction(prediction: Prediction) -> PredictionRecord:
    return PredictionRecord(
        model=prediction.model,
        title=prediction.title,
        version=prediction.version,
        weights_sha256=prediction.weights_sha256,
        preprocessing=prediction.preprocessing,
        probability=prediction.probability,
        threshold=prediction.threshold,
        is_threshold_overridden=prediction.is_threshold_overridden,
        is_positive=prediction.is_positive,
        has_evidence=prediction.has_evidence,
    )
