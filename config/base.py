"""What the sections of the settings are made of: the base class and the types that several of them use."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

SPELLINGS: dict[str, str] = {}
"""Each pattern that a text must have, in words: what an error message says instead of it."""


def spelled(pattern: str, words: str, **more: Any) -> Any:  # noqa: ANN401 - as pydantic's Field
    """Field of a text with a pattern that ``words`` tell, as what follows "must be"."""
    SPELLINGS[pattern] = words
    return Field(pattern=pattern, **more)


AeTitle = Annotated[
    str,
    spelled(
        r"^[\x20-\x5b\x5d-\x7e]*[\x21-\x5b\x5d-\x7e][\x20-\x5b\x5d-\x7e]*$",
        "1 to 16 ASCII characters, no backslash, not only blanks",
        min_length=1,
        max_length=16,
    ),
]
"""PS3.5 6.2, VR AE: at most 16 characters, no backslash, not only blanks."""
Port = Annotated[int, Field(ge=1, le=65535)]
Slug = Annotated[
    str,
    spelled(r"^[a-z0-9][a-z0-9_-]{0,31}$", "1 to 32 of a-z, 0-9, - and _, beginning with a letter or a digit"),
]
"""Names that become folders, queue names and labels."""
PlainText = Annotated[
    str, spelled(r"^[\x20-\x5b\x5d-\x7e]*$", "at most 64 ASCII characters, no backslash", max_length=64)
]
"""PS3.5 6.2, VR LO, in ASCII: results keep their source's character set, so own text must be valid in every one."""
CodeText = Annotated[
    str,
    spelled(
        r"^[\x21-\x2b\x2d-\x5b\x5d-\x7e]{1,16},[A-Za-z0-9_]{1,16},[\x20-\x5b\x5d-\x7e]{1,64}$",
        "a code as value,scheme,meaning in ASCII, of at most 16, 16 and 64 characters",
    ),
]
"""A coded concept: ``value,scheme,meaning``."""


def _hexadecimal(fingerprint: str) -> str:
    return fingerprint.replace(":", "").lower()


Fingerprint = Annotated[
    str,
    spelled(r"^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$", "a SHA-256 of 64 hexadecimal digits, with or without colons"),
    AfterValidator(_hexadecimal),
]
"""SHA-256 of a certificate, with or without colons as ``openssl x509 -fingerprint -sha256`` shows it; kept without."""


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Priority(StrEnum):
    """Order of analysis among waiting instances."""

    STAT = "stat"
    """Before everything else."""
    ROUTINE = "routine"
    """In order of arrival."""
