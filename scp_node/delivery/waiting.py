"""Lets the two threads of an open association wait instead of asking every millisecond whether there is anything to do.

An association that stays open for the next analysis otherwise costs 5 % of a core. Both threads are pynetdicom's and
run already; what they ask in each turn is replaced on this one association:

- the state machine's thread asks its socket, with nothing to send and nothing received: here it waits until bytes come
  or another thread has something to send.
- the association's thread comes by its checkpoint, where it counts as paused and disturbs nobody: here it stays there
  for a moment. What it looks for, an end by the peer, can wait so long.

Not for an association that serves requests of the peer: these are to be answered at once.

tests/unit/scp/test_pynetdicom_contract.py fails when a release changes what this relies on.
"""

import ssl
import threading
import time
from typing import Any

from pynetdicom.association import Association

from scp_node.bell import Bell

_TURN_S = 0.1
_DATA_TRANSFER = "Sta6"


class _Checkpoint(threading.Event):
    """Passed by the association's thread once in each of its turns; open from the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a moment, then as the base."""
        time.sleep(_TURN_S)
        return super().wait(timeout)


class Waiting:
    """Installed on an association that has just been established; to be closed with it."""

    def __init__(self, association: Association) -> None:
        self._upper_layer = association.dul
        self._wire = association.dul.socket.socket
        self._bell = Bell()
        self._is_waiting = False
        self._look, self._send = association.dul._is_transport_event, association.dul.send_pdu
        # None: the peer has hung up already.
        if self._wire is not None and self._wire.fileno() >= 0:
            self._bell.watch(self._wire)
            association.dul._is_transport_event = self._is_transport_event
            association.dul.send_pdu = self._send_pdu
            association._reactor_checkpoint = _Checkpoint()

    def close(self) -> None:
        """Let go of the bell, unless the state machine's thread still listens to it."""
        if not self._upper_layer.is_alive():
            self._bell.close()

    def _send_pdu(self, primitive: Any) -> None:  # noqa: ANN401 - as pynetdicom has it
        self._send(primitive)
        # In this order: who has begun to wait since then has seen the primitive.
        if self._is_waiting:
            self._bell.ring()

    def _is_transport_event(self) -> bool:
        layer = self._upper_layer
        if layer.state_machine.current_state == _DATA_TRANSFER and layer.event_queue.empty():
            self._is_waiting = True
            if layer.to_provider_queue.empty() and not layer._kill_thread and self._is_drained():
                self._bell.wait(_TURN_S)
            self._is_waiting = False
        return bool(self._look())

    def _is_drained(self) -> bool:
        # Decrypted and waiting: the descriptor knows nothing of it.
        return self._wire.fileno() >= 0 and not (isinstance(self._wire, ssl.SSLSocket) and self._wire.pending())
