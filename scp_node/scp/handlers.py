"""What happens with a C-ECHO and a C-STORE: bytes to disk, a few checks, hand over, answer. Parses no pixels."""

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from config.base import Priority
from scp_node.errors import NodeError
from scp_node.records import Intake, ReceivedInstance
from scp_node.scp.callers import Peer
from scp_node.scp.messages import Command, CommandError
from scp_node.scp.notices import Notify
from scp_node.scp.part10 import Implementation, file_header, is_uid, is_urgent, read_identity
from scp_node.scp.statuses import (
    SUCCESS,
    Answer,
    DataSetError,
    DataSetMismatchError,
    InvalidUidError,
    SopClassError,
    answer_to,
)
from scp_node.spool.incoming import IncomingFile
from scp_node.spool.store import Spool

_log = structlog.get_logger(__name__)

_ENDLESS = 16
"""Times the largest object: an honest sender of one that is merely too large gets its answer."""

Accept = Callable[[ReceivedInstance], Intake]
"""Makes an instance durable, file and job, before it returns. What it raises is answered with a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedContext:
    """The presentation context that a request came in."""

    abstract_syntax_uid: str
    transfer_syntax_uid: str


class Reception:
    """One C-STORE from its Command Set to its answer; remembers the first error instead of raising it.

    A sender can only be answered when all of its Data Set has been read. After an error the rest is read and dropped.
    """

    def __init__(self, command: Command, context: AcceptedContext, peer: Peer, maximum_bytes: int) -> None:
        self.command = command
        self.context = context
        self.peer = peer
        self.error: Exception | None = None
        self.file: IncomingFile | None = None
        self.started = time.monotonic()
        self._maximum_bytes = maximum_bytes
        self._received_bytes = 0

    def write(self, *fragments: bytes | memoryview) -> None:
        """Take the next bytes of the Data Set.

        Raises
        ------
        CommandError
            It is far beyond the limit and has no end: nobody waits for the answer.
        """
        self._received_bytes += sum(map(len, fragments))
        if self._received_bytes > _ENDLESS * self._maximum_bytes:
            raise CommandError("a Data Set without end")
        if self.file is None:
            return
        try:
            self.file.write(*fragments)
        except Exception as error:
            # Whatever it is, the connection's thread must go on reading: the error becomes the answer.
            self.fail(error)
        else:
            if self.file.size_bytes > self._maximum_bytes:
                self.fail(DataSetError(f"Data Set exceeds {self._maximum_bytes} bytes"))

    def fail(self, error: Exception) -> None:
        """Remember why this object is refused, and drop what has arrived."""
        self.error = self.error or error
        self.discard()

    def discard(self) -> None:
        """Remove the temporary file; no error when it has been moved or removed already."""
        if self.file is not None:
            # A disk that fails now has nothing to add to an answer that is known; the sweeper takes what stays.
            with contextlib.suppress(OSError):
                self.file.discard()
            self.file = None


class Handlers:
    """The services of the node; one for all associations, called by their threads.

    Parameters
    ----------
    maximum_object_bytes
        Larger Data Sets are refused.
    accept, notify
        See `Accept` and `Notify`.
    refused
        Told of each answer that is a failure.
    urgent_on_request
        Whether the Command Set or the Data Set may call an instance urgent, see `config.receiver`.
    now
        The time, with a time zone.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        accept: Accept,
        implementation: Implementation,
        maximum_object_bytes: int,
        notify: Notify = lambda _notice: False,
        refused: Callable[[Answer], None] = lambda _answer: None,
        urgent_on_request: bool = True,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._spool = spool
        self._accept = accept
        self.notify = notify
        self.refused = refused
        self._implementation = implementation
        self._maximum_object_bytes = maximum_object_bytes
        self._urgent_on_request = urgent_on_request
        self._now = now

    def on_c_echo(self, peer: Peer) -> Answer:
        """Answer a C-ECHO (PS3.4 A)."""
        _log.debug("echo", calling_ae_title=peer.calling_ae_title, peer_address=peer.address)
        return SUCCESS

    def begin_c_store(self, command: Command, context: AcceptedContext, peer: Peer) -> Reception:
        """Check a C-STORE-RQ and open the file for its Data Set; never raises."""
        reception = Reception(command, context, peer, self._maximum_object_bytes)
        try:
            _check(command, context)
            reception.file = self._spool.open_incoming(
                file_header(
                    sop_class_uid=command.sop_class_uid,
                    sop_instance_uid=command.sop_instance_uid,
                    transfer_syntax_uid=context.transfer_syntax_uid,
                    calling_ae_title=peer.calling_ae_title,
                    implementation=self._implementation,
                )
            )
        except Exception as error:
            reception.fail(error)
        return reception

    def on_c_store(self, reception: Reception) -> Answer:
        """Hand a complete object over and answer (PS3.4 B.2.3); never raises, and leaves no temporary file."""
        command, peer = reception.command, reception.peer
        log = _log.bind(
            # What is no UID may be anything, a name too.
            sop_instance_uid=command.sop_instance_uid if is_uid(command.sop_instance_uid) else "no UID",
            calling_ae_title=peer.calling_ae_title,
            peer_address=peer.address,
        )
        try:
            instance = self._complete(reception)
            intake = self._accept(instance)
        except Exception as error:
            answer = answer_to(error)
            log.warning(
                "instance refused",
                status=f"{answer.status:04x}",
                comment=answer.comment,
                error=type(error).__name__,
                # Errors of our own say all there is to say.
                exc_info=None if isinstance(error, NodeError) else error,
            )
            self.refused(answer)
            return answer
        finally:
            reception.discard()
        log.log(
            # Other bytes under the same UID are set aside for a person to look at.
            logging.WARNING if intake is Intake.CONFLICT else logging.INFO,
            "instance stored",
            intake=intake.value,
            size_bytes=instance.size_bytes,
            duration_s=round(time.monotonic() - reception.started, 4),
        )
        return SUCCESS

    def _complete(self, reception: Reception) -> ReceivedInstance:
        """Close the file, compare Data Set and command, return what is known."""
        if reception.error is not None:
            raise reception.error
        command, file = reception.command, reception.file
        if file is None or file.size_bytes == 0:
            raise DataSetError("the Data Set is empty")
        file.close()
        sop_class_uid, sop_instance_uid, study_instance_uid, accession_number = read_identity(
            file.head, reception.context.transfer_syntax_uid
        )
        if sop_class_uid != command.sop_class_uid:
            raise DataSetMismatchError("SOP Class UID differs from the command's")
        if sop_instance_uid != command.sop_instance_uid:
            raise DataSetMismatchError("SOP Instance UID differs from the command's")
        return ReceivedInstance(
            file=file.path,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            study_instance_uid=study_instance_uid,
            transfer_syntax_uid=reception.context.transfer_syntax_uid,
            sha256=file.sha256,
            size_bytes=file.size_bytes,
            calling_ae_title=reception.peer.calling_ae_title,
            called_ae_title=reception.peer.called_ae_title,
            peer_address=reception.peer.address,
            priority=self._priority(reception, file.head),
            received_at=self._now(),
            accession_number=accession_number,
        )

    def _priority(self, reception: Reception, head: bytes) -> Priority:
        goes_first = self._urgent_on_request and (
            reception.command.is_urgent or is_urgent(head, reception.context.transfer_syntax_uid)
        )
        return Priority.STAT if goes_first else reception.peer.priority


def _check(command: Command, context: AcceptedContext) -> None:
    """Raise what is wrong with a request before its Data Set is looked at."""
    if not command.has_data_set:
        raise DataSetError("the request has no Data Set")
    if command.sop_class_uid != context.abstract_syntax_uid:
        raise SopClassError("Affected SOP Class is not the abstract syntax")
    if not is_uid(command.sop_instance_uid):
        raise InvalidUidError("Affected SOP Instance UID is not a UID")
