"""Metrics as functions of how often each row occurs, so that thousands of resamples cost a few matrix products."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from hf_ext.evaluation.predictions import Predictions
from hf_ext.problem_types import MULTI_LABEL, REGRESSION

SumMetrics = Callable[[np.ndarray], dict[str, np.ndarray]]
Values = dict[str, np.ndarray]
NUM_BINS = 15
# The largest whole number up to which float32 counts without a gap.
MAX_FLOAT32_COUNT = 2**24


@dataclass(frozen=True, eq=False)
class Sums:
    """
    Metrics that are functions of sums over rows.

    Args:
        statistics (`np.ndarray` or sparse array of shape `(kinds, statistics)`): What a row of each kind adds.
        metrics (`Callable`): From sums of shape `(resamples, statistics)` to arrays of shape `(resamples,)`.
    """

    statistics: Any
    metrics: SumMetrics

    def __call__(self, weights: np.ndarray) -> Values:
        return self.metrics(self.totals(weights))

    def totals(self, weights: np.ndarray) -> np.ndarray:
        """Sums of shape `(resamples, statistics)` for weights of shape `(resamples, kinds)`."""
        return np.asarray(weights.astype(self.statistics.dtype) @ self.statistics, dtype=np.float64)


class CalibrationSums(Sums):
    """[`Sums`] of which the first [`NUM_BINS`] make up the expected calibration error, and that error by bin."""

    def by_bin(self, weights: np.ndarray) -> Values:
        sums = self.totals(weights)
        return {"ece": sums[:, :NUM_BINS] / sums[:, -1:], **_means(sums[:, NUM_BINS:], ("nll", "brier"))}


@dataclass(frozen=True, eq=False)
class Ranks:
    """
    Spearman's correlation: Pearson's of the ranks that the rows have within a resample, ties sharing their mean rank.

    Args:
        labels, predictions (`np.ndarray` of shape `(rows,)`): True and predicted values.
    """

    labels: np.ndarray
    predictions: np.ndarray

    def __call__(self, weights: np.ndarray) -> Values:
        (by_label, labels_tie), (by_prediction, predictions_tie) = map(_in_order, (self.labels, self.predictions))
        place_by_label = np.argsort(by_label)
        moved = place_by_label[by_prediction]
        covariance, spread = np.empty((2, len(weights)))
        # One resample at a time: its arrays stay in the cache.
        for index, weight in enumerate(weights):
            weight = weight.astype(np.float64).take(by_label)
            true, true_spread = _mid_ranks(weight, labels_tie)
            weight = weight.take(moved)
            predicted, predicted_spread = _mid_ranks(weight, predictions_tie)
            covariance[index] = (weight * true.take(moved)) @ predicted
            spread[index] = true_spread * predicted_spread
        return {"spearman": _ratio(covariance, np.sqrt(spread))}


class Block(NamedTuple):
    """Rows of each kind, and for each model what depends on how often the kinds occur: [`Sums`] or [`Ranks`]."""

    counts: np.ndarray
    models: list[list[Sums | Ranks]]


def metric_blocks(models: Sequence[Predictions]) -> list[Block]:
    """
    The metrics of models on the same rows, in the blocks in which they are resampled.

    Args:
        models (`Sequence[Predictions]`): Labelled, of the same rows and classes.

    Returns:
        `list[Block]`
    """
    labels, each = models[0].labels, np.ones(len(models[0].labels), dtype=np.int64)
    if models[0].problem_type == REGRESSION:
        # One centre for all: what the models answered can then be exchanged between them.
        centre = np.mean([model.predictions for model in models])
        parts = [
            [
                Sums(_regression_sums(labels, model.predictions, centre), _regression_from_sums),
                Ranks(labels, model.predictions),
            ]
            for model in models
        ]
        return [Block(each, parts)]
    if models[0].problem_type == MULTI_LABEL:
        parts = [
            [
                Sums(_multi_label_sums(model), partial(_multi_label_from_sums, classes=len(model.label_names))),
                Sums(_multi_label_means(model), partial(_means, names=("f1_samples", "nll", "brier"))),
            ]
            for model in models
        ]
        return [Block(each, parts)]
    calibration = [[CalibrationSums(_calibration_sums(model), _calibration_from_sums)] for model in models]
    return [_confusion_block(models), Block(each, calibration)]


def values_of(parts: Sequence[Sums | Ranks], weights: np.ndarray) -> Values:
    """All metrics of one model of a [`Block`], for weights of shape `(resamples, kinds)`."""
    return {name: values for part in parts for name, values in part(weights).items()}


def values_and_bins_of(parts: Sequence[Sums | Ranks], weights: np.ndarray) -> Values:
    """As [`values_of`], but `ece` of shape `(resamples, bins)`: what right answers exceed confidence by in each bin."""
    found: Values = {}
    for part in parts:
        found |= part.by_bin(weights) if isinstance(part, CalibrationSums) else part(weights)
    return found


# ---- Inside: what a row adds ----


def _confusion_block(models: Sequence[Predictions]) -> Block:
    """Rows with the same label and the same answers are of one kind; the most frequent kind first."""
    from scipy.sparse import csr_array

    classes = len(models[0].label_names)
    answers = np.stack([models[0].labels, *(model.predictions for model in models)], axis=1)
    kinds, counts = np.unique(answers, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    true, *predicted = kinds[order].T
    rows = np.arange(len(true))
    parts = []
    for answer in predicted:
        right = np.flatnonzero(true == answer)
        # Hits, true rows and predicted rows of each class: three ones a kind at most, however many classes there are.
        columns = np.concatenate([true[right], classes + true, 2 * classes + answer])
        places = (np.concatenate([right, rows, rows]), columns)
        ones = csr_array((np.ones(len(columns)), places), shape=(len(rows), 3 * classes))
        parts.append([Sums(ones, partial(_single_label_from_sums, classes=classes))])
    return Block(counts[order], parts)


def _calibration_sums(model: Predictions) -> np.ndarray:
    confidence = model.probabilities.max(axis=1)
    # The class that the confidence speaks of, whatever was decided.
    right = model.probabilities.argmax(axis=1) == model.labels
    bins = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    rows = np.arange(len(bins))
    sums = np.zeros((len(bins), NUM_BINS + 3))
    sums[rows, bins] = right - confidence
    truth = model.probabilities[rows, model.labels]
    sums[:, -3] = _nll(truth)
    sums[:, -2] = (model.probabilities**2).sum(axis=1) - 2 * truth + 1
    sums[:, -1] = 1
    return sums


def _multi_label_sums(model: Predictions) -> np.ndarray:
    labels, predictions = model.labels.astype(np.int8), model.predictions.astype(np.int8)
    right = (labels == predictions).all(axis=1, keepdims=True)
    exact = np.float32 if len(labels) < MAX_FLOAT32_COUNT else np.float64
    return np.hstack([np.ones_like(right), right, labels * predictions, labels, predictions]).astype(exact)


def _multi_label_means(model: Predictions) -> np.ndarray:
    labels, predictions, p = model.labels.astype(np.int64), model.predictions, model.probabilities
    both = (labels + predictions).sum(axis=1)
    f1 = 2 * (labels * predictions).sum(axis=1) / np.maximum(both, 1)
    nll = _nll(np.where(labels == 1, p, 1 - p)).mean(axis=1)
    return np.stack([f1, nll, ((p - labels) ** 2).mean(axis=1), np.ones(len(p))], axis=1)


def _regression_sums(labels: np.ndarray, predictions: np.ndarray, centre: float) -> np.ndarray:
    y, p = np.asarray(labels, float), np.asarray(predictions, float)
    error, y, p = y - p, y - y.mean(), p - centre  # centred: sums of squares of large values lose the digits
    return np.stack([np.ones_like(y), y, p, y * y, p * p, y * p, np.abs(error), error * error], axis=1)


def _nll(of_truth: np.ndarray) -> np.ndarray:
    return -np.log(np.maximum(of_truth, np.finfo(np.float64).tiny))


def _in_order(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The rows from the least value to the greatest, and where each value begins among them (`None` without ties)."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    return order, None if len(starts) == len(values) else starts


def _mid_ranks(weight: np.ndarray, starts: np.ndarray | None) -> tuple[np.ndarray, float]:
    """Ranks less their mean, of rows in order that occur so often; and their sum of squares, each as often as it is."""
    rows = weight.sum()
    each = weight if starts is None else np.add.reduceat(weight, starts)
    ranks = np.cumsum(each) - (each + rows) / 2
    # The squares of n ranks sum to (n^3 - n) / 12, less (t^3 - t) / 12 for t ranks that share their mean.
    squares = (rows * rows * rows - (each * each) @ each) / 12
    return ranks if starts is None else np.repeat(ranks, np.diff(starts, append=len(weight))), squares


# ---- Inside: the metrics as functions of sums, many resamples at a time ----


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """NaN where there is nothing to divide by."""
    return np.divide(above, below, out=np.full_like(below, np.nan), where=below > 0)


def _means(sums: np.ndarray, names: Sequence[str]) -> Values:
    return {name: sums[:, i] / sums[:, -1] for i, name in enumerate(names)}


def _macro_scores(hits, true, predicted):
    """F1, precision and recall, averaged over the classes that occur; a class without predictions has precision 0."""
    occurs = (true + predicted) > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.where(occurs, 2 * hits / (true + predicted), 0.0)
        precision = np.where(predicted > 0, hits / predicted, 0.0)
        recall = np.where(true > 0, hits / true, 0.0)
    return f1, precision, recall, occurs


def _single_label_from_sums(sums: np.ndarray, classes: int) -> Values:
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


def _multi_label_from_sums(sums: np.ndarray, classes: int) -> Values:
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


def _regression_from_sums(sums: np.ndarray) -> Values:
    n, y, p, yy, pp, yp, absolute, squared = sums.T
    # A constant has no variance but that of rounding.
    variance_y, variance_p = (
        np.where(spread > 1e-12 * squares, spread, 0.0)
        for spread, squares in ((yy - y * y / n, yy), (pp - p * p / n, pp))
    )
    return {
        "mse": squared / n,
        "rmse": np.sqrt(squared / n),
        "mae": absolute / n,
        "r2": 1 - _ratio(squared, variance_y),
        "pearson": _ratio(yp - y * p / n, np.sqrt(variance_y * variance_p)),
    }


def _calibration_from_sums(sums: np.ndarray) -> Values:
    return {"ece": np.abs(sums[:, :NUM_BINS]).sum(axis=1) / sums[:, -1], **_means(sums[:, NUM_BINS:], ("nll", "brier"))}
