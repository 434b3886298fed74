"""Elements as encoded bytes: taken from a data set and put into another without decoding them."""

from pydicom import Dataset, Sequence
from pydicom.charset import encode_string
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
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
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    target[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)


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
