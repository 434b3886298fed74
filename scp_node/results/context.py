"""Copies patient and study attributes from the source, byte for byte; decodes none of them and invents none.

Work on names and identifiers is done on the encoded bytes as they lie in the source's file. Decoding and encoding them
again would be enough to lose a Korean name in a file that declares no character set, and such files are common.
"""

import copy
import re
from collections.abc import Iterator
from datetime import date

from pydicom import DataElement, Dataset, Sequence, dcmread
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from pydicom.valuerep import validate_value

from inference.records import FileFormat, SourceHeader
from scp_node.results.charset import to_utf8
from scp_node.results.raw import encoded, put, tag_of

IDENTITY = ("PatientName", "PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyID")
"""Copied verbatim even where they break their VR: an archive matches by these."""

ALWAYS_PRESENT = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
)
"""Type 2 of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): empty when the source has none."""

OPTIONAL = (
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDescription",
    "IssuerOfAccessionNumberSequence",
    "ProcedureCodeSequence",
    "PhysiciansOfRecord",
    "AdmissionID",
    "TimezoneOffsetFromUTC",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
)
"""Copied if present and valid for their VR, left out otherwise."""

REFERENCE = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "Rows",
    "Columns",
    "ViewPosition",
    "PatientOrientation",
    "ImagerPixelSpacing",
    "BurnedInAnnotation",
    "LossyImageCompression",
    "LossyImageCompressionMethod",
    "LossyImageCompressionRatio",
    "RequestAttributesSequence",
)
"""What builders read of the source beside the context."""

ENUMERATED = {
    "PatientSex": {b"M", b"F", b"O"},
    "PatientIdentityRemoved": {b"YES", b"NO"},
    "LongitudinalTemporalInformationModified": {b"UNMODIFIED", b"MODIFIED", b"REMOVED"},
    "BurnedInAnnotation": {b"YES", b"NO"},
    "LossyImageCompression": {b"00", b"01"},
    "TypeOfPatientID": {b"TEXT", b"RFID", b"BARCODE"},
}
"""Enumerated Values; another value is as good as none."""

CODE = ("CodingSchemeDesignator", "CodeMeaning")
REQUIRED_IN_ITEM = {
    "OtherPatientIDsSequence": ("PatientID", "TypeOfPatientID"),
    "ProcedureCodeSequence": CODE,
    "DeidentificationMethodCodeSequence": CODE,
    "RequestedProcedureCodeSequence": CODE,
}
"""Type 1 attributes; an item without them is not copied, or it would be an error in the result."""

TEXT_LENGTHS = {"LO": 64, "SH": 16, "PN": 64 * 3 + 2, "ST": 1024, "LT": 10240, "UC": 2**20, "UT": 2**20}
"""Longest value in characters, PS3.5 6.2."""
PATTERNED = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
ESCAPE_SEQUENCE = re.compile(rb"\x1b[\x20-\x2f]+[\x30-\x7e]")
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
MAXIMUM_DEPTH = 4


def read(header: SourceHeader) -> Dataset:
    """Read what results need of the source, undecoded.

    The header's own data set may have been decoded by those who looked at it, so its file is asked first.

    Parameters
    ----------
    header
        Of a DICOM file.

    Returns
    -------
    Data set of raw elements with File Meta Information.
    """
    if header.dataset is None or header.file_format is not FileFormat.DICOM:
        raise ValueError(f"{header.name} is no DICOM file")
    if not header.file.is_file():
        return header.dataset
    tags = [tag_of(keyword) for keyword in (*IDENTITY, *ALWAYS_PRESENT, *OPTIONAL, *REFERENCE)]
    return dcmread(
        header.file, stop_before_pixels=True, force=True, specific_tags=[*tags, tag_of("SpecificCharacterSet")]
    )


def text(source: Dataset, keyword: str) -> str:
    """The value of an attribute of ASCII VR, or an empty string when it is absent, empty or not valid.

    Returns
    -------
    Without padding; several values are divided by backslashes.
    """
    tag = tag_of(keyword)
    value = encoded(source, tag)
    if not value or not value.isascii() or not _is_valid(keyword, dictionary_VR(tag), value):
        return ""
    return value.decode("ascii").strip(" \0")


def build(source: Dataset, charset: str) -> Dataset:
    """All that is copied from the source into every result.

    Parameters
    ----------
    source
        As ``read`` gives it.
    charset
        ``source`` or ``utf8``.

    Returns
    -------
    Data set of raw elements in Explicit VR Little Endian; writing it copies their bytes.
    """
    context = Dataset()
    character_set = encoded(source, tag_of("SpecificCharacterSet"))
    if character_set:
        put(context, tag_of("SpecificCharacterSet"), "CS", character_set)
    put(context, tag_of("StudyInstanceUID"), "UI", encoded(source, tag_of("StudyInstanceUID")) or b"")
    for keyword in ALWAYS_PRESENT:
        tag = tag_of(keyword)
        put(context, tag, dictionary_VR(tag), _copied(source, keyword) or b"")
    for keyword in OPTIONAL:
        tag = tag_of(keyword)
        if dictionary_VR(tag) == "SQ":
            if items := items_of(source, keyword):
                context.add(DataElement(tag, "SQ", Sequence(items)))
        elif value := _copied(source, keyword):
            put(context, tag, dictionary_VR(tag), value)
    if charset == "utf8":
        return to_utf8(context)
    return context


def apply(context: Dataset, target: Dataset) -> None:
    """Put the context into a result, in place of whatever it has of it."""
    for tag in list(target.keys()):
        if tag in _CONTEXT_TAGS:
            del target[tag]
    for tag in context.keys():  # noqa: SIM118 - iterating a Dataset would decode its elements
        element = context.get_item(tag)
        target[tag] = element if isinstance(element, RawDataElement) else copy.deepcopy(element)


def items_of(source: Dataset, keyword: str, depth: int = 0) -> list[Dataset]:
    """Valid items of a sequence of the source, copied without private and invalid attributes."""
    tag = tag_of(keyword)
    if tag not in source or depth == MAXIMUM_DEPTH:
        return []
    value = source[tag].value
    items = []
    for original in value if isinstance(value, Sequence) else ():
        item = Dataset()
        for inner_tag, inner_keyword, vr in _known(original):
            if vr == "SQ":
                if inner := items_of(original, inner_keyword, depth + 1):
                    item.add(DataElement(inner_tag, "SQ", Sequence(inner)))
            elif copied := _copied(original, inner_keyword):
                put(item, inner_tag, vr, copied)
        required = REQUIRED_IN_ITEM.get(keyword, ())
        if len(item) and all(tag_of(name) in item for name in required):
            items.append(item)
    return items


def _copied(source: Dataset, keyword: str) -> bytes | None:
    tag = tag_of(keyword)
    value = encoded(source, tag)
    if value is None or not value.strip(b" \0"):
        return None
    if keyword in IDENTITY or _is_valid(keyword, dictionary_VR(tag), value):
        return value
    return None


def _is_valid(keyword: str, vr: str, value: bytes) -> bool:
    stripped = value.strip(b" \0")
    if keyword in ENUMERATED:
        return stripped in ENUMERATED[keyword]
    if vr in PATTERNED:
        return all(_matches(vr, part.strip(b" ")) for part in stripped.split(b"\\"))
    if vr in TEXT_LENGTHS:
        return not CONTROL.search(stripped) and _length(stripped) <= TEXT_LENGTHS[vr]
    return False


def _matches(vr: str, part: bytes) -> bool:
    try:
        value = part.decode("ascii")
        validate_value(vr, value, RAISE)
        if vr == "DA" and value:
            date.fromisoformat(value)
    except (UnicodeDecodeError, ValueError):
        return False
    # Ranges are for queries only (PS3.5 6.2).
    return vr not in ("DA", "TM") or "-" not in value


def _length(value: bytes) -> int:
    """Characters in a text whose character set may be declared wrongly; a double-byte character counts once."""
    try:
        return len(value.decode("utf-8"))
    except UnicodeDecodeError:
        plain = ESCAPE_SEQUENCE.sub(b"", value)
        high = sum(byte > 0x7F for byte in plain)
        return len(plain) - high // 2


def _known(item: Dataset) -> Iterator[tuple[BaseTag, str, str]]:
    for tag in item.keys():  # noqa: SIM118 - iterating a Dataset would decode its elements
        keyword = "" if tag.is_private else keyword_for_tag(tag)
        if keyword:
            yield tag, keyword, dictionary_VR(tag)


_CONTEXT_TAGS = frozenset(
    tag_of(keyword) for keyword in ("SpecificCharacterSet", "StudyInstanceUID", *IDENTITY, *ALWAYS_PRESENT, *OPTIONAL)
)
