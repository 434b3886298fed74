"""The trace: what happened to every instance, one record per event, written with the change that it records.

Records are only ever added. They outlive the rows and files that they speak of, and hold no patient data beyond UIDs.
The audit trail of PS3.15 A.5 (`scp_node.audit`) is another thing: it tells other systems who did what, as it happens.

`sealing` makes changes of them evident.
"""

import json
import platform
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from scp_node.jobs.acting import actor
from scp_node.jobs.tables import sent_uid, trace

if TYPE_CHECKING:
    from scp_node.jobs.summary import Analysed

_READ_AT_ONCE = 1000

_LIBRARIES = ("scp-node", "torch", "torchvision", "numpy", "opencv-python-headless", "pydicom", "pillow")
"""Distributions that a probability or a result may depend on."""


class Event(StrEnum):
    """What a record speaks of."""

    RECEIVED = "received"
    DUPLICATE = "duplicate"
    """The same object again; acknowledged, nothing made of it."""
    CONFLICT = "conflict"
    """Other bytes under a known UID; kept aside."""
    OWN_RESULT = "own_result"
    """A result of this node that came back; acknowledged and dropped."""
    ANALYSED = "analysed"
    """The models ran: what they said, what they are, what was made of it."""
    NOT_ELIGIBLE = "not_eligible"
    GIVEN_UP = "given_up"
    """A dead letter, with its reason."""
    ACKNOWLEDGED = "acknowledged"
    """A destination answered for one result object."""
    DELIVERY_ENDED = "delivery_ended"
    """A destination has all that it takes, or its delivery was given up."""
    COMMITTED = "committed"
    """A destination took responsibility for result objects (PS3.4 J), or declined to."""
    RETRIED = "retried"
    """An operator took something up again."""
    CANCELLED = "cancelled"
    """An operator gave something up."""
    RESENT = "resent"
    """An operator had results sent again that were confirmed."""
    EXPORTED = "exported"
    """An operator took out a copy of what was received, or somebody one of a result."""
    SUPERSEDED = "superseded"
    """A recall: a new analysis was ordered, whose reports replace the ones there are."""
    REMOVED = "removed"
    """Rows and files are gone: by retention, or purged by an operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRecord:
    """One event.

    Parameters
    ----------
    instance_id
        Number of the instance; None where there was none.
    sop_instance_uid
        Of the received instance that it concerns; of the result, for one that came back.
    detail
        What is known beside; JSON-able.
    is_sealed
        Whether a seal covers it already.
    """

    id: int
    at: datetime
    event: Event
    instance_id: int | None
    sop_instance_uid: str
    detail: dict[str, Any]
    is_sealed: bool

    def as_json(self) -> dict[str, object]:
        """The fields of ``scp-node audit show --json``."""
        return {
            "id": self.id,
            "at": self.at.isoformat(),
            "event": self.event.value,
            "instance_id": self.instance_id,
            "sop_instance_uid": self.sop_instance_uid,
            "detail": self.detail,
            "is_sealed": self.is_sealed,
        }


def record(
    connection: sa.Connection,
    event: Event,
    sop_instance_uid: str,
    *,
    instance_id: int | None = None,
    **detail: object,
) -> None:
    """Add a record in the transaction of the change that it records.

    Who asked for the change is in it as ``by``, and as ``by_address`` from where, unless it was at this machine.

    Parameters
    ----------
    detail
        JSON-able, no patient data.
    """
    if (by := actor()) is not None:
        detail["by"] = by.name
        if by.address:
            detail["by_address"] = by.address
    connection.execute(
        _INSERT,
        {
            "at": time.time(),
            "event": event.value,
            "instance_id": instance_id,
            "sop_instance_uid": sop_instance_uid,
            "detail": json.dumps(detail, sort_keys=True, separators=(",", ":")),
        },
    )


_INSERT = sa.insert(trace)


def analysed(summary: "Analysed") -> dict[str, object]:
    """Return the detail of an `Event.ANALYSED`: all it takes to say later what was said and by what."""
    return {
        "predictions": [
            {
                "model": one.model,
                "version": one.version,
                "weights_sha256": one.weights_sha256,
                "preprocessing": one.preprocessing,
                "probability": one.probability,
                "threshold": one.threshold,
                "is_threshold_overridden": one.is_threshold_overridden,
                "is_positive": one.is_positive,
                "has_evidence": one.has_evidence,
            }
            for one in summary.predictions
        ],
        "window": [summary.window_source, summary.window_center, summary.window_width, summary.window_function],
        "notes": list(summary.notes),
        "duration_s": summary.duration_s,
        "results": [
            {"uid": one.sop_instance_uid, "kind": one.kind.value, "model": one.model, "sha256": one.sha256}
            for one in summary.results
        ],
        "software": software(),
    }


@cache
def software() -> dict[str, str]:
    """Versions of Python and of the libraries in use; a CPU may do without PyTorch."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def history(connection: sa.Connection, key: str) -> Iterator[TraceRecord]:
    """Yield all records about an instance, oldest first; also long after its rows and files are gone.

    Parameters
    ----------
    key
        SOP Instance UID of a received instance, or of a result of one, or the number of the instance.
    """
    if key.isdecimal() and len(key) <= 18:
        where = trace.c.instance_id == int(key)
    else:
        source = sa.select(sent_uid.c.source_sop_instance_uid).where(sent_uid.c.sop_instance_uid == key)
        where = trace.c.sop_instance_uid.in_([key, *connection.execute(source).scalars()])
    yield from records(connection, sa.select(trace).where(where).order_by(trace.c.id))


def records(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[TraceRecord]:
    """Yield the records that a query for rows of the trace finds."""
    return map(_record, connection.execute(query))


def analyses(connection: sa.Connection) -> Iterator[TraceRecord]:
    """Yield every `Event.ANALYSED` there is, oldest first, read piece by piece."""
    # The word and not a parameter: the index holds these rows only.
    query = sa.select(trace).where(sa.text("event = 'analysed'")).order_by(trace.c.id).limit(_READ_AT_ONCE)
    last = 0
    while rows := connection.execute(query.where(trace.c.id > last)).all():
        yield from map(_record, rows)
        last = rows[-1].id


def _record(row: sa.Row[Any]) -> TraceRecord:
    return TraceRecord(
        id=row.id,
        at=datetime.fromtimestamp(row.at, UTC),
        event=Event(row.event),
        instance_id=row.instance_id,
        sop_instance_uid=row.sop_instance_uid,
        detail=json.loads(row.detail),
        is_sealed=row.seal is not None,
    )
