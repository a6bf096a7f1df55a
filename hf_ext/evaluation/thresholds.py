"""From probabilities to decisions: thresholds for a goal, and costs of errors."""

from collections.abc import Sequence

import numpy as np

from hf_ext.errors import ConfigurationError
from hf_ext.problem_types import MULTI_LABEL

F1, PRECISION_AT_RECALL, RECALL_AT_PRECISION, COST = "f1", "precision_at_recall", "recall_at_precision", "cost"
MAX_SWEEPS = 20
SMALLEST = np.finfo(np.float64).tiny


def decide(
    probabilities: np.ndarray,
    problem_type: str,
    thresholds: np.ndarray | None = None,
    cost_matrix: np.ndarray | None = None,
) -> np.ndarray:
    r"""
    What is predicted, given thresholds or costs.

    - Multi-label: the classes with $p_c \ge t_c$.
    - Single label with thresholds: the class with the largest $p_c / t_c$. Of two classes with $t_0 = 1 - t_1$ that is
      class 1 where $p_1 > t_1$; equal thresholds leave the likeliest class.
    - Single label with costs: the class $k$ of the least expected cost $\sum_c p_c C_{ck}$ (Elkan 2001, "The
      Foundations of Cost-Sensitive Learning"), which takes the probabilities at their word: calibrate them first.

    Args:
        probabilities (`np.ndarray` of shape `(rows, classes)`): Of each class.
        problem_type (`str`): `"single_label_classification"` or `"multi_label_classification"`.
        thresholds (`np.ndarray` of shape `(classes,)`, *optional*): By default one half, or the likeliest class.
        cost_matrix (`np.ndarray` of shape `(classes, classes)`, *optional*): `[true, predicted]`, of a single label.

    Returns:
        `np.ndarray`: 0 and 1 of shape `(rows, classes)` for multi-label, class ids of shape `(rows,)` otherwise.
    """
    if problem_type == MULTI_LABEL:
        return (probabilities >= (0.5 if thresholds is None else thresholds)).astype(np.int64)
    if cost_matrix is not None:
        return (probabilities @ cost_matrix).argmin(axis=1)
    if thresholds is None:
        return probabilities.argmax(axis=1)
    return (_logs(probabilities) - _logs(thresholds)).argmax(axis=1)


def tune_thresholds(
    probabilities: np.ndarray,
    labels: np.ndarray,
    label_names: Sequence[str],
    objective: str = F1,
    *,
    min_recall: float | None = None,
    min_precision: float | None = None,
    positive_class: str | None = None,
) -> tuple[np.ndarray, list[str]]:
    """
    The threshold of each class that reaches a goal best on given rows.

    - `"f1"`: the largest F1 of each class (multi-label), or the largest mean F1 over the classes that occur (single
      label). The latter is exact for two classes; for more it goes through the classes in turn, each time to the best
      threshold of one given the others, until nothing improves: never worse than the likeliest class, but not
      necessarily the best there is.
    - `"precision_at_recall"`: the largest precision among thresholds with a recall of at least `min_recall`.
    - `"recall_at_precision"`: the largest recall among thresholds with a precision of at least `min_precision`; where
      no threshold reaches it the class is not predicted (its threshold is 1), and a note says so.

    The last two are for yes-or-no questions: each class of multi-label, or `positive_class` of two. A threshold lies
    half-way between the last row that it lets in and the first that it does not. It fits the rows that it was tuned on:
    look at what it does on others.

    Args:
        probabilities (`np.ndarray` of shape `(rows, classes)`): Of each class.
        labels (`np.ndarray`): Class ids of shape `(rows,)`, or 0 and 1 of shape `(rows, classes)` for multi-label.
        label_names (`Sequence[str]`): The classes in the order of their ids.
        objective (`str`, *optional*, defaults to `"f1"`): One of the above.
        min_recall, min_precision (`float`, *optional*): In (0, 1], for the objective that needs it.
        positive_class (`str`, *optional*): Of two classes, the one to be found.

    Returns:
        `tuple[np.ndarray, list[str]]`: Thresholds of shape `(classes,)` for [`decide`], and what a reader has to know.

    Raises:
        ConfigurationError: If the objective does not exist, or not for this kind of task.
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    goal = {PRECISION_AT_RECALL: min_recall, RECALL_AT_PRECISION: min_precision, F1: None}
    if objective not in goal:
        raise ConfigurationError(f"objective is {objective!r}; thresholds are tuned for {', '.join(goal)}.")
    if objective != F1 and (goal[objective] is None or not 0 < goal[objective] <= 1):
        name = "min_recall" if objective == PRECISION_AT_RECALL else "min_precision"
        raise ConfigurationError(f"objective={objective} needs {name} in (0, 1]; it is {goal[objective]}.")
    if labels.ndim == 2:
        found = [
            _one_threshold(probabilities[:, index], labels[:, index] == 1, name, objective, goal[objective])
            for index, name in enumerate(label_names)
        ]
        return np.array([threshold for threshold, _ in found]), [note for _, note in found if note]
    if objective == F1:
        return _macro_f1_thresholds(probabilities, labels), []
    if len(label_names) != 2 or positive_class not in label_names:
        raise ConfigurationError(
            f"objective={objective} is for multi-label, or for two classes of which positive_class names the one to be "
            f"found; it is {positive_class!r}, and the classes are {', '.join(label_names)}."
        )
    positive = list(label_names).index(positive_class)
    threshold, note = _one_threshold(
        probabilities[:, positive], labels == positive, positive_class, objective, goal[objective]
    )
    # Neither may be 0: they divide.
    threshold = min(max(threshold, 1e-12), 1 - 1e-12)
    thresholds = np.full(2, 1 - threshold)
    thresholds[positive] = threshold
    return thresholds, [note] if note else []


# ---- Inside ----


def _logs(values: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(values, SMALLEST))


def _one_threshold(
    scores: np.ndarray, positive: np.ndarray, name: str, objective: str, goal: float | None
) -> tuple[float, str]:
    """The threshold of one yes-or-no question, and what there is to say about it."""
    if not positive.any():
        return 0.5, f"{name} occurs in no row that thresholds were tuned on; its threshold stays at 0.5."
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(positive[order])
    # One cut after each distinct score.
    cuts = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    precision, recall = hits[cuts] / (cuts + 1), hits[cuts] / hits[-1]
    if objective == F1:
        best = np.argmax(2 * hits[cuts] / (cuts + 1 + hits[-1]))
    elif objective == PRECISION_AT_RECALL:
        # lexsort's last key is the first criterion; the larger recall breaks ties.
        best = np.lexsort((recall, precision, recall >= goal))[-1]
    else:
        best = np.lexsort((precision, recall, precision >= goal))[-1]
        if precision[best] < goal:
            return 1.0, (
                f"{name}: no threshold reaches a precision of {goal:g} (the largest is {precision.max():.3g}), so it "
                "is not predicted: its threshold is 1."
            )
    return _between(ordered, cuts[best]), ""


def _between(ordered: np.ndarray, last: int) -> float:
    """A number that lets in the scores up to position `last` of a falling sequence, and none behind it."""
    after = ordered[last + 1] if last + 1 < len(ordered) else 0.0
    middle = (ordered[last] + after) / 2
    return float(middle if after < middle else ordered[last])


def _macro_f1_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Coordinate ascent of the mean F1 over the classes that occur, from equal thresholds."""
    logs = _logs(probabilities)
    offsets, best = np.zeros(logs.shape[1]), -np.inf
    for _ in range(MAX_SWEEPS):
        before = best
        for index in range(logs.shape[1]):
            offset, value = _best_offset(logs - offsets, labels, index)
            if value > best + 1e-12:
                best, offsets[index] = value, offsets[index] + offset
        if best <= before:
            break
    thresholds = np.exp(offsets - offsets.max())
    return thresholds / thresholds.sum()


def _best_offset(scores: np.ndarray, labels: np.ndarray, index: int) -> tuple[float, float]:
    """
    By how much a class's scores have to be lowered for the best mean F1, and that F1.

    Rows go over to the class one after the other, in the order of its lead over their best other class. With each, only
    two F1s change: that of the class and that of the one that the row leaves.
    """
    support = np.bincount(labels, minlength=scores.shape[1])
    others = np.where(np.arange(scores.shape[1]) == index, -np.inf, scores)
    lead = scores[:, index] - others.max(axis=1)
    order = np.argsort(-lead, kind="stable")
    lead, left, truth = lead[order], others.argmax(axis=1)[order], labels[order]
    own = _f1(np.cumsum(truth == index), np.arange(1, len(lead) + 1), support[index])
    start, lost = _f1_of_left(left, truth, support)
    total = np.append(start, start + np.cumsum(lost) + own) / np.count_nonzero(support)
    # No cut between rows of equal lead; one before all rows and one behind them.
    cuts = np.append(0, np.flatnonzero(np.append(lead[1:] != lead[:-1], True)) + 1)
    unchanged = np.count_nonzero(lead > 0)
    best = unchanged if total[unchanged] >= total[cuts].max() - 1e-12 else cuts[total[cuts].argmax()]
    if best == unchanged and (lead != 0).all():
        return 0.0, float(total[best])
    before = lead[best - 1] if best else lead[0] + 2
    after = lead[best] if best < len(lead) else lead[-1] - 2
    return float((before + after) / 2), float(total[best])


def _f1_of_left(left: np.ndarray, truth: np.ndarray, support: np.ndarray) -> tuple[float, np.ndarray]:
    """The sum of the F1s of the classes that rows leave, before the first leaves, and what each row changes in it."""
    order = np.argsort(left, kind="stable")
    of, hits = left[order], (truth == left)[order]
    rows, right = np.bincount(left, minlength=len(support)), np.bincount(left[truth == left], minlength=len(support))
    first = np.searchsorted(of, of)
    gone = np.arange(len(of)) - first
    right_gone = np.cumsum(hits) - hits
    right_gone -= right_gone[first]
    before = _f1(right[of] - right_gone, rows[of] - gone, support[of])
    after = _f1(right[of] - right_gone - hits, rows[of] - gone - 1, support[of])
    lost = np.empty(len(of))
    lost[order] = after - before
    return float(_f1(right, rows, support).sum()), lost


def _f1(hits: np.ndarray, predicted: np.ndarray, support: np.ndarray) -> np.ndarray:
    """F1 of classes; of one that does not occur, 0, so that it counts neither way."""
    return np.where(support > 0, 2 * hits / np.maximum(predicted + support, 1), 0.0)
