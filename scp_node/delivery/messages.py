"""Requests and answers on an association that this node opened: an answer is for who waits for it.

An answer belongs to the thread that sent the request. pynetdicom lets the association's own thread, which looks for
requests of the peer, take it when that thread was let through its checkpoint a moment before and then had to wait for
the interpreter: the sender waits for its time limit then, and the object is sent again. Here nothing is given to who
does not wait for it, from the first byte of a request to its answer.

An answer is the one to the request that it names: each request of an association has a number of its own, and a peer
that answers something else, twice or too late for example, is one whose word on this request is not known.
"""

import contextlib
import queue
import threading
import time
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider

_LAST_MESSAGE_ID = 65535
_IDLE = "Sta1"
"""State of a connection that has ended (PS3.8 9.2.2)."""
_LOOK_S = 1.0


class Messages(DIMSEServiceProvider):  # type: ignore[misc]  # pynetdicom is untyped here
    """The messages of one association that has been established; an answer is for who waits for it."""

    def __init__(self, association: Association) -> None:
        # What has come since the association was established, its end for example, is not lost.
        arrived = association.dimse.msg_queue
        super().__init__(association)
        self.msg_queue = arrived
        self._lock = threading.Lock()
        self._is_answer_due = False
        self._message_id = 0
        self._kind: type[Any] = type(None)
        self._sop_instance_uid: str | None = None
        self.has_gone_astray = False
        """The last answer was to something else; pynetdicom aborts the association as after none."""

    def get_msg(self, block: bool = False) -> tuple[int | None, Any]:
        """Return context id and message; with ``block`` to the one who has sent a request, and then its answer only."""
        if block:
            try:
                waited = self._wait()
            finally:
                self._is_answer_due = False
            self.has_gone_astray = waited[1] is not None and not self._is_answer(waited[1])
            return (None, None) if self.has_gone_astray else waited
        # As one: between the look and the taking an answer could become due and come.
        with self._lock:
            if self._is_answer_due:
                return None, None
            present: tuple[int | None, Any] = super().get_msg(block=False)
            return present

    def _wait(self) -> tuple[int | None, Any]:
        """Wait for an answer from when the peer has last taken a piece of the request: it may take long to take all."""
        begun = time.monotonic()
        answer: tuple[int | None, Any]
        while self.dimse_timeout is not None:
            # pynetdicom's own socket, at a peer of a test, does not say.
            since = max(begun, getattr(self.dul.socket, "progressed_at", begun))
            left_s = since + self.dimse_timeout - time.monotonic()
            # The association's own thread may have taken the news of the end: there is nothing to be waited for.
            is_over = left_s <= 0 or not self.dul.is_alive() or self.dul.state_machine.current_state == _IDLE
            with contextlib.suppress(queue.Empty):
                answer = self.msg_queue.get(timeout=0.0 if is_over else min(left_s, _LOOK_S))
                return answer
            if is_over:
                return None, None
        answer = super().get_msg(block=True)
        return answer

    def send_msg(self, primitive: Any, context_id: int) -> None:  # noqa: ANN401 - as pynetdicom has it
        """Send a message the way of pynetdicom."""
        if primitive.MessageIDBeingRespondedTo is not None:
            super().send_msg(primitive, context_id)
            return
        primitive.MessageID = self.expect_answer(type(primitive), getattr(primitive, "AffectedSOPInstanceUID", None))
        try:
            super().send_msg(primitive, context_id)
        except BaseException:
            self._is_answer_due = False
            raise

    def expect_answer(self, kind: type[Any], sop_instance_uid: str | None) -> int:
        """Give nothing to who does not wait for it, from now until an answer, or its time limit, has come.

        Parameters
        ----------
        kind
            pynetdicom's class of the request, which is its answer's too.
        sop_instance_uid
            The one that the answer may name.

        Returns
        -------
        int
            The Message ID of the request (PS3.7 9.3.1.1).
        """
        with self._lock:
            self._is_answer_due = True
        self._message_id = self._message_id % _LAST_MESSAGE_ID + 1
        self._kind, self._sop_instance_uid = kind, sop_instance_uid
        return self._message_id

    def _is_answer(self, message: Any) -> bool:  # noqa: ANN401 - as pynetdicom has it
        # Some pad it with a space.
        named = str(getattr(message, "AffectedSOPInstanceUID", None) or "").rstrip(" \0")
        return (
            isinstance(message, self._kind)
            and message.MessageIDBeingRespondedTo == self._message_id
            and (not named or not self._sop_instance_uid or named == self._sop_instance_uid)
        )
