"""Says which encoded values and items a result may repeat; judges bytes as they lie in the source, and changes none."""

import re
from collections.abc import Iterator
from datetime import date

from pydicom import Dataset
from pydicom.charset import CODES_TO_ENCODINGS, python_encoding
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.valuerep import validate_value

from scp_node.results.raw import encoded, put, tag_of

ENUMERATED = {
    "PatientSex": {b"M", b"F", b"O"},
    "PatientIdentityRemoved": {b"YES", b"NO"},
    "LongitudinalTemporalInformationModified": {b"UNMODIFIED", b"MODIFIED", b"REMOVED"},
    "BurnedInAnnotation": {b"YES", b"NO"},
    "LossyImageCompression": {b"00", b"01"},
    "TypeOfPatientID": {b"TEXT", b"RFID", b"BARCODE"},
}
"""Enumerated Values; another value is as good as none."""

LIMITS = {"ImagerPixelSpacing": (0.001, 1000.0)}
"""Least and greatest value that can be meant, in the attribute's unit. Results write it with four decimals, which is
neither zero nor longer than Decimal String may be (PS3.5 6.2)."""

TIMEZONE = re.compile(rb"[+](0\d|1[0-3])[0-5]\d|[+]1400|-(?!0000)(0\d|1[01])[0-5]\d|-1200")
"""Timezone Offset From UTC (PS3.3 C.12.1.1.8); its range is that of DT (PS3.5 6.2)."""

TEXT_LENGTHS = {"LO": 64, "SH": 16, "PN": 64, "ST": 1024, "LT": 10240, "UC": 2**20, "UT": 2**20}
"""Longest value in characters, of PN longest component group (PS3.5 6.2)."""
COMPONENT_GROUPS = 3
DECIMAL_STRING_BYTES = 16
PATTERNED = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
SEGMENT = re.compile(rb"(\x1b[\x20-\x2f]+[\x30-\x7e])?([^\x1b]*)")
"""Escape sequence, if any, and the text that it governs (PS3.5 6.1.2.5)."""
DEFAULT_REPERTOIRE = python_encoding[""]
SECOND_BYTE_MAY_BE_BACKSLASH = frozenset({"GB18030", "GBK"})

CODE_VALUES = ("CodeValue", "LongCodeValue", "URNCodeValue")
CODE_MACRO = ("CodeMeaning", *CODE_VALUES, "CodingSchemeDesignator", "CodingSchemeVersion")
CODE_GROUP = {"ContextIdentifier", "MappingResource", "ContextGroupVersion"}
"""Without all of them, a code says nothing of the Context Group that it is from (PS3.3 8.8)."""
URN = re.compile(rb"(?i)urn:|[a-z][a-z0-9+.-]*://")
UNIVERSAL_ENTITY = ("UniversalEntityID", "UniversalEntityIDType")
HIERARCHIC_DESIGNATORS = frozenset({"AssigningFacilitySequence", "IssuerOfAccessionNumberSequence"})
"""Sequences of HL7v2 Hierarchic Designator Macro (PS3.3 10.14)."""
REQUIRED_IN_ITEM = {"OtherPatientIDsSequence": ("PatientID", "TypeOfPatientID")}
"""Type 1 attributes; an item without them is not copied, or it would be an error in the result."""


def repertoire(dataset: Dataset, outer: str = DEFAULT_REPERTOIRE) -> str:
    """Name of the encoding of text before the first escape sequence: value 1 of Specific Character Set (0008,0005).

    Parameters
    ----------
    outer
        That of the data set around an item that declares none (PS3.3 C.12.1.1.2).

    Returns
    -------
    Name of a Python codec; empty if the term is not a defined one.
    """
    declared = encoded(dataset, tag_of("SpecificCharacterSet"))
    if declared is None or not declared.strip(b" \0"):
        return outer
    first = declared.decode("ascii", "replace").strip(" \0").split("\\")[0].strip()
    return str(python_encoding.get(first, ""))


def is_valid(keyword: str, value: bytes, encoding: str = DEFAULT_REPERTOIRE) -> bool:
    """Whether a value that is not empty is one of its attribute.

    Parameters
    ----------
    encoding
        As ``repertoire`` gives it.
    """
    vr, stripped = dictionary_VR(tag_of(keyword)), value.strip(b" \0")
    if keyword in ENUMERATED:
        return stripped in ENUMERATED[keyword]
    if keyword == "TimezoneOffsetFromUTC":
        return TIMEZONE.fullmatch(value.rstrip(b" \0")) is not None
    if vr in PATTERNED:
        parts = stripped.split(b"\\") if vr != "DS" else value.rstrip(b" \0").split(b"\\")
        return all(_matches(vr, part) for part in parts) and _is_in_limits(keyword, stripped)
    if vr in TEXT_LENGTHS:
        return not CONTROL.search(stripped) and all(_fits(vr, one) for one in _values(keyword, stripped, encoding))
    return False


def complete(keyword: str, item: Dataset, original: Dataset, encoding: str) -> bool:
    """Leave out of an item what is of no use alone, and say whether the rest is an item.

    Parameters
    ----------
    keyword
        Of the sequence.
    item
        Valid attributes of ``original``, which is the source's.
    """
    if not all(tag_of(name) in item for name in UNIVERSAL_ENTITY):
        _remove(item, *UNIVERSAL_ENTITY)
    if keyword in HIERARCHIC_DESIGNATORS:
        return any(tag_of(name) in item for name in ("LocalNamespaceEntityID", "UniversalEntityID"))
    if keyword.endswith("CodeSequence"):
        return _is_code(item, original, encoding)
    return len(item) > 0 and all(tag_of(name) in item for name in REQUIRED_IN_ITEM.get(keyword, ()))


def _is_code(item: Dataset, original: Dataset, encoding: str) -> bool:
    """Code Sequence Macro (PS3.3 8.8): one of three values, a meaning, and a scheme unless the value is a URN."""
    _carry_long_code(item, original, encoding)
    if tag_of("CodingSchemeDesignator") not in item:
        _remove(item, "CodingSchemeVersion", "CodeValue", "LongCodeValue")
    present = [name for name in CODE_VALUES if tag_of(name) in item]
    _remove(item, *present[1:])
    if not all(tag_of(name) in item for name in CODE_GROUP):
        _remove(item, *CODE_GROUP)
    # Readers of reports refuse a whole document for a code of several values.
    is_single = all("\\" not in text for name in CODE_MACRO for text in _texts(item, name, encoding))
    return is_single and bool(present) and tag_of("CodeMeaning") in item


def _carry_long_code(item: Dataset, original: Dataset, encoding: str) -> None:
    """Put a Code Value of more than 16 characters where the standard wants it (PS3.3 8.1), so that it is not lost."""
    value = (encoded(original, tag_of("CodeValue")) or b"").strip(b" \0")
    if not value or any(tag_of(name) in item for name in CODE_VALUES):
        return
    keyword = "URNCodeValue" if URN.match(value) else "LongCodeValue"
    if is_valid(keyword, value, encoding):
        put(item, tag_of(keyword), dictionary_VR(tag_of(keyword)), value)


def _remove(item: Dataset, *keywords: str) -> None:
    for keyword in keywords:
        if tag_of(keyword) in item:
            del item[tag_of(keyword)]


def _matches(vr: str, part: bytes) -> bool:
    try:
        value = part.decode("ascii").strip(" ")
        validate_value(vr, value, RAISE)
        if vr == "DA" and value:
            date.fromisoformat(value)
    except (UnicodeDecodeError, ValueError):
        return False
    # Ranges are for queries only (PS3.5 6.2).
    return not (vr in ("DA", "TM") and "-" in value) and not (vr == "DS" and len(part) > DECIMAL_STRING_BYTES)


def _is_in_limits(keyword: str, value: bytes) -> bool:
    if keyword not in LIMITS:
        return True
    least, greatest = LIMITS[keyword]
    return all(least <= float(part) <= greatest for part in value.split(b"\\") if part.strip())


def _fits(vr: str, text: str) -> bool:
    groups = text.split("=") if vr == "PN" else [text]
    return len(groups) <= COMPONENT_GROUPS and all(len(group.strip(" ")) <= TEXT_LENGTHS[vr] for group in groups)


def _texts(item: Dataset, keyword: str, encoding: str) -> Iterator[str]:
    value = encoded(item, tag_of(keyword))
    if value:
        yield from _values(keyword, value, encoding)


def _values(keyword: str, value: bytes, encoding: str) -> list[str]:
    """Values of a text, to count their characters.

    The second byte of a character may look like the delimiter of values (PS3.5 6.4), so text is decoded before it is
    divided. What cannot be decoded is counted in bytes.
    """
    try:
        text = "".join(_decoded(escape, run, encoding) for escape, run in SEGMENT.findall(value))
        has_delimiters = True
    except (UnicodeDecodeError, LookupError):
        text = value.decode("latin_1")
        has_delimiters = encoding not in SECOND_BYTE_MAY_BE_BACKSLASH and b"\x1b$" not in value
    is_multiple = has_delimiters and dictionary_VM(tag_of(keyword)) != "1"
    return text.split("\\") if is_multiple else [text]


def _decoded(escape: bytes, run: bytes, encoding: str) -> str:
    """Text of one segment, in the encoding that its escape sequence invokes: that itself is no character."""
    if not escape:
        return run.decode(encoding)
    invoked = CODES_TO_ENCODINGS[escape]
    # Python's codecs of 7 bits need the escape sequence, the others do not know it.
    return (escape + run if invoked.startswith("iso2022") else run).decode(invoked)
