"""What a stored object says of its patient, for the two that may ask: the audit trail, and a person at the console."""

import struct
from pathlib import Path

from scp_node.errors import NodeError
from scp_node.scp.part10 import ACCESSION_NUMBER, SPECIFIC_CHARACTER_SET, decode_text, head_elements

_PATIENT_ID = 0x00100020
_HEAD_BYTES = 16384
_GROUP_LENGTH_AT = 140
"""Preamble, prefix, tag, VR and length of (0002,0000) come before its value (PS3.10 7.1)."""


def patient_id(file: Path, transfer_syntax_uid: str) -> str:
    """Return Patient ID (0010,0020); empty when the file is gone or does not begin with one that can be read."""
    return _text(file, transfer_syntax_uid, _PATIENT_ID)


def accession_number(file: Path, transfer_syntax_uid: str) -> str:
    """Return Accession Number (0008,0050); empty as above."""
    return _text(file, transfer_syntax_uid, ACCESSION_NUMBER)


def _text(file: Path, transfer_syntax_uid: str, wanted: int) -> str:
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
        start = _GROUP_LENGTH_AT + 4 + struct.unpack_from("<L", head, _GROUP_LENGTH_AT)[0]
        found: dict[int, bytes] = {}
        for tag, value in head_elements(head[start:], transfer_syntax_uid):
            if tag > wanted:
                break
            found[tag] = value
    except (OSError, NodeError, struct.error):
        return ""
    return decode_text(found.get(wanted, b""), found.get(SPECIFIC_CHARACTER_SET, b""))
