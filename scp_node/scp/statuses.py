"""What a C-STORE is answered with: the only place with DIMSE status codes, and the only map from errors to them."""

from dataclasses import dataclass
from enum import IntEnum

from scp_node.errors import BusyError, NodeError, SpoolFullError


class Status(IntEnum):
    """Status (0000,0900) of an answer, PS3.4 Table B.2-1 and PS3.7 Annex C."""

    SUCCESS = 0x0000
    """Durable on disk and in the database."""
    INVALID_SOP_INSTANCE = 0x0117
    """The SOP Instance UID violates the rules for UIDs (PS3.7 C.5.6); the sender must not try again."""
    PROCESSING_FAILURE = 0x0110
    """Of an N-EVENT-REPORT: this node could not take it in; the peer may repeat it."""
    INVALID_ARGUMENT_VALUE = 0x0115
    """Of an N-EVENT-REPORT: it cannot be read, or is about no transaction of this node."""
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    """The SOP Class is not the one that the presentation context was accepted for."""
    STORE_OUT_OF_RESOURCES = 0xA700
    """This node cannot store it now; the sender should try again."""
    STORE_DATA_SET_MISMATCH = 0xA900
    """Command and Data Set name different SOP Classes or Instances."""
    STORE_CANNOT_UNDERSTAND = 0xC000
    """The Data Set cannot be read as what was negotiated; the sender must not try again."""


class StoreError(NodeError):
    """Root of all reasons to refuse one object. The message becomes Error Comment (0000,0902): no values in it."""


class InvalidUidError(StoreError):
    """Affected SOP Instance UID (0000,1000) is missing, or is no UID (PS3.5 9.1)."""


class SopClassError(StoreError):
    """Affected SOP Class UID (0000,0002) is missing, or is not the abstract syntax of its presentation context."""


class DataSetMismatchError(StoreError):
    """SOP Class UID (0008,0016) or SOP Instance UID (0008,0018) is missing, or differs from the command's."""


class DataSetError(StoreError):
    """The Data Set is missing, too large, or not encoded in the transfer syntax that was negotiated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a C-STORE-RSP says.

    Parameters
    ----------
    comment
        Error Comment (0000,0902), at most 64 ASCII characters; empty on success.
    """

    status: Status
    comment: str = ""


SUCCESS = Answer(status=Status.SUCCESS)

_STATUSES: tuple[tuple[type[Exception], Status], ...] = (
    (InvalidUidError, Status.INVALID_SOP_INSTANCE),
    (SopClassError, Status.SOP_CLASS_NOT_SUPPORTED),
    (DataSetMismatchError, Status.STORE_DATA_SET_MISMATCH),
    (DataSetError, Status.STORE_CANNOT_UNDERSTAND),
    (SpoolFullError, Status.STORE_OUT_OF_RESOURCES),
    (BusyError, Status.STORE_OUT_OF_RESOURCES),
)


def answer_to(error: Exception) -> Answer:
    """Return the answer to an object whose storing failed with `error`.

    What is not the object's fault (a full disk, a locked database, a defect of this node) is answered "out of
    resources": the failure of PS3.4 Table B.2-1 after which a sender keeps the object and tries again.
    """
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            comment = "no space left" if isinstance(error, SpoolFullError) else str(error)
            return Answer(status=status, comment=comment[:64])
    return Answer(status=Status.STORE_OUT_OF_RESOURCES, comment="internal error")
