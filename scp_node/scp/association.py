"""An association as the node serves it: asked for at the gate, its messages assembled, its requests answered.

With `upper_layer`, `connection` and `acceptor` the only modules that touch pynetdicom's private parts; what is
overridden and why is said in `upper_layer`.
"""

import queue
import time
from typing import Protocol

import structlog
from pynetdicom import evt
from pynetdicom._globals import APPLICATION_CONTEXT_NAME, MODE_ACCEPTOR
from pynetdicom.acse import ACSE
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA

from config.receiver import ReceiverSettings
from scp_node.scp.assembly import Assembler, Fragment, Request
from scp_node.scp.callers import Peer, Rejection
from scp_node.scp.gate import Gate
from scp_node.scp.handlers import AcceptedContext, Handlers, Reception
from scp_node.scp.lobby import Lobby, Visit
from scp_node.scp.messages import Command, CommandError, CommandField, encode_response
from scp_node.scp.notices import SERVED_CLASS, Gathering
from scp_node.scp.pace import Pace
from scp_node.scp.statuses import Answer
from scp_node.scp.upper_layer import IDLE_WAIT_S, PROTOCOL_ERROR, UpperLayer
from scp_node.security.certificates import Certificate
from scp_node.security.events import EventKind, SecurityEvent, Sink

_log = structlog.get_logger(__name__)

_MAXIMUM_WAITING_REQUESTS = 8
"""One is allowed (no asynchronous operations are negotiated)."""


class Owner(Protocol):
    """The server that an association belongs to."""

    settings: ReceiverSettings
    handlers: Handlers
    gate: Gate
    lobby: Lobby
    sink: Sink

    def forget(self, association: "ServedAssociation") -> None:
        """Called when nothing of the association is left."""


class _Negotiation(ACSE):  # type: ignore[misc] # pynetdicom is untyped here
    """Asks the gate before anything is negotiated."""

    def _negotiate_as_acceptor(self) -> None:
        request = self.requestor.primitive
        if str(request.application_context_name or "").strip("\0 ") == APPLICATION_CONTEXT_NAME:
            rejection = self.assoc.enter(request.called_ae_title, request.calling_ae_title)
        else:
            rejection = Rejection.APPLICATION_CONTEXT
            self.assoc.report(rejection.value, EventKind.ASSOCIATION_REJECTED)
        if rejection is None:
            super()._negotiate_as_acceptor()
            return
        self.send_reject(*rejection.codes)
        self.assoc.is_rejected = True
        self.assoc.kill()

    def send_release(self, is_response: bool = False) -> None:
        """Say that the association is over; its place is free by then."""
        self.assoc.give_place_back()
        super().send_release(is_response)


class _Messages(DIMSEServiceProvider):  # type: ignore[misc] # pynetdicom is untyped here
    """Hands fragments to the assembler and requests to the association."""

    def __init__(self, assoc: "ServedAssociation") -> None:
        super().__init__(assoc)
        self._assembler = Assembler(assoc.begin)

    @property
    def is_receiving(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._assembler.is_receiving

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the fragments of one P-DATA; called by the upper layer's thread."""
        self.receive_fragments(primitive.presentation_data_value_list)

    def receive_fragments(self, fragments: list[Fragment]) -> None:
        """Take the same without the primitive around it; the memory is the upper layer's again afterwards."""
        try:
            for context_id, request in self._assembler.receive(fragments):
                self._enqueue(context_id, request)
        except CommandError as error:
            self.assoc.report(str(error))
            self.discard_unfinished()
            self.dul.event_queue.put(PROTOCOL_ERROR)

    def _enqueue(self, context_id: int, request: Request) -> None:
        self.msg_queue.put((context_id, request))
        if self.msg_queue.qsize() > _MAXIMUM_WAITING_REQUESTS:
            raise CommandError("more requests at a time than were negotiated")

    def get_msg(self, block: bool = False) -> tuple[int | None, Request | None]:
        """Wait a little for the next request, or for something else to happen."""
        del block
        try:
            item: tuple[int | None, Request | None] = self.msg_queue.get(timeout=IDLE_WAIT_S)
        except queue.Empty:
            return None, None
        return item

    def answer(self, context_id: int, content: bytes) -> None:
        """Send a Command Set, in pieces that the peer takes.

        Raises
        ------
        ValueError
            It takes no piece at all.
        """
        # Length, context id and control header of an item count (PS3.8 D.1); 0: without limit.
        room = self.maximum_pdu_size - 6 if self.maximum_pdu_size else len(content)
        if room < 1:
            raise ValueError("the peer's maximum length is too small for any answer")
        for place in range(0, len(content), room):
            piece = content[place : place + room]
            primitive = P_DATA()
            is_last = place + room >= len(content)
            primitive.presentation_data_value_list.append((context_id, (b"\3" if is_last else b"\1") + piece))
            self.dul.send_pdu(primitive)

    def discard_unfinished(self) -> None:
        """Forget a message that will not be completed."""
        self._assembler.discard()

    def discard_all(self) -> None:
        """Forget what nobody will serve; only when the upper layer's thread has ended."""
        self.discard_unfinished()
        while not self.msg_queue.empty():
            _, request = self.msg_queue.get_nowait()
            if isinstance(request, Reception | Gathering):
                request.discard()


class ServedAssociation(Association):  # type: ignore[misc] # pynetdicom is untyped here
    """One connection, from its first byte to its last.

    Parameters
    ----------
    certificate
        What the peer has shown, verified; None without TLS or without one.
    """

    peer: Peer | None = None

    def __init__(
        self, ae: ApplicationEntity, server: Owner, visit: Visit, *, certificate: Certificate | None, is_tls: bool
    ) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self._server = server
        self._visit = visit
        self._certificate = certificate
        self._is_tls = is_tls
        self.peer_address = visit.address
        self.pace = Pace(server.settings, time.monotonic())
        self.acse = _Negotiation(self)
        self.dul = UpperLayer(self)
        self.dimse = _Messages(self)
        # These live in the upper layer, which is a new one.
        self.acse_timeout = ae.acse_timeout
        self.network_timeout = ae.network_timeout

    @property
    def read_limit_s(self) -> float:
        """How long one PDU may take to arrive."""
        is_waiting = self.dul.state_machine.current_state in ("Sta1", "Sta2")
        return float(self.acse_timeout if is_waiting else self.network_timeout)

    def begin(self, command: Command, context_id: int) -> Reception | Gathering:
        """Open the reception of a Data Set in an accepted presentation context."""
        context = self._accepted_cx.get(context_id)
        if context is None:
            raise CommandError("the presentation context was not accepted")
        accepted = AcceptedContext(
            abstract_syntax_uid=str(context.abstract_syntax), transfer_syntax_uid=str(context.transfer_syntax[0])
        )
        assert self.peer is not None  # noqa: S101 - there are no accepted contexts before the gate has let it in
        if command.field is CommandField.N_EVENT_REPORT_RQ:
            if accepted.abstract_syntax_uid != SERVED_CLASS:
                raise CommandError("an N-EVENT-REPORT in the presentation context of another service")
            return Gathering(command, accepted.transfer_syntax_uid, self.peer)
        return self._server.handlers.begin_c_store(command, accepted, self.peer)

    def enter(self, called_ae_title: str, calling_ae_title: str) -> Rejection | None:
        """Ask the gate; None when it lets this association in."""
        decision = self._server.gate.admit(
            self,
            called_ae_title=called_ae_title,
            calling_ae_title=calling_ae_title,
            address=self.peer_address,
            certificate=self._certificate,
            is_tls=self._is_tls,
        )
        if isinstance(decision, Rejection):
            return decision
        self.peer = decision
        self._server.lobby.seat(self._visit)
        return None

    def give_place_back(self) -> None:
        """Take no place at the gate any more."""
        self._server.gate.give_back(self)

    def report(self, reason: str, kind: EventKind = EventKind.ASSOCIATION_ABORTED) -> None:
        """Tell the node's sink what happened to this association; `reason` holds nothing that the peer has sent."""
        self._server.sink(
            SecurityEvent(
                kind=kind,
                reason=reason,
                address=self.peer_address,
                calling_ae_title="" if self.peer is None else self.peer.calling_ae_title,
                called_ae_title="" if self.peer is None else self.peer.called_ae_title,
                subject="" if self._certificate is None else self._certificate.subject,
                is_tls=self._is_tls,
            )
        )

    def hang_up(self) -> None:
        """Close the connection, whatever is under way."""
        self._visit.hang_up()

    def run_reactor(self) -> None:
        """Serve until the association ends, and leave nothing behind: no place, no thread, no file."""
        try:
            super().run_reactor()
        except Exception as error:
            _log.error("association failed", peer_address=self.peer_address, exc_info=error)
            self.abort()
        finally:
            self.give_place_back()
            self.dul.kill_dul()
            self.hang_up()
            if self.dul.is_alive():
                self.dul.join(timeout=2 * self.read_limit_s)
            self.dul.socket.close_for_good()
            self.dimse.discard_all()
            self._server.forget(self)
            self._server.lobby.leave(self._visit)

    def _bind_defaults(self) -> None:
        # Without the notification handlers: they would format every PDU for a log that is switched off.
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))

    def _serve_request(self, msg: Request, context_id: int) -> None:
        try:
            if isinstance(msg, Reception):
                self._respond(msg.command, context_id, self._server.handlers.on_c_store(msg))
                self.pace.stored(time.monotonic())
            elif isinstance(msg, Gathering):
                self._respond(msg.command, context_id, msg.answer(self._server.handlers.notify))
            elif self.peer is not None:
                self._respond(msg, context_id, self._server.handlers.on_c_echo(self.peer))
        except Exception as error:
            # For example a peer that announced a maximum length too small for any answer.
            _log.error("answer failed", peer_address=self.peer_address, exc_info=error)
            self.abort()
        finally:
            self.dul.restart_idle_timer()

    def _respond(self, command: Command, context_id: int, answer: Answer) -> None:
        if self.is_established:
            self.dimse.answer(context_id, encode_response(command, answer.status, answer.comment))
