"""What a report shows of one split."""

from typing import Any

import numpy as np

from hf_ext.errors import first_few
from hf_ext.evaluation.class_scores import class_scores
from hf_ext.evaluation.comparison import probability_scores
from hf_ext.evaluation.curve_figures import coverage_view, ranking_curves, threshold_view
from hf_ext.evaluation.figures import reliability_diagram, scatter_plot
from hf_ext.evaluation.predictions import Predictions, confused_pairs
from hf_ext.evaluation.tables import format_number
from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

MAX_MATRIX_CLASSES = 20
MAX_PAIRS = 20
MAX_ROWS = 20
MAX_NAMES = 20
MAX_TEXT = 300
# Parts of a split's view, in the order of the page, with their headings.
PARTS = {
    "predicted": "Predicted classes",
    "confusion": "Confusion matrix",
    "pairs": "Most confused pairs",
    "classes": "Classes",
    "curves": "Precision-recall and ROC curves",
    "thresholds": "Thresholds",
    "coverage": "Answers only where the model is sure",
    "reliability": "Calibration",
    "scatter": "Predicted against true values",
    "errors": "Most confident wrong answers",
    "hardest": "Hardest rows",
}


def split_view(name: str, data: Predictions, values: dict[str, float]) -> dict[str, Any]:
    """
    Gather what the template shows of one split.

    Args:
        name (`str`): Of the split.
        data ([`Predictions`]): Labelled or not.
        values (`dict[str, float]`): Its metrics.

    Returns:
        `dict[str, Any]`: Facts, those of [`PARTS`] that there are, and `headings`, their titles.
    """
    view = {"name": name, "problem_type": data.problem_type, "rows": len(data.texts)}
    view["labelled"] = data.labels is not None
    parts = {}
    if view["rows"] and view["labelled"]:
        parts = _regression_parts(data, name) if data.problem_type == REGRESSION else _class_parts(data, name, values)
    elif view["rows"] and data.problem_type != REGRESSION:
        parts = {"predicted": _predicted_counts(data)}
    parts = {key: part for key, part in parts.items() if part}
    headings = {key: title for key, title in PARTS.items() if key in parts}
    if data.problem_type == REGRESSION and "errors" in headings:
        headings["errors"] = "Largest errors"
    return {**view, **parts, "headings": headings}


def hardest_rows(data: Predictions) -> list[tuple[int, float]]:
    """
    The 20 rows whose truth the model holds least likely.

    Args:
        data ([`Predictions`]): A labelled classification.

    Returns:
        `list[tuple[int, float]]`: Row and probability of its true class, or of all its labels together (multi-label:
        the product over the classes), the least likely first.
    """
    if data.problem_type == MULTI_LABEL:
        of_truth = np.where(data.labels == 1, data.probabilities, 1 - data.probabilities).prod(axis=1)
    else:
        of_truth = data.probabilities[np.arange(len(data.labels)), data.labels]
    order = np.argsort(of_truth, kind="stable")[:MAX_ROWS]
    return [(int(row), float(of_truth[row])) for row in order]


def shown_text(text: str | tuple[str, str]) -> list[str]:
    """A text, or both of a pair, cut to 300 characters each."""
    parts = [text] if isinstance(text, str) else text
    return [part if len(part) <= MAX_TEXT else part[:MAX_TEXT] + "…" for part in parts]


def shown_answer(value: Any) -> str:
    """A class, several, or a number, as tables show it."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return format_number(value) if isinstance(value, float) else str(value)


# ---- Inside ----


def _regression_parts(data: Predictions, name: str) -> dict[str, Any]:
    return {"scatter": scatter_plot(data, name), "errors": _errors(data)}


def _class_parts(data: Predictions, name: str, values: dict[str, float]) -> dict[str, Any]:
    curves = ranking_curves(data, name)
    parts = {
        "classes": _classes(data, curves),
        "curves": curves if curves["drawn"] else None,
        "reliability": {**reliability_diagram(data, name, values), **probability_scores(data)},
        "errors": _errors(data),
    }
    exclusive, several = data.problem_type == SINGLE_LABEL, len(data.label_names) > 2
    if exclusive:
        pairs = confused_pairs(data.labels, data.predictions, len(data.label_names))
        fits = len(data.label_names) <= MAX_MATRIX_CLASSES
        parts |= {"confusion": _confusion(data, pairs)} if fits else {"pairs": _top_confusions(data, pairs)}
        parts["coverage"] = coverage_view(data, name)
    if not exclusive or len(data.label_names) == 2:
        parts["thresholds"] = threshold_view(data, name)
    # Of two exclusive classes, the surest wrong answers are the hardest rows.
    if not exclusive or several:
        parts["hardest"] = _rows(data, hardest_rows(data))
    return parts


def _predicted_counts(data: Predictions) -> list[tuple[str, int, float]]:
    if data.problem_type == MULTI_LABEL:
        counts = data.predictions.sum(axis=0)
    else:
        counts = np.bincount(data.predictions, minlength=len(data.label_names))
    return [(name, int(count), count / len(data.texts)) for name, count in zip(data.label_names, counts, strict=True)]


def _confusion(data: Predictions, pairs: list[tuple[int, int, int]]) -> dict[str, Any]:
    counts = np.zeros((len(data.label_names),) * 2, dtype=np.int64)
    for true, predicted, rows in pairs:
        counts[true, predicted] = rows
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows = [list(zip(row.tolist(), share.tolist(), strict=True)) for row, share in zip(counts, shares, strict=True)]
    return {"names": data.label_names, "rows": rows}


def _top_confusions(data: Predictions, pairs: list[tuple[int, int, int]]) -> list[tuple[str, str, int, float]]:
    support = np.bincount(data.labels, minlength=len(data.label_names))
    wrong = [(true, predicted, rows) for true, predicted, rows in pairs if true != predicted][:MAX_PAIRS]
    names = data.label_names
    return [(names[true], names[predicted], rows, rows / support[true]) for true, predicted, rows in wrong]


def _classes(data: Predictions, curves: dict[str, Any]) -> dict[str, Any]:
    scores = class_scores(data)
    return {
        "rows": list(zip(scores, curves["scores"], strict=True)),
        "absent": first_few([score.name for score in scores if not score.support], MAX_NAMES),
        "unpredicted": first_few([score.name for score in scores if score.support and not score.predicted], MAX_NAMES),
    }


def _errors(data: Predictions) -> list[dict[str, Any]]:
    return _rows(data, data.most_confident_errors(MAX_ROWS))


def _rows(data: Predictions, found: list[tuple[int, float]]) -> list[dict[str, Any]]:
    rows = [row for row, _ in found]
    answers = zip(data.named(data.labels[rows]), data.named(data.predictions[rows]), strict=True)
    return [
        {
            "row": row,
            "score": score,
            "texts": shown_text(data.texts[row]),
            "truth": shown_answer(truth),
            "answer": shown_answer(answer),
        }
        for (row, score), (truth, answer) in zip(found, answers, strict=True)
    ]
