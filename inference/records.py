"""What goes in and what comes out of an analysis, as frozen values; no torch, no files, no network."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset


class FileFormat(StrEnum):
    """What kind of file a radiograph came in."""

    DICOM = "DICOM"
    """DICOM Part 10 file."""
    PNG = "PNG"
    """Portable Network Graphics, grey or grey stored as RGB, 8 or 16 bit."""
    JPEG = "JPEG"
    """JFIF or EXIF, grey or grey stored as YBR."""


class RenderRule(StrEnum):
    """How stored values become display values; a property of the model, recorded in every result."""

    AUTO = "auto"
    """Lung window (WC 40 / WW 800) where values are in Hounsfield units, the image's own VOI otherwise."""
    DISPLAY = "display"
    """The image's own VOI always (PS3.4 N.2)."""
    SEED = "seed"
    """The formula of the project's first version, bit for bit: rescale, lung window, no VOI, no polarity."""


class WindowSource(StrEnum):
    """Where the window in use comes from."""

    LUNG_HU = "lung_hu"
    """The fixed lung window, on Hounsfield units."""
    VOI_LUT_SEQUENCE = "voi_lut_sequence"
    """First item of VOI LUT Sequence (0028,3010)."""
    WINDOW_ATTRIBUTES = "window_attributes"
    """First value of Window Center (0028,1050) and Window Width (0028,1051)."""
    PERCENTILES = "percentiles"
    """0.5 to 99.5 percentile of the modality values: there is no usable VOI."""
    FULL_RANGE = "full_range"
    """The whole range of the stored bits: 8-bit image without VOI."""
    SEED = "seed"
    """The fixed lung window on whatever the values are."""


class Reason(StrEnum):
    """Why an instance is not judged."""

    NOT_CHEST = "not_chest"
    """Body part or view says that this is no chest."""
    LATERAL = "lateral"
    """Lateral or oblique view; the models know frontal views."""
    NOT_UPRIGHT = "not_upright"
    """Stored on its side or upside down; the models know upright views."""
    FOR_PROCESSING = "for_processing"
    """Raw detector data (Presentation Intent Type FOR PROCESSING)."""
    OWN_RESULT = "own_result"
    """Made by this node or another one of its kind."""
    NO_PIXELS = "no_pixels"
    """No Pixel Data."""
    UNSUPPORTED_PIXELS = "unsupported_pixels"
    """Pixel Data that is no single grey-scale frame of 1 to 16 bits."""
    UNSUPPORTED_CLASS = "unsupported_class"
    """SOP Class or Modality that this node does not judge."""
    POOR_QUALITY = "poor_quality"
    """Constant, saturated or otherwise empty of anatomy after decoding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ineligibility:
    """An instance that is received and not judged.

    Parameters
    ----------
    detail
        One sentence for an operator: attribute, tag and value (coded values only, no patient data).
    """

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHeader:
    """A file before its pixels are decoded.

    Parameters
    ----------
    name
        File name or SOP Instance UID, for messages.
    dataset
        All attributes but Pixel Data, File Meta Information included (``dataset.file_meta``); None for PNG and JPEG.
    has_pixel_data
        Whether Pixel Data (7FE0,0010) of integers follows the attributes.
    """

    name: str
    file: Path
    file_format: FileFormat
    dataset: Dataset | None
    has_pixel_data: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """A decoded radiograph.

    Parameters
    ----------
    stored_values
        (rows, columns) uint8, uint16 or int16; bits above Bits Stored are masked, signed values sign-extended.
    bits_stored
        1 to 16.
    """

    header: SourceHeader
    stored_values: NDArray[Any]
    bits_stored: int
    is_signed: bool

    def __post_init__(self) -> None:
        if self.stored_values.ndim != 2 or 0 in self.stored_values.shape:
            raise ValueError(f"stored values need (rows, columns), got {self.stored_values.shape}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The window that was applied.

    Parameters
    ----------
    center, width
        In modality values (Hounsfield units for ``LUNG_HU``); None for a VOI LUT.
    function
        ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID`` (0028,1056); ``TABLE`` for a VOI LUT.
    """

    source: WindowSource
    center: float | None
    width: float | None
    function: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChestImage:
    """A radiograph as it is shown and as the models take it.

    Parameters
    ----------
    display_values
        (rows, columns) uint8, 255 = white.
    rule
        The rule asked for.
    notes
        What a reader should know: contradictory polarity, saturated window replaced, unknown view accepted.
    """

    display_values: NDArray[np.uint8]
    rule: RenderRule
    window: Window
    is_inverted: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What one model says of one radiograph.

    Parameters
    ----------
    model
        Key of the catalog, ``resnet18``.
    title
        For people, ``ResNet18``.
    version
        Version of the weights, from ``model.json``.
    probability
        Calibrated p(pneumonia) in [0, 1].
    threshold
        Operating point; positive at or above it.
    is_threshold_overridden
        The site's threshold is in use instead of the one that came with the weights.
    saliency
        (rows, columns) float32 in [0, 1], the Grad-CAM map at the target layer's size, divided by its maximum; all
        zero without positive evidence.
    preprocessing
        Identifier of rule, input size and normalisation, as it goes into reports and UIDs.
    calibration
        Identifier of what made a probability of the logit, as above.
    """

    model: str
    title: str
    version: str
    weights_sha256: str
    target_layer: str
    preprocessing: str
    calibration: str
    probability: float
    threshold: float
    saliency: NDArray[np.float32]
    is_threshold_overridden: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"{self.model}: probability {self.probability} is not in [0, 1]")
        if not 0.0 < self.threshold < 1.0:
            raise ValueError(f"{self.model}: threshold {self.threshold} is not between 0 and 1")
        if self.saliency.ndim != 2:
            raise ValueError(f"{self.model}: saliency needs (rows, columns), got {self.saliency.shape}")

    @property
    def is_positive(self) -> bool:
        """Whether the probability reaches the threshold."""
        return self.probability >= self.threshold

    @property
    def has_evidence(self) -> bool:
        """Whether the map shows any positive evidence; without it nothing is to be drawn."""
        return bool(self.saliency.any())


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """All that is known of one radiograph after the models ran.

    Parameters
    ----------
    predictions
        One per model, in the order of the configuration.
    duration_s
        Reading to last map.
    """

    header: SourceHeader
    image: ChestImage
    predictions: tuple[Prediction, ...]
    duration_s: float = field(compare=False)

    @property
    def positives(self) -> int:
        """Number of models at or above their threshold; the models are never fused into one number."""
        return sum(1 for prediction in self.predictions if prediction.is_positive)

    @property
    def agreement(self) -> str:
        """The agreement of the models in words, ``2 of 3 models at or above threshold``."""
        return f"{self.positives} of {len(self.predictions)} models at or above threshold"
