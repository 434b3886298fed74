"""The requests that this node understands (PS3.7 9.3), read from bytes, and their answers.

Anything else ends the association.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from scp_node.command_sets import command_set, short, text, uid
from scp_node.errors import NodeError
from scp_node.scp.elements import IMPLICIT_LITTLE, EncodingError, elements
from scp_node.scp.part10 import decode_uid, is_uid

MAXIMUM_COMMAND_BYTES = 16384
"""A C-STORE-RQ with every optional element is below 500 bytes."""
_HIGH = b"\1\0"
"""Priority (0000,0700), PS3.7 9.3.1.1."""
_NO_DATA_SET = 0x0101
"""Command Data Set Type (0000,0800), PS3.7 E.1."""
_IS_RESPONSE = 0x8000
"""Of a Command Field."""


class CommandError(NodeError):
    """The peer broke the protocol; the association must be aborted."""


class CommandField(IntEnum):
    """Command Field (0000,0100), PS3.7 E.1."""

    C_STORE_RQ = 0x0001
    C_ECHO_RQ = 0x0030
    N_EVENT_REPORT_RQ = 0x0100


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One request.

    Parameters
    ----------
    sop_class_uid, sop_instance_uid
        Affected SOP Class UID (0000,0002) and Instance UID (0000,1000) as sent, unchecked; empty when missing.
    event_type_id
        Event Type ID (0000,1002); 0 when missing.
    """

    field: CommandField
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    has_data_set: bool
    is_urgent: bool = False
    event_type_id: int = 0


def parse_command(content: bytes) -> Command:
    """Read a complete Command Set; it is always Implicit VR Little Endian (PS3.7 6.3.1).

    Raises
    ------
    CommandError
        It cannot be read, is no C-ECHO-RQ, C-STORE-RQ or N-EVENT-REPORT-RQ, or lacks what an answer needs.
    """
    try:
        values = dict(elements(content, IMPLICIT_LITTLE))
        field = _unsigned_short(values, 0x00000100, "Command Field")
        message_id = _unsigned_short(values, 0x00000110, "Message ID")
        data_set_type = _unsigned_short(values, 0x00000800, "Command Data Set Type")
    except EncodingError as error:
        raise CommandError("the Command Set cannot be read") from error
    if field not in tuple(CommandField):
        raise CommandError(f"Command Field {field:#06x} is none of C-ECHO-RQ, C-STORE-RQ, N-EVENT-REPORT-RQ")
    command = Command(
        field=CommandField(field),
        message_id=message_id,
        sop_class_uid=decode_uid(values.get(0x00000002, b"")),
        sop_instance_uid=decode_uid(values.get(0x00001000, b"")),
        has_data_set=data_set_type != _NO_DATA_SET,
        is_urgent=values.get(0x00000700) == _HIGH,
        event_type_id=int.from_bytes(values.get(0x00001002, b"")[:2], "little"),
    )
    if command.field is CommandField.C_ECHO_RQ and command.has_data_set:
        raise CommandError("a C-ECHO-RQ announces a Data Set")
    return command


def encode_response(command: Command, status: int, comment: str = "") -> bytes:
    """Return the Command Set that answers a request (PS3.7 9.3.1.2, 9.3.5.2, 10.3.1.2), without a Data Set.

    Parameters
    ----------
    comment
        Error Comment (0000,0902), ASCII; empty: none.
    """
    content = b""
    if is_uid(command.sop_class_uid):
        content += uid(0x00000002, command.sop_class_uid)
    content += short(0x00000100, command.field | _IS_RESPONSE)
    content += short(0x00000120, command.message_id)
    content += short(0x00000800, _NO_DATA_SET)
    content += short(0x00000900, status)
    if comment:
        content += text(0x00000902, comment)
    if command.field is not CommandField.C_ECHO_RQ and is_uid(command.sop_instance_uid):
        content += uid(0x00001000, command.sop_instance_uid)
    if command.field is CommandField.N_EVENT_REPORT_RQ:
        content += short(0x00001002, command.event_type_id)
    return command_set(content)


def _unsigned_short(values: dict[int, bytes], tag: int, name: str) -> int:
    value = values.get(tag, b"")
    if len(value) != 2:
        raise CommandError(f"the Command Set has no {name} ({tag >> 16:04x},{tag & 0xFFFF:04x})")
    (number,) = struct.unpack("<H", value)
    return int(number)
