"""Attributes of a foreign data set as plain values: whatever a file holds, these functions return and never raise."""

import math
import re
from typing import Any, NamedTuple

from pydicom import DataElement, Dataset

_LARGEST_NUMBER = 1e12
"""No rescale or window of a radiograph comes near it; beyond, arithmetic in float64 would overflow."""
_QUOTABLE = re.compile(r"[A-Za-z0-9 _/.+-]{1,32}")


class Code(NamedTuple):
    """A coded entry (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str


Name = str | int
"""Keyword of an attribute, or tag where groups repeat and the keyword does not say which."""


def _value(dataset: Dataset, name: Name) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        found = dataset.get(name)
        return found.value if isinstance(found, DataElement) else found
    except Exception:  # values are converted at first access, and faulty ones raise nearly anything
        return None


def _values(dataset: Dataset, name: Name) -> list[Any]:
    value = _value(dataset, name)
    if value is None or isinstance(value, bytes):
        return []
    if isinstance(value, str):
        return value.split("\\")
    try:
        return list(value)
    except TypeError:
        return [value]


def number(dataset: Dataset, keyword: str, index: int = 0) -> float | None:
    """Return one value as a finite number of sensible size; None when absent, empty or no such number."""
    values = _values(dataset, keyword)
    if not -len(values) <= index < len(values):
        return None
    try:
        result = float(values[index])
    except (TypeError, ValueError, OverflowError):
        return None
    return result if math.isfinite(result) and abs(result) <= _LARGEST_NUMBER else None


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Return all values as finite numbers of sensible size; none when one of them is no such number."""
    found = [number(dataset, keyword, index) for index in range(len(_values(dataset, keyword)))]
    return () if None in found else tuple(one for one in found if one is not None)


def is_present(dataset: Dataset, keyword: str) -> bool:
    """Return whether the attribute is there with a value that is not empty, or with an item."""
    return any(isinstance(value, Dataset) or str(value).strip() for value in _values(dataset, keyword))


def integer(dataset: Dataset, keyword: str) -> int | None:
    """Return the first value as an integer; None when absent, empty or not integral."""
    value = number(dataset, keyword)
    return int(value) if value is not None and value == int(value) else None


def words(dataset: Dataset, name: Name) -> tuple[str, ...]:
    """Return the values of a coded string, upper case and stripped; empty values stay, for their position."""
    return tuple(str(value).strip(" \0").upper() for value in _values(dataset, name))


def word(dataset: Dataset, name: Name) -> str:
    """Return the first value of a coded string, upper case and stripped; empty when absent."""
    return next(iter(words(dataset, name)), "")


def is_there(dataset: Dataset, tag: int) -> bool:
    """Return whether an attribute of bytes, which nobody looks into, is there and not empty."""
    return tag in dataset and bool(dataset.get_item(tag).value)


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; none when absent or no sequence."""
    return [item for item in _values(dataset, keyword) if isinstance(item, Dataset)]


def codes(dataset: Dataset, keyword: str) -> tuple[Code, ...]:
    """Return the coded entries of a code sequence."""
    return tuple(
        Code(word(item, "CodeValue"), word(item, "CodingSchemeDesignator"), word(item, "CodeMeaning"))
        for item in items(dataset, keyword)
    )


def quote(value: str) -> str:
    """Return a coded value in quotation marks for a message; what looks like no code may be a name: not shown."""
    return f"'{value}'" if _QUOTABLE.fullmatch(value) else "a value that is no code"
