"""What a model said about one split, and the counts that a report draws from it."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hf_ext.errors import first_few
from hf_ext.files import open_atomically
from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

__all__ = ["Predictions", "class_notes", "confused_pairs", "reliability_bins", "sigmoid", "softmax"]

MAX_NAMES = 20
PROBLEM_TYPES = (SINGLE_LABEL, MULTI_LABEL, REGRESSION)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise softmax of `(rows, classes)` logits, in `float64`."""
    logits = np.asarray(logits, dtype=np.float64)
    # The largest exponent of a row becomes 0, so that nothing overflows.
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Element-wise logistic function, in `float64`."""
    logits = np.asarray(logits, dtype=np.float64)
    # exp only ever sees non-positive numbers: no overflow on either side.
    power = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, power) / (1.0 + power)


def confused_pairs(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> list[tuple[int, int, int]]:
    """
    Counts the (true class, predicted class) pairs that occur, the most frequent first.

    A list of pairs, not a matrix: a matrix of 10,000 classes would hold 100 million mostly empty cells.

    Args:
        labels (`np.ndarray` of shape `(rows,)`): True class ids.
        predictions (`np.ndarray` of shape `(rows,)`): Predicted class ids.
        num_classes (`int`): Number of classes.

    Returns:
        `list[tuple[int, int, int]]`: True class, predicted class, number of rows. Correct pairs are included.
    """
    pairs, counts = np.unique(np.asarray(labels, dtype=np.int64) * num_classes + predictions, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [
        (int(pair // num_classes), int(pair % num_classes), int(n))
        for pair, n in zip(pairs[order], counts[order], strict=True)
    ]


def reliability_bins(
    confidences: np.ndarray, correct: np.ndarray, num_bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Sorts rows into equal-width bins `(low, high]` of confidence.

    Args:
        confidences (`np.ndarray` of shape `(rows,)`): Probability of the predicted class, in `[0, 1]`.
        correct (`np.ndarray` of shape `(rows,)`): Whether the predicted class is the true one.
        num_bins (`int`, *optional*, defaults to `15`): Number of bins.

    Returns:
        `tuple[np.ndarray, np.ndarray, np.ndarray]`: Rows, mean confidence and accuracy of each bin; 0 in empty bins.
        The expected calibration error is the mean of `|accuracy - confidence|` weighted by the rows.
    """
    bins = np.clip(np.ceil(confidences * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    rows = np.bincount(bins, minlength=num_bins)
    divisor = np.maximum(rows, 1)
    return (
        rows,
        np.bincount(bins, confidences, minlength=num_bins) / divisor,
        np.bincount(bins, correct, minlength=num_bins) / divisor,
    )


@dataclass(frozen=True, eq=False)
class Predictions:
    """
    What a model said about one split.

    Args:
        problem_type (`str`):
            `"single_label_classification"`, `"multi_label_classification"` or `"regression"`.
        label_names (`list[str]`):
            Class names in the order of the class ids; `["value"]` for regression.
        probabilities (`np.ndarray` of shape `(rows, classes)`):
            Probability of each class; for regression the predicted values, of shape `(rows, 1)`.
        labels (`np.ndarray`, *optional*):
            Class ids of shape `(rows,)`; 0 and 1 of shape `(rows, classes)` for multi-label; numbers of shape
            `(rows,)` for regression. `None` for an unlabelled split.
        texts (`list[str]` or `list[tuple[str, str]]`):
            The text, or the text pair, of each row.
        threshold (`float`, *optional*, defaults to `0.5`):
            A multi-label class is predicted where its probability is at least this.
        decisions (`np.ndarray`, *optional*):
            What is predicted, where that does not follow from `probabilities` and `threshold`: class ids of shape
            `(rows,)`, or 0 and 1 of shape `(rows, classes)` for multi-label. Not for regression.
        out_of_scope (`np.ndarray` of shape `(rows,)`, *optional*):
            Of a single label: which rows are to be turned away in place of what is predicted; see
            [`Calibration.out_of_scope`]. It is written beside the prediction and changes no metric.

    Raises:
        `ValueError`: If the shapes disagree, a number is not finite or a label is not one of the classes.
    """

    problem_type: str
    label_names: list[str]
    probabilities: np.ndarray
    labels: np.ndarray | None
    texts: list[str] | list[tuple[str, str]]
    threshold: float = 0.5
    decisions: np.ndarray | None = None
    out_of_scope: np.ndarray | None = None

    def __post_init__(self):
        _check_probabilities(self)
        if self.labels is not None:
            _check_labels(self, "labels", self.labels)
        if self.decisions is not None:
            _check_labels(self, "decisions", self.decisions)

    @classmethod
    def from_logits(
        cls,
        logits: np.ndarray,
        labels: np.ndarray | None,
        texts: Sequence[str] | Sequence[tuple[str, str]],
        *,
        problem_type: str,
        label_names: Sequence[str],
        threshold: float = 0.5,
    ) -> "Predictions":
        """
        Turns the raw output of a model into probabilities: softmax, sigmoid, or the numbers themselves.

        Args:
            logits (`np.ndarray` of shape `(rows, classes)`):
                Raw outputs of any float type; for regression `(rows, 1)` or `(rows,)`.
            labels, texts, problem_type, label_names, threshold:
                As for the class. A regression label may also come as `(rows, 1)`.
        """
        logits = np.asarray(logits, dtype=np.float64)
        labels = None if labels is None else np.asarray(labels)
        if problem_type == SINGLE_LABEL:
            probabilities = softmax(logits)
        elif problem_type == MULTI_LABEL:
            probabilities = sigmoid(logits)
        else:
            probabilities = logits.reshape(len(logits), -1)
            labels = None if labels is None else labels.astype(np.float64).reshape(-1)
        return cls(problem_type, list(label_names), probabilities, labels, list(texts), threshold)

    @property
    def predictions(self) -> np.ndarray:
        """`(rows,)` class ids, `(rows, classes)` 0 and 1 for multi-label, `(rows,)` numbers for regression."""
        if self.decisions is not None:
            return self.decisions
        if self.problem_type == SINGLE_LABEL:
            return self.probabilities.argmax(axis=1)
        if self.problem_type == MULTI_LABEL:
            return (self.probabilities >= self.threshold).astype(np.int64)
        return self.probabilities[:, 0]

    def named(self, decisions: np.ndarray) -> list:
        """
        Gives the classes in `decisions` their names.

        Args:
            decisions (`np.ndarray`): Some rows of `labels` or `predictions`.

        Returns:
            `list`: A name a row, a list of names a row for multi-label, a `float` a row for regression. Names are
            `int` where every class name is an integer.
        """
        if self.problem_type == REGRESSION:
            return [float(value) for value in decisions]
        names = self.label_names
        # "007" stays text: as a number it would lose its zeros.
        if all(re.fullmatch(r"0|-?[1-9][0-9]*", name) for name in names):
            names = [int(name) for name in names]
        if self.problem_type == MULTI_LABEL:
            return [[names[i] for i in np.flatnonzero(row)] for row in decisions]
        return [names[i] for i in decisions]

    def most_confident_errors(self, limit: int = 20) -> list[tuple[int, float]]:
        """
        Finds the rows on which the model is surest of a wrong answer.

        Args:
            limit (`int`, *optional*, defaults to `20`): Rows to return at most.

        Returns:
            `list[tuple[int, float]]`: Row and, by problem type, the probability of the wrong class, the probability
            given to the worst wrong yes or no (multi-label), or the absolute error; the largest first.
        """
        predictions = self.predictions
        wrong = predictions != self.labels
        if self.problem_type == SINGLE_LABEL:
            scores = np.where(wrong, self.probabilities[np.arange(len(predictions)), predictions], -1.0)
        elif self.problem_type == MULTI_LABEL:
            confidence = np.where(predictions == 1, self.probabilities, 1.0 - self.probabilities)
            scores = np.where(wrong, confidence, -1.0).max(axis=1)
        else:
            scores = np.where(wrong, np.abs(predictions - self.labels), -1.0)
        order = np.argsort(-scores, kind="stable")[:limit]
        return [(int(row), float(scores[row])) for row in order if scores[row] >= 0]

    def to_jsonl(self, path: str | os.PathLike) -> Path:
        """
        Writes one JSON object a row: `index`, `label`, `prediction`, `probabilities`, `text`.

        `label` is `null` for an unlabelled split and `probabilities` is `null` for regression. Where rows may be turned
        away, `out_of_scope` is `true` or `false`.

        Args:
            path (`str` or `os.PathLike`): The file to write; it appears only once it is complete.
        """
        predicted = self.named(self.predictions)
        labels = [None] * len(predicted) if self.labels is None else self.named(self.labels)
        with open_atomically(path) as file:
            for index, text in enumerate(self.texts):
                probabilities = None
                if self.problem_type != REGRESSION:
                    probabilities = dict(
                        zip(self.label_names, np.round(self.probabilities[index], 6).tolist(), strict=True)
                    )
                row = {
                    "index": index,
                    "label": labels[index],
                    "prediction": predicted[index],
                    "probabilities": probabilities,
                    "text": text,
                }
                if self.out_of_scope is not None:
                    row["out_of_scope"] = bool(self.out_of_scope[index])
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        return Path(path)


def class_notes(predictions: dict[str, Predictions]) -> list[str]:
    """
    Says which classes metrics could tell little about: those that are never predicted, and those without rows.

    Args:
        predictions (`dict[str, Predictions]`): By split; unlabelled splits and regressions have no such classes.
    """
    notes = []
    for split, given in predictions.items():
        if given.labels is None or given.problem_type == REGRESSION or not len(given.texts):
            continue
        occurring, predicted = (_occurring(given, values) for values in (given.labels, given.predictions))
        names = np.array(given.label_names, dtype=object)
        missed, absent = names[occurring & ~predicted], names[~occurring]
        if len(missed):
            notes.append(
                f"{split}: never predicted: {first_few(missed, MAX_NAMES)}. Precision, recall and F1 of such a class "
                "count as 0."
            )
        if len(absent):
            when = "" if given.problem_type == MULTI_LABEL else ", if it is predicted"
            notes.append(
                f"{split}: without a row: {first_few(absent, MAX_NAMES)}. Such a class counts as 0 in macro "
                f"averages{when}."
            )
    return notes


def _occurring(given: Predictions, values: np.ndarray) -> np.ndarray:
    if given.problem_type == MULTI_LABEL:
        return values.any(axis=0)
    return np.bincount(values, minlength=len(given.label_names)) > 0


def _check_probabilities(given: Predictions) -> None:
    if given.problem_type not in PROBLEM_TYPES:
        raise ValueError(f"problem_type is {given.problem_type!r}; it must be one of {', '.join(PROBLEM_TYPES)}.")
    if len(set(given.label_names)) != len(given.label_names):
        raise ValueError(f"label_names holds a name twice: {given.label_names}. Give every class its own name.")
    if given.problem_type == REGRESSION and len(given.label_names) != 1:
        raise ValueError(
            f"label_names holds {len(given.label_names)} names for a regression; reports cover one value a row: "
            'pass ["value"] and one column of the output.'
        )
    expected = (len(given.texts), len(given.label_names))
    if given.probabilities.shape != expected:
        raise ValueError(
            f"probabilities has shape {given.probabilities.shape}, but there are {expected[0]} texts and "
            f"{expected[1]} label_names; pass an array of shape {expected}."
        )
    bad = np.flatnonzero(~np.isfinite(given.probabilities).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {expected[0]} rows hold NaN or infinite outputs (the first is row {bad[0]}): the model has "
            "diverged. Lower the learning rate, or train in bf16 or fp32 instead of fp16."
        )


def _check_labels(given: Predictions, name: str, values: np.ndarray) -> None:
    multi_label = given.problem_type == MULTI_LABEL
    expected = given.probabilities.shape if multi_label else (len(given.texts),)
    if values.shape != expected:
        raise ValueError(
            f"{name} has shape {values.shape} for {given.problem_type}; pass an array of shape {expected}, "
            f"or None{' for an unlabelled split' if name == 'labels' else ''}."
        )
    if given.problem_type == REGRESSION:
        if name == "decisions":
            raise ValueError("decisions are given for a regression, whose values are its predictions; pass None.")
        valid, wanted = np.isfinite(values), "finite numbers"
    elif multi_label:
        valid, wanted = np.isin(values, (0, 1)).all(axis=1), "0 or 1 for each class"
    else:
        num_classes = len(given.label_names)
        # A float 1.0 would pass the range check and fail as an index later.
        integer = np.issubdtype(values.dtype, np.integer)
        valid = integer & (values >= 0) & (values < num_classes)
        wanted = f"integer class ids from 0 to {num_classes - 1}"
    bad = np.flatnonzero(~valid)
    if len(bad):
        raise ValueError(
            f"{name} must be {wanted} for {given.problem_type}; row {bad[0]} has {values[bad[0]]!r}. "
            f"Map the {name} to ids first, or pass None{' for an unlabelled split' if name == 'labels' else ''}."
        )
