"""Walk over encoded Data Elements without recursion, conversion or guessing, as bytes that a stranger sent deserve."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from scp_node.scp.statuses import StoreError

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""PS3.5 7.1.2: two reserved bytes and a length of four follow."""


class EncodingError(StoreError):
    """The bytes are not Data Elements in this encoding."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How Data Elements are encoded (PS3.5 7.1, 7.3)."""

    is_implicit_vr: bool
    is_little_endian: bool


IMPLICIT_LITTLE = Encoding(is_implicit_vr=True, is_little_endian=True)


def elements(content: bytes, encoding: Encoding) -> Iterator[tuple[int, bytes]]:
    """Yield tag (``0xggggeeee``) and value of the top-level elements, in the order of the bytes.

    Values of sequences are skipped. The last value may be cut short by the end of `content`: the caller has the
    beginning of a Data Set only, and stops before it matters.

    Raises
    ------
    EncodingError
        A tag, VR or length cannot be right.
    """
    order = "<" if encoding.is_little_endian else ">"
    tag_format, long_format = struct.Struct(order + "HH"), struct.Struct(order + "L")
    position = depth = 0
    while position + 8 <= len(content):
        group, element = tag_format.unpack_from(content, position)
        tag = group << 16 | element
        if tag in (_ITEM, _ITEM_END, _SEQUENCE_END):
            # These have no VR in any encoding (PS3.5 7.5); outside of a sequence they have no meaning.
            if depth == 0:
                raise EncodingError("an item outside of a sequence")
            (length,) = long_format.unpack_from(content, position + 4)
            position += 8
            if tag != _ITEM:
                depth -= 1
                continue
        else:
            length, header_size = _length(content, position + 4, encoding, order)
            position += 4 + header_size
        if length == _UNDEFINED:
            # A sequence, an item, or unknown that holds one; its content is walked over flat, one level deeper.
            depth += 1
            continue
        if depth == 0:
            yield tag, content[position : position + length]
        position += length


def _length(content: bytes, position: int, encoding: Encoding, order: str) -> tuple[int, int]:
    """Return the length of a value, and how many bytes VR and length take, from what follows a tag."""
    if encoding.is_implicit_vr:
        return int(struct.unpack_from(order + "L", content, position)[0]), 4
    vr = content[position : position + 2]
    if not (vr.isalpha() and vr.isupper()):
        raise EncodingError("a VR that is none")
    if vr not in _LONG_VRS:
        return int(struct.unpack_from(order + "H", content, position + 2)[0]), 4
    if position + 8 > len(content):
        # Cut short: nothing that could be told apart follows.
        return 0, 8
    return int(struct.unpack_from(order + "L", content, position + 4)[0]), 8
