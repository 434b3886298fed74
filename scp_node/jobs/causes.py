"""The errors behind an error, for an operator: kinds and places, and words only where they are this project's own."""

import traceback
from pathlib import Path

from inference.errors import InferenceError
from scp_node.errors import NodeError

_DEEPEST = 8
_FRAMES = 3


def causes_of(error: BaseException) -> tuple[str, ...]:
    """Return one sentence for an error and for each that led to it, the last one to happen first.

    A library's message may quote a value of the Data Set, so kind and place stand for it.
    """
    found: list[str] = []
    present: BaseException | None = error
    while present is not None and len(found) < _DEEPEST:
        found.append(_sentence(present))
        present = present.__cause__ or (None if present.__suppress_context__ else present.__context__)
    return tuple(found)


def place_of(error: BaseException) -> str:
    """Return where an error was raised, innermost first: ``reader.py:12 in read < source.py:40 in open``."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in reversed(frames))


def _sentence(error: BaseException) -> str:
    words = f": {error}" if isinstance(error, InferenceError | NodeError) else ""
    return f"{type(error).__name__}{words} (at {place_of(error)})"
