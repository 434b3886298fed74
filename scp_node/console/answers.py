"""What the JSON API answers with; the shapes that stand in its OpenAPI document."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from scp_node.jobs.records import ConfirmationRecord, DeliveryRecord, InstanceRecord, PredictionRecord
from scp_node.records import InstanceState, ResultKind

LARGEST_ID = 2**63 - 1


class Listed(BaseModel):
    """One instance of the worklist."""

    instance: InstanceRecord
    predictions: tuple[PredictionRecord, ...]


class InstanceList(BaseModel):
    """One page; ``next_after`` asks for the one that follows, null: this was the last."""

    entries: list[Listed]
    next_after: int | None


class Search(BaseModel):
    """What instances are looked for by in a request's body, where no log sees it."""

    accession_number: Annotated[str, Field(min_length=1, max_length=64)]
    state: InstanceState | None = None
    after: Annotated[int | None, Field(ge=0, le=LARGEST_ID)] = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100


class Result(BaseModel):
    """One result object and what the destinations made of it; ``is_superseded``: by those of a later analysis."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    kind: ResultKind
    model: str | None
    size_bytes: int
    is_superseded: bool
    confirmations: tuple[ConfirmationRecord, ...]


class Details(BaseModel):
    """All that is known of one instance; ``accession_number`` is read from the received file, and gone with it."""

    instance: InstanceRecord
    sha256: str
    size_bytes: int
    transfer_syntax_uid: str
    called_ae_title: str
    accession_number: str
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
