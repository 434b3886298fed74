"""Counts the open associations: lets in whom `callers` lets in, up to the limit, until the node stops."""

import threading

import structlog

from config.receiver import ReceiverSettings
from scp_node.scp.callers import Peer, Rejection, decide

_log = structlog.get_logger(__name__)


class Gate:
    """One per acceptor process; called by the threads of all associations.

    A connection counts from its A-ASSOCIATE-RQ on: one that only connects takes no place from anybody.
    """

    def __init__(self, settings: ReceiverSettings) -> None:
        self._settings = settings
        self._inside: set[object] = set()
        self._is_draining = False
        self._changed = threading.Condition()

    def admit(
        self, association: object, *, called_ae_title: str, calling_ae_title: str, address: str
    ) -> Peer | Rejection:
        """Decide about an A-ASSOCIATE-RQ; who is let in counts until `leave`."""
        decision = decide(
            self._settings, called_ae_title=called_ae_title, calling_ae_title=calling_ae_title, address=address
        )
        if isinstance(decision, Peer):
            with self._changed:
                if self._is_draining:
                    decision = Rejection.STOPPING
                elif len(self._inside) >= self._settings.maximum_associations:
                    decision = Rejection.LOCAL_LIMIT
                else:
                    self._inside.add(association)
        if isinstance(decision, Rejection):
            _log.warning(
                "association rejected",
                rule=decision.value,
                calling_ae_title=calling_ae_title,
                called_ae_title=called_ae_title,
                peer_address=address,
            )
        else:
            _log.info("association accepted", calling_ae_title=calling_ae_title, peer_address=address)
        return decision

    def leave(self, association: object) -> None:
        """Forget an association; no error when it was never let in."""
        with self._changed:
            self._inside.discard(association)
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
            return self._changed.wait_for(lambda: not self._inside, timeout_s)
