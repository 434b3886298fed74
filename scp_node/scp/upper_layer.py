"""pynetdicom's state machine with limits of our own: the thread that reads and writes one connection.

Subclasses, no patches: other users of the library in this process are not changed. Only this module, `association`,
`connection` and `acceptor` touch its private parts. What is overridden here and in `association`, and why:

- A PDU may be as long as its length field says (4 GiB), before anybody is authenticated: `UpperLayer` aborts instead.
- A connection that closes before, or dies of, its A-ASSOCIATE-RQ keeps its place for a time-out: the association is
  woken by `_UpperLayer.run_reactor`.
- Both threads of an association ask every millisecond whether there is anything to do (67 % of a core for 20 that are
  idle): here they wait, and are not late for what has happened meanwhile.
- Requests without a UID are never answered, any DIMSE message may be endless, the temporary file of a Data Set lies in
  the system's folder and leaks when the association breaks: `association` serves by itself.
- A byte now and then keeps an association for ever: `idle_timer_expired` asks its `Pace`.

tests/unit/scp/test_pynetdicom_contract.py fails when a release changes what this relies on.
"""

import queue
import time
from typing import TYPE_CHECKING, Any

import structlog
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA

from scp_node.scp.assembly import HEADER_BYTES, Fragment, split_fragments, take_apart
from scp_node.scp.assembly import P_DATA_TF as DATA
from scp_node.security.events import EventKind

if TYPE_CHECKING:
    from scp_node.scp.association import ServedAssociation

_log = structlog.get_logger(__name__)

MAXIMUM_ASSOCIATE_BYTES = 256 * 1024
"""128 presentation contexts with 25 transfer syntaxes each fit."""
_MAXIMUM_OTHER_BYTES = 1024
"""A-RELEASE, A-ABORT and A-ASSOCIATE-RJ have 4."""
_PDU_ALLOWANCE_BYTES = 1024
"""Some peers do not count headers."""
IDLE_WAIT_S = 0.1
"""Timers are looked at this often; everything else ends the wait."""
_PAUSE_S = 0.0001
"""Between two waits, instead of a millisecond by which each answer was late."""
_A_ASSOCIATE_RQ = 0x01
PROTOCOL_ERROR, _CONNECTION_CLOSED, _DATA_RECEIVED = "Evt19", "Evt17", "Evt10"


class _DataPdu(P_DATA_TF):  # type: ignore[misc] # pynetdicom is untyped here
    """A P-DATA-TF that was taken apart already."""

    def __init__(self, fragments: list[Fragment]) -> None:
        super().__init__()
        self._fragments = fragments

    def to_primitive(self) -> P_DATA:
        primitive = P_DATA()
        primitive.presentation_data_value_list.extend(self._fragments)
        return primitive


class _RingingQueue(queue.Queue[Any]):
    """Tells the association's thread, which waits for requests, that there is something else."""

    def __init__(self, association: "ServedAssociation") -> None:
        super().__init__()
        self._association = association

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ANN401 - as the base
        """Put an item."""
        super().put(item, block, timeout)
        self._association.dimse.msg_queue.put((None, None))


class UpperLayer(DULServiceProvider):  # type: ignore[misc] # pynetdicom is untyped here
    """The state machine's thread."""

    def __init__(self, assoc: "ServedAssociation") -> None:
        super().__init__(assoc)
        self.daemon = True
        self.to_user_queue = _RingingQueue(assoc)
        self._run_loop_delay = _PAUSE_S
        self._limits = {
            _A_ASSOCIATE_RQ: MAXIMUM_ASSOCIATE_BYTES,
            DATA: assoc.ae.maximum_pdu_size + _PDU_ALLOWANCE_BYTES,
        }

    def run_reactor(self) -> None:
        """Run until the connection ends, and always tell the association that it did."""
        try:
            super().run_reactor()
        except Exception as error:  # The state machine lets pass what a malformed A-ASSOCIATE-RQ raises.
            if self.assoc.peer is None:
                self.assoc.report(f"malformed A-ASSOCIATE-RQ ({type(error).__name__})")
            else:
                # An answer, say, that comes when the association is over, or an A-ABORT without a known source.
                _log.info("connection ended", error=type(error).__name__)
            abort = A_ABORT_RQ()
            abort.source, abort.reason_diagnostic = 2, 6  # service provider, invalid PDU parameter (PS3.8 Table 9-26)
            self.socket.send(abort.encode())
        finally:
            self.socket.close_for_good()
            self.assoc.dimse.discard_unfinished()
            # Ends the wait for an A-ASSOCIATE-RQ; everybody else has read what they need by then.
            self.to_user_queue.put(None)

    def idle_timer_expired(self) -> bool:
        """Whether the peer has been silent for too long, within a message or between two, or does not get on."""
        is_receiving = self.assoc.dimse.is_receiving
        timeout = self.assoc.network_timeout if is_receiving else self.assoc.dimse_timeout
        self._idle_timer.timeout = timeout
        complaint = "silent for too long" if super().idle_timer_expired() else ""
        complaint = complaint or self.assoc.pace.complaint(
            time.monotonic(), received_bytes=self.socket.received_bytes, is_receiving=is_receiving
        )
        if complaint:
            self.assoc.report(complaint, EventKind.LIMIT_REACHED)
        return bool(complaint)

    def restart_idle_timer(self) -> None:
        """Begin to wait anew: this node was busy, not the peer silent."""
        self._idle_timer.restart()

    def _is_transport_event(self) -> bool:
        if self.state_machine.current_state == "Sta13":
            # The association is over: what still comes is not interpreted. The ARTIM timer ends a peer that goes on.
            if not self.socket.drop_waiting():
                self.socket.close()
            return True
        if not self.socket.wait(IDLE_WAIT_S if self.event_queue.empty() else 0):
            return False
        self._read_pdu_data()
        # A Data Set is a hundred PDUs: no turn through the library for each of them.
        while self._is_undisturbed() and self.assoc.dimse.is_receiving and self.socket.wait(IDLE_WAIT_S):
            self._idle_timer.restart()
            self._read_pdu_data()
        return True

    def _is_undisturbed(self) -> bool:
        """Whether there is nothing to do but to go on reading within an association."""
        return (
            self.state_machine.current_state == "Sta6"
            # Their deques: asking a queue takes its lock, and this is asked for each PDU.
            and not self.event_queue.queue
            and not self.to_provider_queue.queue
            and not self._kill_thread
        )

    def send_pdu(self, primitive: object) -> None:
        """Queue a primitive for sending; any thread may call this."""
        super().send_pdu(primitive)
        self.socket.ring()

    def _read_pdu_data(self) -> None:
        wire = self.socket
        try:
            header = bytes(wire.arrived(HEADER_BYTES)[:HEADER_BYTES])
            if len(header) < HEADER_BYTES:
                self.event_queue.put(_CONNECTION_CLOSED)
                return
            kind, length = header[0], int.from_bytes(header[2:], "big")
            if length > self._limits.get(kind, _MAXIMUM_OTHER_BYTES):
                self.assoc.report(f"PDU of type {kind} with {length} bytes", EventKind.LIMIT_REACHED)
                self.event_queue.put(PROTOCOL_ERROR)
                return
            size = HEADER_BYTES + length
            arrived = wire.arrived(size)
        except (OSError, ValueError) as error:
            # ValueError: another thread has ended the TLS session.
            _log.info("connection lost", error=type(error).__name__)
            self.event_queue.put(_CONNECTION_CLOSED)
            return
        if len(arrived) < size:
            self.event_queue.put(_CONNECTION_CLOSED)
            return
        if kind == DATA and self._is_undisturbed():
            # What Evt10 in Sta6 comes to (DT-2, PS3.8 Table 9-10), at once, and for all that has arrived.
            fragments, taken = take_apart(arrived, self._limits[DATA])
            if taken:
                wire.take(taken)
                self.assoc.dimse.receive_fragments(fragments)
                return
        wire.take(size)
        try:
            if kind == DATA:
                pdu, event = _DataPdu(split_fragments(memoryview(bytes(arrived[HEADER_BYTES:size])))), _DATA_RECEIVED
            else:
                pdu, event = self._decode_pdu(bytearray(arrived[:size]))
        except Exception as error:
            self.assoc.report(f"malformed PDU of type {kind} ({type(error).__name__})")
            self.event_queue.put(PROTOCOL_ERROR)
            return
        self.event_queue.put(event)
        self._recv_pdu.put(pdu)
