"""Texts that belong to no class: below which probability a classifier should give no answer."""

import numpy as np

# What is answered in place of a class.
OUT_OF_SCOPE = "out_of_scope"


def tune_out_of_scope(confidences: np.ndarray, right: np.ndarray, outside: np.ndarray) -> float:
    """
    The probability below which no class should be predicted (the `oos-threshold` of Larson et al. 2019).

    Of all thresholds the one with which most rows are dealt with rightly, out of scope counting as one class more: a
    row of a class if it is answered, and rightly; a row of none if it is turned away. Each row counts once, so that the
    shares of the two kinds should be those that are expected later. Of equally good thresholds it is the lowest,
    half-way between two rows.

    Args:
        confidences (`np.ndarray` of shape `(rows,)`): The largest probability of each row that has a class.
        right (`np.ndarray` of shape `(rows,)`): Whether the class that is predicted is that of the row.
        outside (`np.ndarray` of shape `(rows,)`): The largest probability of each row without a class.

    Returns:
        `float`: A row is answered where its largest probability is at least this; with 0 every row is. It is above 1
        where it would be best to answer none.
    """
    scores = np.concatenate([confidences, outside]).astype(np.float64)
    # What turning a row away wins.
    gains = np.concatenate([-np.asarray(right, dtype=np.int64), np.ones(len(outside), dtype=np.int64)])
    order = np.argsort(scores, kind="stable")
    ordered, won = scores[order], np.cumsum(gains[order])
    # One cut behind each distinct score.
    cuts = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    best = cuts[won[cuts].argmax()]
    if won[best] <= 0:
        return 0.0
    return float((ordered[best] + (ordered[best + 1] if best + 1 < len(ordered) else 2.0)) / 2)


def answer_scores(answered: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """
    How rows that have a class fare where some are turned away.

    Args:
        answered (`np.ndarray` of shape `(rows,)`): Whether a class is predicted.
        right (`np.ndarray` of shape `(rows,)`): Whether it is, or would be, the right one.

    Returns:
        `dict[str, float]`: `coverage`, the share that is answered, and `in_scope_accuracy`, the share that is answered
        rightly.
    """
    return {"coverage": float(np.mean(answered)), "in_scope_accuracy": float(np.mean(answered & right))}
