"""What a child process answers about one instance: plain values, and their JSON."""

from dataclasses import asdict, dataclass
from typing import Any

from scp_node.jobs.records import PredictionRecord
from scp_node.jobs.states import DeadLetterReason
from scp_node.records import ResultKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFile:
    """One result object, already durable in the spool; ``file`` is its relative name there."""

    kind: ResultKind
    model: str | None
    group: str
    rank: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    file: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysed:
    """The models ran and the results are written.

    Parameters
    ----------
    window_center, window_width
        In modality values; None for a VOI LUT.
    """

    predictions: tuple[PredictionRecord, ...]
    window_source: str
    window_center: float | None
    window_width: float | None
    window_function: str
    notes: tuple[str, ...]
    duration_s: float
    results: tuple[ResultFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotEligible:
    """The instance is not to be judged; reason as in ``inference.records.Reason``."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hopeless:
    """A repeat would end the same way; ``causes``: the errors behind it, the last one to happen first."""

    reason: DeadLetterReason
    detail: str
    causes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NotNow:
    """A repeat may succeed: the disk is full, or the models failed.

    Parameters
    ----------
    delay_s
        Until it is made; None: as long as for a full disk.
    is_counted
        Whether the processes that have ended on it so far count on.
    """

    detail: str
    delay_s: float | None = None
    is_counted: bool = False


Summary = Analysed | NotEligible | Hopeless | NotNow

_KINDS: dict[str, type[Summary]] = {kind.__name__: kind for kind in (Analysed, NotEligible, Hopeless, NotNow)}


def to_json(summary: Summary) -> dict[str, Any]:
    """Return a JSON-able object that ``from_json`` understands."""
    return {"kind": type(summary).__name__, **asdict(summary)}


def from_json(value: dict[str, Any]) -> Summary:
    """Return the summary that was sent.

    Raises
    ------
    KeyError, TypeError, ValueError
        It is none.
    """
    fields = dict(value)
    kind = _KINDS[fields.pop("kind")]
    if kind is Analysed:
        fields["predictions"] = tuple(PredictionRecord(**one) for one in fields["predictions"])
        fields["results"] = tuple(ResultFile(**{**one, "kind": ResultKind(one["kind"])}) for one in fields["results"])
        fields["notes"] = tuple(fields["notes"])
    if kind is Hopeless:
        fields["reason"] = DeadLetterReason(fields["reason"])
        fields["causes"] = tuple(fields.get("causes", ()))
    return kind(**fields)
