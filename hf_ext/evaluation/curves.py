"""What probabilities are worth at every threshold: precision and recall, ROC, answers only where the model is sure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hf_ext.evaluation.predictions import Predictions
from hf_ext.problem_types import MULTI_LABEL

GRID = np.linspace(0, 1, 101)


class Points(NamedTuple):
    """A curve: `x` and `y`, arrays of shape `(points,)`."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True, eq=False)
class Ranking:
    """
    Rows in the order of their score for one class, against all others.

    Only a row of the class moves recall, so curves have their corners at the scores of those rows: what is kept is
    small where a class is rare, and nothing is approximated.

    Args:
        scores (`np.ndarray` of shape `(rows,)`): Of all rows, the lowest first.
        positives (`np.ndarray` of shape `(positives,)`): Of the rows of the class, the lowest first.
    """

    scores: np.ndarray
    positives: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, positive: np.ndarray) -> "Ranking":
        """From the `scores` of rows and whether each is `positive`, both of shape `(rows,)`."""
        return cls(np.sort(scores), np.sort(scores[positive]))

    @property
    def defined(self) -> bool:
        """Whether there are rows of the class and others; without both nothing can be told apart."""
        return 0 < len(self.positives) < len(self.scores)

    def counts(self, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        What a threshold finds.

        Args:
            thresholds (`np.ndarray`): A row is taken for one of the class if its score is at least this.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: Rows of the class that are found, and all rows taken for it.
        """
        found = len(self.positives) - np.searchsorted(self.positives, thresholds)
        return found, len(self.scores) - np.searchsorted(self.scores, thresholds)

    @property
    def average_precision(self) -> float:
        """The sum over thresholds of precision times the gain in recall; NaN if not [`Ranking.defined`]."""
        if not self.defined:
            return float("nan")
        found, taken = self.counts(np.unique(self.positives)[::-1])
        return float((np.diff(found, prepend=0) * found / taken).sum() / len(self.positives))

    @property
    def roc_auc(self) -> float:
        """The share of pairs of a row of the class and another that are ranked rightly, a tie counting half; or NaN."""
        if not self.defined:
            return float("nan")
        thresholds, ties = np.unique(self.positives, return_counts=True)
        below = np.searchsorted(self.scores, thresholds) - (np.cumsum(ties) - ties)
        equal = np.searchsorted(self.scores, thresholds, side="right") - np.searchsorted(self.scores, thresholds) - ties
        negatives = len(self.scores) - len(self.positives)
        return float((ties * (below + equal / 2)).sum() / (len(self.positives) * negatives))

    def precision_recall(self) -> Points:
        """Recall and precision from the highest threshold down; the precision holds from the recall before."""
        found, taken = self.counts(np.unique(self.positives)[::-1])
        return Points(found / len(self.positives), found / taken)

    def roc(self) -> Points:
        """Shares of the other rows and of the class that are taken, from none to all: the corners of the ROC curve."""
        thresholds = np.unique(self.positives)[::-1]
        found, taken = self.counts(thresholds)
        above = len(self.scores) - np.searchsorted(self.scores, thresholds, side="right")
        before = np.concatenate([[0], found[:-1]])
        # Other rows between two scores of the class move the curve to the right; then it rises, aslant where they tie.
        x = np.stack([above - before, taken - found], axis=1).ravel() / (len(self.scores) - len(self.positives))
        y = np.stack([before, found], axis=1).ravel() / len(self.positives)
        return Points(np.concatenate([[0.0], x, [1.0]]), np.concatenate([[0.0], y, [1.0]]))


def class_rankings(data: Predictions) -> Iterator[Ranking]:
    """
    One class against all others, for each class in turn.

    Args:
        data ([`Predictions`]): A labelled classification.
    """
    for index in range(len(data.label_names)):
        positive = data.labels[:, index] == 1 if data.problem_type == MULTI_LABEL else data.labels == index
        yield Ranking.of(data.probabilities[:, index], positive)


def pooled_ranking(data: Predictions) -> Ranking:
    """All probabilities of a labelled classification in one ranking: of pairs of a row and a class."""
    if data.problem_type == MULTI_LABEL:
        return Ranking.of(data.probabilities.ravel(), data.labels.ravel() == 1)
    of_truth = data.probabilities[np.arange(len(data.labels)), data.labels]
    return Ranking(np.sort(data.probabilities, axis=None), np.sort(of_truth))


def mean_precision_recall(curves: Iterable[Points]) -> Points:
    """The mean precision of several curves at 101 recalls."""
    precisions = [curve.y[np.minimum(np.searchsorted(curve.x, GRID), len(curve.x) - 1)] for curve in curves]
    return Points(GRID, np.mean(precisions, axis=0))


def mean_roc(curves: Iterable[Points]) -> Points:
    """The mean of several ROC curves at 101 false positive rates."""
    # Where a curve rises straight up, the value is the highest: the last point of equal x counts.
    heights = np.mean([np.interp(GRID, *curve) for curve in curves], axis=0)
    return Points(np.concatenate([[0.0], GRID]), np.concatenate([[0.0], heights]))


def thinned(curve: Points, limit: int = 200) -> Points:
    """
    Fewer points of the same curve, for drawing.

    Args:
        curve ([`Points`]): Its `x` does not fall.
        limit (`int`, *optional*, defaults to `200`): Points to keep at most; they are about equally far from each
            other along the curve, the first and the last among them.
    """
    if len(curve.x) <= limit:
        return curve
    steps = np.abs(np.diff(curve.x)) + np.abs(np.diff(curve.y))
    way = np.concatenate([[0.0], np.cumsum(steps)])
    kept = np.unique(np.searchsorted(way, np.linspace(0, way[-1], limit)))
    return Points(curve.x[kept], curve.y[kept])


@dataclass(frozen=True, eq=False)
class ThresholdScores:
    """
    Precision, recall and F1 by threshold.

    Args:
        thresholds (`np.ndarray` of shape `(thresholds,)`): A class is predicted from this probability on.
        precision (`np.ndarray` of shape `(thresholds,)`): NaN where nothing is predicted.
        recall, f1 (`np.ndarray` of shape `(thresholds,)`): Of all decisions of all classes (micro).
        f1_macro (`np.ndarray` of shape `(thresholds,)`): The mean of the classes' F1; 0 for a class that is neither
            there nor predicted.
    """

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    f1_macro: np.ndarray

    @property
    def best(self) -> int:
        """Place of the threshold with the highest F1 (micro), the lowest of several."""
        return int(np.argmax(self.f1))


def scores_by_threshold(rankings: Iterable[Ranking]) -> ThresholdScores:
    """
    What one threshold for all classes would give, from 0.01 to 0.99.

    Args:
        rankings (`Iterable[Ranking]`): Of the classes: of several labels all of them, of two exclusive classes one.

    Returns:
        [`ThresholdScores`]
    """
    thresholds = GRID[1:-1]
    found, taken, positives, f1 = [], [], 0, []
    for ranking in rankings:
        hits, predicted = ranking.counts(thresholds)
        found.append(hits)
        taken.append(predicted)
        positives += len(ranking.positives)
        f1.append(2 * hits / np.maximum(predicted + len(ranking.positives), 1))
    hits, predicted = np.sum(found, axis=0), np.sum(taken, axis=0)
    precision = np.divide(hits, predicted, out=np.full(len(thresholds), np.nan), where=predicted > 0)
    return ThresholdScores(
        thresholds,
        precision,
        hits / max(positives, 1),
        2 * hits / np.maximum(predicted + positives, 1),
        np.mean(f1, axis=0),
    )


@dataclass(frozen=True, eq=False)
class Coverage:
    """
    How often a model is right if it answers only where it is sure enough (El-Yaniv & Wiener 2010).

    Args:
        confidences (`np.ndarray` of shape `(confidences,)`): Each that occurs, the highest first.
        answered (`np.ndarray` of shape `(confidences,)`): Share of the rows with at least this confidence.
        accuracy (`np.ndarray` of shape `(confidences,)`): Share of those that are right.
    """

    confidences: np.ndarray
    answered: np.ndarray
    accuracy: np.ndarray

    def at(self, share: float) -> tuple[float, float, float]:
        """The highest confidence that answers at least `share` of the rows, what it does answer, and the accuracy."""
        # 0.8 of 10 rows is 8 rows, whatever the last bit of 0.8 says.
        place = int(np.searchsorted(self.answered, share - 1e-12))
        return float(self.confidences[place]), float(self.answered[place]), float(self.accuracy[place])


def accuracy_by_coverage(data: Predictions) -> Coverage:
    """
    Args:
        data ([`Predictions`]): Labelled, of exclusive classes, at least one row.

    Returns:
        [`Coverage`]
    """
    confidences = data.probabilities.max(axis=1)
    order = np.argsort(-confidences, kind="stable")
    ranked, right = confidences[order], np.cumsum((data.predictions == data.labels)[order])
    # Rows of one confidence are answered together.
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    return Coverage(ranked[last], (last + 1) / len(ranked), right[last] / (last + 1))
