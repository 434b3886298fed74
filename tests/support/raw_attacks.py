"""What a peer must not send, and what may become of its connection; tables for tests on plain and TLS ports."""

import os
import struct

from raw_dicom import (
    CR,
    ECHO_COMMAND,
    RELEASE_RQ,
    associate_request,
    data,
    data_set,
    element,
    pdu,
    store_command,
)

IMPLICIT = b"1.2.840.10008.1.2"
VERIFICATION = b"1.2.840.10008.1.1"
DICOM = b"1.2.840.10008.3.1.1.1"

ENDED, ACCEPTED, EITHER = "ended", "accepted", "either"
"""Rejected, aborted or closed; accepted; the standard leaves it open, but there is an answer."""


def item(kind: int, body: bytes, length: int | None = None) -> bytes:
    """An item of an A-ASSOCIATE-RQ (PS3.8 9.3.2), with a length that may lie."""
    return struct.pack(">BBH", kind, 0, len(body) if length is None else length) + body


def context(number: int, abstract: bytes = VERIFICATION, *syntaxes: bytes) -> bytes:
    """A presentation context item."""
    body = bytes([number, 0, 0, 0]) + item(0x30, abstract) + b"".join(item(0x40, s) for s in syntaxes or (IMPLICIT,))
    return item(0x20, body)


USER = item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3"))


def request(
    *items: bytes,
    called: bytes = b"NODE",
    calling: bytes = b"SCU",
    version: int = 1,
    application: bytes = item(0x10, DICOM),
    user: bytes = USER,
) -> bytes:
    """An A-ASSOCIATE-RQ of given items; without any, of one good context."""
    titles = called.ljust(16)[:16] + calling.ljust(16)[:16]
    content = struct.pack(">HH", version, 0) + titles + bytes(32) + application
    return pdu(1, content + b"".join(items or (context(1),)) + user)


def requests() -> dict[str, tuple[bytes, str]]:
    """First messages on a connection, each with what must become of it."""
    good = associate_request()
    abstract_only = item(0x20, bytes([1, 0, 0, 0]) + item(0x30, VERIFICATION))
    syntax_only = item(0x20, bytes([1, 0, 0, 0]) + item(0x40, IMPLICIT))
    return {
        "good": (request(), ACCEPTED),
        "context id even": (request(context(2)), ENDED),
        "context id 0": (request(context(0)), ENDED),
        "context ids twice": (request(context(1), context(1, CR.encode())), EITHER),
        "128 contexts": (request(*(context(2 * n + 1) for n in range(128))), ACCEPTED),
        "300 contexts": (request(*(context((2 * n + 1) % 256) for n in range(300))), EITHER),
        "no transfer syntax": (request(abstract_only), ENDED),
        "no abstract syntax": (request(syntax_only), ENDED),
        "200 transfer syntaxes": (request(context(1, VERIFICATION, *(b"1.2.%d" % n for n in range(200)))), EITHER),
        "no contexts": (request(b""), EITHER),
        "context without content": (request(item(0x20, b"")), ENDED),
        "abstract syntax of 60000 bytes": (request(context(1, b"1." * 30000)), EITHER),
        "abstract syntax is no UID": (request(context(1, b"../../etc/passwd\0\x1b[2J")), EITHER),
        "abstract syntax not ASCII": (request(context(1, b"\xff\xfe\0")), EITHER),
        "titles blank": (request(called=b" ", calling=b" "), ENDED),
        "titles zero": (request(called=bytes(16), calling=bytes(16)), ENDED),
        "titles not ASCII": (request(called=b"\xff" * 16, calling=b"\xff" * 16), ENDED),
        "calling title with control characters": (request(calling=b"A\r\n\x1b[31mB"), EITHER),
        "called title of another": (request(called=b"OTHER"), ENDED),
        "application context of another": (request(application=item(0x10, b"1.2.3")), ENDED),
        "no application context": (request(application=b""), ENDED),
        "two application contexts": (request(application=item(0x10, DICOM) * 2), EITHER),
        "protocol version 0": (request(version=0), ENDED),
        "protocol version 2": (request(version=2), ENDED),
        "no user information": (request(user=b""), EITHER),
        "user information twice": (request(user=USER * 2), EITHER),
        "user information empty": (request(user=item(0x50, b"")), EITHER),
        "user information of 65000 bytes": (
            request(user=item(0x50, item(0x51, b"\0\0\x40\0") + item(0x52, b"1.2.3") + item(0x55, b"A" * 64900))),
            EITHER,
        ),
        "maximum length of one byte": (request(user=item(0x50, item(0x51, b"\1"))), EITHER),
        "user identity of unknown type": (
            request(user=item(0x50, USER[4:] + item(0x58, b"\xff\1\0\x02ab\0\0"))),
            EITHER,
        ),
        "user identity whose lengths lie": (
            request(user=item(0x50, USER[4:] + item(0x58, b"\2\1\xff\xffab\0\0"))),
            EITHER,
        ),
        "a thousand role selections": (
            request(user=item(0x50, USER[4:] + item(0x54, b"\0\x11" + VERIFICATION + b"\1\1") * 1000)),
            EITHER,
        ),
        "item longer than the PDU": (request(item(0x20, context(1)[4:], length=60000)), ENDED),
        "item shorter than it is": (request(item(0x20, context(1)[4:], length=3)), ENDED),
        "inner item longer than its item": (
            request(item(0x20, bytes([1, 0, 0, 0]) + item(0x30, VERIFICATION, length=9999) + item(0x40, IMPLICIT))),
            ENDED,
        ),
        "unknown items": (request(item(0x99, b"?" * 100), context(1)), EITHER),
        "no items": (pdu(1, good[6:74]), ENDED),
        "cut short": (pdu(1, good[6:100]), ENDED),
        "nothing": (pdu(1, b""), ENDED),
        "PDU of 4 GiB": (struct.pack(">BBL", 1, 0, 2**32 - 1), ENDED),
        "PDU of 1 MiB": (pdu(1, good[6:] + bytes(2**20)), ENDED),
        "a response": (pdu(2, good[6:]), ENDED),
        "a rejection": (pdu(3, b"\0\1\1\1"), ENDED),
        "data first": (data(ECHO_COMMAND, 3, 1), ENDED),
        "release first": (RELEASE_RQ, ENDED),
        "abort first": (pdu(7, bytes(4)), ENDED),
        "PDU of type 0": (pdu(0, bytes(10)), ENDED),
        "PDU of type 255": (pdu(255, bytes(10)), ENDED),
        "HTTP": (b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", ENDED),
        "TLS within": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(506), ENDED),
        "random": (os.urandom(4096), ENDED),
    }


def messages() -> dict[str, tuple[bytes, str]]:
    """Messages on an open association, with context 1 for CR and 3 for Verification."""
    field = element(0x00000100, b"\1\0")
    return {
        "endless command": (data(bytes(10000), 1) * 3, ENDED),
        "empty command": (data(b"", 3), ENDED),
        "command of one element": (data(element(0x00000002, b"1.2.3\0"), 3), ENDED),
        "C-FIND": (data(store_command().replace(field, element(0x00000100, b"\x20\0")), 3), ENDED),
        "C-STORE-RSP": (data(store_command().replace(field, element(0x00000100, b"\1\x80")), 3), ENDED),
        "C-ECHO-RSP": (data(ECHO_COMMAND.replace(b"\x30\0", b"\x30\x80"), 3, 3), ENDED),
        "unknown command": (data(store_command().replace(field, element(0x00000100, b"\xff\x7f")), 3), ENDED),
        "command field of four bytes": (
            data(store_command().replace(field, element(0x00000100, b"\1\0\0\0")), 3),
            ENDED,
        ),
        "no command field": (data(store_command().replace(field, b""), 3), ENDED),
        "no message id": (data(store_command().replace(element(0x00000110, b"\7\0"), b""), 3), ENDED),
        "group length too large": (data(element(0, struct.pack("<L", 2**32 - 1)) + ECHO_COMMAND, 3, 3), EITHER),
        "group length too small": (data(element(0, struct.pack("<L", 1)) + ECHO_COMMAND, 3, 3), EITHER),
        "element longer than the command": (
            data(struct.pack("<HHL", 0, 2, 2**31) + b"1.2.3\0" + ECHO_COMMAND, 3, 3),
            ENDED,
        ),
        "C-ECHO with a Data Set": (data(ECHO_COMMAND.replace(b"\1\1", b"\0\0"), 3, 3), ENDED),
        "unknown context": (data(store_command(), 3, context_id=99), ENDED),
        "context id 0": (data(store_command(), 3, context_id=0), ENDED),
        "context changes": (data(store_command(), 3) + data(data_set(), 2, context_id=3), ENDED),
        "data before the command": (data(data_set(), 2), ENDED),
        "command in data": ((data(store_command(), 3) + data(data_set()[:50], 0)) * 2, ENDED),
        "PDV too long": (pdu(4, struct.pack(">LBB", 1000, 1, 3) + b"abc"), ENDED),
        "PDV too short": (pdu(4, struct.pack(">LB", 1, 1)), ENDED),
        "PDV of length 0": (pdu(4, bytes(4)), ENDED),
        "P-DATA of 4 GiB": (struct.pack(">BBL", 4, 0, 2**32 - 1), ENDED),
        "release of 1 MiB": (struct.pack(">BBL", 5, 0, 2**20), ENDED),
        "PDU of type 0": (pdu(0, bytes(10)), ENDED),
        "PDU of type 8": (pdu(8, bytes(10)), ENDED),
        "random": (b"\x09" + os.urandom(400), ENDED),
        "second association": (associate_request(), ENDED),
        "acceptance": (pdu(2, associate_request()[6:]), ENDED),
        "rejection": (pdu(3, b"\0\1\1\1"), ENDED),
        "release response": (pdu(6, bytes(4)), ENDED),
        "release within an object": (data(store_command(), 3) + data(data_set()[:50], 0) + RELEASE_RQ, ENDED),
        "abort within an object": (data(store_command(), 3) + data(data_set()[:50], 0) + pdu(7, bytes(4)), ENDED),
        "20000 empty fragments": (data(store_command(), 3) + pdu(4, struct.pack(">LBB", 2, 1, 0) * 20000), EITHER),
        "requests without waiting": ((data(store_command(), 3) + data(data_set(), 2)) * 100, EITHER),
    }
