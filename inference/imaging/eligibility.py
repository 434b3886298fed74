"""Decides from attributes and display values whether a radiograph may be judged: a frontal chest, sound, for viewing.

Refusing is coded and explained; what nothing names is accepted and noted. Whether an instance is one of this node's own
results is not decided here but by `scp_node.results`.
"""

import re
from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from config.analysis import EligibilitySettings
from inference.imaging.attributes import codes, quote, word, words
from inference.imaging.render import is_for_processing
from inference.imaging.shrink import to_size
from inference.imaging.source import unsupported_pixels
from inference.imaging.vocabulary import (
    CHEST_CODES,
    CHEST_WORDS,
    FRONTAL_CODES,
    FRONTAL_WORDS,
    NON_FRONTAL_CODES,
    NON_FRONTAL_WORDS,
    OTHER_BODY_PARTS,
)
from inference.records import ChestImage, Ineligibility, Reason, SourceHeader

_MINIMUM_SIDE = 32
_MINIMUM_DEVIATION = 1.5
_MAXIMUM_SATURATED = 0.995
_MAXIMUM_STRIPED = 0.10
_MINIMUM_CORRELATION = 0.6
_EDGE = 8
"""Levels from black or white within which a flat row is collimation: lossy compression moves it a little."""

_RADIOGRAPHY = frozenset({"CR", "DX", "RG"})
_CLASSES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        ComputedRadiographyImageStorage: _RADIOGRAPHY | {""},
        DigitalXRayImageStorageForPresentation: _RADIOGRAPHY | {""},
        DigitalXRayImageStorageForProcessing: _RADIOGRAPHY | {""},
        # Anything may be in a Secondary Capture: only the Modality says that it is a radiograph.
        SecondaryCaptureImageStorage: _RADIOGRAPHY,
        MultiFrameGrayscaleByteSecondaryCaptureImageStorage: _RADIOGRAPHY,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage: _RADIOGRAPHY,
        MultiFrameTrueColorSecondaryCaptureImageStorage: _RADIOGRAPHY,
    }
)
"""SOP Class -> values of Modality (0008,0060) that are judged."""

# Free text that operators write: a hint when no coded attribute decides. Study Description is none: one study may hold
# a chest and a hand.
_HINTS = MappingProxyType(
    {
        "SeriesDescription": "Series Description (0008,103E)",
        "ProtocolName": "Protocol Name (0018,1030)",
        "AcquisitionDeviceProcessingDescription": "Acquisition Device Processing Description (0018,1400)",
    }
)


class _Answer(Enum):
    """What the attributes say to one question."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


def check(header: SourceHeader, settings: EligibilitySettings) -> Ineligibility | None:
    """Decide by the attributes alone, before pixels are decoded.

    Returns
    -------
    Ineligibility or None
        The first reason in the order class, intent, pixels, body part, view, orientation; None when the instance is to
        be judged.
    """
    dataset = header.dataset if header.dataset is not None else Dataset()
    problem = None if header.dataset is None else _technical(header, dataset, settings)
    if problem is not None:
        return problem
    body, detail = _is_chest(dataset)
    if settings.require_chest and (
        body is _Answer.NO or (body is _Answer.UNKNOWN and not settings.accept_unknown_body_part)
    ):
        return Ineligibility(reason=Reason.NOT_CHEST, detail=detail)
    view, detail = _is_frontal(dataset)
    if settings.require_frontal and (
        view is _Answer.NO or (view is _Answer.UNKNOWN and not settings.accept_unknown_view)
    ):
        return Ineligibility(reason=Reason.LATERAL, detail=detail)
    if settings.require_upright and _is_turned(dataset):
        return Ineligibility(reason=Reason.NOT_UPRIGHT, detail=f"{_orientation_in_words(dataset)}: not stored upright")
    return None


def notes(header: SourceHeader, settings: EligibilitySettings) -> tuple[str, ...]:
    """Return what a reader should know of an instance that `check` lets pass: what was unknown, what was overruled."""
    dataset = header.dataset if header.dataset is not None else Dataset()
    result: list[str] = []
    for answer, detail in (_is_chest(dataset), _is_frontal(dataset)):
        if answer is _Answer.UNKNOWN:
            result.append(f"{detail}: accepted")
        elif answer is _Answer.NO:
            result.append(f"{detail}: judged because the configuration says so")
    if _is_turned(dataset):
        detail = "not stored upright, judged because the configuration says so"
        result.append(f"{_orientation_in_words(dataset)}: {detail}")
    elif _directions(dataset) == ("R", "F"):
        result.append(f"{_orientation_in_words(dataset)}: stored as a mirror image")
    if is_for_processing(dataset) and not settings.refuse_for_processing:
        result.append(
            "Presentation Intent Type (0008,0068) is FOR PROCESSING: judged because the configuration says so"
        )
    return tuple(result)


def _technical(header: SourceHeader, dataset: Dataset, settings: EligibilitySettings) -> Ineligibility | None:
    sop_class_uid, modality = word(dataset, "SOPClassUID"), word(dataset, "Modality")
    allowed = _CLASSES.get(sop_class_uid)
    if allowed is None:
        return Ineligibility(
            reason=Reason.UNSUPPORTED_CLASS, detail=f"SOP Class UID (0008,0016) {quote(sop_class_uid)} is not judged"
        )
    if modality not in allowed:
        return Ineligibility(
            reason=Reason.UNSUPPORTED_CLASS,
            detail=f"Modality (0008,0060) {quote(modality)} is no radiography (CR, DX, RG)",
        )
    if settings.refuse_for_processing and is_for_processing(dataset):
        return Ineligibility(
            reason=Reason.FOR_PROCESSING, detail="Presentation Intent Type (0008,0068) or SOP Class is FOR PROCESSING"
        )
    if not header.has_pixel_data:
        return Ineligibility(reason=Reason.NO_PIXELS, detail="there is no Pixel Data (7FE0,0010)")
    if (detail := unsupported_pixels(dataset)) is not None:
        return Ineligibility(reason=Reason.UNSUPPORTED_PIXELS, detail=detail)
    return None


def _tokens(text: str) -> list[str]:
    return re.findall(r"[A-Z]+", text)


def _body_part(text: str) -> _Answer:
    """Judge a body part in words: the chest wins where it is named beside another part (`CHEST AND ABDOMEN`)."""
    tokens = _tokens(text)
    compact = "".join(tokens)
    if "SPINE" in compact and "CHEST" not in compact:
        return _Answer.NO
    if any(chest in compact for chest in CHEST_WORDS):
        return _Answer.YES
    return _Answer.NO if OTHER_BODY_PARTS.intersection((*tokens, compact)) else _Answer.UNKNOWN


def _view(text: str) -> _Answer:
    """Judge a view in words: lateral wins, for frontal words occur in its name (`PA oblique`)."""
    tokens = _tokens(text)
    found = {*tokens, "".join(tokens)}
    if NON_FRONTAL_WORDS & found:
        return _Answer.NO
    return _Answer.YES if FRONTAL_WORDS & found else _Answer.UNKNOWN


def _view_in_free_text(text: str) -> _Answer:
    """Judge a view in free text, which may announce both views of an examination: then it says nothing."""
    found = set(_tokens(text))
    return _Answer.UNKNOWN if NON_FRONTAL_WORDS & found and FRONTAL_WORDS & found else _view(text)


def _orientation(dataset: Dataset) -> _Answer:
    """Judge Patient Orientation (0020,0020), PS3.3 C.7.6.1.1.1: rows and columns of a frontal view run L-R and H-F."""
    directions = set(_directions(dataset))
    if directions & {"A", "P"}:
        return _Answer.NO
    return _Answer.YES if directions & {"L", "R"} and directions & {"H", "F"} else _Answer.UNKNOWN


def _directions(dataset: Dataset) -> tuple[str, ...]:
    """Where rows and columns run to, the main direction of each."""
    return tuple(value[:1] for value in words(dataset, "PatientOrientation"))


def _is_turned(dataset: Dataset) -> bool:
    """Whether a frontal view is stored on its side or upside down: upright, columns run to the feet."""
    return _orientation(dataset) is _Answer.YES and _directions(dataset)[1:] != ("F",)


def _orientation_in_words(dataset: Dataset) -> str:
    return f"Patient Orientation (0020,0020) is {quote('/'.join(words(dataset, 'PatientOrientation')))}"


def _decide(evidence: list[tuple[_Answer, str]], unknown: str) -> tuple[_Answer, str]:
    """Weigh coded attributes: one that objects wins, for a picture wrongly judged harms more than one refused."""
    for wanted in (_Answer.NO, _Answer.YES):
        for answer, detail in evidence:
            if answer is wanted:
                return answer, detail
    return _Answer.UNKNOWN, unknown


def _hint(dataset: Dataset, judge: Callable[[str], _Answer], subject: str) -> tuple[_Answer, str]:
    """Ask free text, without quoting it: it may hold anything."""
    evidence = [(judge(word(dataset, keyword)), f"{label} names {subject}") for keyword, label in _HINTS.items()]
    answers = {answer for answer, _ in evidence} - {_Answer.UNKNOWN}
    if len(answers) != 1:  # nothing, or contradictory
        return _Answer.UNKNOWN, ""
    return _decide(evidence, "")


def _is_chest(dataset: Dataset) -> tuple[_Answer, str]:
    """Return whether this is a chest, and in a sentence what says so."""
    body_part = word(dataset, "BodyPartExamined")
    evidence = [(_body_part(body_part), f"Body Part Examined (0018,0015) is {quote(body_part)}")]
    for code in codes(dataset, "AnatomicRegionSequence"):
        answer = _Answer.YES if code.value in CHEST_CODES else _body_part(code.meaning)
        evidence.append((answer, f"Anatomic Region Sequence (0008,2218) is {quote(code.value)}"))
    decided = _decide(evidence, "")
    if decided[0] is _Answer.UNKNOWN:
        decided = _hint(dataset, _body_part, "the body part")
    return decided if decided[0] is not _Answer.UNKNOWN else (_Answer.UNKNOWN, "no attribute names a known body part")


def _is_frontal(dataset: Dataset) -> tuple[_Answer, str]:
    """Return whether the view is frontal, and in a sentence what says so."""
    position = word(dataset, "ViewPosition")
    evidence = [
        (_view(position), f"View Position (0018,5101) is {quote(position)}"),
        (_orientation(dataset), _orientation_in_words(dataset)),
    ]
    for code in codes(dataset, "ViewCodeSequence"):
        if code.value in FRONTAL_CODES:
            answer = _Answer.YES
        else:
            answer = _Answer.NO if code.value in NON_FRONTAL_CODES else _view(code.meaning)
        evidence.append((answer, f"View Code Sequence (0054,0220) is {quote(code.value)}"))
    decided = _decide(evidence, "")
    if decided[0] is _Answer.UNKNOWN:
        decided = _hint(dataset, _view_in_free_text, "the view")
    return decided if decided[0] is not _Answer.UNKNOWN else (_Answer.UNKNOWN, "no attribute names a known view")


def check_quality(image: ChestImage) -> Ineligibility | None:
    """Decide by the display values whether anything can be seen: the last guard against a silent mis-decode.

    The limits leave a wide margin: of 5971 radiographs of the training data none has more than 45 % of its pixels black
    or white (limit 99.5 %), a correlation of neighbours below 0.92 (0.6), one grey row of a single value or more than
    0.5 % of its rows repeated (10 %). Flat rows near black or white are collimation and count for nothing.
    """
    values = image.display_values
    if min(values.shape) < _MINIMUM_SIDE:
        return _poor(f"{values.shape[0]} x {values.shape[1]} pixels are too few to judge")
    # Not numpy's: it makes a float64 of every pixel first.
    if float(cv2.meanStdDev(values)[1][0, 0]) < _MINIMUM_DEVIATION:
        return _poor("the picture is constant")
    saturated = float(np.count_nonzero((values == 0) | (values == 255))) / values.size
    if saturated > _MAXIMUM_SATURATED:
        return _poor(f"{100 * saturated:.1f} % of the pixels are black or white")
    is_flat = values.min(axis=1) == values.max(axis=1)
    is_grey = (values[:, 0] > _EDGE) & (values[:, 0] < 255 - _EDGE)
    is_repeated = np.concatenate([[False], (values[1:] == values[:-1]).all(axis=1)]) & ~is_flat
    striped = float(np.mean((is_flat & is_grey) | is_repeated))
    if striped > _MAXIMUM_STRIPED:
        return _poor(
            f"{100 * striped:.0f} % of the rows are of one grey or repeat the row above, as of a damaged stream"
        )
    correlation = _correlation_of_neighbours(values)
    if correlation < _MINIMUM_CORRELATION:
        return _poor(f"the picture is noise (correlation of neighbouring pixels {correlation:.2f})")
    return None


def _poor(detail: str) -> Ineligibility:
    return Ineligibility(reason=Reason.POOR_QUALITY, detail=detail)


def _correlation_of_neighbours(values: NDArray[np.uint8]) -> float:
    """Return the smaller of the correlations of horizontal and vertical neighbours, after reduction to 512 pixels.

    Reduction by area takes away the quantum noise of a detector; pure noise stays uncorrelated in it.
    """
    rows, columns = (min(side, 512) for side in values.shape)
    small = to_size(values, rows, columns).astype(np.float32)
    small -= small.mean()
    variance = float(np.mean(small * small)) or 1.0
    horizontal = float(np.mean(small[:, 1:] * small[:, :-1]))
    vertical = float(np.mean(small[1:] * small[:-1]))
    return min(horizontal, vertical) / variance
