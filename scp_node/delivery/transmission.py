"""Sends C-STORE requests with a file's Data Set as it lies in the spool: unread, undecoded, past pynetdicom's queue.

pynetdicom makes an object of each fragment, hands it to the thread of its state machine and sends it there, 800 times
for one picture at an archive that takes 16 KiB at a time. Here the thread that sends a message writes it. Through TLS,
messages go the way of pynetdicom: two threads must not read and write one session at a time.
"""

import contextlib
import select
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pynetdicom import _config
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import P_DATA_TF

# Sends files by path without decoding them; what is sent as a data set is not concerned.
_config.STORE_SEND_CHUNKED_DATASET = True

_AT_ONCE_BYTES = 2**20
_PIECES = 512
"""At once: the kernel takes 1024 (IOV_MAX), and a peer that takes 1 KiB at a time makes more of a mebibyte."""
_PDV_HEADER_BYTES = 6
"""Length, context and control header of a fragment count into the peer's maximum length (PS3.8 D.1)."""
_LAST_COMMAND, _DATA, _LAST_DATA = 3, 0, 2
"""Message control headers, PS3.8 E.2."""


class Messages(DIMSEServiceProvider):  # type: ignore[misc]  # pynetdicom is untyped here
    """The messages of one association.

    Parameters
    ----------
    wire
        A duplicate of the association's socket, which stays this one when pynetdicom closes its own.
    timeout_s
        How long the peer may take nothing.
    """

    def __init__(self, association: Association, wire: socket.socket, timeout_s: float) -> None:
        super().__init__(association)
        self._wire = wire
        self._timeout_s = timeout_s

    def send_msg(self, primitive: Any, context_id: int) -> None:  # noqa: ANN401 - as pynetdicom has it
        """Send a message; when it cannot be sent, the connection ends, and with it the wait for an answer."""
        place = primitive._dataset_path if isinstance(primitive, C_STORE) else None
        if place is None:
            super().send_msg(primitive, context_id)
            return
        file, offset = place
        # A file that cannot be opened harms nothing: no byte of the message has been sent.
        with Path(file).open("rb", buffering=0) as content:
            content.seek(offset)
            try:
                self._write([self._command(primitive, context_id)])
                for pieces in self._fragments(content, context_id):
                    self._write(pieces)
            except OSError:
                # The state machine's thread sees the end and says so to who waits for the answer.
                with contextlib.suppress(OSError):
                    self._wire.shutdown(socket.SHUT_RDWR)

    def _command(self, primitive: C_STORE, context_id: int) -> memoryview:
        message = C_STORE_RQ()
        message.primitive_to_message(primitive)
        message.context_id = context_id
        encoded = bytearray()
        for part in message.encode_msg(context_id, self.maximum_pdu_size):
            encoded += P_DATA_TF(part).encode()
            if part.presentation_data_value_list[0][1][0] == _LAST_COMMAND:
                break
        return memoryview(encoded)

    def _fragments(self, content: Any, context_id: int) -> Iterator[list[memoryview]]:  # noqa: ANN401 - a raw file
        """Yield headers and fragments in turn, about a mebibyte at a time."""
        limit = self.maximum_pdu_size or _AT_ONCE_BYTES
        size = min(limit, _AT_ONCE_BYTES) - _PDV_HEADER_BYTES
        buffer = memoryview(bytearray(max(1, _AT_ONCE_BYTES // size) * size))
        following = memoryview(bytearray(len(buffer)))
        filled = _fill(content, buffer)
        while True:
            # One ahead, to know the last fragment when it comes.
            ahead = _fill(content, following) if filled == len(buffer) else 0
            pieces = []
            for start in range(0, filled, size):
                fragment = buffer[start : min(start + size, filled)]
                is_last = not ahead and start + size >= filled
                control = _LAST_DATA if is_last else _DATA
                length = len(fragment) + 2
                pieces.append(memoryview(struct.pack(">BxLLBB", 4, length + 4, length, context_id, control)))
                pieces.append(fragment)
            yield pieces
            if not ahead:
                return
            buffer, following, filled = following, buffer, ahead

    def _write(self, pieces: list[memoryview]) -> None:
        poll = select.poll()
        poll.register(self._wire, select.POLLOUT)
        while pieces:
            try:
                sent = self._wire.sendmsg(pieces[:_PIECES], [], socket.MSG_DONTWAIT)
            except BlockingIOError:
                if not poll.poll(self._timeout_s * 1000):
                    raise TimeoutError from None
                continue
            while pieces and sent >= len(pieces[0]):
                sent -= len(pieces.pop(0))
            if sent:
                pieces[0] = pieces[0][sent:]


def _fill(content: Any, buffer: memoryview) -> int:  # noqa: ANN401 - a raw file
    filled = 0
    while filled < len(buffer) and (count := content.readinto(buffer[filled:])):
        filled += count
    return filled


def send_files_directly(association: Association, raw: socket.socket | None, timeout_s: float) -> socket.socket | None:
    """Let an association that has just been established send files directly; returns what is to be closed with it."""
    if raw is None or isinstance(association.dul.socket.socket, ssl.SSLSocket):
        return None
    wire = raw.dup()
    association.dimse = Messages(association, wire, timeout_s)
    return wire
