"""Values that pass between the parts of the node; frozen, no behaviour beyond checks."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from config.base import Priority


class InstanceState(StrEnum):
    """Where one received instance stands; every acknowledged instance ends in one of the last three."""

    RECEIVED = "received"
    """Durable on disk and in the database; waits for analysis."""
    ANALYSING = "analysing"
    """A child process works on it."""
    DELIVERING = "delivering"
    """Results exist; at least one delivery is not final."""
    DELIVERED = "delivered"
    """Every destination has every result that it takes."""
    NOT_ELIGIBLE = "not_eligible"
    """Received and not judged; the reason says why."""
    DEAD_LETTER = "dead_letter"
    """Given up, with a reason; an operator can read, retry and cancel it."""

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in (InstanceState.DELIVERED, InstanceState.NOT_ELIGIBLE, InstanceState.DEAD_LETTER)


class DeliveryState(StrEnum):
    """Where the results of one instance stand at one destination."""

    WAITING = "waiting"
    """Not sent yet, or to be tried again."""
    COMMITTING = "committing"
    """The destination stored every object that it takes, and was or will be asked to commit itself (PS3.4 J)."""
    DELIVERED = "delivered"
    """The destination confirmed every object that it takes."""
    COMMITTED = "committed"
    """It also took responsibility for keeping them, by Storage Commitment."""
    REFUSED = "refused"
    """Given up: the destination refuses for good, or patience ran out."""
    CANCELLED = "cancelled"
    """Given up by an operator."""

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens by itself."""
        return self not in (DeliveryState.WAITING, DeliveryState.COMMITTING)


class ResultKind(StrEnum):
    """Kinds of result objects."""

    MONTAGE = "montage"
    """Secondary Capture: the input and all models side by side."""
    SINGLE = "single"
    """Secondary Capture: one model."""
    MEASUREMENT_REPORT = "measurement_report"
    """TID 1500 SR."""
    TEXT_SUMMARY = "text_summary"
    """Basic Text SR."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedInstance:
    """One object as it arrived, still in its temporary file.

    Parameters
    ----------
    file
        Complete Part 10 file in the spool's own incoming folder, not yet synchronised to disk.
    sha256, size_bytes
        Of the Data Set bytes as they arrived, without preamble and File Meta Information.
    study_instance_uid, accession_number
        As the object begins with them; empty when it does not. The number names a patient's examination: it is never
        printed, and goes no further than the intake.
    """

    file: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    sha256: str
    size_bytes: int
    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    priority: Priority
    received_at: datetime
    study_instance_uid: str = ""
    accession_number: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who asks for something.

    Parameters
    ----------
    address
        From where; empty: at this machine.
    """

    name: str
    address: str = ""


class Intake(StrEnum):
    """What became of a received instance; every one of these is answered 0x0000."""

    FILED = "filed"
    """New: durable on disk, job committed."""
    DUPLICATE = "duplicate"
    """Same UID and same bytes as before; nothing new to do."""
    CONFLICT = "conflict"
    """Same UID, other bytes: kept aside for an operator, the first result stays."""
    OWN_RESULT = "own_result"
    """A result of this node that came back; dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One encoded result object on its way to a destination.

    Parameters
    ----------
    group
        Objects of one group are alternatives of each other: the peer gets the first (lowest rank) whose SOP Class
        it accepts.
    size_bytes
        Of the file, as it was written; None where nobody knows.
    """

    file: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    group: str
    rank: int = 0
    size_bytes: int | None = None


class Verdict(StrEnum):
    """What a destination made of one object."""

    CONFIRMED = "confirmed"
    """Stored (0x0000 or a warning, 0xBxxx)."""
    TRANSIENT = "transient"
    """Worth trying again: no connection, rejected for now, out of resources (0xA7xx)."""
    PERMANENT = "permanent"
    """Refused for good, whatever happens at the destination: 0xA9xx, 0xCxxx."""
    NOT_TAKEN = "not_taken"
    """The destination takes no objects of this class: no presentation context, or 0x0122."""
    NOT_NEEDED = "not_needed"
    """Another object of the same group was taken instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectOutcome:
    """What happened to one object in one attempt.

    Parameters
    ----------
    status
        DIMSE status of the answer; None when there was none.
    detail
        One sentence for an operator; empty when confirmed.
    is_reached
        False: there was no association, or no folder; the object had no part in the failure.
    """

    sop_instance_uid: str
    verdict: Verdict
    status: int | None
    detail: str = ""
    is_reached: bool = True
