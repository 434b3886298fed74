"""Counts the open associations: lets in whom `callers` lets in, up to the limits, until the node stops."""

import threading

import structlog

from config.receiver import ReceiverSettings
from scp_node.scp.callers import Peer, Rejection, decide
from scp_node.security.certificates import Certificate
from scp_node.security.events import EventKind, SecurityEvent, Sink

_log = structlog.get_logger(__name__)


class Gate:
    """One per acceptor process; called by the threads of all associations.

    A connection counts from its A-ASSOCIATE-RQ on: one that only connects takes no place from anybody.

    Parameters
    ----------
    sink
        Told of every rejection.
    """

    def __init__(self, settings: ReceiverSettings, sink: Sink) -> None:
        self._settings = settings
        self._sink = sink
        self._inside: dict[object, Peer] = {}
        self._ending: set[object] = set()
        self._is_draining = False
        self._changed = threading.Condition()

    def apply(self, settings: ReceiverSettings) -> None:
        """Decide by other callers and limits from now on; who is inside stays."""
        self._settings = settings

    def admit(
        self,
        association: object,
        *,
        called_ae_title: str,
        calling_ae_title: str,
        address: str,
        certificate: Certificate | None = None,
        is_tls: bool = False,
    ) -> Peer | Rejection:
        """Decide about an A-ASSOCIATE-RQ; who is let in counts until `give_back` or `leave`."""
        settings = self._settings
        decision = decide(
            settings,
            called_ae_title=called_ae_title,
            calling_ae_title=calling_ae_title,
            address=address,
            certificate=certificate,
        )
        if isinstance(decision, Peer):
            with self._changed:
                limit = self._limit_reached(settings, decision)
                if limit is None:
                    self._inside[association] = decision
                else:
                    decision = limit
        if isinstance(decision, Rejection):
            self._sink(
                SecurityEvent(
                    kind=EventKind.LIMIT_REACHED if decision.is_limit else EventKind.ASSOCIATION_REJECTED,
                    reason=decision.value,
                    calling_ae_title=calling_ae_title.strip(),
                    called_ae_title=called_ae_title.strip(),
                    address=address,
                    subject="" if certificate is None else certificate.subject,
                    is_tls=is_tls,
                )
            )
        else:
            _log.info("association accepted", calling_ae_title=calling_ae_title, peer_address=address, is_tls=is_tls)
        return decision

    def give_back(self, association: object) -> None:
        """Count an association no more that has ended, while its connection is still taken down; as `leave`.

        To be called before its peer hears that it is released: one that may have a single association comes again at
        once.
        """
        with self._changed:
            if self._inside.pop(association, None) is not None:
                self._ending.add(association)

    def leave(self, association: object) -> None:
        """Forget an association; no error when it was never let in."""
        with self._changed:
            self._inside.pop(association, None)
            self._ending.discard(association)
            self._changed.notify_all()

    def contains(self, association: object) -> bool:
        """Whether an association was let in and has not left."""
        with self._changed:
            return association in self._inside

    def drain(self) -> None:
        """Let nobody in any more."""
        with self._changed:
            self._is_draining = True

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Wait until all have left; False when that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._inside and not self._ending, timeout_s)

    def _limit_reached(self, settings: ReceiverSettings, peer: Peer) -> Rejection | None:
        if self._is_draining:
            return Rejection.STOPPING
        if len(self._inside) >= settings.maximum_associations:
            return Rejection.LOCAL_LIMIT
        inside = self._inside.values()
        of_address = sum(other.address == peer.address for other in inside)
        if 0 < settings.maximum_associations_per_address <= of_address:
            return Rejection.ADDRESS_LIMIT
        of_title = sum(other.calling_ae_title == peer.calling_ae_title for other in inside)
        if 0 < settings.maximum_associations_per_title <= of_title:
            return Rejection.TITLE_LIMIT
        return None
