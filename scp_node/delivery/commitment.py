"""Storage Commitment as SCU: asks a peer to take responsibility for what it stored (PS3.4 Annex J, Push Model)."""

import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from config.destinations import DicomDestination
from scp_node.delivery.association import NoAssociationError, open_association
from scp_node.delivery.statuses import Status
from scp_node.errors import NodeError

SOP_CLASS = str(StorageCommitmentPushModel)
SOP_INSTANCE = str(StorageCommitmentPushModelInstance)

_REQUEST = 1
"""Action Type ID, PS3.4 J.3.2.1."""
_ALL_COMMITTED, _SOME_FAILED = 1, 2
"""Event Type IDs, PS3.4 J.3.3.1."""
_LINGER_S = 2.0
"""Peers that report on the same association do so at once; an association held open is one that others wait for."""


class ReportError(NodeError):
    """A report that cannot be read, or is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """What an N-EVENT-REPORT says.

    Parameters
    ----------
    committed
        SOP Instance UIDs that the peer took responsibility for.
    failed
        SOP Instance UIDs that it did not, each with its Failure Reason (0008,1197).
    """

    transaction_uid: str
    committed: tuple[str, ...]
    failed: tuple[tuple[str, int], ...]


class Asked(Enum):
    """What became of a request."""

    TAKEN = "taken"
    """The peer took it, or did not answer: a report may come."""
    DECLINED = "declined"
    """The peer offers no Storage Commitment, or refused the request."""
    UNREACHED = "unreached"
    """There was no association."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOutcome:
    """What became of a request, and in a sentence why it was not taken."""

    asked: Asked
    detail: str = ""


OnReport = Callable[[CommitmentReport], bool]
"""Makes a report durable; False when it is about no transaction of this node."""


def ask(
    objects: Sequence[tuple[str, str]],
    destination: DicomDestination,
    *,
    calling_ae_title: str,
    transaction_uid: str,
    on_report: OnReport,
) -> AskOutcome:
    """Request commitment by N-ACTION, and take the report if it comes on the same association soon.

    Parameters
    ----------
    objects
        Pairs of SOP Class UID and SOP Instance UID.
    """
    reported = threading.Event()

    def on_event(event: evt.Event) -> tuple[int, None]:
        try:
            report = read_report(int(event.event_type), event.event_information)
            status = Status.SUCCESS if on_report(report) else Status.INVALID_ARGUMENT_VALUE
        except ReportError:
            status = Status.INVALID_ARGUMENT_VALUE
        except Exception:  # whatever it is, the peer must hear that it was not taken
            status = Status.PROCESSING_FAILURE
        reported.set()
        return int(status), None

    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = [_reference(*item) for item in objects]
    proposed = [(SOP_CLASS, str(syntax)) for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)]
    title = destination.ae_title
    try:
        with open_association(
            destination, calling_ae_title, proposed, [(evt.EVT_N_EVENT_REPORT, on_event)]
        ) as association:
            if not association.is_established or not association.accepted_contexts:
                return AskOutcome(asked=Asked.DECLINED, detail=f"{title} accepts no Storage Commitment")
            answer, _ = association.send_n_action(request, _REQUEST, SOP_CLASS, SOP_INSTANCE)
            if "Status" not in answer:
                # It may have been taken all the same: who waits for the report loses nothing.
                return AskOutcome(asked=Asked.TAKEN, detail=f"{title} did not answer the request for commitment")
            if int(answer.Status) != Status.SUCCESS:
                detail = f"{title} answered 0x{int(answer.Status):04X} to the request for commitment"
                return AskOutcome(asked=Asked.DECLINED, detail=detail)
            reported.wait(_LINGER_S)
    except NoAssociationError as error:
        return AskOutcome(asked=Asked.UNREACHED, detail=str(error))
    return AskOutcome(asked=Asked.TAKEN)


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def decode_report(event_type_id: int, content: bytes, transfer_syntax_uid: str) -> CommitmentReport:
    """Read a report from the bytes of its Data Set.

    Raises
    ------
    ReportError
    """
    syntax = UID(transfer_syntax_uid)
    try:
        dataset = read_dataset(
            io.BytesIO(content),
            is_implicit_VR=syntax == ImplicitVRLittleEndian,
            is_little_endian=syntax != ExplicitVRBigEndian,
        )
        return read_report(event_type_id, dataset)
    except ReportError:
        raise
    except Exception as error:  # bytes from the network: pydicom raises whatever it stumbles over
        raise ReportError(f"the report cannot be read: {type(error).__name__}") from error


def read_report(event_type_id: int, dataset: Dataset) -> CommitmentReport:
    """Read a report (PS3.4 Table J.3-2).

    Raises
    ------
    ReportError
        Another event, or no Transaction UID.
    """
    if event_type_id not in (_ALL_COMMITTED, _SOME_FAILED):
        raise ReportError(f"event type {event_type_id} is no Storage Commitment result")
    try:
        transaction_uid = str(dataset.TransactionUID)
        committed = tuple(str(item.ReferencedSOPInstanceUID) for item in dataset.get("ReferencedSOPSequence") or ())
        failed = tuple(
            (str(item.ReferencedSOPInstanceUID), int(item.get("FailureReason") or 0))
            for item in dataset.get("FailedSOPSequence") or ()
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise ReportError(f"the report is incomplete: {type(error).__name__}") from error
    return CommitmentReport(transaction_uid=transaction_uid, committed=committed, failed=failed)
