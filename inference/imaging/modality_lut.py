"""Stored values to modality values: Modality LUT or rescale (PS3.4 N.2.1.1, PS3.3 C.11.1), and whether they are HU."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from inference.imaging.attributes import is_present, items, number, word
from inference.imaging.lookup import read_table


@dataclass(frozen=True, slots=True, kw_only=True)
class ModalityValues:
    """What the Modality LUT makes of every stored value.

    Parameters
    ----------
    values
        (n,) float64, for the n stored values asked for.
    notes
        What is wrong with the transformation and was passed over.
    """

    values: NDArray[np.float64]
    notes: tuple[str, ...] = ()


def rescale(dataset: Dataset) -> tuple[float, float] | None:
    """Return Rescale Slope (0028,1053), not 0, and Intercept (0028,1052); None unless both are numbers."""
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    return (slope, intercept) if slope and intercept is not None else None


def is_hu(dataset: Dataset) -> bool:
    """Return whether modality values are Hounsfield units: where Rescale Type says so, or by default of CT.

    PS3.3 C.8.2.1.1.2: a CT image without Rescale Type is in HU. CR and DX pixels have none, whatever a window suggests.
    """
    rescale_type = word(dataset, "RescaleType")
    is_ct = rescale_type == "" and word(dataset, "Modality") == "CT"
    return (
        rescale(dataset) is not None and not items(dataset, "ModalityLUTSequence") and (rescale_type == "HU" or is_ct)
    )


def modality_values(
    dataset: Dataset, stored_values: NDArray[np.float64], *, is_signed: bool, is_little_endian: bool
) -> ModalityValues:
    """Apply Modality LUT Sequence (0028,3000) or else Rescale Slope and Intercept; identity without either.

    Parameters
    ----------
    stored_values
        (n,) float64 of integers.
    is_signed
        Pixel Representation; it decides the sign of the table's first input.
    """
    notes: list[str] = []
    if is_present(dataset, "ModalityLUTSequence"):
        sequence = items(dataset, "ModalityLUTSequence")
        table = (
            read_table(sequence[0], is_little_endian=is_little_endian, first_is_signed=is_signed) if sequence else None
        )
        if table is not None:
            return ModalityValues(values=table.apply(stored_values))
        notes.append("Modality LUT Sequence (0028,3000) is damaged and was passed over")
    if (line := rescale(dataset)) is not None:
        return ModalityValues(values=stored_values * line[0] + line[1], notes=tuple(notes))
    if "RescaleSlope" in dataset or "RescaleIntercept" in dataset:
        notes.append("Rescale Slope (0028,1053) or Intercept (0028,1052) is missing, 0 or no number: passed over")
    return ModalityValues(values=stored_values, notes=tuple(notes))
