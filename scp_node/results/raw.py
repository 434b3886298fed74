"""Elements as encoded bytes: taken from a data set and put into another without decoding them, or made as bytes."""

import struct
from collections.abc import Iterable
from functools import cache

from pydicom import Dataset, Sequence
from pydicom.charset import encode_string
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import PersonName


def tag_of(keyword: str) -> BaseTag:
    """Tag of a keyword; a misspelt keyword is an error."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return Tag(tag)


def put(target: Dataset, tag: BaseTag, vr: str, value: bytes) -> None:
    """Put an element into a data set as encoded bytes, padded to even length (PS3.5 6.2)."""
    value = _even(vr, value)
    target[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)


def _even(vr: str, value: bytes) -> bytes:
    return value if len(value) % 2 == 0 else value + (b"\0" if vr == "UI" else b" ")


def encoded(source: Dataset, tag: BaseTag) -> bytes | None:
    """The bytes of an element's value as the source holds them; None when it is absent.

    An element that somebody has decoded, or that was never in a file, is encoded as pydicom would write it.
    """
    element = source.get_item(tag)
    if element is None:
        return None
    if isinstance(element, RawDataElement):
        return bytes(element.value or b"")
    value = element.value
    if value is None or isinstance(value, Sequence):
        return b""
    values = value if isinstance(value, MultiValue | list | tuple) else [value]
    return b"\\".join(_encode(one, source) for one in values)


def _encode(value: object, source: Dataset) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, PersonName):
        return bytes(value.original_string or value.encode(_encodings(source)))
    original: object = getattr(value, "original_string", None)
    return bytes(encode_string(str(value) if original is None else str(original), _encodings(source)))


def _encodings(source: Dataset) -> list[str]:
    encodings = source._character_set
    return [encodings] if isinstance(encodings, str) else list(encodings)


def item(**values: str | Iterable[bytes]) -> bytes:
    """Make an item of a sequence in Explicit VR Little Endian (PS3.5 7.1.2, 7.5): a hundredth of pydicom's time.

    Parameters
    ----------
    values
        By keyword: ASCII text, or items of a sequence.

    Raises
    ------
    ValueError
        Text is not ASCII: what we write is readable in every character set.
    """
    return _as_item(b"".join(_element(*_place(keyword), values[keyword]) for keyword in sorted(values, key=_place)))


def item_of(source: Dataset) -> bytes:
    """Encode an item that is there as a data set."""
    _seal_item(source)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, source)
    return _as_item(buffer.getvalue())


def put_sequence(target: Dataset, keyword: str, items: Iterable[bytes]) -> None:
    """Put a sequence of encoded items into a data set."""
    put(target, tag_of(keyword), "SQ", b"".join(items))


_ITEM = b"\xfe\xff\x00\xe0"
_LONG = frozenset({"SQ", "UT", "UC"})
"""VRs of those used here whose length takes four bytes (PS3.5 7.1.2)."""


def _as_item(content: bytes) -> bytes:
    return _ITEM + struct.pack("<L", len(content)) + content


@cache
def _place(keyword: str) -> tuple[BaseTag, str]:
    tag = tag_of(keyword)
    return tag, dictionary_VR(tag)


def _element(tag: BaseTag, vr: str, value: str | Iterable[bytes]) -> bytes:
    encoded_value = _even(vr, value.encode("ascii") if isinstance(value, str) else b"".join(value))
    length = struct.pack("<xxL" if vr in _LONG else "<H", len(encoded_value))
    return struct.pack("<HH", tag.group, tag.element) + vr.encode() + length + encoded_value


def seal(target: Dataset) -> None:
    """Declare the encoding of a complete result, so that pydicom writes raw elements as they are."""
    target.set_original_encoding(False, True, target._character_set)
    for element in target.elements():
        if not isinstance(element, RawDataElement) and element.VR == "SQ":
            for item in element.value:
                _seal_item(item)


def _seal_item(item: Dataset) -> None:
    item.set_original_encoding(False, True, item._character_set)
    for element in item.elements():
        if not isinstance(element, RawDataElement) and element.VR == "SQ":
            for inner in element.value:
                _seal_item(inner)
