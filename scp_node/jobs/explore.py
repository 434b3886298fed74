"""What the console's explorer asks of a child process: judge one file that is nobody's job, and forget it.

Loaded in children only: imports torch. Reads, judges and builds with the same functions as `analyse.py`; what it writes
goes into a folder that the asking process names and removes. It knows no spool and no database.
"""

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.uid import UID

from config.analysis import AnalysisSettings
from config.results import ResultSettings
from inference.cores import threads_for_pictures
from inference.engine import Engine
from inference.errors import InferenceError, SourceError
from inference.imaging.attributes import integer, is_present, number, word
from inference.imaging.render import render
from inference.imaging.source import read_header, read_pixels
from inference.records import Analysis, ChestImage, Ineligibility, Prediction, Reason, RenderRule, SourceHeader
from scp_node.errors import ResultError
from scp_node.jobs.loading import open_engine
from scp_node.jobs.model_messages import Ask
from scp_node.results.catalog import build_results
from scp_node.results.overlay import montage, pixel_aspect, single, square
from scp_node.results.recognition import is_own_result

_MAP_SIZE = 256
"""Longest side of a saliency map as it is handed out; the maps themselves are 7 x 7 or so."""
_LISTED = 8
"""Values of a multi-valued attribute that are shown."""


def open_explorer(arguments: dict[str, Any], ask: Ask | None = None) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Load the models, or have them asked; the factory of the children."""
    analysis = AnalysisSettings.model_validate(arguments["analysis"])
    explorer = Explorer(open_engine(arguments, ask), analysis, ResultSettings.model_validate(arguments["results"]))

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        folder = request.get("objects_folder")
        return explorer.run(
            Path(request["file"]),
            request["name"],
            picture_size=request.get("picture_size", 0),
            objects_folder=None if folder is None else Path(folder),
        )

    return handle


@dataclass(slots=True, kw_only=True)
class _Findings:
    """What is known of the file so far; grows as the analysis goes on."""

    header: SourceHeader | None = None
    reason: str | None = None
    detail: str = ""
    image: ChestImage | None = None
    analysis: Analysis | None = None
    objects: list[dict[str, Any]] = field(default_factory=list)


class Explorer:
    """Judges files one by one; keeps nothing."""

    def __init__(self, engine: Engine, analysis: AnalysisSettings, results: ResultSettings) -> None:
        self._engine = engine
        self._analysis = analysis
        self._results = results

    def run(self, file: Path, name: str, *, picture_size: int, objects_folder: Path | None) -> dict[str, Any]:
        """Judge one file.

        Parameters
        ----------
        picture_size
            Longest side of the picture and of what comes with it, in pixels; 0: none are made.
        objects_folder
            Existing folder for the result objects (DICOM) and pictures (PNG); None: none are written.

        Returns
        -------
        JSON-able; ``outcome`` is ``analysed``, ``not_eligible``, ``unreadable`` or ``failed``.
        """
        began = time.perf_counter()
        found = _Findings()
        outcome = "analysed"
        try:
            outcome = self._judge(file, name, found)
            if found.analysis is not None and objects_folder is not None:
                self._write(found, objects_folder)
        except SourceError as error:
            outcome, found.reason, found.detail = "unreadable", "unreadable", error.detail
        except ResultError as error:
            outcome, found.reason, found.detail = "failed", "results", error.detail
        except InferenceError as error:
            outcome, found.reason, found.detail = "failed", "failed", str(error)
        analysis = found.analysis if outcome == "analysed" else None
        return {
            "outcome": outcome,
            "reason": found.reason,
            "detail": found.detail,
            "information": _information(found, file),
            "window": None if found.image is None else _window(found.image),
            "notes": [] if analysis is None else list(analysis.image.notes),
            "predictions": []
            if analysis is None
            else [_prediction(one, found.image, picture_size) for one in analysis.predictions],
            "picture": _picture(found, picture_size),
            "objects": found.objects,
            "duration_s": round(time.perf_counter() - began, 4),
        }

    def _judge(self, file: Path, name: str, found: _Findings) -> str:
        found.header = header = read_header(file, name)
        outcome: Analysis | Ineligibility
        if header.dataset is not None and is_own_result(header.dataset, self._results):
            outcome = Ineligibility(reason=Reason.OWN_RESULT, detail="made by this node or another one of its kind")
        else:
            outcome = self._engine.analyse_header(header)
        if isinstance(outcome, Analysis):
            found.analysis, found.image = outcome, outcome.image
            return "analysed"
        found.reason, found.detail = outcome.reason.value, outcome.detail
        found.image = self._shown(header)
        return "not_eligible"

    def _shown(self, header: SourceHeader) -> ChestImage | None:
        """What is not judged can often be looked at all the same."""
        try:
            source = read_pixels(header, threads=threads_for_pictures(self._analysis))
            return render(source, RenderRule.AUTO, self._analysis.polarity)
        except InferenceError:
            return None

    def _write(self, found: _Findings, folder: Path) -> None:
        analysis = found.analysis
        if analysis is None:
            return
        pictures = self._results.secondary_capture
        drawn = {"montage": montage(analysis, pictures)}
        drawn |= {one.model: single(analysis, one, pictures) for one in analysis.predictions}
        for key, pixels in drawn.items():
            _save(folder / f"{key}.png", pixels)
            found.objects.append({"name": f"{key}.png", "kind": "picture", "model": None if key == "montage" else key})
        if analysis.header.dataset is None:
            return
        for item in build_results(analysis, self._results, made_at=datetime.now().astimezone()):
            if item.rank == 0:
                key = "_".join(part for part in (item.kind.value, item.model) if part)
                (folder / f"{key}.dcm").write_bytes(item.encode())
                found.objects.append({"name": f"{key}.dcm", "kind": item.kind.value, "model": item.model})


def _information(found: _Findings, file: Path) -> dict[str, Any]:
    """What the file says of itself: technical attributes and coded values, nothing of the patient."""
    header = found.header
    size: dict[str, Any] = {"size_bytes": file.stat().st_size}
    if header is None:
        return size
    shape = None if found.image is None else found.image.display_values.shape
    shared = {
        "format": header.file_format.value,
        **size,
        "rows": None if shape is None else shape[0],
        "columns": None if shape is None else shape[1],
    }
    if header.dataset is None:
        return shared
    dataset = header.dataset
    meta = getattr(dataset, "file_meta", Dataset())
    return {
        **shared,
        "rows": shared["rows"] or integer(dataset, "Rows"),
        "columns": shared["columns"] or integer(dataset, "Columns"),
        "sop_instance_uid": word(dataset, "SOPInstanceUID"),
        "sop_class": _uid_name(word(dataset, "SOPClassUID")),
        "transfer_syntax": _uid_name(word(meta, "TransferSyntaxUID")),
        "modality": word(dataset, "Modality"),
        "body_part": word(dataset, "BodyPartExamined"),
        "view_position": word(dataset, "ViewPosition"),
        "intent": word(dataset, "PresentationIntentType"),
        "photometric_interpretation": word(dataset, "PhotometricInterpretation"),
        "presentation_lut_shape": word(dataset, "PresentationLUTShape"),
        "bits_stored": integer(dataset, "BitsStored"),
        "rescale": _pair(dataset, "RescaleSlope", "RescaleIntercept"),
        "window_found": _windows_found(dataset),
        "voi_lut_found": is_present(dataset, "VOILUTSequence"),
    }


def _windows_found(dataset: Dataset) -> list[str]:
    pairs = []
    for index in range(_LISTED):
        center, width = number(dataset, "WindowCenter", index), number(dataset, "WindowWidth", index)
        if center is None or width is None:
            break
        pairs.append(f"{center:g} / {width:g}")
    return pairs


def _pair(dataset: Dataset, first: str, second: str) -> str:
    values = number(dataset, first), number(dataset, second)
    return "" if None in values else f"{values[0]:g} / {values[1]:g}"


def _uid_name(uid: str) -> str:
    return UID(uid).name if uid else ""


def _window(image: ChestImage) -> dict[str, Any]:
    window = image.window
    return {
        "source": window.source.value,
        "center": window.center,
        "width": window.width,
        "function": window.function,
        "is_inverted": image.is_inverted,
        "rule": image.rule.value,
    }


def _prediction(prediction: Prediction, image: ChestImage | None, picture_size: int) -> dict[str, Any]:
    made = {
        "model": prediction.model,
        "title": prediction.title,
        "version": prediction.version,
        "target_layer": prediction.target_layer,
        "preprocessing": prediction.preprocessing,
        "weights_sha256": prediction.weights_sha256,
        "probability": prediction.probability,
        "threshold": prediction.threshold,
        "is_threshold_overridden": prediction.is_threshold_overridden,
        "is_positive": prediction.is_positive,
        "has_evidence": prediction.has_evidence,
        "saliency": None,
    }
    if picture_size and image is not None:
        rows, columns = _fitting(image.display_values.shape, _MAP_SIZE)
        enlarged = cv2.resize(prediction.saliency, (columns, rows), interpolation=cv2.INTER_CUBIC)
        made["saliency"] = _encoded(np.asarray(np.clip(enlarged * 255 + 0.5, 0, 255), dtype=np.uint8))
    return made


def _picture(found: _Findings, size: int) -> dict[str, Any] | None:
    """The radiograph with square pixels, as the node's own pictures have it; the page lays the maps over all of it."""
    if found.image is None or found.header is None or not size:
        return None
    values = found.image.display_values
    rows, columns = _fitting(square(values.shape, pixel_aspect(found.header)), size)
    if (rows, columns) != values.shape:
        # INTER_AREA averages where it reduces and repeats pixels where it enlarges.
        is_reduced = rows <= values.shape[0] and columns <= values.shape[1]
        method = cv2.INTER_AREA if is_reduced else cv2.INTER_LINEAR
        values = np.asarray(cv2.resize(values, (columns, rows), interpolation=method), dtype=np.uint8)
    return {"rows": rows, "columns": columns, "png": _encoded(values)}


def _fitting(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """Rows and columns of the same shape that fit into a square; never larger than they are, but for tiny ones."""
    scale = min(1.0, size / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _encoded(pixels: NDArray[np.uint8]) -> str:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _save(file: Path, pixels: NDArray[np.uint8]) -> None:
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
