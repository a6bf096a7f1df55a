"""Two methods that were trained several times each: the paired t test, over seeds or over folds."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# A spread below this share of the scores is what rounding leaves of none.
ROUNDING = 1e-12


class TTest(NamedTuple):
    """
    Mean of `a` minus `b`, its interval, Student's t with its degrees of freedom, and the two-sided p value; `spread` is
    whether the differences vary at all. Without spread there is nothing to judge chance by, whatever p says.
    """

    value: float
    low: float
    high: float
    t: float
    df: int
    p: float
    spread: bool


def paired_t_test(
    scores_a: Sequence[float],
    scores_b: Sequence[float],
    test_train_ratio: float = 0.0,
    confidence: float = 0.95,
) -> TTest:
    r"""
    The paired t test of two methods' scores.

    Over seeds, with one test set, the differences are independent given the data, and this is `scipy.stats.ttest_rel`.
    Over folds they are not, because the training rows of any two folds overlap: the variance of their mean comes out
    too small, and differences are found where there are none. Nadeau & Bengio (2003, section 5) therefore multiply the
    variance $s^2$ of the differences by $1/n + n_{test}/n_{train}$ instead of by $1/n$.

    Args:
        scores_a, scores_b (`Sequence[float]`): A score a run, the same seed or fold at the same place in both.
        test_train_ratio (`float`, *optional*, defaults to `0.0`):
            Rows that a fold tests on over rows that it trains on: 1/9 for ten folds. 0 for seeds.
        confidence (`float`, *optional*, defaults to `0.95`): Coverage of the interval.

    Returns:
        [`TTest`]: `(value, low, high, t, df, p, spread)`. If all pairs differ by the same amount, the interval has no
        width, and p is 0, or 1 where that amount is 0.

    Raises:
        `ValueError`: For fewer than two pairs, scores that don't pair up or are not finite, or a negative ratio.
    """
    from scipy.stats import t as student

    a, b = (np.asarray(scores, dtype=np.float64) for scores in (scores_a, scores_b))
    _check_scores(a, b, test_train_ratio)
    differences = a - b
    mean, variance, df = float(differences.mean()), float(differences.var(ddof=1)), len(a) - 1
    error = math.sqrt(variance * (1 / len(a) + test_train_ratio)) if test_train_ratio else math.sqrt(variance / len(a))
    if error == 0:
        statistic = math.copysign(math.inf, mean) if mean else 0.0
        return TTest(mean, mean, mean, statistic, df, 0.0 if mean else 1.0, False)
    statistic = mean / error
    reach = float(student.ppf((1 + confidence) / 2, df)) * error
    spread = math.sqrt(variance) > ROUNDING * float(max(np.abs(a).max(), np.abs(b).max()))
    p = float(2 * student.sf(abs(statistic), df))
    return TTest(mean, mean - reach, mean + reach, statistic, df, p, spread)


# ---- Inside ----


def _check_scores(a: np.ndarray, b: np.ndarray, test_train_ratio: float) -> None:
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(
            f"scores_a has the shape {a.shape} and scores_b {b.shape}; give one score a run, for the same runs."
        )
    if len(a) < 2:
        raise ValueError(f"A t test needs at least two runs of each; there {'is 1' if len(a) else 'are none'}.")
    for name, scores in (("scores_a", a), ("scores_b", b)):
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            raise ValueError(f"{name}[{bad[0]}] is {scores[bad[0]]}; scores must be finite numbers.")
    if not 0 <= test_train_ratio < math.inf:
        raise ValueError(f"test_train_ratio is {test_train_ratio}; it must be 0 (seeds) or rows tested / rows trained.")
