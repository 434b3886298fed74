"""How a received object begins: the header of its file (PS3.10 7.1), and who its Data Set says it is; no pixels."""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.uid import UID, ImplicitVRLittleEndian
from pydicom.valuerep import TEXT_VR_DELIMS

from scp_node.scp.elements import Encoding, elements
from scp_node.scp.statuses import DataSetError, DataSetMismatchError, StoreError

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_INFLATED_BYTES = 65536
_SOP_CLASS_UID, _SOP_INSTANCE_UID, _STUDY_INSTANCE_UID = 0x00080016, 0x00080018, 0x0020000D
SPECIFIC_CHARACTER_SET, ACCESSION_NUMBER = 0x00080005, 0x00080050
_REQUESTED_PROCEDURE_PRIORITY = 0x00401003
_MAXIMUM_TEXT_BYTES = 1024
"""Of a value that has 64 characters at most (PS3.5 6.2); what is longer is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Implementation:
    """What this product calls itself in associations and files (PS3.7 D.3.3.2)."""

    class_uid: str
    version_name: str


def is_uid(value: str) -> bool:
    """Whether `value` consists of numbers and single dots, at most 64 characters (PS3.5 9.1).

    A component with leading zeros passes: real devices send them, and they do no harm.
    """
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def decode_uid(value: bytes) -> str:
    """Return a UID as text, without its padding; characters that no UID has become ``?``."""
    return value.rstrip(b"\0 ").decode("ascii", "replace").replace("\N{REPLACEMENT CHARACTER}", "?")


def decode_text(value: bytes, character_set: bytes) -> str:
    """Return a short text without its padding; empty when it is not in the character set that is named.

    Parameters
    ----------
    character_set
        Value of Specific Character Set (0008,0005).
    """
    value = value[:_MAXIMUM_TEXT_BYTES].strip(b" \0")
    if value.isascii() and b"\x1b" not in value:
        # Every character set of PS3.3 C.12.1.1.2 has ASCII in it, but for a sign or two of Japan's.
        return value.decode("ascii")
    terms = character_set.decode("ascii", "replace").rstrip("\0 ").split("\\")
    try:
        encodings = convert_encodings([term.strip() for term in terms])
        return str(decode_bytes(value, encodings, TEXT_VR_DELIMS)).strip(" \0")
    except (LookupError, ValueError):
        return ""


def file_header(
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    calling_ae_title: str,
    implementation: Implementation,
) -> bytes:
    """Return what stands before the Data Set in a file: preamble of zeros, prefix, File Meta Information.

    The UIDs must have passed `is_uid`, the title must be ASCII.
    """
    values = (
        (0x0002, b"UI", sop_class_uid),
        (0x0003, b"UI", sop_instance_uid),
        (0x0010, b"UI", transfer_syntax_uid),
        (0x0012, b"UI", implementation.class_uid),
        (0x0013, b"SH", implementation.version_name),
        (0x0016, b"AE", calling_ae_title),
    )
    # File Meta Information Version (0002,0001), OB: two reserved bytes and a length of four (PS3.5 7.1.2).
    meta = struct.pack("<HH2sHL2s", 0x0002, 0x0001, b"OB", 0, 2, b"\0\1")
    for element, vr, text in values:
        value = text.encode("ascii")
        value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
        meta += struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value
    group_length = struct.pack("<HH2sHL", 0x0002, 0x0000, b"UL", 4, len(meta))
    return bytes(128) + b"DICM" + group_length + meta


def head_elements(head: bytes, transfer_syntax_uid: str) -> Iterator[tuple[int, bytes]]:
    """Yield tag and value of the elements that a Data Set begins with, see `elements`; the last may be cut short.

    Raises
    ------
    StoreError
        It is not encoded like this.
    """
    syntax = UID(transfer_syntax_uid)
    if syntax.is_deflated:
        try:
            # PS3.5 A.5: raw deflate, no zlib header. The limit makes a bomb harmless.
            head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, _INFLATED_BYTES)
        except zlib.error as error:
            raise DataSetError("Data Set is not deflated") from error
    encoding = Encoding(is_implicit_vr=syntax == ImplicitVRLittleEndian, is_little_endian=bool(syntax.is_little_endian))
    yield from elements(head, encoding)


class Identity(NamedTuple):
    """Who a Data Set says it is.

    Study and Accession Number are empty when they are not in the first bytes, or are no UID and no text.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    accession_number: str


def read_identity(head: bytes, transfer_syntax_uid: str) -> Identity:
    """Return SOP Class, SOP Instance and Study Instance UID, and Accession Number, from the first bytes of a Data Set.

    Parameters
    ----------
    head
        Beginning of the Data Set as it was sent, some kilobytes.
    transfer_syntax_uid
        As negotiated. Nothing is guessed: a Data Set in another encoding is an error of the sender.

    Raises
    ------
    DataSetError
        It is not encoded like this.
    DataSetMismatchError
        One of the two is not there.
    """
    found: dict[int, str] = {}
    texts: dict[int, bytes] = {}
    try:
        for tag, value in head_elements(head, transfer_syntax_uid):
            if tag > _STUDY_INSTANCE_UID:
                break
            if tag in (_SOP_CLASS_UID, _SOP_INSTANCE_UID, _STUDY_INSTANCE_UID):
                found[tag] = decode_uid(value)
            elif tag in (SPECIFIC_CHARACTER_SET, ACCESSION_NUMBER):
                texts[tag] = value
    except StoreError as error:
        # What comes after the two is the child's business; who sends garbage there is told nothing new by a refusal.
        if _SOP_INSTANCE_UID not in found:
            raise DataSetError("Data Set is not in the negotiated transfer syntax") from error
    if missing := [keyword for tag, keyword in _KEYWORDS.items() if not found.get(tag)]:
        raise DataSetMismatchError(f"Data Set begins without {' and '.join(missing)}")
    study = found.get(_STUDY_INSTANCE_UID, "")
    return Identity(
        found[_SOP_CLASS_UID],
        found[_SOP_INSTANCE_UID],
        study if is_uid(study) else "",
        decode_text(texts.get(ACCESSION_NUMBER, b""), texts.get(SPECIFIC_CHARACTER_SET, b"")),
    )


def is_urgent(head: bytes, transfer_syntax_uid: str) -> bool:
    """Whether Requested Procedure Priority (0040,1003) is STAT or HIGH, as far as the beginning of a Data Set tells."""
    try:
        for tag, value in head_elements(head, transfer_syntax_uid):
            if tag >= _REQUESTED_PROCEDURE_PRIORITY:
                return tag == _REQUESTED_PROCEDURE_PRIORITY and value.strip(b" \0") in (b"STAT", b"HIGH")
    except StoreError:
        # What is wrong with the Data Set shows elsewhere.
        return False
    return False


_KEYWORDS = {_SOP_CLASS_UID: "SOP Class UID", _SOP_INSTANCE_UID: "SOP Instance UID"}
