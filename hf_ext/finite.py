"""Whether a value that somebody else computed is a number to go on with."""

import math
from numbers import Real


def is_finite_number(value: object) -> bool:
    """
    Whether a value can be compared, weighed and logged.

    Args:
        value (`object`): Anything.

    Returns:
        `bool`: Neither for NaN and infinity nor for a `bool`; also for NumPy's numbers.
    """
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
