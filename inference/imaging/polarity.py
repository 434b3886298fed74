"""Whether low values are white: Photometric Interpretation and Presentation LUT Shape say the same thing twice."""

from pydicom import Dataset

from config.analysis import Polarity
from inference.imaging.attributes import word

CONTRADICTION = (
    "Photometric Interpretation (0028,0004) and Presentation LUT Shape (2050,0020) disagree: {} was followed"
)


def is_inverted(dataset: Dataset, polarity: Polarity) -> tuple[bool, tuple[str, ...]]:
    """Decide whether the end of the pipeline inverts, exactly once.

    PS3.3 C.8.11.3.1.2 and C.11.6.1.2 require MONOCHROME1 with INVERSE and MONOCHROME2 with IDENTITY. Where a file
    breaks this, viewers disagree; by default the shape is followed where there is one.

    Returns
    -------
    bool
        True: low values are white.
    tuple of str
        A note when the file contradicts itself.
    """
    photometric, shape = word(dataset, "PhotometricInterpretation"), word(dataset, "PresentationLUTShape")
    by_photometric = photometric == "MONOCHROME1"
    by_shape = {"INVERSE": True, "IDENTITY": False}.get(shape)
    follow_shape = polarity is Polarity.SHAPE or (polarity is Polarity.AUTO and by_shape is not None)
    notes: tuple[str, ...] = ()
    if by_shape is not None and photometric.startswith("MONOCHROME") and by_shape != by_photometric:
        notes = (CONTRADICTION.format("the shape" if follow_shape else "Photometric Interpretation"),)
    return (bool(by_shape) if follow_shape else by_photometric), notes
