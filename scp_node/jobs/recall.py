"""Which results a model version made, and new analyses whose reports replace them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Any

import sqlalchemy as sa

from config.settings import NodeSettings
from inference.errors import CheckpointError
from inference.models.checkpoint import default_folder, read_manifests
from scp_node.errors import NodeError
from scp_node.jobs import supersession, trace
from scp_node.jobs.acting import by_operator
from scp_node.jobs.admin import Admin
from scp_node.jobs.analysis import restart_analysis
from scp_node.jobs.queues import LAST_PLACE
from scp_node.jobs.tables import instance, prediction
from scp_node.jobs.tables import trace as trace_table
from scp_node.jobs.trace import Event, TraceRecord
from scp_node.records import InstanceState

_CHUNK = 200


class RecallError(NodeError):
    """What is asked for makes no sense: no version is named, it is the one in use, or it has never said anything."""


class Standing(StrEnum):
    """What can be done about an affected result."""

    REPLACEABLE = "replaceable"
    """It is the last word on the instance, and the file is there."""
    REPLACED = "replaced"
    """A later analysis replaces it."""
    BUSY = "busy"
    """The instance is being analysed, delivered or removed: ask again later."""
    FILE_GONE = "file_gone"
    """The received file is missing from the spool."""
    REMOVED = "removed"
    """Retention or a purge has removed the instance: the radiograph has to be sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """What is recalled.

    Parameters
    ----------
    model
        Name in the catalog.
    version, weights_sha256
        One of them, or both; the digest may be given by its beginning.
    """

    model: str
    version: str | None = None
    weights_sha256: str | None = None

    def __post_init__(self) -> None:
        """Refuse to recall every version there ever was."""
        if not self.version and not self.weights_sha256:
            raise RecallError("name a version or the SHA-256 of the weights")

    def __str__(self) -> str:
        """In words."""
        version = f" {self.version}" if self.version else ""
        weights = f" (weights {self.weights_sha256})" if self.weights_sha256 else ""
        return f"{self.model}{version}{weights}"

    def covers(self, model: str, version: str, weights_sha256: str) -> bool:
        """Whether this is what is recalled."""
        return (
            model == self.model
            and self.version in (None, version)
            and weights_sha256.startswith(self.weights_sha256 or "")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """A destination's word on one result."""

    destination: str
    sop_instance_uid: str
    verdict: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """One analysis that the recalled model took part in.

    Parameters
    ----------
    results
        SOP Instance UID and kind of each object that was made.
    """

    instance_id: int
    sop_instance_uid: str
    analysed_at: datetime
    version: str
    weights_sha256: str
    probability: float
    is_positive: bool
    results: tuple[tuple[str, str], ...]
    acknowledgements: tuple[Acknowledgement, ...]
    standing: Standing

    def as_json(self) -> dict[str, object]:
        """The fields of ``scp-node recall --json``."""
        return {
            "sop_instance_uid": self.sop_instance_uid,
            "analysed_at": self.analysed_at.isoformat(),
            "version": self.version,
            "weights_sha256": self.weights_sha256,
            "probability": self.probability,
            "is_positive": self.is_positive,
            "results": [{"sop_instance_uid": uid, "kind": kind} for uid, kind in self.results],
            "acknowledgements": [
                {
                    "destination": one.destination,
                    "sop_instance_uid": one.sop_instance_uid,
                    "verdict": one.verdict,
                    "at": one.at.isoformat(),
                }
                for one in self.acknowledgements
            ],
            "standing": self.standing.value,
        }


class Recall(Admin):
    """Finds what a model version said, as long as the node exists, and has it said anew."""

    def affected(self, which: ModelVersion) -> Iterator[Affected]:
        """Every analysis that it took part in, oldest first; from the trace, so whatever retention has removed."""
        with self._engine.connect() as connection:
            analyses = (
                (record, one)
                for record in trace.analyses(connection)
                for one in record.detail["predictions"]
                if which.covers(one["model"], one["version"], one["weights_sha256"])
            )
            while chunk := list(islice(analyses, _CHUNK)):
                yield from self._affected(which, chunk)

    def require_known(self, which: ModelVersion) -> None:
        """Refuse what no analysis is by: of a name that is mistyped, "nothing" would read as "nobody is affected".

        Raises
        ------
        RecallError
            Names what the trace knows instead.
        """
        known: set[tuple[str, str, str]] = set()
        with self._engine.connect() as connection:
            for record in trace.analyses(connection):
                for one in record.detail["predictions"]:
                    if which.covers(one["model"], one["version"], one["weights_sha256"]):
                        return
                    known.add((one["model"], one["version"], one["weights_sha256"]))
        names = ", ".join(f"{model} {version} ({weights[:12]})" for model, version, weights in sorted(known))
        raise RecallError(f"no analysis by {which} in the trace; known: {names or 'none'}")

    def require_other_checkpoints(self, which: ModelVersion) -> None:
        """Refuse to replace results by the version that is recalled.

        Raises
        ------
        RecallError
            The configured checkpoints are what is recalled, or cannot be read.
        """
        if (one := _in_use(self._settings, which)) is not None:
            raise RecallError(f"{which.model} {one} is what is recalled, and is still configured: install another one")

    @by_operator
    def supersede(self, which: ModelVersion, one: Affected) -> bool:
        """Order a new analysis whose reports replace these; False when the instance is not as it was found any more."""
        with self._locked(str(one.instance_id)) as (connection, row):
            if self._standing(connection, which, row) is not Standing.REPLACEABLE:
                return False
            self._trace(
                connection,
                Event.SUPERSEDED,
                row,
                model=which.model,
                version=one.version,
                weights_sha256=one.weights_sha256,
            )
            supersession.order(connection, row)
            # After all that is new: a recall may be of thousands.
            restart_analysis(connection, self._jobs, row, self._settings.analysis.models, place=LAST_PLACE)
        return True

    def _affected(self, which: ModelVersion, chunk: Sequence[tuple[TraceRecord, dict[str, Any]]]) -> Iterator[Affected]:
        ids = {record.instance_id for record, _ in chunk}
        with self._engine.connect() as connection:
            rows = {row.id: row for row in connection.execute(sa.select(instance).where(instance.c.id.in_(ids)))}
            words = _acknowledgements(connection, ids)
            last = _last_analyses(connection, ids)
            for record, one in chunk:
                assert record.instance_id is not None  # noqa: S101 - an analysis is always of an instance
                results = tuple((made["uid"], made["kind"]) for made in record.detail["results"])
                made_here = {uid for uid, _ in results}
                row = rows.get(record.instance_id)
                if row is None:
                    standing = Standing.REMOVED
                elif last[record.instance_id] != record.id:
                    standing = Standing.REPLACED
                else:
                    standing = self._standing(connection, which, row)
                yield Affected(
                    instance_id=record.instance_id,
                    sop_instance_uid=record.sop_instance_uid,
                    analysed_at=record.at,
                    version=one["version"],
                    weights_sha256=one["weights_sha256"],
                    probability=one["probability"],
                    is_positive=one["is_positive"],
                    results=results,
                    acknowledgements=tuple(
                        word for word in words.get(record.instance_id, ()) if word.sop_instance_uid in made_here
                    ),
                    standing=standing,
                )

    def _standing(self, connection: sa.Connection, which: ModelVersion, row: sa.Row[Any]) -> Standing:
        """What can be done about the last analysis of an instance."""
        if row.removal is not None or not InstanceState(row.state).is_final or row.analysed_at is None:
            return Standing.BUSY
        said = connection.execute(sa.select(prediction).where(prediction.c.instance_id == row.id)).all()
        if not any(which.covers(one.model, one.version, one.weights_sha256) for one in said):
            return Standing.REPLACED
        return Standing.REPLACEABLE if self._path(row.file).exists() else Standing.FILE_GONE


def _in_use(settings: NodeSettings, which: ModelVersion) -> str | None:
    folder = settings.analysis.checkpoints or default_folder()
    try:
        manifests = read_manifests(folder, settings.analysis.models)
    except CheckpointError as error:
        raise RecallError(str(error)) from error
    return next((one.version for one in manifests if which.covers(one.name, one.version, one.weights_sha256)), None)


def _acknowledgements(connection: sa.Connection, ids: set[int | None]) -> dict[int, list[Acknowledgement]]:
    query = (
        sa.select(trace_table)
        .where(trace_table.c.instance_id.in_(ids), trace_table.c.event == Event.ACKNOWLEDGED.value)
        .order_by(trace_table.c.id)
    )
    found: dict[int, list[Acknowledgement]] = {}
    for record in trace.records(connection, query):
        assert record.instance_id is not None  # noqa: S101 - asked for by number
        found.setdefault(record.instance_id, []).append(
            Acknowledgement(
                destination=record.detail["destination"],
                sop_instance_uid=record.detail["uid"],
                verdict=record.detail["verdict"],
                at=record.at,
            )
        )
    return found


def _last_analyses(connection: sa.Connection, ids: set[int | None]) -> dict[int, int]:
    query = (
        sa.select(trace_table.c.instance_id, sa.func.max(trace_table.c.id))
        .where(trace_table.c.instance_id.in_(ids), trace_table.c.event == Event.ANALYSED.value)
        .group_by(trace_table.c.instance_id)
    )
    return {int(number): int(last) for number, last in connection.execute(query)}
