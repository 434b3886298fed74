"""Deterministic UIDs: the same analysis has the same UIDs for ever, any other analysis has others."""

import uuid
from functools import cache
from importlib import metadata

NAMESPACE = uuid.UUID("4d0c1c1b-5d8e-5b0e-9d7a-6f1c5a0e2b61")
"""Of this product, for ever: another one would orphan every result that was ever sent."""

ENCODER_VERSION = "4"
"""Of this package. Raise it whenever pixels, text or structure of an object change for the same analysis: an archive
keeps the first object of a UID and drops the second."""

PRODUCT = "scp-node"


def uid(*parts: str) -> str:
    """A UUID-derived UID (PS3.5 B.2) of named parts.

    Parameters
    ----------
    parts
        What distinguishes the object; the order counts.

    Returns
    -------
    ``2.25.`` and the UUID as a decimal number, at most 44 characters.
    """
    # A length before each part keeps ("a|b", "c") and ("a", "b|c") apart.
    name = "|".join(f"{len(part)}:{part}" for part in parts)
    return f"2.25.{uuid.uuid5(NAMESPACE, name).int}"


def device_uid(weights_sha256: str) -> str:
    """Device UID (0018,1002) of a model: the same weights are the same device everywhere."""
    return uid("device", weights_sha256)


@cache
def software_version() -> str:
    """Version of this distribution, ``0.1.0``."""
    return metadata.version(PRODUCT)
