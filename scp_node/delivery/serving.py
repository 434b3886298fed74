"""Lets a peer's requests on an association that this node opened be answered before it is released.

pynetdicom serves an N-EVENT-REPORT in a thread of its own. When that one is done it says that the association's thread
is not paused any more, whether it is or not: who releases at that moment waits for a thread that has long been waiting
for the release, both of them for good. And who releases as soon as the report is read lets the peer wait for an answer.
A peer may report on an association where nobody expects it, too.

tests/unit/scp/test_pynetdicom_contract.py fails when a release changes what this relies on.
"""

import threading
from typing import Any

from pynetdicom.association import Association


class Serving:
    """Installed on an association that has just been established."""

    def __init__(self, association: Association) -> None:
        self._association = association
        self._serve = association._serve_request
        self._changed = threading.Condition()
        self._unanswered = 0
        association._serve_request = self._serve_request

    def wait(self, timeout_s: float) -> bool:
        """Wait until what the peer has asked is answered; False if it is not within this time, in seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._unanswered, timeout_s)

    def _serve_request(self, message: Any, context_id: int) -> None:  # noqa: ANN401 - as pynetdicom has it
        with self._changed:
            self._unanswered += 1
        try:
            self._serve(message, context_id)
        finally:
            # At worst too early: answers are kept for who asked (messages.Messages), paused or not.
            self._association._is_paused = True
            with self._changed:
                self._unanswered -= 1
                self._changed.notify_all()
