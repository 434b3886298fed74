"""What the sections of the settings are made of: the base class and the types that several of them use."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

AeTitle = Annotated[
    str, Field(min_length=1, max_length=16, pattern=r"^[\x20-\x5b\x5d-\x7e]*[\x21-\x5b\x5d-\x7e][\x20-\x5b\x5d-\x7e]*$")
]
"""PS3.5 6.2, VR AE: at most 16 characters, no backslash, not only blanks."""
Port = Annotated[int, Field(ge=1, le=65535)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
"""Names that become folders, queue names and labels."""
PlainText = Annotated[str, Field(max_length=64, pattern=r"^[\x20-\x5b\x5d-\x7e]*$")]
"""PS3.5 6.2, VR LO, in ASCII: results keep their source's character set, so own text must be valid in every one."""
CodeText = Annotated[
    str,
    Field(pattern=r"^[\x21-\x2b\x2d-\x5b\x5d-\x7e]{1,16},[A-Za-z0-9_]{1,16},[\x20-\x5b\x5d-\x7e]{1,64}$"),
]
"""A coded concept: ``value,scheme,meaning``."""


def _hexadecimal(fingerprint: str) -> str:
    return fingerprint.replace(":", "").lower()


Fingerprint = Annotated[str, Field(pattern=r"^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$"), AfterValidator(_hexadecimal)]
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
