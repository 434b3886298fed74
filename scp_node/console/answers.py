"""What the JSON API answers with; the shapes that stand in its OpenAPI document."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from scp_node.jobs.records import ConfirmationRecord, DeliveryRecord, InstanceRecord, PredictionRecord
from scp_node.records import ResultKind


class Listed(BaseModel):
    """One instance of the worklist."""

    instance: InstanceRecord
    predictions: tuple[PredictionRecord, ...]


class InstanceList(BaseModel):
    """One page; ``next_after`` asks for the one that follows, null: this was the last."""

    entries: list[Listed]
    next_after: int | None


class Result(BaseModel):
    """One result object and what the destinations made of it."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    kind: ResultKind
    model: str | None
    size_bytes: int
    confirmations: tuple[ConfirmationRecord, ...]


class Details(BaseModel):
    """All that is known of one instance."""

    instance: InstanceRecord
    sha256: str
    size_bytes: int
    transfer_syntax_uid: str
    called_ae_title: str
    analysed_at: datetime | None
    duration_s: float | None
    window: str
    notes: tuple[str, ...]
    predictions: tuple[PredictionRecord, ...]
    results: list[Result]
    deliveries: tuple[DeliveryRecord, ...]


class Happened(BaseModel):
    """One record of the trace."""

    id: int
    at: datetime
    event: str
    detail: dict[str, Any]


class Reached(BaseModel):
    """Whether a destination answers."""

    is_reachable: bool
    detail: str
    duration_s: float


class Model(BaseModel):
    """A model that is in use."""

    name: str
    title: str
    version: str
    architecture: str
    threshold: float
    site_threshold: float | None
    rule: str
    preprocessing: str
    weights_sha256: str
    training_data: str
    created: str


class Queues(BaseModel):
    """What waits, and where."""

    instances: dict[str, int]
    deliveries: dict[str, dict[str, int]]
    oldest_waiting_s: float | None


class Storage(BaseModel):
    """What is kept and how much room there is."""

    free_bytes: int
    minimum_free_bytes: int
    received_bytes: int
    retention_days: float
