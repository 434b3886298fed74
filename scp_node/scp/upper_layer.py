"""pynetdicom's associations with limits of our own. Only this module and `acceptor` touch its private parts.

Subclasses, no patches: other users of the library in this process are not changed. What is overridden here, and why:

- A PDU may be as long as its length field says (4 GiB), before anybody is authenticated: `_UpperLayer` aborts instead.
- A connection that closes before, or dies of, its A-ASSOCIATE-RQ keeps its place for a time-out: the association is
  woken by `_UpperLayer.run_reactor`.
- Both threads of an association ask every millisecond whether there is anything to do (67 % of a core for 20 that are
  idle): here they wait.
- Requests without a UID are never answered, any DIMSE message may be endless, the temporary file of a Data Set lies in
  the system's folder and leaks when the association breaks: `_Messages` and `ServedAssociation` serve by themselves.

tests/unit/scp/test_pynetdicom_contract.py fails when a release changes what this relies on.
"""

import queue
from typing import Any, Protocol

import structlog
from pynetdicom import evt
from pynetdicom._globals import APPLICATION_CONTEXT_NAME, MODE_ACCEPTOR
from pynetdicom.acse import ACSE
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA

from scp_node.scp.assembly import Assembler, split_fragments
from scp_node.scp.callers import Peer, Rejection
from scp_node.scp.gate import Gate
from scp_node.scp.handlers import AcceptedContext, Handlers, Reception
from scp_node.scp.messages import Command, CommandError, CommandField
from scp_node.scp.part10 import is_uid
from scp_node.scp.statuses import Answer

_log = structlog.get_logger(__name__)

MAXIMUM_ASSOCIATE_BYTES = 256 * 1024
"""128 presentation contexts with 25 transfer syntaxes each fit."""
_MAXIMUM_OTHER_BYTES = 1024
"""A-RELEASE, A-ABORT and A-ASSOCIATE-RJ have 4."""
_PDU_ALLOWANCE_BYTES = 1024
"""Some peers do not count headers."""
_MAXIMUM_WAITING_REQUESTS = 8
"""One is allowed (no asynchronous operations are negotiated)."""
_IDLE_WAIT_S = 0.1
"""Timers are looked at this often; everything else ends the wait."""
_A_ASSOCIATE_RQ, _P_DATA_TF = 0x01, 0x04
_PROTOCOL_ERROR, _CONNECTION_CLOSED, _DATA_RECEIVED = "Evt19", "Evt17", "Evt10"


class Owner(Protocol):
    """The server that an association belongs to."""

    handlers: Handlers
    gate: Gate

    def forget(self, association: "ServedAssociation") -> None:
        """Called when nothing of the association is left."""


class _DataPdu(P_DATA_TF):  # type: ignore[misc] # pynetdicom is untyped here
    """A P-DATA-TF that was taken apart already."""

    def __init__(self, fragments: list[tuple[int, memoryview]]) -> None:
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


class _UpperLayer(DULServiceProvider):  # type: ignore[misc] # pynetdicom is untyped here
    """The state machine's thread."""

    def __init__(self, assoc: "ServedAssociation") -> None:
        super().__init__(assoc)
        self.daemon = True
        self.to_user_queue = _RingingQueue(assoc)
        self._limits = {
            _A_ASSOCIATE_RQ: MAXIMUM_ASSOCIATE_BYTES,
            _P_DATA_TF: assoc.ae.maximum_pdu_size + _PDU_ALLOWANCE_BYTES,
        }

    def run_reactor(self) -> None:
        """Run until the connection ends, and always tell the association that it did."""
        try:
            super().run_reactor()
        except Exception as error:  # The state machine lets pass what a malformed A-ASSOCIATE-RQ raises.
            _log.warning("association aborted", reason="malformed request", error=type(error).__name__)
            abort = A_ABORT_RQ()
            abort.source, abort.reason_diagnostic = 2, 6  # service provider, invalid PDU parameter (PS3.8 Table 9-26)
            self.socket.send(abort.encode())
        finally:
            self.socket.close_for_good()
            self.assoc.dimse.discard_unfinished()
            # Ends the wait for an A-ASSOCIATE-RQ; everybody else has read what they need by then.
            self.to_user_queue.put(None)

    def idle_timer_expired(self) -> bool:
        """Whether the peer has been silent for too long: within a message, or between two."""
        timeout = self.assoc.network_timeout if self.assoc.dimse.is_receiving else self.assoc.dimse_timeout
        self._idle_timer.timeout = timeout
        return bool(super().idle_timer_expired())

    def restart_idle_timer(self) -> None:
        """Begin to wait anew: this node was busy, not the peer silent."""
        self._idle_timer.restart()

    def _is_transport_event(self) -> bool:
        if self.state_machine.current_state == "Sta13":
            # The association is over: what still comes is not interpreted. The ARTIM timer ends a peer that goes on.
            if not (self.socket.ready and self.socket.drop_waiting()):
                self.socket.close()
            return True
        if not self.socket.wait(_IDLE_WAIT_S if self.event_queue.empty() else 0):
            return False
        self._read_pdu_data()
        return True

    def send_pdu(self, primitive: object) -> None:
        """Queue a primitive for sending; any thread may call this."""
        super().send_pdu(primitive)
        self.socket.ring()

    def _read_pdu_data(self) -> None:
        try:
            header = self.socket.recv(6)
            if len(header) < 6:
                self.event_queue.put(_CONNECTION_CLOSED)
                return
            kind, length = header[0], int.from_bytes(header[2:], "big")
            if length > self._limits.get(kind, _MAXIMUM_OTHER_BYTES):
                _log.warning("association aborted", reason="PDU too long", pdu_type=kind, length_bytes=length)
                self.event_queue.put(_PROTOCOL_ERROR)
                return
            body = self.socket.recv(length)
        except OSError as error:
            _log.info("connection lost", error=type(error).__name__)
            self.event_queue.put(_CONNECTION_CLOSED)
            return
        if len(body) < length:
            self.event_queue.put(_CONNECTION_CLOSED)
            return
        try:
            if kind == _P_DATA_TF:
                pdu, event = _DataPdu(split_fragments(memoryview(body))), _DATA_RECEIVED
            else:
                pdu, event = self._decode_pdu(header + body)
        except Exception as error:
            _log.warning("association aborted", reason="malformed PDU", pdu_type=kind, error=type(error).__name__)
            self.event_queue.put(_PROTOCOL_ERROR)
            return
        self.event_queue.put(event)
        self._recv_pdu.put(pdu)


class _Negotiation(ACSE):  # type: ignore[misc] # pynetdicom is untyped here
    """Asks the gate before anything is negotiated."""

    def _negotiate_as_acceptor(self) -> None:
        request = self.requestor.primitive
        if str(request.application_context_name or "").strip("\0 ") == APPLICATION_CONTEXT_NAME:
            rejection = self.assoc.enter(request.called_ae_title, request.calling_ae_title)
        else:
            rejection = Rejection.APPLICATION_CONTEXT
            _log.warning("association rejected", rule=rejection.value, peer_address=self.assoc.peer_address)
        if rejection is None:
            super()._negotiate_as_acceptor()
            return
        self.send_reject(*rejection.codes)
        self.assoc.is_rejected = True
        self.assoc.kill()


class _Messages(DIMSEServiceProvider):  # type: ignore[misc] # pynetdicom is untyped here
    """Hands fragments to the assembler and requests to the association."""

    def __init__(self, assoc: "ServedAssociation") -> None:
        super().__init__(assoc)
        self._assembler = Assembler(assoc.begin_c_store)

    @property
    def is_receiving(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._assembler.is_receiving

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the fragments of one P-DATA; called by the upper layer's thread."""
        try:
            for context_id, fragment in primitive.presentation_data_value_list:
                request = self._assembler.receive(context_id, fragment)
                if request is None:
                    continue
                self._enqueue(context_id, request)
        except CommandError as error:
            _log.warning("association aborted", reason=str(error), peer_address=self.assoc.peer_address)
            self.discard_unfinished()
            self.dul.event_queue.put(_PROTOCOL_ERROR)

    def _enqueue(self, context_id: int, request: Command | Reception) -> None:
        self.msg_queue.put((context_id, request))
        if self.msg_queue.qsize() > _MAXIMUM_WAITING_REQUESTS:
            raise CommandError("more requests at a time than were negotiated")

    def get_msg(self, block: bool = False) -> tuple[int | None, Command | Reception | None]:
        """Wait a little for the next request, or for something else to happen."""
        del block
        try:
            item: tuple[int | None, Command | Reception | None] = self.msg_queue.get(timeout=_IDLE_WAIT_S)
        except queue.Empty:
            return None, None
        return item

    def discard_unfinished(self) -> None:
        """Forget a message that will not be completed."""
        self._assembler.discard()

    def discard_all(self) -> None:
        """Forget what nobody will serve; only when the upper layer's thread has ended."""
        self.discard_unfinished()
        while not self.msg_queue.empty():
            _, request = self.msg_queue.get_nowait()
            if isinstance(request, Reception):
                request.discard()


class ServedAssociation(Association):  # type: ignore[misc] # pynetdicom is untyped here
    """One connection, from its first byte to its last."""

    peer: Peer

    def __init__(self, ae: ApplicationEntity, server: Owner, peer_address: str) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self._server = server
        self.peer_address = peer_address
        self.acse = _Negotiation(self)
        self.dul = _UpperLayer(self)
        self.dimse = _Messages(self)
        # These live in the upper layer, which is a new one.
        self.acse_timeout = ae.acse_timeout
        self.network_timeout = ae.network_timeout

    @property
    def read_limit_s(self) -> float:
        """How long one PDU may take to arrive."""
        is_waiting = self.dul.state_machine.current_state in ("Sta1", "Sta2")
        return float(self.acse_timeout if is_waiting else self.network_timeout)

    def begin_c_store(self, command: Command, context_id: int) -> Reception:
        """Open the reception of an object in an accepted presentation context."""
        context = self._accepted_cx.get(context_id)
        if context is None:
            raise CommandError("the presentation context was not accepted")
        accepted = AcceptedContext(
            abstract_syntax_uid=str(context.abstract_syntax), transfer_syntax_uid=str(context.transfer_syntax[0])
        )
        return self._server.handlers.begin_c_store(command, accepted, self.peer)

    def enter(self, called_ae_title: str, calling_ae_title: str) -> Rejection | None:
        """Ask the gate; None when it lets this association in."""
        decision = self._server.gate.admit(
            self, called_ae_title=called_ae_title, calling_ae_title=calling_ae_title, address=self.peer_address
        )
        if isinstance(decision, Rejection):
            return decision
        self.peer = decision
        return None

    def hang_up(self) -> None:
        """Close the connection, whatever is under way."""
        self.dul.socket.hang_up()

    def run_reactor(self) -> None:
        """Serve until the association ends, and leave nothing behind: no place, no thread, no file."""
        try:
            super().run_reactor()
        except Exception as error:
            _log.error("association failed", peer_address=self.peer_address, exc_info=error)
            self.abort()
        finally:
            self.dul.kill_dul()
            self.hang_up()
            if self.dul.is_alive():
                self.dul.join(timeout=2 * self.read_limit_s)
            self.dul.socket.close_for_good()
            self.dimse.discard_all()
            self._server.forget(self)

    def _bind_defaults(self) -> None:
        # Without the notification handlers: they would format every PDU for a log that is switched off.
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))

    def _serve_request(self, msg: Command | Reception, context_id: int) -> None:
        try:
            if isinstance(msg, Reception):
                self._respond(C_STORE(), msg.command, context_id, self._server.handlers.on_c_store(msg))
            else:
                self._respond(C_ECHO(), msg, context_id, self._server.handlers.on_c_echo(self.peer))
        except Exception as error:
            # For example a peer that announced a maximum length too small for any answer.
            _log.error("answer failed", peer_address=self.peer_address, exc_info=error)
            self.abort()
        finally:
            self.dul.restart_idle_timer()

    def _respond(self, response: C_STORE | C_ECHO, command: Command, context_id: int, answer: Answer) -> None:
        if not self.is_established:
            return
        response.MessageIDBeingRespondedTo = command.message_id
        response.Status = int(answer.status)
        if answer.comment:
            response.ErrorComment = answer.comment
        if is_uid(command.sop_class_uid):
            response.AffectedSOPClassUID = command.sop_class_uid
        if command.field is CommandField.C_STORE_RQ and is_uid(command.sop_instance_uid):
            response.AffectedSOPInstanceUID = command.sop_instance_uid
        self.dimse.send_msg(response, context_id)
