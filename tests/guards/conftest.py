"""Costs that a machine's load cannot change much: calls, bytes, statements; ratios where only time tells.

Noise only ever adds. So a cost is measured until it is within its bound, a few times at most: a machine that is busy
passes late, and code that costs more never passes.
"""

from collections.abc import Callable

import pytest

ATTEMPTS = 12


@pytest.fixture
def within() -> Callable[..., None]:
    """Measures a cost until it is within its bound."""

    def check(measure: Callable[[], float], *, measured: float, headroom: float = 1.25) -> None:
        bound = measured * headroom
        found = []
        while len(found) < ATTEMPTS:
            found.append(measure())
            if found[-1] <= bound:
                return
        pytest.fail(f"{min(found):.4g} at best of {len(found)} attempts; it was {measured:g}, {bound:.4g} is allowed")

    return check
