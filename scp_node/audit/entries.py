"""Lines of the audit trail: what stands in one, and how one names the one before it."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Self

NOTHING_BEFORE = "0" * 64
"""What the first line names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the trail.

    Parameters
    ----------
    sequence
        1, 2, 3 ... without gaps.
    previous
        SHA-256 of the line before, 64 hexadecimal digits.
    record
        Number of the record of the trace that it tells of; None: it tells of something else.
    user_action
        Number of the user's action in the node's database that it tells of; None as above.
    message
        XML of PS3.15 A.5.1.
    """

    sequence: int
    previous: str
    at: str
    record: int | None
    message: str
    user_action: int | None = None

    def to_line(self) -> bytes:
        """The entry as it is written, without the end of the line."""
        values = {
            "sequence": self.sequence,
            "previous": self.previous,
            "at": self.at,
            "record": self.record,
            **({} if self.user_action is None else {"user_action": self.user_action}),
            "message": self.message,
        }
        return json.dumps(values, ensure_ascii=False).encode()

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Read what `to_line` wrote.

        Raises
        ------
        ValueError
            It is no entry.
        """
        values: Any = json.loads(line)
        try:
            return cls(
                sequence=int(values["sequence"]),
                previous=str(values["previous"]),
                at=str(values["at"]),
                record=None if values["record"] is None else int(values["record"]),
                message=str(values["message"]),
                user_action=None if values.get("user_action") is None else int(values["user_action"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError("no entry of an audit trail") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What becomes an entry.

    Parameters
    ----------
    at
        Time of the event, ISO 8601.
    record, user_action
        See `Entry`.
    """

    at: str
    message: str
    record: int | None = None
    user_action: int | None = None


def digest(line: bytes) -> str:
    """SHA-256 of a line without its end, as the next line names it."""
    return hashlib.sha256(line).hexdigest()
