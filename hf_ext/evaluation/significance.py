"""How much of a number is chance."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from hf_ext.evaluation.predictions import MULTI_LABEL, REGRESSION, Predictions

SumMetrics = Callable[[np.ndarray], dict[str, np.ndarray]]
# Resampled row counts held at once: 16 MB.
CELLS_AT_ONCE = 2_000_000


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

    Drawing rows with replacement and adding up their statistics is the same as drawing, from a multinomial, how often
    each kind of row occurs. So a resample costs a matrix product with the kinds of rows (for class ids: the occupied
    cells of the confusion matrix), not a pass over all rows.

    Args:
        statistics (`np.ndarray` of shape `(kinds, statistics)` or `(models, kinds, statistics)`):
            What a row of each kind adds to the sums. Several models share the rows that are drawn.
        counts (`np.ndarray` of shape `(kinds,)`): Rows of each kind.
        metrics (`Callable`):
            From sums of shape `(resamples, statistics)`, or `(models, resamples, statistics)`, to arrays of shape
            `(resamples,)`.
        num_resamples (`int`, *optional*, defaults to `2000`): Resamples.
        seed (`int`, *optional*, defaults to `0`): Of the resampling.

    Returns:
        `dict[str, np.ndarray]`: Of each metric, its `num_resamples` values.
    """
    generator = np.random.default_rng(seed)
    rows, done, draws = counts.sum(), 0, []
    while done < num_resamples:
        size = min(num_resamples - done, max(1, CELLS_AT_ONCE // len(counts)))
        weights = generator.multinomial(rows, counts / rows, size=size)
        draws.append(metrics(weights @ statistics))
        done += size
    return {name: np.concatenate([draw[name] for draw in draws]) for name in draws[0]}


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


def metric_intervals(predictions: Predictions, **kwargs) -> dict[str, tuple[float, float]]:
    """
    95 % bootstrap intervals over the rows of a split, for its metrics that are functions of sums.

    Args:
        predictions ([`Predictions`]): A labelled split.
        kwargs: As [`bootstrap_intervals`].

    Returns:
        `dict[str, tuple[float, float]]`
    """
    intervals = {}
    for (statistics,), counts, metrics in _row_statistics(predictions):
        intervals |= bootstrap_intervals(statistics, counts, metrics, **kwargs)
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
    not presume, as exchanging the models' answers row by row would, that their outputs are on one scale.

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
    same = a.problem_type == b.problem_type and a.label_names == b.label_names
    if not same or a.labels is None or not np.array_equal(a.labels, b.labels):
        raise ValueError("a and b must be labelled predictions of the same rows and classes, in the same order.")
    differences = {}
    for (first, second), counts, metrics in _row_statistics(a, b):
        # One product for each model, of equal shapes: equal predictions then differ by 0 exactly, not by rounding.
        joint, subtract = np.stack([first, second]), partial(_subtract, metrics=metrics)
        observed = subtract((counts @ joint)[:, None])
        for name, values in bootstrap_draws(joint, counts, subtract, num_resamples, seed).items():
            low, high = _percentiles(values, confidence)
            differences[name] = Difference(float(observed[name][0]), low, high, _two_sided(values))
    return differences


# ---- Inside ----


def _percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = 100 * (1 - confidence) / 2
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _two_sided(differences: np.ndarray) -> float:
    """Undefined differences (a correlation of a constant) are left out, as they are of the interval."""
    # Two equal correlations can differ by rounding, always to the same side.
    defined = np.round(differences[~np.isnan(differences)], 12)
    if not len(defined):
        return float("nan")
    shares = (1 + np.array([(defined <= 0).sum(), (defined >= 0).sum()])) / (1 + len(defined))
    return float(min(1.0, 2 * shares.min()))


def _subtract(sums: np.ndarray, metrics: SumMetrics) -> dict[str, np.ndarray]:
    first, second = metrics(sums[0]), metrics(sums[1])
    return {name: first[name] - second[name] for name in first}


def _row_statistics(*models: Predictions) -> Iterator[tuple[list[np.ndarray], np.ndarray, SumMetrics]]:
    """What a row of each kind adds to each model's sums, the rows of each kind, and the metrics from such sums."""
    labels, classes = models[0].labels, len(models[0].label_names)
    each = np.ones(len(labels))
    if models[0].problem_type == REGRESSION:
        yield [_regression_sums(labels, model.predictions) for model in models], each, _regression_from_sums
    elif models[0].problem_type == MULTI_LABEL:
        sums = [_multi_label_sums(labels, model.predictions) for model in models]
        yield sums, each, partial(_multi_label_from_sums, classes=classes)
    else:
        # Rows with the same label and the same answers are of one kind; the most frequent kind first.
        answers = np.stack([labels, *(model.predictions for model in models)], axis=1)
        kinds, counts = np.unique(answers, axis=0, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        true, *predicted = kinds[order].T
        identity = np.eye(classes)
        sums = [
            np.hstack([identity[true] * (true == answer)[:, None], identity[true], identity[answer]])
            for answer in predicted
        ]
        yield sums, counts[order], partial(_single_label_from_sums, classes=classes)
        yield [_calibration_sums(model) for model in models], each, _ece_from_sums


def _regression_sums(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    y, p = np.asarray(labels, float), np.asarray(predictions, float)
    error, y, p = y - p, y - y.mean(), p - p.mean()  # centred: sums of squares of large values lose the digits
    return np.stack([np.ones_like(y), y, p, y * y, p * p, y * p, np.abs(error), error * error], axis=1)


def _multi_label_sums(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    labels, predictions = np.asarray(labels, int), np.asarray(predictions, int)
    right = (labels == predictions).all(axis=1, keepdims=True)
    return np.hstack([np.ones_like(right), right, labels * predictions, labels, predictions]).astype(float)


# ---- Inside: the metrics as functions of sums, many resamples at a time ----


def _macro_scores(hits, true, predicted):
    """F1, precision and recall, averaged over the classes that occur; a class without predictions has precision 0."""
    occurs = (true + predicted) > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.where(occurs, 2 * hits / (true + predicted), 0.0)
        precision = np.where(predicted > 0, hits / predicted, 0.0)
        recall = np.where(true > 0, hits / true, 0.0)
    return f1, precision, recall, occurs


def _single_label_from_sums(sums: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    hits, true, predicted = (sums[:, i * classes : (i + 1) * classes] for i in range(3))
    rows = true.sum(axis=1)
    f1, precision, recall, occurs = _macro_scores(hits, true, predicted)
    correct = hits.sum(axis=1)
    covariance = correct * rows - (true * predicted).sum(axis=1)
    spread = np.sqrt((rows**2 - (predicted**2).sum(axis=1)) * (rows**2 - (true**2).sum(axis=1)))
    return {
        "accuracy": correct / rows,
        "f1_macro": f1.sum(axis=1) / occurs.sum(axis=1),
        "f1_micro": correct / rows,
        "f1_weighted": (f1 * true).sum(axis=1) / rows,
        "precision_macro": precision.sum(axis=1) / occurs.sum(axis=1),
        "recall_macro": recall.sum(axis=1) / occurs.sum(axis=1),
        "mcc": np.divide(covariance, spread, out=np.zeros_like(spread), where=spread > 0),
    }


def _multi_label_from_sums(sums: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    rows, right = sums[:, 0], sums[:, 1]
    hits, true, predicted = (sums[:, 2 + i * classes : 2 + (i + 1) * classes] for i in range(3))
    f1, precision, recall, _ = _macro_scores(hits, true, predicted)
    total_true = true.sum(axis=1)
    both = total_true + predicted.sum(axis=1)
    return {
        "subset_accuracy": right / rows,
        "f1_macro": f1.mean(axis=1),
        "f1_micro": np.divide(2 * hits.sum(axis=1), both, out=np.zeros_like(both), where=both > 0),
        "f1_weighted": np.divide((f1 * true).sum(axis=1), total_true, out=np.zeros_like(both), where=total_true > 0),
        "precision_macro": precision.mean(axis=1),
        "recall_macro": recall.mean(axis=1),
        "hamming_loss": (both - 2 * hits.sum(axis=1)) / (rows * classes),
    }


def _regression_from_sums(sums: np.ndarray) -> dict[str, np.ndarray]:
    n, y, p, yy, pp, yp, absolute, squared = sums.T
    variance_y, variance_p = yy - y * y / n, pp - p * p / n
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "mse": squared / n,
            "rmse": np.sqrt(squared / n),
            "mae": absolute / n,
            "r2": 1 - squared / variance_y,
            "pearson": (yp - y * p / n) / np.sqrt(variance_y * variance_p),
        }


def _calibration_sums(predictions: Predictions, num_bins: int = 15) -> np.ndarray:
    confidence = predictions.probabilities.max(axis=1)
    correct = predictions.predictions == predictions.labels
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    sums = np.zeros((len(bins), num_bins + 1))
    sums[np.arange(len(bins)), bins] = correct - confidence
    sums[:, -1] = 1
    return sums


def _ece_from_sums(sums: np.ndarray) -> dict[str, np.ndarray]:
    return {"ece": np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1]}
