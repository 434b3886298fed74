"""Lets the kernel begin to write what a file has got so far; a hint, and nothing depends on it.

Without it the kernel waits for the fsync with everything, and the sender waits for the whole disk's work at once.
Only on Linux: `sync_file_range` is in no module of Python's.
"""

import ctypes

_WRITE = 2
"""SYNC_FILE_RANGE_WRITE: begin with what is dirty and wait for nothing."""

_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def begin_writing(descriptor: int, start: int, count: int) -> None:
    """Begin with `count` bytes from `start` on; what goes wrong with them is told by the fsync that must follow."""
    if _sync_file_range is not None:
        _sync_file_range(descriptor, start, count, _WRITE)
