"""What this product calls itself to peers (PS3.7 D.3.3.2) and in its objects (PS3.10 7.1)."""

import re
from functools import cache
from importlib import metadata

CLASS_UID = "2.25.78184062200191411813936166433519499268"
"""Implementation Class UID: of this product, for ever."""


@cache
def version_name() -> str:
    """Implementation Version Name, at most 16 characters."""
    return ("SCPNODE_" + re.sub(r"[^0-9A-Za-z]", "_", metadata.version("scp-node")).upper())[:16]
