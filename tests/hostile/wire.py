"""Sends a case as it is: association, command and Data Set as bytes, nothing parsed, nothing put right."""

import struct

from tests.hostile.cases import Case
from tests.support.raw_dicom import ABORT, ASSOCIATE_AC, CLOSED, RELEASE_RQ, Client, data, element, pdu, text

_IMPLEMENTATION = b"1.2.826.0.1.3680043.9.1"


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def _request(sop_class: str, transfer_syntax: str, called: str) -> bytes:
    """Return an A-ASSOCIATE-RQ with one presentation context (PS3.8 9.3.2)."""
    context = _item(0x30, sop_class.encode()) + _item(0x40, transfer_syntax.encode())
    user = _item(0x51, struct.pack(">L", 0)) + _item(0x52, _IMPLEMENTATION)
    titles = called.ljust(16).encode() + b"HOSTILE".ljust(16)
    body = struct.pack(">HH", 1, 0) + titles + bytes(32)
    body += _item(0x10, b"1.2.840.10008.3.1.1.1") + _item(0x20, bytes([1, 0, 0, 0]) + context) + _item(0x50, user)
    return pdu(1, body)


def _command(case: Case) -> bytes:
    content = element(0x00000002, text(case.sop_class if case.command_class is None else case.command_class))
    content += element(0x00000100, b"\1\0") + element(0x00000110, b"\7\0") + element(0x00000700, b"\0\0")
    content += element(0x00000800, struct.pack("<H", 0x0101 if case.content is None else 1))
    if case.instance is not None:
        content += element(0x00001000, text(case.sop_instance_uid))
    return element(0, struct.pack("<L", len(content))) + content


def send(case: Case, port: int, called: str = "SCP_NODE") -> str:
    """Send one case over an association of its own; return what came back, as `Expected.answer` has it."""
    with Client(port) as client:
        client.send(_request(case.sop_class, case.transfer_syntax, called))
        answer = client.receive()
        if answer == CLOSED or answer[0] == ABORT:
            return "aborted"
        if answer[0] != ASSOCIATE_AC:
            return "rejected"
        # The only presentation context: its result stands at the third byte of its item (PS3.8 9.3.3.2).
        place = answer.index(b"\x21\0", 74)
        if answer[place + 6]:
            return "refused"
        client.send(data(_command(case), 3))
        size = 16000 if case.fragments == 0 else max(1, len(case.content or b"") // case.fragments)
        pieces = (
            [case.content[start : start + size] for start in range(0, len(case.content), size)] if case.content else []
        )
        for number, piece in enumerate(pieces, start=1):
            client.send(data(piece, 2 if number == len(pieces) else 0))
        if case.content == b"":
            client.send(data(b"", 2))
        answer = client.receive()
        if answer == CLOSED or answer[0] == ABORT:
            return "aborted"
        place = answer.index(struct.pack("<HHL", 0, 0x0900, 2))
        status = int(struct.unpack_from("<H", answer, place + 8)[0])
        client.send(RELEASE_RQ)
        client.receive()
        return f"{status:04x}"
