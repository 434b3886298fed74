"""What the command line and the console see of jobs; frozen, no patient data."""

from dataclasses import dataclass
from datetime import datetime
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
            "sop_instance_uid": self.sop_instance_uid,
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
    """The last word of one destination on one result object."""

    destination: str
    verdict: Verdict
    status: int | None
    detail: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRecord:
    """One result object and what the destinations made of it."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    kind: ResultKind
    model: str | None
    file: Path
    sha256: str
    size_bytes: int
    confirmations: tuple[ConfirmationRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictRecord:
    """Another object that came under the same SOP Instance UID; kept aside."""

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
    """

    instance: InstanceRecord
    file: Path
    sha256: str
    size_bytes: int
    transfer_syntax_uid: str
    called_ae_title: str
    job_id: str
    crashes: int
    analysed_at: datetime | None
    duration_s: float | None
    window: str
    notes: tuple[str, ...]
    predictions: tuple[PredictionRecord, ...]
    results: tuple[ResultRecord, ...]
    conflicts: tuple[ConflictRecord, ...]
