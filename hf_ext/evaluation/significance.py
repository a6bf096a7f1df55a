"""How much of a number is chance: bootstrap intervals, and two models on the same rows."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from hf_ext.evaluation.calibration_intervals import calibration_difference, calibration_interval
from hf_ext.evaluation.metric_sums import SumMetrics, Values, metric_blocks, values_and_bins_of
from hf_ext.evaluation.predictions import Predictions

# Resampled row counts held at once: 16 MB.
CELLS_AT_ONCE = 2_000_000
# Drawing a row costs about an eighth of drawing how often a kind of row occurs.
ROWS_A_KIND = 8
# Rows drawn in one go; more do not fit into the processor's nearest memory.
DRAWS_AT_ONCE = 2**13


class Difference(NamedTuple):
    """How much higher a metric of one model is than that of another on the same rows: value, 95 % interval, p."""

    value: float
    low: float
    high: float
    p: float


class McNemar(NamedTuple):
    """A two-sided p value, and the rows that only the first or only the second model has right."""

    p: float
    only_a: int
    only_b: int


def bootstrap_draws(
    statistics: np.ndarray, counts: np.ndarray, metrics: SumMetrics, num_resamples: int = 2000, seed: int = 0
) -> dict[str, np.ndarray]:
    """
    Values of metrics that are functions of sums over rows, on rows drawn with replacement (Efron 1979).

    A resample is how often each kind of row occurs in it (for class ids: each occupied cell of the confusion matrix),
    so that it costs a product with the kinds' statistics, not a pass over all rows. Few kinds are drawn from a
    multinomial; where there are nearly as many as rows, the rows are drawn and counted, which is the same.

    Args:
        statistics (`np.ndarray` of shape `(kinds, statistics)`): What a row of each kind adds to the sums.
        counts (`np.ndarray` of shape `(kinds,)`): Rows of each kind.
        metrics (`Callable`): From sums of shape `(resamples, statistics)` to arrays of shape `(resamples,)`.
        num_resamples (`int`, *optional*, defaults to `2000`): Resamples.
        seed (`int`, *optional*, defaults to `0`): Of the resampling.

    Returns:
        `dict[str, np.ndarray]`: Of each metric, its `num_resamples` values.
    """
    return _draws(counts, lambda weights: metrics(weights @ statistics), num_resamples, seed)


def bootstrap_intervals(
    statistics: np.ndarray,
    counts: np.ndarray,
    metrics: SumMetrics,
    num_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """
    Percentile bootstrap intervals of metrics that are functions of sums over rows; see [`bootstrap_draws`].

    Args:
        statistics, counts, metrics, num_resamples, seed: As [`bootstrap_draws`].
        confidence (`float`, *optional*, defaults to `0.95`): Coverage of the intervals.

    Returns:
        `dict[str, tuple[float, float]]`: Lower and upper bound of each metric.
    """
    draws = bootstrap_draws(statistics, counts, metrics, num_resamples, seed)
    return {name: _percentiles(values, confidence) for name, values in draws.items()}


def metric_intervals(
    predictions: Predictions, num_resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """
    Percentile bootstrap intervals over the rows of a split, for all of its metrics; that of the expected calibration
    error, whose resamples are higher than it is, by [`calibration_interval`].

    Args:
        predictions ([`Predictions`]): A labelled split.
        num_resamples, confidence, seed: As [`bootstrap_intervals`].

    Returns:
        `dict[str, tuple[float, float]]`: NaN for both bounds where a metric is undefined on every resample, as the
        correlation of a constant is. Without wrong rows, or without right ones, an interval has no width: the resamples
        are all alike.
    """
    intervals = {}
    for counts, (parts,) in metric_blocks([predictions]):
        observed = values_and_bins_of(parts, counts[None])
        for name, values in _draws(counts, partial(values_and_bins_of, parts), num_resamples, seed).items():
            if name == "ece":
                intervals[name] = calibration_interval(values, observed[name][0], counts.sum(), confidence)
            else:
                intervals[name] = _percentiles(values, confidence)
    return intervals


def exact_mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> McNemar:
    """
    McNemar's test with exact binomial probabilities: are two models right equally often on the same rows?

    Only the discordant rows count, those that one model has right and the other wrong. If the models were equally
    good, each of them would go either way like a coin; p is the probability of a split at least as uneven, and 1
    where there is no such row.

    Args:
        correct_a (`np.ndarray` of shape `(rows,)`, bool): Whether the first model is right.
        correct_b (`np.ndarray` of shape `(rows,)`, bool): Whether the second is, on the same rows.

    Returns:
        [`McNemar`]: `(p, only_a, only_b)`.

    Raises:
        `ValueError`: If the shapes differ.
    """
    from scipy.stats import binom

    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(
            f"correct_a has the shape {a.shape} and correct_b {b.shape}; give one bool a row, for the same rows."
        )
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    # A fair coin's distribution is symmetric: both tails are equal, and overlap in the middle.
    p = min(1.0, 2 * float(binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))
    return McNemar(p, only_a, only_b)


def paired_bootstrap(
    a: Predictions, b: Predictions, num_resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> dict[str, Difference]:
    """
    Differences of two models' metrics, for the metrics of [`metric_intervals`], resampling rows jointly: a resample
    holds the same rows for both models, so what makes a row hard for both cancels out.

    The interval is the percentile interval of the resampled differences. The p value is two-sided, by inversion of that
    interval: twice the share of resamples on the other side of 0 (or on it), each share counted as (k + 1) / (n + 1)
    so that it is never 0 (Davison & Hinkley 1997, chapter 4). It asks whether the metric itself differs, and does
    not presume, as exchanging the models' answers row by row would, that their outputs are on one scale. Both of the
    expected calibration error are those of [`calibration_difference`].

    Args:
        a, b ([`Predictions`]): Labelled, of the same rows and classes.
        num_resamples (`int`, *optional*, defaults to `2000`): Resamples.
        confidence (`float`, *optional*, defaults to `0.95`): Coverage of the intervals.
        seed (`int`, *optional*, defaults to `0`): Of the resampling.

    Returns:
        `dict[str, Difference]`: Metric -> `a` minus `b`.

    Raises:
        `ValueError`: If the problem types, the classes or the labels differ.
    """
    check_same_questions(a, b)
    differences = {}
    for counts, (first, second) in metric_blocks([a, b]):

        def subtract(weights, first=first, second=second):
            # Products of equal shapes: equal predictions then differ by 0 exactly, not by rounding.
            mine, theirs = values_and_bins_of(first, weights), values_and_bins_of(second, weights)
            both = {"ece": np.stack([mine["ece"], theirs["ece"]], axis=1)} if "ece" in mine else {}
            return {name: mine[name] - theirs[name] for name in mine} | both

        observed = subtract(counts[None])
        for name, values in _draws(counts, subtract, num_resamples, seed).items():
            if name == "ece":
                own = observed[name][0]
                interval = calibration_difference((values[:, 0], values[:, 1]), tuple(own), counts.sum(), confidence)
                differences[name] = Difference(float(np.abs(own[0]).sum() - np.abs(own[1]).sum()), *interval)
            else:
                low, high = _percentiles(values, confidence)
                differences[name] = Difference(float(observed[name][0]), low, high, _two_sided(values))
    return differences


def holm(p_values: Sequence[float]) -> list[float]:
    """
    Holm's correction for several tests (Holm 1979): the chance of one false finding or more among them stays below the
    level that the corrected values are compared with, however the tests depend on each other.

    The smallest of n values is multiplied by n, the next by n - 1, and so on; none may be below the one before it.

    Args:
        p_values (`Sequence[float]`): One a test. A NaN tests nothing: it is not counted, and stays.

    Returns:
        `list[float]`: The corrected values, in the order given.
    """
    given = np.asarray(p_values, dtype=np.float64)
    corrected = given.copy()
    order = [index for index in np.argsort(given, kind="stable") if not np.isnan(given[index])]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(given[order] * factors))
    return corrected.tolist()


def check_same_questions(a: Predictions, b: Predictions) -> None:
    """
    Raises:
        `ValueError`: If the problem types, the classes or the labels differ.
    """
    same = a.problem_type == b.problem_type and a.label_names == b.label_names
    if not same or a.labels is None or not np.array_equal(a.labels, b.labels):
        raise ValueError("a and b must be labelled predictions of the same rows and classes, in the same order.")


# ---- Inside ----


def _draws(counts: np.ndarray, values: Callable[[np.ndarray], Values], num_resamples: int, seed: int) -> Values:
    """Of each metric, its values on `num_resamples` resamples."""
    generator = np.random.default_rng(seed)
    counts = np.asarray(counts).astype(np.int64)
    weights = _row_weights if ROWS_A_KIND * len(counts) > counts.sum() else _kind_weights
    done, draws = 0, []
    while done < num_resamples:
        size = min(num_resamples - done, max(1, CELLS_AT_ONCE // len(counts)))
        draws.append(values(weights(generator, counts, size)))
        done += size
    return {name: np.concatenate([draw[name] for draw in draws]) for name in draws[0]}


def _kind_weights(generator: np.random.Generator, counts: np.ndarray, size: int) -> np.ndarray:
    """How often each kind occurs in each of `size` resamples, `(size, kinds)`."""
    return generator.multinomial(counts.sum(), counts / counts.sum(), size=size)


def _row_weights(generator: np.random.Generator, counts: np.ndarray, size: int) -> np.ndarray:
    """The same, by drawing every row of every resample."""
    kind_of_row = None if (counts == 1).all() else np.repeat(np.arange(len(counts)), counts)
    rows, kinds = int(counts.sum()), len(counts)
    weights, at_once = np.empty((size, kinds)), max(1, DRAWS_AT_ONCE // rows)
    for begin in range(0, size, at_once):
        part = weights[begin : begin + at_once]
        # 32 bits at a time leave the generator in one order, however many resamples are drawn at once.
        drawn = generator.integers(0, rows, (len(part), rows), dtype=np.uint32)
        cells = drawn if kind_of_row is None else kind_of_row[drawn]
        if len(part) > 1:
            cells = cells + kinds * np.arange(len(part))[:, None]
        part[:] = np.bincount(cells.ravel(), minlength=part.size).reshape(part.shape)
    return weights


def _percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Undefined values (a correlation of a constant) are left out."""
    tail = 100 * (1 - confidence) / 2
    defined = values[~np.isnan(values)]
    low, high = np.percentile(defined, [tail, 100 - tail]) if len(defined) else (np.nan, np.nan)
    return float(low), float(high)


def _two_sided(differences: np.ndarray) -> float:
    """Undefined differences are left out, as they are of the interval."""
    # Two equal correlations can differ by rounding, always to the same side.
    defined = np.round(differences[~np.isnan(differences)], 12)
    if not len(defined):
        return float("nan")
    shares = (1 + np.array([(defined <= 0).sum(), (defined >= 0).sum()])) / (1 + len(defined))
    return float(min(1.0, 2 * shares.min()))
