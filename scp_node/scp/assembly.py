"""Puts the fragments of P-DATA together to requests (PS3.8 Annex E, PS3.7 6.3); Data Sets go to disk as they arrive."""

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from scp_node.scp.handlers import Reception
from scp_node.scp.messages import MAXIMUM_COMMAND_BYTES, Command, CommandError, CommandField, parse_command
from scp_node.scp.notices import Gathering

Begin = Callable[[Command, int], Reception | Gathering]
"""Opens the reception of a C-STORE or an N-EVENT-REPORT in the presentation context with this id; CommandError when
that was not accepted."""


Request = Command | Reception | Gathering
"""What a message has become: a C-ECHO's command, or what has received a Data Set."""

P_DATA_TF = 0x04
"""PDU type (PS3.8 9.3.5)."""
HEADER_BYTES = 6
"""Of every PDU: its type, a reserved byte and its length (PS3.8 9.3.1)."""
_HEADER, _ITEM = struct.Struct(">BxL"), struct.Struct(">LBB")
_MANY = 64
"""Fragments: tiny ones, of which a buffer could hold a hundred thousand, are passed on before they fill the memory."""


class Fragment(NamedTuple):
    """A PDV item (PS3.8 9.3.5.1, E.2).

    Parameters
    ----------
    header
        Message control header: bit 0 tells command from Data Set, bit 1 the last fragment; the others mean nothing.
    content
        Memory of the connection.
    """

    context_id: int
    header: int
    content: memoryview


def split_fragments(body: memoryview) -> list[Fragment]:
    """Return the PDV items of a P-DATA-TF (PS3.8 9.3.5), without copying.

    Raises
    ------
    ValueError
        The lengths do not add up.
    """
    fragments: list[Fragment] = []
    position, size = 0, len(body)
    while position < size:
        if position + 6 > size:
            raise ValueError("a PDV item is cut short")
        length, context_id, header = _ITEM.unpack_from(body, position)
        end = position + 4 + length
        if length < 2 or end > size:
            raise ValueError("a PDV item is longer than its PDU, or empty")
        fragments.append(Fragment(context_id, header, body[position + 6 : end]))
        position = end
    return fragments


def take_apart(arrived: memoryview, maximum_bytes: int) -> tuple[list[Fragment], int]:
    """Return the fragments of the P-DATA-TFs at the beginning of what has arrived, and how many bytes these take.

    Only such as are whole, no longer than `maximum_bytes` and well formed: anything else is left where it is.
    """
    fragments: list[Fragment] = []
    position, size = 0, len(arrived)
    while position + HEADER_BYTES <= size and len(fragments) < _MANY:
        kind, length = _HEADER.unpack_from(arrived, position)
        end = position + HEADER_BYTES + length
        if kind != P_DATA_TF or length > maximum_bytes or end > size:
            break
        try:
            fragments += split_fragments(arrived[position + HEADER_BYTES : end])
        except ValueError:
            break
        position = end
    return fragments, position


class Assembler:
    """One per association; called by the thread that reads the connection."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._context_id: int | None = None
        self._command = bytearray()
        self._reception: Reception | Gathering | None = None

    @property
    def is_receiving(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._context_id is not None

    def receive(self, fragments: Iterable[Fragment]) -> Iterator[tuple[int, Request]]:
        """Take the next fragments; yield the requests that they complete, with the ids of their contexts.

        What follows each other of one Data Set is handed on at once.

        Raises
        ------
        CommandError
            The association must be aborted.
        """
        waiting: list[memoryview] = []
        for context_id, header, content in fragments:
            if self._context_id not in (None, context_id):
                raise CommandError("the presentation context changes within a message")
            self._context_id = context_id
            is_last = header & 2
            if header & 1:
                request = self._receive_command(context_id, content, is_last=bool(is_last))
                if request is not None:
                    yield context_id, request
                continue
            reception = self._reception
            if reception is None:
                raise CommandError("a Data Set without a Command Set")
            waiting.append(content)
            if is_last:
                reception.write(*waiting)
                waiting.clear()
                yield context_id, self._completed(reception)
        if waiting and self._reception is not None:
            self._reception.write(*waiting)

    def discard(self) -> None:
        """Forget a message that will not be completed, and its file."""
        if self._reception is not None:
            self._reception.discard()
        self._reset()

    def _receive_command(self, context_id: int, fragment: memoryview, *, is_last: bool) -> Request | None:
        if self._reception is not None:
            raise CommandError("a Command Set within a Data Set")
        if len(self._command) + len(fragment) > MAXIMUM_COMMAND_BYTES:
            raise CommandError("the Command Set is too long")
        self._command += fragment
        if not is_last:
            return None
        command = parse_command(bytes(self._command))
        if command.field is CommandField.C_ECHO_RQ:
            return self._completed(command)
        reception = self._begin(command, context_id)
        if not command.has_data_set:
            return self._completed(reception)
        self._reception = reception
        return None

    def _completed(self, request: Request) -> Request:
        self._reset()
        return request

    def _reset(self) -> None:
        self._reception, self._context_id = None, None
        self._command.clear()
