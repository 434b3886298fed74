"""What the command line and the console see of jobs; frozen, no patient data."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from scp_node.records import DeliveryState, InstanceState, ResultKind, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    """Where the results of one instance stand at one destination.

    Parameters
    ----------
    attempts
        Since the delivery began or was last taken up again.
    last_error
        One sentence; empty when there was none. A delivered one may name classes that the destination does not take.
    next_attempt_at
        When it is tried again; None when final or due now.
    """

    destination: str
    state: DeliveryState
    attempts: int
    last_error: str
    next_attempt_at: datetime | None
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """One received instance.

    Parameters
    ----------
    reason
        Code of why it is not eligible or a dead letter; None otherwise.
    detail
        The same in a sentence; empty otherwise.
    """

    id: int
    sop_instance_uid: str
    study_instance_uid: str
    sop_class_uid: str
    state: InstanceState
    reason: str | None
    detail: str
    calling_ae_title: str
    peer_address: str
    received_at: datetime
    updated_at: datetime
    deliveries: tuple[DeliveryRecord, ...]

    def as_json(self) -> dict[str, object]:
        """The fields of ``scp-node jobs list --json``: names, numbers and strings only."""
        return {
            "id": self.id,
            "sop_instance_uid": self.sop_instance_uid,
            "study_instance_uid": self.study_instance_uid,
            "state": self.state.value,
            "reason": self.reason,
            "calling_ae_title": self.calling_ae_title,
            "received_at": self.received_at.isoformat(),
            "deliveries": [
                {
                    "destination": delivery.destination,
                    "state": delivery.state.value,
                    "attempts": delivery.attempts,
                    "last_error": delivery.last_error,
                }
                for delivery in self.deliveries
            ],
        }


class Finding(StrEnum):
    """What the models said of an instance together."""

    POSITIVE = "positive"
    """At least one model is at or above its threshold."""
    NEGATIVE = "negative"
    """All are below."""
    DISAGREEMENT = "disagreement"
    """Some are and some are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceFilter:
    """Which instances are asked for; all conditions must hold, and one that is not given always does.

    Parameters
    ----------
    states
        Any of these; empty: any.
    reason
        Code, as in `InstanceRecord`.
    uid_prefix
        Beginning of the SOP Instance UID or of the Study Instance UID.
    calling_ae_title
        Of the sender.
    received_from, received_before
        Aware; the first is included, the second is not.
    accession_pseudonym
        See `accession`.
    """

    states: tuple[InstanceState, ...] = ()
    reason: str | None = None
    uid_prefix: str = ""
    calling_ae_title: str | None = None
    received_from: datetime | None = None
    received_before: datetime | None = None
    finding: Finding | None = None
    accession_pseudonym: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstancePage:
    """Some instances in order.

    Parameters
    ----------
    next_after
        Ask with this as ``after`` for the page that follows; None: this was the last.
    """

    records: tuple[InstanceRecord, ...]
    next_after: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRecord:
    """What one model said."""

    model: str
    title: str
    version: str
    weights_sha256: str
    preprocessing: str
    probability: float
    threshold: float
    is_threshold_overridden: bool
    is_positive: bool
    has_evidence: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmationRecord:
    """The last word of one destination on one result object.

    Parameters
    ----------
    committed_at
        When it took responsibility for keeping it (PS3.4 J); None: not asked, or not answered.
    """

    destination: str
    verdict: Verdict
    status: int | None
    detail: str
    at: datetime
    committed_at: datetime | None = None

    @property
    def word(self) -> str:
        """The verdict, or that it is more than confirmed."""
        return "committed" if self.committed_at is not None else self.verdict.value


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRecord:
    """One result object and what the destinations made of it.

    Parameters
    ----------
    is_superseded
        A later analysis replaces it.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    kind: ResultKind
    model: str | None
    file: Path
    sha256: str
    size_bytes: int
    is_superseded: bool
    confirmations: tuple[ConfirmationRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictRecord:
    """Another object that came under the same SOP Instance UID; kept aside."""

    sop_instance_uid: str
    file: Path
    sha256: str
    calling_ae_title: str
    peer_address: str
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceDetail:
    """All that is known of one received instance.

    Parameters
    ----------
    window
        The window in use in words, ``window_attributes 2047.5/4095 LINEAR``; empty before the analysis.
    job_id
        Of the analyse job in the durable engine.
    causes
        The errors behind a dead letter, the last one to happen first.
    """

    instance: InstanceRecord
    file: Path
    sha256: str
    size_bytes: int
    transfer_syntax_uid: str
    called_ae_title: str
    job_id: str
    crashes: int
    causes: tuple[str, ...]
    analysed_at: datetime | None
    duration_s: float | None
    window: str
    notes: tuple[str, ...]
    predictions: tuple[PredictionRecord, ...]
    results: tuple[ResultRecord, ...]
    conflicts: tuple[ConflictRecord, ...]
