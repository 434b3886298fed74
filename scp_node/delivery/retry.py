"""When the next attempt of a delivery is due; pure: clock and randomness come from the caller."""

from collections.abc import Callable
from dataclasses import dataclass

_LARGEST_EXPONENT = 40
"""2 to this many first delays is longer than any limit; beyond, floats would overflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """Exponential back-off with jitter, up to a cap, for as long as patience lasts.

    Parameters
    ----------
    first_delay_s
        Longest wait after the first failed attempt; doubles with each further one.
    maximum_delay_s
        The cap.
    patience_s
        No attempt begins later than this after the first one began.
    """

    first_delay_s: float
    maximum_delay_s: float
    patience_s: float

    def delay_s(self, attempts: int, random: Callable[[], float]) -> float:
        """Return the wait after ``attempts`` failed attempts (1 or more).

        Parameters
        ----------
        random
            Uniform in [0, 1). Full jitter: the wait is anything up to the whole of the back-off, so that deliveries
            that failed together do not come back together.
        """
        if attempts < 1:
            raise ValueError(f"there is no wait after {attempts} attempts")
        whole = min(self.maximum_delay_s, self.first_delay_s * 2.0 ** min(attempts - 1, _LARGEST_EXPONENT))
        return whole * random()

    def next_attempt_at(
        self, *, attempts: int, first_attempt_at: float, now: float, random: Callable[[], float]
    ) -> float | None:
        """Return when the next attempt is due, in the seconds of ``now``; None when patience has run out.

        The last attempt is made right when patience ends, not up to an hour before it.
        """
        end = first_attempt_at + self.patience_s
        if now >= end:
            return None
        return min(now + self.delay_s(attempts, random), end)
