"""Puts the fragments of P-DATA together to requests (PS3.8 Annex E, PS3.7 6.3); Data Sets go to disk as they arrive."""

from collections.abc import Callable

from scp_node.scp.handlers import Reception
from scp_node.scp.messages import MAXIMUM_COMMAND_BYTES, Command, CommandError, CommandField, parse_command
from scp_node.scp.notices import Gathering

Begin = Callable[[Command, int], Reception | Gathering]
"""Opens the reception of a C-STORE or an N-EVENT-REPORT in the presentation context with this id; CommandError when
that was not accepted."""


def split_fragments(body: memoryview) -> list[tuple[int, memoryview]]:
    """Return context id and content of the PDV items of a P-DATA-TF (PS3.8 9.3.5), without copying.

    The content begins with the message control header.

    Raises
    ------
    ValueError
        The lengths do not add up.
    """
    fragments: list[tuple[int, memoryview]] = []
    position = 0
    while position < len(body):
        length = int.from_bytes(body[position : position + 4], "big")
        end = position + 4 + length
        if length < 2 or end > len(body):
            raise ValueError("a PDV item is longer than its PDU, or empty")
        fragments.append((body[position + 4], body[position + 5 : end]))
        position = end
    return fragments


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

    def receive(self, context_id: int, fragment: memoryview) -> Command | Reception | Gathering | None:
        """Take the next fragment; return the request that it completes: a C-ECHO's command, or
        what has received a Data Set.

        Raises
        ------
        CommandError
            The association must be aborted.
        """
        # PS3.8 E.2: bit 0 tells command from Data Set, bit 1 the last fragment; the others mean nothing.
        is_command, is_last = bool(fragment[0] & 1), bool(fragment[0] & 2)
        if self._context_id not in (None, context_id):
            raise CommandError("the presentation context changes within a message")
        self._context_id = context_id
        if is_command:
            return self._receive_command(context_id, fragment[1:], is_last=is_last)
        reception = self._reception
        if reception is None:
            raise CommandError("a Data Set without a Command Set")
        reception.write(fragment[1:])
        return self._completed(reception) if is_last else None

    def discard(self) -> None:
        """Forget a message that will not be completed, and its file."""
        if self._reception is not None:
            self._reception.discard()
        self._reset()

    def _receive_command(
        self, context_id: int, fragment: memoryview, *, is_last: bool
    ) -> Command | Reception | Gathering | None:
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

    def _completed(self, request: Command | Reception | Gathering) -> Command | Reception | Gathering:
        self._reset()
        return request

    def _reset(self) -> None:
        self._reception, self._context_id = None, None
        self._command.clear()
