"""Values of this package."""

from collections.abc import Callable
from dataclasses import dataclass

from scp_node.records import ObjectOutcome, Outgoing

Report = Callable[[ObjectOutcome], None]
IsWanted = Callable[[Outgoing], bool]
"""Asked right before an object is sent: whether nobody else has brought it, or one of its group, meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoOutcome:
    """Whether a destination answers.

    Parameters
    ----------
    is_reachable
        It answered with success.
    is_present
        There was some answer, if only a rejection: a delivery may fare better than the question did.
    detail
        One sentence: what it answered, or why there was no answer.
    """

    is_reachable: bool
    is_present: bool
    duration_s: float
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextOutcome:
    """Whether a destination takes objects of one SOP Class in one transfer syntax."""

    sop_class_uid: str
    transfer_syntax_uid: str
    is_accepted: bool
