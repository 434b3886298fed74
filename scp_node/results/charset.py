"""Re-encodes copied text as UTF-8, all of it or nothing: a name that cannot be decoded surely stays as it is."""

import warnings

from pydicom import DataElement, Dataset, Sequence
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

from scp_node.results.raw import encoded, put, tag_of

SPECIFIC_CHARACTER_SET = tag_of("SpecificCharacterSet")
UTF_8 = b"ISO_IR 192"
TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})


def to_utf8(context: Dataset) -> Dataset:
    """Re-encode a context.

    Parameters
    ----------
    context
        Data set of raw elements.

    Returns
    -------
    The same attributes in ISO_IR 192; ``context`` itself if any text cannot be decoded in the character set that the
    source declares, or the source declares none and holds more than ASCII.
    """
    declared = encoded(context, SPECIFIC_CHARACTER_SET)
    try:
        with warnings.catch_warnings():
            # pydicom replaces what it cannot decode and warns; here that is a reason to leave the text alone.
            warnings.simplefilter("error")
            return _convert(context, _encodings(declared) if declared else ["ascii"], is_root=True)
    except (UserWarning, UnicodeError, LookupError):
        return context


def _convert(dataset: Dataset, encodings: list[str], *, is_root: bool) -> Dataset:
    own = encoded(dataset, SPECIFIC_CHARACTER_SET)
    if own and not is_root:
        encodings = _encodings(own)
    converted = Dataset()
    for tag in dataset.keys():  # noqa: SIM118 - iterating a Dataset would decode its elements
        element = dataset.get_item(tag)
        if element is None or tag == SPECIFIC_CHARACTER_SET:
            continue
        if element.VR == "SQ":
            items = [_convert(item, encodings, is_root=False) for item in dataset[tag].value]
            converted.add(DataElement(tag, "SQ", Sequence(items)))
        elif isinstance(element, RawDataElement):
            _put(converted, tag, str(element.VR), element.value or b"", encodings)
    if is_root:
        put(converted, SPECIFIC_CHARACTER_SET, "CS", UTF_8)
    return converted


def _put(target: Dataset, tag: BaseTag, vr: str, value: bytes, encodings: list[str]) -> None:
    if vr in TEXT_VRS and (b"\x1b" in value or not value.isascii()):
        value = decode_bytes(value, encodings, PN_DELIMS if vr == "PN" else TEXT_VR_DELIMS).encode("utf-8")
    put(target, tag, vr, value)


def _encodings(declared: bytes) -> list[str]:
    names = [name.strip() for name in declared.decode("ascii").strip(" \0").split("\\")]
    encodings = [str(encoding) for encoding in convert_encodings(names)]
    if names[0] in ("", "ISO_IR 6", "ISO 2022 IR 6"):
        # pydicom reads the default repertoire as Latin-1, in which any byte is a letter, and a Korean name without its
        # escape sequences would become another name.
        encodings[0] = "ascii"
    return encodings
