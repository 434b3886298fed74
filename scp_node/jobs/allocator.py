"""How glibc's allocator keeps memory, in a process with many threads and in one that draws pictures.

Elsewhere than with glibc nothing of this has an effect.
"""

import contextlib
import ctypes
from collections.abc import Mapping
from types import MappingProxyType

_M_ARENA_MAX = -8
"""glibc's malloc.h."""

FOR_CHILDREN: Mapping[str, str] = MappingProxyType(
    {"MALLOC_MMAP_THRESHOLD_": str(2**27), "MALLOC_TRIM_THRESHOLD_": str(2**28)}
)
"""Variables for the children: memory of pictures is used again for the next ones. Given back to the system and fetched
anew for each, it costs an analysis 18,000 page faults; the peak is the same."""


def share_arenas() -> None:
    """Let all threads of this process share two arenas.

    With an arena for each of its threads, up to eight for each core, a node keeps what they have freed: memory that
    rises for hours, and is given back by none.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
