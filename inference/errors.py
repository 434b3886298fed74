"""Errors of the inference package; each names what is wrong and carries what is needed to act."""


class InferenceError(Exception):
    """Root of all errors of this package."""


class SourceError(InferenceError):
    """A file cannot be read as a radiograph: not a known format, truncated, header and pixels disagree.

    Parameters
    ----------
    name
        File name or SOP Instance UID.
    detail
        One sentence that names the attribute and tag, or the marker, that is wrong; no patient data.
    """

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name
        self.detail = detail


class UnsupportedPixelsError(SourceError):
    """A sound file without a single grey-scale picture, which shows only after decoding: `Ineligibility` follows."""


class CodestreamError(InferenceError, ValueError):
    """A compressed frame contradicts the data set, is damaged or cut off; the message names marker or attribute."""


class CheckpointError(InferenceError):
    """A checkpoint folder is incomplete, altered or does not fit its architecture.

    Parameters
    ----------
    checkpoint
        Name of the folder.
    detail
        One sentence: what was expected and what was found.
    """

    def __init__(self, checkpoint: str, detail: str) -> None:
        super().__init__(f"checkpoint {checkpoint}: {detail}")
        self.checkpoint = checkpoint
        self.detail = detail


class DeviceError(InferenceError):
    """The configured device is not there."""
