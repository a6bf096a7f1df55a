"""Whether two models could have changed places: the paired permutation test."""

from typing import NamedTuple

import numpy as np

from hf_ext.evaluation.metric_sums import Sums, metric_blocks
from hf_ext.evaluation.predictions import Predictions
from hf_ext.evaluation.significance import CELLS_AT_ONCE, check_same_questions

# Two differences that only rounding tells apart are equal.
ROUNDING = 1e-12


class Permutation(NamedTuple):
    """A difference, its two-sided p value, and whether all exchanges were looked at."""

    value: float
    p: float
    exact: bool


def paired_permutation(
    a: Predictions, b: Predictions, num_permutations: int = 10_000, seed: int = 0
) -> dict[str, Permutation]:
    """
    Tests the differences of two models' metrics by exchanging their answers on random rows (Yeh 2000, "approximate
    randomisation").

    If it made no difference which of the two models gave an answer, every exchange of answers, row by row, would have
    been as likely as what was seen; p is the share of exchanges with a difference at least as large, to either side.
    With few rows of different answers, all exchanges are looked at; otherwise `num_permutations` random ones, and p is
    (k + 1) / (n + 1) (Phipson & Smyth 2010), which is never 0. Of accuracy (subset accuracy of several labels) this is
    McNemar's test.

    It asks more than [`paired_bootstrap`]: that the models are exchangeable. Two regressions on different scales are
    not, and nor are two classifiers that are equally accurate but unequally sure, for scores of their probabilities.

    Args:
        a, b ([`Predictions`]): Labelled, of the same rows and classes.
        num_permutations (`int`, *optional*, defaults to `10000`): Random exchanges; up to so many, all are looked at.
        seed (`int`, *optional*, defaults to `0`): Of the exchanges.

    Returns:
        `dict[str, Permutation]`: Metric -> `(value, p, exact)`, the value being `a` minus `b`; for the metrics of
        [`metric_intervals`] but Spearman's correlation. p is NaN where the difference is undefined, and an exchange
        that makes it undefined counts as a larger one.

    Raises:
        `ValueError`: If the problem types, the classes or the labels differ.
    """
    check_same_questions(a, b)
    found = {}
    for counts, (first, second) in metric_blocks([a, b]):
        for mine, theirs in zip(first, second, strict=True):
            if isinstance(mine, Sums):
                found |= _exchange(counts, mine, theirs, num_permutations, seed)
    return found


# ---- Inside ----


def _exchange(counts: np.ndarray, a: Sums, b: Sums, num_permutations: int, seed: int) -> dict[str, Permutation]:
    total_a, total_b = a.totals(counts[None]), b.totals(counts[None])
    change = b.statistics - a.statistics
    different = np.flatnonzero(abs(change).sum(axis=1))
    counts, change = counts[different], Sums(change[different], a.metrics)

    def differences(weights):
        """With `weights` rows of each kind exchanged."""
        moved = change.totals(weights)
        mine, theirs = a.metrics(total_a + moved), b.metrics(total_b - moved)
        return {name: mine[name] - theirs[name] for name in mine}

    observed = {name: float(values[0]) for name, values in differences(np.zeros((1, len(counts)))).items()}
    if np.log1p(counts).sum() <= np.log(num_permutations):
        weights, probabilities = _all_exchanges(counts)
        extreme = _as_extreme(differences(weights), observed)
        shares = {name: float(min(1.0, probabilities[rows].sum())) for name, rows in extreme.items()}
        exact = True
    else:
        shares = {
            name: (k + 1) / (num_permutations + 1)
            for name, k in _count(counts, differences, observed, num_permutations, seed).items()
        }
        exact = False
    return {
        name: Permutation(value, float("nan") if np.isnan(value) else shares[name], exact)
        for name, value in observed.items()
    }


def _all_exchanges(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every number of rows of each kind that can be exchanged, and its probability if a coin decides on each row."""
    from scipy.stats import binom

    weights, probabilities = np.zeros((1, 0), dtype=np.int64), np.ones(1)
    for count in counts:
        taken = np.arange(count + 1)
        weights = np.hstack([np.repeat(weights, len(taken), axis=0), np.tile(taken, len(weights))[:, None]])
        probabilities = np.outer(probabilities, binom.pmf(taken, count, 0.5)).ravel()
    return weights, probabilities


def _count(counts, differences, observed, num_permutations: int, seed: int) -> dict[str, int]:
    """How many of the random exchanges make a difference at least as large."""
    generator = np.random.default_rng(seed)
    larger, done = dict.fromkeys(observed, 0), 0
    while done < num_permutations:
        size = min(num_permutations - done, max(1, CELLS_AT_ONCE // len(counts)))
        for name, rows in _as_extreme(differences(_coins(generator, counts, size)), observed).items():
            larger[name] += int(rows.sum())
        done += size
    return larger


def _coins(generator: np.random.Generator, counts: np.ndarray, size: int) -> np.ndarray:
    if counts.max() > 1:
        return generator.binomial(counts, 0.5, size=(size, len(counts)))
    bits = np.frombuffer(generator.bytes(size * (len(counts) // 8 + 1)), dtype=np.uint8).reshape(size, -1)
    return np.unpackbits(bits, axis=1)[:, : len(counts)]


def _as_extreme(differences: dict[str, np.ndarray], observed: dict[str, float]) -> dict[str, np.ndarray]:
    return {
        name: ~(np.abs(values) < abs(observed[name]) * (1 - ROUNDING) - ROUNDING)
        for name, values in differences.items()
    }
