"""The Patient ID of a stored object, for an audit trail that is told to name patients; nothing else reads it here."""

import struct
from pathlib import Path

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.valuerep import TEXT_VR_DELIMS

from scp_node.errors import NodeError
from scp_node.scp.part10 import head_elements

_SPECIFIC_CHARACTER_SET, _PATIENT_ID = 0x00080005, 0x00100020
_HEAD_BYTES = 16384
_GROUP_LENGTH_AT = 140
"""Preamble, prefix, tag, VR and length of (0002,0000) come before its value (PS3.10 7.1)."""


def patient_id(file: Path, transfer_syntax_uid: str) -> str:
    """Return Patient ID (0010,0020); empty when the file is gone or does not begin with one that can be read."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
        start = _GROUP_LENGTH_AT + 4 + struct.unpack_from("<L", head, _GROUP_LENGTH_AT)[0]
        found: dict[int, bytes] = {}
        for tag, value in head_elements(head[start:], transfer_syntax_uid):
            if tag > _PATIENT_ID:
                break
            found[tag] = value
        character_set = found.get(_SPECIFIC_CHARACTER_SET, b"").decode("ascii", "replace").rstrip().split("\\")
        encodings = convert_encodings([term.strip() for term in character_set])
        return str(decode_bytes(found.get(_PATIENT_ID, b""), encodings, TEXT_VR_DELIMS)).strip(" \0")
    except (OSError, NodeError, LookupError, ValueError, struct.error):
        return ""
