"""How a probability and its threshold are written: with as many digits as it takes not to contradict the verdict."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

DECIMALS = 4
"""Of a threshold at least."""
_MOST_DIGITS = 15
"""Behind the point of a fraction; of a percentage two less, for Decimal String holds 16 characters (PS3.5 6.2)."""


def agreeing(
    probability: float, threshold: float, *, is_positive: bool, decimals: int = DECIMALS, in_percent: bool = False
) -> tuple[str, str]:
    """Write both, as short as the verdict allows: who compares them finds it, however close they are.

    Parameters
    ----------
    decimals
        Of the probability at least; the threshold has four or as many as the probability.
    """
    shift = 2 if in_percent else 0
    # The digits that distinguish two floats keep their order; products with 100 may be equal.
    exact = [Decimal(repr(float(value))).scaleb(shift) for value in (probability, threshold)]
    most = _MOST_DIGITS - shift
    for digits in range(decimals, most + 1):
        shown = f"{exact[0]:.{digits}f}", f"{exact[1]:.{max(digits, DECIMALS)}f}"
        if (Decimal(shown[0]) >= Decimal(shown[1])) == is_positive:
            return shown
    # Only a probability below its threshold gets here: they round to the same, and so are rounded apart.
    last = Decimal(1).scaleb(-most)
    return f"{exact[0].quantize(last, ROUND_FLOOR):f}", f"{exact[1].quantize(last, ROUND_CEILING):f}"
