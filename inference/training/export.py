"""From a run to a checkpoint folder: averaged weights, calibration, operating point, and a record of how it came about.

What is calibrated and compared here went through the engine, so it is what the node says.
"""

import json
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from config.analysis import AnalysisSettings
from inference.engine import Engine
from inference.errors import CheckpointError
from inference.models.catalog import ModelSpec
from inference.models.checkpoint import WEIGHTS_FILE, Calibration, Manifest, write_checkpoint
from inference.models.preprocess import InputSpec
from inference.records import RenderRule
from inference.training import metrics
from inference.training.calibrate import CalibrationError, fit_platt, logits_of, probabilities, source_weights
from inference.training.dataset import KERMANY, LabelledImage
from inference.training.evaluate import Scores, score
from inference.training.fit import read_state
from inference.training.metrics import Floats, OperatingPoint
from inference.training.recipe import Recipe, RunError, read_recipe
from inference.training.sources import training_data
from inference.training.state import duration_s

RECORD_FILE = "training.json"

Precision = Literal["float16", "float32"]

LARGEST_DIFFERENCE = 1e-3
"""Probabilities may move by this much to halve the file: the last digit that reports print."""
PRECISIONS: tuple[Precision, ...] = ("float16", "float32")
EVERY = 5
"""One image in so many is judged in both precisions."""
WANTED_SENSITIVITY = 0.95
"""Of the operating point, on the Kermany validation images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """How a checkpoint came about; ``training.json`` beside its weights.

    Parameters
    ----------
    command
        Repeats the training.
    duration_s
        Of all epochs, from the run's log.
    hardware, software
        Where it was exported.
    precision_difference
        Largest change of a probability from storing float16 instead of float32, on ``precision_images`` of the
        validation split.
    bytes_float16, bytes_float32
        Size of the weights in either precision.
    calibration_images, calibration_positives
        Images of the validation split with confirmed labels that the calibration was fitted on.
    calibration_prevalence
        Share of pneumonia among them with each source counted the same: the prevalence the probabilities assume.
    default_threshold, default_sensitivity
        The project's operating point, and its sensitivity on ``threshold_source``; the threshold in ``model.json``
        is lower where that is below ``wanted_sensitivity``.
    """

    command: str
    recipe: Recipe
    epochs: int
    duration_s: float
    hardware: str
    software: str
    precision: Precision
    precision_difference: float
    precision_images: int
    bytes_float16: int
    bytes_float32: int
    calibration_images: int
    calibration_positives: int
    calibration_prevalence: float
    default_threshold: float
    default_sensitivity: float
    threshold_source: str
    wanted_sensitivity: float

    def to_json(self) -> str:
        """The text of ``training.json``."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TrainingRecord":
        """Read the text of ``training.json``.

        Raises
        ------
        ValueError
            A key is unknown or missing.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or values.keys() != {field.name for field in fields(cls)}:
            raise ValueError("the keys are not those of a training record")
        return cls(**(values | {"recipe": Recipe.from_json(json.dumps(values["recipe"]))}))


def read_record(folder: Path) -> TrainingRecord:
    """Read ``training.json`` of a checkpoint folder.

    Raises
    ------
    CheckpointError
        There is none, or it cannot be used.
    """
    try:
        return TrainingRecord.from_json((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(folder.name, f"cannot use {folder / RECORD_FILE}: {error}") from error


def averaged_weights(run: Path) -> tuple[dict[str, Tensor], int]:
    """Averaged weights of a run under the network's own names, and the number of epochs behind them.

    Raises
    ------
    RunError
        The run has no finished epoch, or its state is damaged.
    """
    state = read_state(run)
    try:
        average, epoch = state["average"], int(state["epoch"])
    except KeyError as error:
        raise RunError(f"{run} holds no averaged weights: {error} is missing") from error
    prefix = "module."
    return {key.removeprefix(prefix): value for key, value in average.items() if key.startswith(prefix)}, epoch


def export(
    run: Path,
    spec: ModelSpec,
    *,
    training: Sequence[LabelledImage],
    validation: Sequence[LabelledImage],
    checkpoints: Path,
    command: str,
    version: str | None = None,
    advance: Callable[[], None] | None = None,
) -> Manifest:
    """Write ``checkpoints/<name>/`` from the last finished epoch of a run.

    Parameters
    ----------
    validation
        Calibrated on and chosen by.
    version
        Of the weights; the date of the export when None, ``2026.11.23``.
    advance
        Called after each judged image, for a progress bar.

    Raises
    ------
    RunError
        The run has no finished epoch or no recipe.
    CheckpointError
        The weights do not fit the architecture.
    CalibrationError
        The validation images cannot calibrate a model: one class only, or the model is no better than chance.
    """
    recipe = read_recipe(run)
    if recipe is None:
        raise RunError(f"{run} holds no run (no recipe.json)")
    weights, epochs = averaged_weights(run)
    size = recipe.stages[-1][1]
    today = datetime.now(UTC).date()
    draft = Manifest(
        name=spec.name,
        title=spec.title,
        architecture=spec.architecture.name,
        version=version or today.strftime("%Y.%m.%d"),
        input=InputSpec(rows=size, columns=size),
        rule=RenderRule.AUTO,
        threshold=spec.default_threshold,
        calibration=Calibration(),
        training_data=training_data(training),
        created=today,
    )
    confirmed = [row for row in validation if row.is_confirmed]
    sizes: dict[Precision, int] = {}
    with tempfile.TemporaryDirectory() as temporary:
        engines: dict[Precision, Engine] = {}
        for precision in PRECISIONS:
            folder = Path(temporary) / precision
            write_checkpoint(folder / spec.name, weights, draft, precision)
            sizes[precision] = (folder / spec.name / WEIGHTS_FILE).stat().st_size
            engines[precision] = open_engine(folder, (spec.name,), recipe.threads)
        scores = score(engines["float16"], confirmed, advance)
        calibration = _fit(scores, spec.name)
        compared = score(engines["float32"], [image.row for image in scores.images][::EVERY], advance)
        difference = _difference(scores, compared, spec.name, calibration)
        precision = "float16"
        if difference > LARGEST_DIFFERENCE:
            precision = "float32"
            scores = score(engines["float32"], confirmed, advance)
            calibration = _fit(scores, spec.name)
    rows = [image.row for image in scores.images]
    truth = np.array([row.is_positive for row in rows], dtype=np.bool_)
    counted = source_weights([row.source for row in rows])
    said = probabilities(_logits(scores, spec.name), calibration)
    default, threshold, source = _operating_point(said, rows, spec.default_threshold)
    manifest = replace(draft, calibration=calibration, threshold=threshold)
    written = write_checkpoint(checkpoints / spec.name, weights, manifest, precision)
    record = TrainingRecord(
        command=command,
        recipe=recipe,
        epochs=epochs,
        duration_s=duration_s(run, epochs),
        hardware=hardware(),
        software=f"Python {platform.python_version()}, PyTorch {torch.__version__}",
        precision=precision,
        precision_difference=difference,
        precision_images=len(compared.images),
        bytes_float16=sizes["float16"],
        bytes_float32=sizes["float32"],
        calibration_images=len(rows),
        calibration_positives=int(truth.sum()),
        calibration_prevalence=float((counted * truth).sum() / counted.sum()),
        default_threshold=spec.default_threshold,
        default_sensitivity=default.sensitivity.value,
        threshold_source=source,
        wanted_sensitivity=WANTED_SENSITIVITY,
    )
    (checkpoints / spec.name / RECORD_FILE).write_text(record.to_json(), encoding="utf-8")
    return written


def open_engine(checkpoints: Path, models: tuple[str, ...], threads: int = 0) -> Engine:
    """The engine with PyTorch, the reference of every other runtime; threads of 0 are the node's own choice."""
    return Engine(AnalysisSettings(checkpoints=checkpoints, models=models, threads=threads, runtime="torch"))


def hardware() -> str:
    """The processor at hand, or the GPU where there is one."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{os.cpu_count()} cores of {name}"


def _logits(scores: Scores, model: str) -> Floats:
    """Logits of a checkpoint that was written without calibration."""
    if not scores.images:
        raise CalibrationError("none of the validation images could be judged")
    return logits_of(scores.probabilities(model, np.arange(len(scores.images))), Calibration())


def _fit(scores: Scores, model: str) -> Calibration:
    """Calibrate a checkpoint that was written without calibration; each source counts the same."""
    rows = [image.row for image in scores.images]
    truth = np.array([row.is_positive for row in rows], dtype=np.bool_)
    return fit_platt(_logits(scores, model), truth, source_weights([row.source for row in rows]))


def _difference(scores: Scores, others: Scores, model: str, calibration: Calibration) -> float:
    """Largest difference of calibrated probabilities, on the images that ``others`` holds."""
    names = [image.row.name for image in scores.images]
    places = np.array([names.index(image.row.name) for image in others.images], dtype=np.intp)
    ours, theirs = _logits(scores, model)[places], _logits(others, model)
    return float(np.abs(probabilities(ours, calibration) - probabilities(theirs, calibration)).max())


def _operating_point(said: Floats, rows: Sequence[LabelledImage], default: float) -> tuple[OperatingPoint, float, str]:
    """What the default threshold does, the threshold to use, and the source that decided."""
    sources = {row.source for row in rows if row.is_positive}
    source = KERMANY if KERMANY in sources else min(sources)
    inside = np.array([row.source == source for row in rows])
    truth = np.array([row.is_positive for row in rows], dtype=np.bool_)
    at_default = metrics.operating_point(said[inside], truth[inside], default)
    if at_default.sensitivity.value >= WANTED_SENSITIVITY:
        return at_default, default, source
    for digits in (2, 3, 4):
        lower = metrics.threshold_for(said[inside], truth[inside], WANTED_SENSITIVITY, digits)
        if lower is not None:
            return at_default, lower.threshold, source
    return at_default, default, source
