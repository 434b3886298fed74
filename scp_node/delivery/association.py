"""Opens associations to peers, and says in one sentence why there is none."""

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from config.destinations import DicomDestination
from scp_node import implementation
from scp_node.delivery.serving import Serving
from scp_node.delivery.transmission import PDV_HEADER_BYTES, set_up
from scp_node.delivery.waiting import Waiting
from scp_node.delivery.wire import MAXIMUM_PDU_BYTES, Wire
from scp_node.errors import NodeError
from scp_node.security.certificates import CredentialsError
from scp_node.security.contexts import ClientContext, client_context

_LAST_WORDS_S = 5.0
"""For an A-ABORT on its way out, and for an answer that is being made."""


class _Requestor(AE):  # type: ignore[misc]  # pynetdicom is untyped here
    """An AE that lets go of its socket."""

    raw: socket.socket | None = None
    tls: ClientContext | None = None
    association: Association | None = None

    def _create_socket(self, association: Association, address: Any, tls_args: Any) -> Wire:  # noqa: ANN401 - as pynetdicom has it
        self.association = association
        # A process that ends waits for no peer.
        association.dul.daemon = True
        wrapped = Wire(association, address=address)
        wrapped.tls_args = tls_args
        self.raw = wrapped.socket
        # Nagle together with delayed acknowledgement costs 40 ms per message.
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return wrapped

    def close(self) -> None:
        """Close the socket; pynetdicom forgets to when a peer refuses or hangs up: outages have many such."""
        if self.association is not None:
            self.association.dul.kill_dul()
        if self.raw is not None:
            # Who still reads or writes is woken by it.
            with contextlib.suppress(OSError):
                self.raw.shutdown(socket.SHUT_RDWR)
            self.raw.close()
        if self.tls is not None:
            self.tls.close()

    @property
    def tls_failure(self) -> str:
        """Why there is no TLS with the peer; empty while nothing went wrong with it."""
        return "" if self.tls is None else self.tls.failure


class NoAssociationError(NodeError):
    """The peer cannot be reached or does not open an association; the message is for an operator.

    Parameters
    ----------
    is_present
        Something at that address speaks DICOM: it rejected, or began and aborted. Another kind of association may
        still be welcome.
    """

    def __init__(self, message: str, *, is_present: bool = False) -> None:
        super().__init__(message)
        self.is_present = is_present


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """An association and what is to be closed with it."""

    association: Association
    requestor: _Requestor
    with_it: tuple[socket.socket | Waiting, ...] = ()
    serving: Serving | None = None

    @property
    def is_usable(self) -> bool:
        """Whether the peer has not ended it."""
        return bool(self.association.is_established and self.association.dul.is_alive())

    def close(self) -> None:
        """Release the association and let go of its socket."""
        if self.serving is not None:
            self.serving.wait(_LAST_WORDS_S)
        if self.association.is_established:
            self.association.release()
        # The thread that reads and writes ends first, then its socket; a second close does no harm.
        if self.association.dul.is_alive():
            self.association.dul.join(timeout=_LAST_WORDS_S)
        self.requestor.close()
        for one in self.with_it:
            one.close()


@contextlib.contextmanager
def open_association(
    destination: DicomDestination,
    calling_ae_title: str,
    proposed: Sequence[tuple[str, str]],
    handlers: Sequence[tuple[Any, Any]] = (),
) -> Iterator[Association]:
    """Open an association as ``connect`` does, and release it at the end."""
    connection = connect(destination, calling_ae_title, proposed, handlers)
    try:
        yield connection.association
    finally:
        connection.close()


def connect(
    destination: DicomDestination,
    calling_ae_title: str,
    proposed: Sequence[tuple[str, str]],
    handlers: Sequence[tuple[Any, Any]] = (),
) -> Connection:
    """Open an association, or raise NoAssociationError.

    An association for which the peer accepts none of the contexts is returned too, not established: the peer has said
    what it takes.

    Each SOP Class with each transfer syntax is a context of its own: in one context with several syntaxes the peer
    would choose one of them, and the others could not be used.
    """
    ae = _Requestor(ae_title=calling_ae_title)
    ae.implementation_class_uid = implementation.CLASS_UID
    ae.implementation_version_name = implementation.version_name()
    ae.connection_timeout = destination.timeout_s
    ae.acse_timeout = destination.timeout_s
    ae.dimse_timeout = destination.timeout_s
    ae.network_timeout = destination.timeout_s
    contexts: list[PresentationContext] = [build_context(sop_class, syntax) for sop_class, syntax in proposed]
    is_connected = False

    def on_open(_event: evt.Event) -> None:
        nonlocal is_connected
        is_connected = True

    where = f"{destination.ae_title} at {destination.host}:{destination.port}"
    tls_arguments: tuple[ClientContext, str] | None = None
    if destination.tls:
        try:
            tls_arguments = client_context(destination)
        except CredentialsError as error:
            raise NoAssociationError(f"no TLS to {where}: {error}") from error
        ae.tls = tls_arguments[0]
    started = time.monotonic()
    try:
        association = ae.associate(
            destination.host,
            destination.port,
            contexts=contexts,
            ae_title=destination.ae_title,
            max_pdu=MAXIMUM_PDU_BYTES,
            evt_handlers=[(evt.EVT_CONN_OPEN, on_open), *handlers],
            tls_args=tls_arguments,
        )
    except (OSError, UnicodeError) as error:  # the name has no address, or is none
        ae.close()
        why = getattr(error, "strerror", None) or "not a name"
        raise NoAssociationError(f"no connection to {where}: {why}") from error
    except BaseException:  # no more threads, say: what has begun must not stay
        ae.close()
        raise
    with_it: list[socket.socket | Waiting] = []
    serving: Serving | None = None
    if association.is_established:
        # Accepted, and not said in which syntax: nothing can be sent in it, and pynetdicom stumbles over it.
        usable = {number: one for number, one in association._accepted_cx.items() if one.transfer_syntax}
        association._accepted_cx = usable
        with_it += set_up(association, ae.raw, destination.timeout_s)
        # Without handlers too: a peer may send a report where none is expected.
        serving = Serving(association)
        if not handlers:
            with_it.append(Waiting(association))
    connection = Connection(association=association, requestor=ae, with_it=tuple(with_it), serving=serving)
    took_s = time.monotonic() - started
    failure = _failure(connection, destination, is_connected=is_connected, took_s=took_s)
    if failure is not None:
        connection.close()
        raise failure
    return connection


def _failure(
    connection: Connection, destination: DicomDestination, *, is_connected: bool, took_s: float
) -> NoAssociationError | None:
    """Say why there is no association; None when there is one."""
    association = connection.association
    where = f"{destination.ae_title} at {destination.host}:{destination.port}"
    if association.is_rejected:
        answer = association.acceptor.primitive
        # Rejections called permanent are no different here: who rejects today may be configured tomorrow.
        return NoAssociationError(
            f"{where} rejected the association ({answer.result_str}, {answer.source_str}: {answer.reason_str})",
            is_present=True,
        )
    if association.is_established and 0 < (association.acceptor.maximum_length or 0) <= PDV_HEADER_BYTES:
        return NoAssociationError(f"{where} takes no message: its maximum length is too small", is_present=True)
    # A peer that accepts no context at all has said what it takes: nothing. pynetdicom ends that association.
    if association.is_established or association.rejected_contexts:
        return None
    is_silent = took_s >= destination.timeout_s
    if tls_failure := connection.requestor.tls_failure:
        # Of a peer that shows another certificate nothing is known, so it is not there.
        return NoAssociationError(f"no TLS with {where}: {tls_failure}")
    if is_connected:
        what = f"not answered within {destination.timeout_s:g} s" if is_silent else "aborted"
        why = f"connected, then the association was {what}"
    elif is_silent:
        why = f"no answer to connecting within {destination.timeout_s:g} s"
    else:
        why = "connection refused"
    return NoAssociationError(f"no association with {where}: {why}", is_present=is_connected and not is_silent)
