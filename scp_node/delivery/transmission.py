"""C-STORE with a file's Data Set as it lies in the spool: unread, undecoded, past pynetdicom's queue (PS3.7 9.3.1).

pynetdicom parses the file's head, builds the command as a data set of its own, makes an object of each fragment, hands
it to the thread of its state machine and sends it there, 800 times for one picture at an archive that takes 16 KiB at a
time. Here the thread that sends a message writes it. Through TLS, messages go the way of pynetdicom: two threads must
not read and write one session at a time.
"""

import contextlib
import os
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from typing import BinaryIO

from pynetdicom import _config
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from scp_node.command_sets import command_set, short, uid
from scp_node.delivery.messages import Messages
from scp_node.records import Outgoing

# Through TLS too: sends files by path without decoding them. What is sent as a data set is not concerned.
_config.STORE_SEND_CHUNKED_DATASET = True

_AT_ONCE_BYTES = 2**20
_PIECES = 512
"""At once: the kernel takes 1024 (IOV_MAX), and a peer that takes 1 KiB at a time makes more of a mebibyte."""
PDV_HEADER_BYTES = 6
"""Length, context and control header of a fragment count into the peer's maximum length (PS3.8 D.1)."""
_COMMAND, _LAST_COMMAND, _DATA, _LAST_DATA = 1, 3, 0, 2
"""Message control headers, PS3.8 E.2."""
_PAUSED_AFTER_S = 0.0001

_GROUP_LENGTH = b"DICM\x02\x00\x00\x00UL\x04\x00"
_GROUP_LENGTH_AT = 128
_META_AT = 144
_LONGEST_META_BYTES = 2**16


class DirectMessages(Messages):
    """Those of an association without TLS: files go from the disk to the socket.

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
        limit = self.maximum_pdu_size
        self._fragment_bytes = min(limit or _AT_ONCE_BYTES, _AT_ONCE_BYTES) - PDV_HEADER_BYTES
        self._buffer = bytearray()

    def store(self, item: Outgoing, context_id: int) -> int | None:
        """Send a file in the transfer syntax that it is written in; return the status, None: no answer to it.

        Raises
        ------
        OSError
            The file cannot be opened or read; no byte of the message has been sent.
        ValueError
            The file is not the object that it should be; as above.
        RuntimeError
            The association has ended.
        """
        association = self.assoc
        if not association.is_established:
            raise RuntimeError("the association has ended")
        with item.file.open("rb", buffering=0) as content:
            left = _find_data_set(content, item)
            # The association's own thread must not take the answer.
            association._reactor_checkpoint.clear()
            try:
                while not association._is_paused:
                    time.sleep(_PAUSED_AFTER_S)
                message_id = self.expect_answer(C_STORE, item.sop_instance_uid)
                try:
                    self._write(self._command(item, context_id, message_id))
                    for pieces in self._fragments(content, left, context_id):
                        self._write(pieces)
                except OSError:
                    # The state machine's thread sees the end and says so to who waits for the answer.
                    with contextlib.suppress(OSError):
                        self._wire.shutdown(socket.SHUT_RDWR)
                _, answer = self.get_msg(block=True)
            finally:
                association._reactor_checkpoint.set()
        if answer is None:
            association._handle_no_response()
            return None
        status = association._check_received_status(answer)
        return int(status.Status) if "Status" in status else None

    def _command(self, item: Outgoing, context_id: int, message_id: int) -> list[memoryview]:
        command = memoryview(store_command(item.sop_class_uid, item.sop_instance_uid, message_id))
        pieces = []
        for start in range(0, len(command), self._fragment_bytes):
            fragment = command[start : start + self._fragment_bytes]
            is_last = start + self._fragment_bytes >= len(command)
            pieces += [_header(len(fragment), context_id, _LAST_COMMAND if is_last else _COMMAND), fragment]
        return pieces

    def _fragments(self, content: BinaryIO, left: int, context_id: int) -> Iterator[list[memoryview]]:
        """Yield headers and fragments in turn, about a mebibyte at a time."""
        size = self._fragment_bytes
        at_once = min(left, max(1, _AT_ONCE_BYTES // size) * size)
        if len(self._buffer) < at_once:
            self._buffer = bytearray(at_once)
        buffer = memoryview(self._buffer)
        while left:
            filled = min(left, at_once)
            _fill(content, buffer[:filled])
            left -= filled
            pieces = []
            for start in range(0, filled, size):
                fragment = buffer[start : min(start + size, filled)]
                is_last = not left and start + size >= filled
                pieces += [_header(len(fragment), context_id, _LAST_DATA if is_last else _DATA), fragment]
            yield pieces

    def _write(self, pieces: list[memoryview]) -> None:
        poll = None
        while pieces:
            try:
                sent = self._wire.sendmsg(pieces[:_PIECES], [], socket.MSG_DONTWAIT)
            except BlockingIOError:
                if poll is None:
                    poll = select.poll()
                    poll.register(self._wire, select.POLLOUT)
                if not poll.poll(self._timeout_s * 1000):
                    raise TimeoutError from None
                continue
            while pieces and sent >= len(pieces[0]):
                sent -= len(pieces.pop(0))
            if sent:
                pieces[0] = pieces[0][sent:]


_COMMAND_FIELD = short(0x00000100, 0x0001)  # C-STORE-RQ
_BEFORE_INSTANCE = (
    short(0x00000700, 0x0002)  # Priority: low, as pynetdicom has it
    + short(0x00000800, 0x0001)  # Command Data Set Type: one follows
)


def store_command(sop_class_uid: str, sop_instance_uid: str, message_id: int) -> bytes:
    """Encode the command of a C-STORE request (PS3.7 9.3.1.1)."""
    return command_set(
        uid(0x00000002, sop_class_uid)
        + _COMMAND_FIELD
        + short(0x00000110, message_id)
        + _BEFORE_INSTANCE
        + uid(0x00001000, sop_instance_uid)
    )


def _header(size: int, context_id: int, control: int) -> memoryview:
    """Return the heads of a P-DATA-TF and of the one fragment in it (PS3.8 9.3.5)."""
    return memoryview(struct.pack(">BxLLBB", 4, size + 6, size + 2, context_id, control))


def _find_data_set(content: BinaryIO, item: Outgoing) -> int:
    """Go to where a file's Data Set begins; return its size in bytes.

    The File Meta Information is not parsed: a file whose head names these three UIDs is the one that this node wrote.
    """
    head = content.read(_META_AT)
    if head[_GROUP_LENGTH_AT : _META_AT - 4] != _GROUP_LENGTH:
        raise ValueError("no File Meta Information")
    length = int.from_bytes(head[_META_AT - 4 :], "little")
    meta = content.read(min(length, _LONGEST_META_BYTES))
    uids = (item.sop_class_uid, item.sop_instance_uid, item.transfer_syntax_uid)
    if len(meta) < length or not all(uid.encode() in meta for uid in uids):
        raise ValueError("another object")
    left = os.fstat(content.fileno()).st_size - _META_AT - length
    if left <= 0:
        raise ValueError("no Data Set")
    return left


def _fill(content: BinaryIO, buffer: memoryview) -> None:
    filled = 0
    while filled < len(buffer):
        count = content.readinto(buffer[filled:])  # type: ignore[attr-defined]  # a raw file
        if not count:
            raise OSError("the file ends before its end")
        filled += count


def set_up(association: Association, raw: socket.socket | None, timeout_s: float) -> list[socket.socket]:
    """Let an association that was just established keep answers for who asked, and without TLS send files directly.

    Returns what is to be closed with it.
    """
    if raw is None or isinstance(association.dul.socket.socket, ssl.SSLSocket):
        association.dimse = Messages(association)
        return []
    try:
        wire = raw.dup()
    except OSError:  # the peer has hung up already
        association.dimse = Messages(association)
        return []
    # Who sends waits by itself, and not within the kernel.
    wire.setblocking(False)
    association.dimse = DirectMessages(association, wire, timeout_s)
    return [wire]
