"""Copies patient and study attributes from the source, byte for byte; decodes none of them and invents none.

Work on names and identifiers is done on the encoded bytes as they lie in the source's file. Decoding and encoding them
again would be enough to lose a Korean name in a file that declares no character set, and such files are common.
"""

import copy
from collections.abc import Iterator

from pydicom import DataElement, Dataset, Sequence, dcmread
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from inference.records import FileFormat, SourceHeader
from scp_node.results import validity
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
"""Copied if present and valid, left out otherwise."""

TRIAL_TYPE_1 = ("ClinicalTrialSponsorName", "ClinicalTrialProtocolID")
TRIAL_TYPE_1C = ("ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID")
"""Either will do."""
TRIAL_TYPE_2 = ("ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName")
"""Of the Clinical Trial Subject module (PS3.3 C.7.1.3)."""
TIME_POINT = ("ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription")
"""Of the Clinical Trial Study module (PS3.3 C.7.2.3), Type 2 and 3."""

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
    if not value or not value.isascii() or not validity.is_valid(keyword, value):
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
    encoding = validity.repertoire(source)
    character_set = encoded(source, tag_of("SpecificCharacterSet"))
    if character_set:
        put(context, tag_of("SpecificCharacterSet"), "CS", character_set)
    put(context, tag_of("StudyInstanceUID"), "UI", encoded(source, tag_of("StudyInstanceUID")) or b"")
    for keyword in ALWAYS_PRESENT:
        tag = tag_of(keyword)
        put(context, tag, dictionary_VR(tag), _copied(source, keyword, encoding) or b"")
    for keyword in OPTIONAL:
        tag = tag_of(keyword)
        if dictionary_VR(tag) == "SQ":
            if items := items_of(source, keyword):
                context.add(DataElement(tag, "SQ", Sequence(items)))
        elif value := _copied(source, keyword, encoding):
            put(context, tag, dictionary_VR(tag), value)
    _settle_trial(source, context)
    _settle_deidentification(source, context)
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


def items_of(source: Dataset, keyword: str) -> list[Dataset]:
    """Valid items of a sequence of the source, copied without private and invalid attributes."""
    return _items(source, keyword, validity.repertoire(source), MAXIMUM_DEPTH)


def _items(source: Dataset, keyword: str, outer: str, depth: int) -> list[Dataset]:
    tag = tag_of(keyword)
    if tag not in source or depth == 0:
        return []
    value = source[tag].value
    items = []
    for original in value if isinstance(value, Sequence) else ():
        item, encoding = Dataset(), validity.repertoire(original, outer)
        for inner_tag, inner_keyword, vr in _known(original):
            if vr == "SQ":
                if inner := _items(original, inner_keyword, encoding, depth - 1):
                    item.add(DataElement(inner_tag, "SQ", Sequence(inner)))
            elif copied := _copied(original, inner_keyword, encoding):
                put(item, inner_tag, vr, copied)
        if validity.complete(keyword, item, original, encoding):
            items.append(item)
    return items


def _copied(source: Dataset, keyword: str, encoding: str) -> bytes | None:
    value = encoded(source, tag_of(keyword))
    if value is None or not value.strip(b" \0"):
        return None
    return value if keyword in IDENTITY or validity.is_valid(keyword, value, encoding) else None


def _settle_trial(source: Dataset, context: Dataset) -> None:
    """Copy a trial with all that its modules demand, or not at all; what a source leaves empty stays empty."""
    is_identified = all(tag_of(keyword) in context for keyword in TRIAL_TYPE_1)
    if is_identified and any(tag_of(keyword) in context for keyword in TRIAL_TYPE_1C):
        _put_if_absent(context, *TRIAL_TYPE_2)
    else:
        for keyword in (*TRIAL_TYPE_1, *TRIAL_TYPE_1C, *TRIAL_TYPE_2):
            context.pop(tag_of(keyword), None)
    if any(tag_of(keyword) in source for keyword in TIME_POINT):
        _put_if_absent(context, TIME_POINT[0])


def _put_if_absent(context: Dataset, *keywords: str) -> None:
    for keyword in keywords:
        if tag_of(keyword) not in context:
            put(context, tag_of(keyword), dictionary_VR(tag_of(keyword)), b"")


def _settle_deidentification(source: Dataset, context: Dataset) -> None:
    """Keep an invalid method where a removed identity would be left without any: Type 1C (PS3.3 C.7.1.1)."""
    methods = (tag_of("DeidentificationMethod"), tag_of("DeidentificationMethodCodeSequence"))
    if text(context, "PatientIdentityRemoved") != "YES" or any(tag in context for tag in methods):
        return
    value = encoded(source, methods[0])
    if value and value.strip(b" \0"):
        put(context, methods[0], "LO", value)


def _known(item: Dataset) -> Iterator[tuple[BaseTag, str, str]]:
    for tag in item.keys():  # noqa: SIM118 - iterating a Dataset would decode its elements
        keyword = "" if tag.is_private else keyword_for_tag(tag)
        if keyword:
            yield tag, keyword, dictionary_VR(tag)


_CONTEXT_TAGS = frozenset(
    tag_of(keyword) for keyword in ("SpecificCharacterSet", "StudyInstanceUID", *IDENTITY, *ALWAYS_PRESENT, *OPTIONAL)
)
