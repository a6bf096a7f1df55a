"""How much of a number is chance."""

from collections.abc import Callable

import numpy as np

from hf_ext.evaluation.predictions import MULTI_LABEL, REGRESSION, Predictions, confused_pairs

# Resampled row counts held at once: 16 MB.
CELLS_AT_ONCE = 2_000_000


def bootstrap_intervals(
    statistics: np.ndarray,
    counts: np.ndarray,
    metrics: Callable[[np.ndarray], dict[str, np.ndarray]],
    num_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """
    Percentile bootstrap intervals (Efron 1979) of metrics that are functions of sums over rows.

    Drawing rows with replacement and adding up their statistics is the same as drawing, from a multinomial, how often
    each kind of row occurs. So a resample costs a matrix product with the kinds of rows (for class ids: the occupied
    cells of the confusion matrix), not a pass over all rows.

    Args:
        statistics (`np.ndarray` of shape `(kinds, statistics)`): What a row of each kind adds to the sums.
        counts (`np.ndarray` of shape `(kinds,)`): Rows of each kind.
        metrics (`Callable`): From sums of shape `(resamples, statistics)` to arrays of shape `(resamples,)`.
        num_resamples (`int`, *optional*, defaults to `2000`): Resamples.
        confidence (`float`, *optional*, defaults to `0.95`): Coverage of the intervals.
        seed (`int`, *optional*, defaults to `0`): Of the resampling.

    Returns:
        `dict[str, tuple[float, float]]`: Lower and upper bound of each metric.
    """
    generator = np.random.default_rng(seed)
    rows, done, draws = counts.sum(), 0, []
    while done < num_resamples:
        size = min(num_resamples - done, max(1, CELLS_AT_ONCE // len(statistics)))
        weights = generator.multinomial(rows, counts / rows, size=size)
        draws.append(metrics(weights @ statistics))
        done += size
    tail = 100 * (1 - confidence) / 2
    intervals = {}
    for name in draws[0]:
        low, high = np.nanpercentile(np.concatenate([draw[name] for draw in draws]), [tail, 100 - tail])
        intervals[name] = (float(low), float(high))
    return intervals


def metric_intervals(predictions: Predictions, **kwargs) -> dict[str, tuple[float, float]]:
    """
    95 % bootstrap intervals over the rows of a split, for its metrics that are functions of sums.

    Args:
        predictions ([`Predictions`]): A labelled split.
        kwargs: As [`bootstrap_intervals`].

    Returns:
        `dict[str, tuple[float, float]]`
    """
    labels, decisions = predictions.labels, predictions.predictions
    if predictions.problem_type == REGRESSION:
        y, p = np.asarray(labels, float), np.asarray(decisions, float)
        error, y, p = y - p, y - y.mean(), p - p.mean()  # centred: sums of squares of large values lose the digits
        sums = np.stack([np.ones_like(y), y, p, y * y, p * p, y * p, np.abs(error), error * error], axis=1)
        return bootstrap_intervals(sums, np.ones(len(sums)), _regression_from_sums, **kwargs)
    classes = len(predictions.label_names)
    if predictions.problem_type == MULTI_LABEL:
        labels, decisions = np.asarray(labels, int), np.asarray(decisions, int)
        right = (labels == decisions).all(axis=1, keepdims=True)
        sums = np.hstack([np.ones_like(right), right, labels * decisions, labels, decisions]).astype(float)
        return bootstrap_intervals(sums, np.ones(len(sums)), lambda s: _multi_label_from_sums(s, classes), **kwargs)
    identity = np.eye(classes)
    true, predicted, counts = np.array(confused_pairs(labels, decisions, classes)).T
    hits = identity[true] * (true == predicted)[:, None]
    cells = np.hstack([hits, identity[true], identity[predicted]])
    intervals = bootstrap_intervals(cells, counts, lambda s: _single_label_from_sums(s, classes), **kwargs)
    sums = _calibration_sums(predictions)
    return {**intervals, **bootstrap_intervals(sums, np.ones(len(sums)), _ece_from_sums, **kwargs)}


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
