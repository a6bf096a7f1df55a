"""Whether two models are equally good, and which difference a test set could show at all."""

import math
from typing import NamedTuple

import numpy as np

SIGNIFICANCE = 0.05
POWER = 0.8


class Equivalence(NamedTuple):
    """
    Two one-sided tests that accuracies differ by less than a margin.

    Args:
        margin (`float`): As a share: 0.01 is one point.
        p_not_worse (`float`): Of the hypothesis that the first model is worse by the margin or more.
        p_not_better (`float`): Of the hypothesis that it is better by the margin or more.
    """

    margin: float
    p_not_worse: float
    p_not_better: float

    @property
    def p(self) -> float:
        """Of equivalence: the larger of the two, which needs no correction for testing twice (Schuirmann 1987)."""
        return max(self.p_not_worse, self.p_not_better)


def paired_equivalence(correct_a: np.ndarray, correct_b: np.ndarray, margin: float = 0.01) -> Equivalence:
    r"""
    TOST: are two models, on the same rows, right equally often to within a margin?

    A test that finds no difference shows nothing: few rows never find one. Here the hypothesis to refute is that the
    models differ by the margin or more. Each side is Tango's (1998) score test of a difference $\Delta$ of paired
    proportions: with $b$ and $c$ of $n$ rows that only the first, or only the second, model has right,

    $$ z(\Delta) = \frac{b - c - n \Delta}{\sqrt{n (2 \tilde q + \Delta (1 - \Delta))}} $$

    where $\tilde q$ is the likeliest share of $c$ if $\Delta$ were the difference. Unlike a t test of the differences
    (which finds any two models without discordant rows equivalent, on five rows too) it keeps its level with few
    discordant rows.

    Args:
        correct_a, correct_b (`np.ndarray` of shape `(rows,)`, bool): Which rows each model has right.
        margin (`float`, *optional*, defaults to `0.01`): The smallest difference that matters, as a share.

    Returns:
        [`Equivalence`]

    Raises:
        `ValueError`: If the shapes differ, there are no rows, or the margin is not between 0 and 1.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(
            f"correct_a has the shape {a.shape} and correct_b {b.shape}; give one bool a row, for the same rows."
        )
    if not 0 < margin < 1:
        raise ValueError(f"margin is {margin}; it must be a share between 0 and 1, such as 0.01 for one point.")
    only_a, only_b, rows = int((a & ~b).sum()), int((b & ~a).sum()), len(a)
    return Equivalence(
        margin,
        _upper_tail(_score(only_a, only_b, rows, -margin)),
        _upper_tail(_score(only_b, only_a, rows, -margin)),
    )


def detectable_difference(
    rows: int, discordance: float, power: float = POWER, significance: float = SIGNIFICANCE
) -> float | None:
    r"""
    The smallest difference in accuracy that McNemar's test would find on so many rows, four times in five.

    Connor (1987) gives the number of rows for a difference $\delta$ when a share $\psi$ of them is discordant:
    $n \delta^2 = (z_{1 - \alpha / 2} \sqrt{\psi} + z_{power} \sqrt{\psi - \delta^2})^2$. This is its solution for
    $\delta$. A difference needs at least as many discordant rows: where $\psi$ is below $\delta$, it is solved with
    $\psi = \delta$. And the exact test finds nothing on fewer than 6 rows that all go one way (at 0.05), so that no
    answer is below $6 / n$.

    Args:
        rows (`int`): Rows to be tested on.
        discordance (`float`): Share of rows that one model has right and the other wrong, as seen or expected.
        power (`float`, *optional*, defaults to `0.8`): How often the difference is to be found.
        significance (`float`, *optional*, defaults to `0.05`): Level of the two-sided test.

    Returns:
        `float`, *optional*: As a share; `None` where even 1 (all rows right against none) would not show.

    Raises:
        `ValueError`: If `rows` is below 1 or `discordance` is no share.
    """
    from scipy.stats import norm

    if rows < 1 or not 0 <= discordance <= 1:
        raise ValueError(f"rows is {rows} and discordance {discordance}; give at least one row, and a share of them.")
    alpha, beta = norm.isf(significance / 2), norm.ppf(power)
    room = rows + beta**2 - alpha**2
    if rows <= alpha**2:
        return None
    found = math.sqrt(discordance) * (math.sqrt(rows) * alpha + beta * math.sqrt(room)) / (rows + beta**2)
    if found >= discordance:
        # With as few discordant rows as there can be: n d = (alpha + beta sqrt(1 - d))^2.
        root = (math.sqrt((alpha * beta) ** 2 + (rows + beta**2) * (rows - alpha**2)) - alpha * beta) / (rows + beta**2)
        found = 1 - root**2
    fewest = math.ceil(math.log2(2 / significance) - 1e-9)
    found = max(found, fewest / rows)
    return float(found) if found <= 1 else None


def detectable_from_interval(low: float, high: float, power: float = POWER, confidence: float = 0.95) -> float | None:
    r"""
    The smallest difference of any metric that so many rows would show four times in five, from the interval of the one
    that was seen: $(z_{1 - \alpha / 2} + z_{power})$ standard errors, of which the interval is $2 z_{1 - \alpha / 2}$
    wide.

    Args:
        low, high (`float`): The interval.
        power (`float`, *optional*, defaults to `0.8`): How often the difference is to be found.
        confidence (`float`, *optional*, defaults to `0.95`): Coverage of the interval.

    Returns:
        `float`, *optional*: `None` where the interval is undefined.
    """
    from scipy.stats import norm

    alpha = norm.ppf((1 + confidence) / 2)
    reach = (alpha + norm.ppf(power)) * (high - low) / (2 * alpha)
    return float(reach) if math.isfinite(reach) else None


# ---- Inside ----


def _score(only_a: int, only_b: int, rows: int, difference: float) -> float:
    """Tango's z for the hypothesis that `a` minus `b` is `difference`."""
    linear = (2 * rows - only_a + only_b) * difference - only_a - only_b
    constant = -only_b * difference * (1 - difference)
    share = (math.sqrt(linear**2 - 8 * rows * constant) - linear) / (4 * rows)
    variance = rows * (2 * share + difference * (1 - difference))
    return (only_a - only_b - rows * difference) / math.sqrt(variance)


def _upper_tail(z: float) -> float:
    from scipy.stats import norm

    return float(norm.sf(z))
