"""What results say in words. Nothing here is stronger than what was measured: a class probability and a cut-off."""

from inference.records import Analysis, Prediction, WindowSource
from scp_node.figures import DECIMALS, agreeing
from scp_node.results.uids import PRODUCT, software_version

NOT_A_DIAGNOSIS = "AI result - not a diagnosis"
RESEARCH_USE = "Research use only - not for diagnostic use"
NO_EVIDENCE = "no positive evidence"
POSITIVE = "POSITIVE"
NEGATIVE = "negative"
"""Below the threshold; it does not say that there is no pneumonia."""

_WINDOWS = {
    WindowSource.LUNG_HU: "lung window, HU",
    WindowSource.VOI_LUT_SEQUENCE: "the image's own VOI LUT",
    WindowSource.WINDOW_ATTRIBUTES: "the image's own window",
    WindowSource.PERCENTILES: "window from percentiles",
    WindowSource.FULL_RANGE: "full range, no window",
    WindowSource.SEED: "fixed window",
}


def plain(text: str, length: int) -> str:
    """Text of ours as every character set can hold it: ASCII without control characters and backslashes, cut."""
    ascii_only = text.encode("ascii", "replace").decode("ascii")
    return "".join(c if c.isprintable() and c != "\\" else "?" for c in ascii_only)[:length]


def decimal(value: float) -> str:
    """A number with at most four decimals and no trailing zeros, ``87.34``, ``25``."""
    text = _trimmed(f"{float(value):.{DECIMALS}f}")
    return "0" if text == "-0" else text


def threshold_percent(prediction: Prediction) -> str:
    """The operating point, ``25 %``."""
    return f"{_trimmed(_percents(prediction, 2)[1])} %"


def probability_percent(prediction: Prediction) -> str:
    """The probability, ``87.34 %``, with as many decimals as it takes not to contradict the verdict.

    24.9996 % under a threshold of 25 % must not read ``25.00 % negative``.
    """
    return f"{_percents(prediction, 2)[0]} %"


def percent_numbers(prediction: Prediction) -> tuple[str, str]:
    """Probability and threshold in percent as Decimal Strings (PS3.5 6.2), ``("87.3421", "25")``.

    Who compares them finds the verdict, however close they are.
    """
    probability, threshold = _percents(prediction, DECIMALS)
    return _trimmed(probability), _trimmed(threshold)


def verdict(prediction: Prediction) -> str:
    """``POSITIVE`` or ``negative``."""
    return POSITIVE if prediction.is_positive else NEGATIVE


def verdict_reason(prediction: Prediction) -> str:
    """The verdict and what it means."""
    side = "at or above" if prediction.is_positive else "below"
    owner = "threshold set by this site" if prediction.is_threshold_overridden else "threshold"
    return f"{verdict(prediction)} ({side} {owner})"


def sentence(prediction: Prediction) -> str:
    """What one model says, in one sentence or two."""
    parts = [
        f"{plain(prediction.title, 64)} version {plain(prediction.version, 64)}: probability of pneumonia "
        f"{probability_percent(prediction)}, threshold {threshold_percent(prediction)}, {verdict_reason(prediction)}."
    ]
    if not prediction.has_evidence:
        parts.append(f"Grad-CAM shows {NO_EVIDENCE}.")
    return " ".join(parts)


def summary(analysis: Analysis) -> str:
    """What all models say together; they are counted, never fused."""
    return f"{NOT_A_DIAGNOSIS}. {RESEARCH_USE}. Pneumonia: {analysis.agreement}."


def lines(analysis: Analysis) -> tuple[str, ...]:
    """The summary and the sentence of each model."""
    return (summary(analysis), *map(sentence, analysis.predictions))


def window(analysis: Analysis) -> str:
    """How the radiograph was rendered for the models and the picture, ``rule=auto; window=lung_hu 40/800``."""
    image = analysis.image
    text = f"rule={image.rule.value}; window={image.window.source.value}"
    if image.window.center is not None and image.window.width is not None:
        text += f" {decimal(image.window.center)}/{decimal(image.window.width)} {image.window.function}"
    return text + ("; inverted" if image.is_inverted else "")


def window_in_words(analysis: Analysis) -> str:
    """The same for people, ``the image's own window 15000 / 30000``."""
    used = analysis.image.window
    text = _WINDOWS[used.source]
    if used.center is None or used.width is None:
        return text
    return f"{text} {decimal(round(used.center, 1))} / {decimal(round(used.width, 1))}"


def notes(analysis: Analysis) -> tuple[str, ...]:
    """What a reader should know of the input, ready for any character set."""
    return tuple(plain(note, 1024) for note in analysis.image.notes)


def software() -> str:
    """Product and version."""
    return f"{PRODUCT} {software_version()}"


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".")


def _percents(prediction: Prediction, decimals: int) -> tuple[str, str]:
    """Probability and threshold in percent."""
    return agreeing(
        prediction.probability,
        prediction.threshold,
        is_positive=prediction.is_positive,
        decimals=decimals,
        in_percent=True,
    )
