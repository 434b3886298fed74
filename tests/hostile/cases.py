"""What a hostile or odd object is, and what must become of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from scp_node.demo.phantoms import uid

CR = "1.2.840.10008.5.1.4.1.1.1"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What must happen.

    Parameters
    ----------
    answer
        Status of the C-STORE as four hexadecimal digits; ``refused``: the context is not accepted; ``aborted``.
    state, reason
        Of the instance; empty when there must be none.
    """

    answer: str = "0000"
    state: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.answer, self.state, f"({self.reason})" if self.reason else "")))


DELIVERED = Expected(state="delivered")
UNREADABLE = Expected(state="dead_letter", reason="unreadable")


def not_eligible(reason: str) -> Expected:
    """The instance is stored and not judged."""
    return Expected(state="not_eligible", reason=reason)


def refused(answer: str) -> Expected:
    """Nothing is stored."""
    return Expected(answer=answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One object as it goes over the wire.

    Parameters
    ----------
    name
        ``group/what``; unique.
    content
        The Data Set in its transfer syntax; None: the command announces none.
    instance
        Affected SOP Instance UID of the command; None: there is none.
    same_as
        Cases of one such name must get the same probability, within `tolerance`.
    identity
        Tag -> value as it stands in the object; every result must have the same bytes.
    fragments
        PDUs that its Data Set is cut into; 0: as few as possible.
    """

    name: str
    content: bytes | None
    expected: Expected
    transfer_syntax: str = EXPLICIT_LITTLE
    sop_class: str = CR
    command_class: str | None = None
    instance: str | None = ""
    same_as: str = ""
    tolerance: float = 0.0
    identity: Mapping[int, bytes] = field(default_factory=lambda: MappingProxyType({}))
    fragments: int = 0

    @property
    def sop_instance_uid(self) -> str:
        """What the command names."""
        return instance_of(self.name) if self.instance == "" else self.instance or ""


def instance_of(name: str) -> str:
    """Return the SOP Instance UID of a case, unless the case is about that."""
    return uid("hostile", name, "instance")
