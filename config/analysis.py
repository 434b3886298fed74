"""Settings of what is judged, by which models, and how they run."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from config.base import Section, Slug


class EligibilitySettings(Section):
    """Rules for what is judged; each can be switched off."""

    require_chest: bool = Field(
        True, description="Not eligible: Body Part Examined, anatomy or protocol names another body part."
    )
    require_frontal: bool = Field(True, description="Not eligible: View Position or View Code says lateral or oblique.")
    require_upright: bool = Field(
        True, description="Not eligible: Patient Orientation says that the picture lies on its side or upside down."
    )
    refuse_for_processing: bool = Field(
        True, description="Not eligible: raw detector data. When off: best effort by log and percentiles."
    )
    require_quality: bool = Field(True, description="Not eligible: constant, saturated or noise-only pictures.")
    accept_unknown_body_part: bool = Field(True, description="Judge (with a note) when nothing names the body part.")
    accept_unknown_view: bool = Field(True, description="Judge (with a note) when nothing names the view.")


class Polarity(StrEnum):
    """Which attribute decides whether low values are white."""

    AUTO = "auto"
    """Presentation LUT Shape if present, else Photometric Interpretation."""
    PHOTOMETRIC = "photometric"
    """Photometric Interpretation (0028,0004) always."""
    SHAPE = "shape"
    """Presentation LUT Shape (2050,0020) always; IDENTITY when absent."""


class AnalysisSettings(Section):
    """Models and how they run."""

    checkpoints: Path | None = Field(
        None, description="Folder with one sub-folder per model; unset: the checkpoints shipped with the node."
    )
    models: tuple[Slug, ...] = Field(
        ("resnet18", "efficientnet_b0", "densenet121"),
        min_length=1,
        description="Models that run, in the order of the results.",
    )
    thresholds: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(
        {}, description="Site's own thresholds by model; reports say so."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a CUDA device when there is one.")
    runtime: Literal["auto", "torch", "openvino"] = Field(
        "auto", description="auto: PyTorch on a CUDA device, else OpenVINO, compiled once into the cache."
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="Arithmetic of the models; bfloat16 is faster and moves probabilities, float16 is for CUDA and used"
        " only where it moves none (docs/models.md).",
    )
    cache: Path | None = Field(
        None, description="Folder for compiled models; unset: scp-node in the user's cache folder."
    )
    processes: int = Field(
        0,
        ge=0,
        le=64,
        description="Child processes that decode and run the models; 0: one for two cores but two at least, 8 at most; "
        "one for one core.",
    )
    threads: int = Field(0, ge=0, le=256, description="Threads per child process; 0: cores divided by processes.")
    batch_size: int = Field(
        0,
        ge=0,
        le=64,
        description="Radiographs that the models judge at once when so many wait, in one process for all the others; "
        "1: every child process runs the models itself; 0: 16 with CUDA, else 1.",
    )
    time_limit_s: float = Field(
        120.0, gt=0, description="One analysis; a child that takes longer is ended and the instance is a dead letter."
    )
    memory_limit_bytes: int = Field(
        4 * 2**30,
        ge=0,
        description="Address space of a child process beyond what the models take, unless it uses CUDA; 0: no limit.",
    )
    attempts: int = Field(
        3, ge=1, le=20, description="Child processes that may die on one instance before it is a dead letter."
    )
    confine_children: bool = Field(
        True,
        description="Child processes open no socket, start no program and write results only (Linux; not the one that "
        "uses CUDA).",
    )
    polarity: Polarity = Field(Polarity.AUTO, description="Which attribute decides polarity.")
    eligibility: EligibilitySettings = EligibilitySettings()

    @model_validator(mode="after")
    def _models_are_distinct(self) -> "AnalysisSettings":
        if len(set(self.models)) != len(self.models):
            raise ValueError("models names a model twice")
        if unknown := set(self.thresholds) - set(self.models):
            raise ValueError(f"thresholds names {', '.join(sorted(unknown))}, which is not in models")
        return self
