"""N-EVENT-REPORTs (PS3.7 10.1.1): what a peer tells this node about a service that the node uses of it.

Only Storage Commitment (PS3.4 J): the report on a transaction may come on an association that the peer opens. Data Sets
are small and stay in memory; what they mean is the business of whoever is notified.
"""

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from pynetdicom.sop_class import StorageCommitmentPushModel

from scp_node.scp.callers import Peer
from scp_node.scp.messages import Command
from scp_node.scp.statuses import Answer, Status

_log = structlog.get_logger(__name__)

SERVED_CLASS = str(StorageCommitmentPushModel)

MAXIMUM_NOTICE_BYTES = 2**20
"""A report on a thousand objects has about 200 kB; this node asks about a dozen at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One complete N-EVENT-REPORT.

    Parameters
    ----------
    content
        The Data Set as it arrived, in ``transfer_syntax_uid``.
    """

    event_type_id: int
    content: bytes
    transfer_syntax_uid: str
    calling_ae_title: str
    peer_address: str


Notify = Callable[[Notice], bool]
"""Makes a notice durable before it returns; False when it concerns nothing of this node."""


class Gathering:
    """One N-EVENT-REPORT from its Command Set to its answer; the counterpart of `Reception`."""

    def __init__(self, command: Command, transfer_syntax_uid: str, peer: Peer) -> None:
        self.command = command
        self._transfer_syntax_uid = transfer_syntax_uid
        self._peer = peer
        self._content = bytearray()
        self._is_too_long = False

    def write(self, *fragments: bytes | memoryview) -> None:
        """Take the next bytes of the Data Set; of one that is too long none are kept."""
        if self._is_too_long or len(self._content) + sum(map(len, fragments)) > MAXIMUM_NOTICE_BYTES:
            self._is_too_long = True
            self._content.clear()
            return
        for fragment in fragments:
            self._content += fragment

    def discard(self) -> None:
        """Forget what has arrived."""
        self._content.clear()

    def answer(self, notify: Notify) -> Answer:
        """Hand the notice over and answer; never raises."""
        log = _log.bind(calling_ae_title=self._peer.calling_ae_title, peer_address=self._peer.address)
        if self._is_too_long or not self._content:
            log.warning("notice refused", reason="too long" if self._is_too_long else "empty")
            return Answer(status=Status.INVALID_ARGUMENT_VALUE)
        notice = Notice(
            event_type_id=self.command.event_type_id,
            content=bytes(self._content),
            transfer_syntax_uid=self._transfer_syntax_uid,
            calling_ae_title=self._peer.calling_ae_title,
            peer_address=self._peer.address,
        )
        try:
            is_ours = notify(notice)
        except Exception as error:
            # Whatever it is (the database is away), the peer must hear that this node has not taken it in.
            log.warning("notice refused", reason="internal error", exc_info=error)
            return Answer(status=Status.PROCESSING_FAILURE)
        log.info("notice taken" if is_ours else "notice of nothing known here")
        return Answer(status=Status.SUCCESS if is_ours else Status.INVALID_ARGUMENT_VALUE)
