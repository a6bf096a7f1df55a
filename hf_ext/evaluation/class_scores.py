"""How well a model does on each class."""

from dataclasses import dataclass

import numpy as np

from hf_ext.evaluation.predictions import Predictions
from hf_ext.evaluation.significance import bootstrap_intervals
from hf_ext.problem_types import MULTI_LABEL


@dataclass(frozen=True)
class ClassScore:
    """
    One class against all others.

    Args:
        name (`str`): Of the class.
        precision, recall, f1 (`float`): 0 where there is nothing to divide by, as scikit-learn has it.
        interval (`tuple[float, float]`, *optional*): 95 % bootstrap interval of F1 over the rows; `None` for a class
            that is neither there nor predicted.
        support (`int`): Rows of the class.
        predicted (`int`): Rows taken for it.
    """

    name: str
    precision: float
    recall: float
    f1: float
    interval: tuple[float, float] | None
    support: int
    predicted: int


def class_scores(data: Predictions) -> list[ClassScore]:
    """
    Precision, recall and F1 of each class.

    A class's F1 depends on how many rows are found, missed, taken for it wrongly, and none of these, so that its
    bootstrap draws four counts, not rows. The classes are drawn apart: their intervals are no joint statement.

    Args:
        data ([`Predictions`]): A labelled classification.

    Returns:
        `list[ClassScore]`: In the order of the class ids.
    """
    classes = zip(data.label_names, *_counts(data), strict=True)
    return [_class_score(*of_class, rows=len(data.texts)) for of_class in classes]


# ---- Inside ----


def _counts(data: Predictions) -> tuple[list[int], list[int], list[int]]:
    """Rows found, rows there and rows predicted of each class."""
    labels, predictions = data.labels, data.predictions
    if data.problem_type == MULTI_LABEL:
        sums = ((labels * predictions).sum(axis=0), labels.sum(axis=0), predictions.sum(axis=0))
    else:
        parts = (labels[labels == predictions], labels, predictions)
        sums = tuple(np.bincount(part, minlength=len(data.label_names)) for part in parts)
    return tuple(counts.astype(int).tolist() for counts in sums)


def _class_score(name: str, hits: int, support: int, predicted: int, rows: int) -> ClassScore:
    interval = None
    if support + predicted:
        counts = np.array([hits, support - hits, predicted - hits, rows - support - predicted + hits])
        interval = bootstrap_intervals(np.eye(4), counts, _f1_from_sums)["f1"]
    f1 = 2 * hits / max(support + predicted, 1)
    return ClassScore(name, hits / max(predicted, 1), hits / max(support, 1), f1, interval, support, predicted)


def _f1_from_sums(sums: np.ndarray) -> dict[str, np.ndarray]:
    hits, missed, wrong, _ = sums.T
    return {"f1": 2 * hits / np.maximum(2 * hits + missed + wrong, 1)}
