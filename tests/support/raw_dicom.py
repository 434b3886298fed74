"""DICOM byte by byte, for clients that break its rules: messages to be bent, a socket that sends them as they are."""

import contextlib
import os
import socket
import ssl
import struct
import time

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

CR = "1.2.840.10008.5.1.4.1.1.1"
INSTANCE = "1.2.3.4.5"
ASSOCIATE_AC, ASSOCIATE_RJ, RELEASE_RQ, RELEASE_RP, ABORT = 2, 3, b"\5\0\0\0\0\4\0\0\0\0", 6, 7
CLOSED = b""
LIMIT_S = 60
"""For what takes milliseconds on a quiet machine."""
PROMPT_S = 10
"""Long before a time-out of a receiver frees what somebody else holds: that is half a minute, or more."""


def associate_request(maximum_length: int = 16384) -> bytes:
    """An A-ASSOCIATE-RQ with context 1 for CR and 3 for Verification."""
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = "SCU", "NODE"
    contexts = [build_context(CR, ImplicitVRLittleEndian), build_context(Verification, ImplicitVRLittleEndian)]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    request.presentation_context_definition_list = contexts
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = maximum_length
    implementation.implementation_class_uid = "1.2.3"
    request.user_information = [length, implementation]
    return bytes(A_ASSOCIATE_RQ(request).encode())


def element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value


def text(value: str) -> bytes:
    return value.encode() + b"\0" * (len(value) % 2)


def store_command(instance: str | None = INSTANCE, sop_class: str | None = CR, data_set_type: int = 0) -> bytes:
    content = b"" if sop_class is None else element(0x00000002, text(sop_class))
    content += element(0x00000100, b"\1\0") + element(0x00000110, b"\7\0") + element(0x00000700, b"\0\0")
    content += element(0x00000800, struct.pack("<H", data_set_type))
    return content if instance is None else content + element(0x00001000, text(instance))


def data_set(instance: str = INSTANCE, filler: int = 1000) -> bytes:
    identity = element(0x00080016, text(CR)) + element(0x00080018, text(instance))
    return identity + element(0x00100010, b"CANARY^Patient  ") + element(0x7FE00010, bytes(filler))


ECHO_COMMAND = (
    element(0x00000002, text(Verification))
    + element(0x00000100, b"\x30\0")
    + element(0x00000110, b"\1\0")
    + element(0x00000800, b"\1\1")
)


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBL", kind, 0, len(body)) + body


def data(content: bytes, control: int, context_id: int = 1) -> bytes:
    return pdu(4, struct.pack(">LBB", len(content) + 2, context_id, control) + content)


class Client:
    """A socket that speaks only as much DICOM as it is told to, through TLS if it is given a context.

    Parameters
    ----------
    source
        Address to call from; all of 127.0.0.0/8 belongs to this machine.
    """

    def __init__(
        self,
        port: int,
        associated: bool = False,
        *,
        tls: ssl.SSLContext | None = None,
        source: str = "127.0.0.1",
        request: bytes | None = None,
    ) -> None:
        self.socket: socket.socket = socket.create_connection(
            ("127.0.0.1", port), timeout=LIMIT_S, source_address=(source, 0)
        )
        try:
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
            if associated:
                self.send(request or associate_request())
                answer = self.receive()
                assert answer[:1] == bytes([ASSOCIATE_AC]), answer
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, content: bytes) -> None:
        # A receiver that has hung up already is what most of these tests want.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self.socket.sendall(content)

    def receive(self) -> bytes:
        """The next PDU, or nothing when the receiver has closed."""
        try:
            header = self._exactly(6)
            return header + self._exactly(int.from_bytes(header[2:6], "big")) if header else CLOSED
        except (ConnectionError, ssl.SSLError):
            return CLOSED

    def status(self) -> int:
        """Status (0000,0900) of the next answer."""
        answer = self.receive()
        assert answer[0] == 4, answer
        position = answer.index(struct.pack("<HHL", 0, 0x0900, 2))
        return int(struct.unpack_from("<H", answer, position + 8)[0])

    def is_aborted(self) -> bool:
        """A-ABORT, or closed: bytes that were not read turn a close into a reset, which overtakes the A-ABORT."""
        answer = self.receive()
        return answer == CLOSED or answer[0] == ABORT

    def _exactly(self, count: int) -> bytes:
        content = b""
        while len(content) < count:
            piece = self.socket.recv(count - len(content))
            if not piece:
                return CLOSED
            content += piece
        return content


def echo_seconds(port: int) -> float:
    """How long a well-behaved client waits for its C-ECHO, connecting included."""
    begun = time.monotonic()
    ae = AE("SCU")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = LIMIT_S
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", port, ae_title="NODE")
    assert association.is_established
    assert association.send_c_echo().Status == 0
    seconds = time.monotonic() - begun
    association.release()
    return seconds


def assert_echo_is_quick(port: int) -> None:
    """Once more when this machine itself was busy."""
    assert any(echo_seconds(port) < PROMPT_S for _ in range(3))


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - not a file
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
