"""The curves of a split, each as a picture and as the numbers behind it."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from hf_ext.evaluation.curves import (
    Points,
    Ranking,
    accuracy_by_coverage,
    class_rankings,
    mean_precision_recall,
    mean_roc,
    pooled_ranking,
    scores_by_threshold,
    thinned,
)
from hf_ext.evaluation.figures import COLOURS, LINE_STYLES, draw_figure, figure_name
from hf_ext.evaluation.predictions import Predictions
from hf_ext.evaluation.tables import format_number
from hf_ext.problem_types import MULTI_LABEL

# Together with the two averages as many as there are colours.
MAX_CLASS_CURVES = 4
# Two such entries of a legend, with a score, stand side by side.
MAX_SHORT_NAME = 20
SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5, 0.3, 0.1)


def ranking_curves(data: Predictions, name: str) -> dict[str, Any]:
    """
    Precision-recall and ROC curves, one class against all others, and their averages.

    Args:
        data ([`Predictions`]): A labelled classification.
        name (`str`): The split's name.

    Returns:
        `dict[str, Any]`: `scores`, the average precision and ROC AUC of each class in the order of the ids, NaN for a
        class that has no rows or all of them; `averages`, the same of `micro` (all pairs of row and class pooled) and
        `macro` (the mean over the classes that have one); `precision_recall` and `roc`, two SVG, and `drawn`, how many
        classes they show: the ones of lowest average precision. Without a class to draw, no pictures.
    """
    scores, found = [], {}
    for class_name, ranking in zip(data.label_names, class_rankings(data), strict=True):
        scores.append((ranking.average_precision, ranking.roc_auc))
        if ranking.defined:
            found[class_name] = _ranked(ranking)
    view = {"scores": scores, "averages": {}, "drawn": min(len(found), MAX_CLASS_CURVES), "defined": len(found)}
    if not found:
        return view
    worst = sorted(found, key=lambda key: found[key].average_precision)[:MAX_CLASS_CURVES]
    shown = {key: found[key] for key in found if key in worst}
    # Two exclusive classes are one question: their pooled curve and their mean say nothing more.
    if len(data.label_names) > 1 and (data.problem_type == MULTI_LABEL or len(data.label_names) > 2):
        averages = {"micro": _ranked(pooled_ranking(data)), "macro": _mean(list(found.values()))}
        view["averages"] = {key: (curves.average_precision, curves.roc_auc) for key, curves in averages.items()}
        # A class may be called micro.
        shown = averages | {f"{key} " if key in averages else key: curves for key, curves in shown.items()}
    return {**view, "precision_recall": _precision_recall(name, shown), "roc": _roc(name, shown)}


def threshold_view(data: Predictions, name: str) -> dict[str, Any]:
    """
    Precision, recall and F1 by threshold.

    Args:
        data ([`Predictions`]): A labelled classification of several labels, or of two exclusive classes.
        name (`str`): The split's name.

    Returns:
        `dict[str, Any]`: `svg`; `of`, the class that is predicted from the threshold on, or `None` for all labels;
        `best`, threshold and F1 where F1 is highest; `used`, the threshold in use; `columns` and `rows` of the table.
    """
    several = data.problem_type == MULTI_LABEL
    rankings = list(class_rankings(data))
    scores = scores_by_threshold(rankings if several else rankings[1:])
    named = {"precision": scores.precision, "recall": scores.recall, "F1": scores.f1}
    if several:
        named = {f"{key} (micro)": values for key, values in named.items()} | {"F1 (macro)": scores.f1_macro}
    used = data.threshold if several else 0.5
    best = float(scores.thresholds[scores.best])
    of = None if several else data.label_names[1]
    best_f1 = float(scores.f1[scores.best])
    label = (
        f"Precision, recall and F1 of {name} by threshold{'' if several else f' of class {of}'}: "
        f"F1 is highest, {format_number(best_f1)}, at {best:.2f}."
    )
    curves = [(key, Points(scores.thresholds, values)) for key, values in named.items()]
    paint = partial(_paint, curves=curves, xlabel="threshold", ylabel="score", line=used)
    places = np.arange(9, len(scores.thresholds), 10)
    rows = [(f"{scores.thresholds[i]:.2f}", [float(values[i]) for values in named.values()]) for i in places]
    return {
        "svg": draw_figure(label, paint, (4.4, 4.3)),
        "of": of,
        "best": (best, best_f1),
        "used": used,
        "columns": [(key, "number") for key in named],
        "rows": rows,
    }


def coverage_view(data: Predictions, name: str) -> dict[str, Any]:
    """
    Accuracy where the model is sure enough, by the share of the rows that it then answers.

    Args:
        data ([`Predictions`]): Labelled, of exclusive classes, at least one row.
        name (`str`): The split's name.

    Returns:
        `dict[str, Any]`: `svg`; `rows` of shares that are asked for at least, the highest confidence that does it, and
        the accuracy.
    """
    coverage = accuracy_by_coverage(data)
    (_, _, overall), (_, half, of_half) = coverage.at(1.0), coverage.at(0.5)
    label = (
        f"Accuracy of {name} by the share of its rows that are answered, the surest first: "
        f"{format_number(of_half)} of {100 * half:.0f} %, {format_number(overall)} of all."
    )
    curves = [("accuracy", thinned(Points(coverage.answered, coverage.accuracy)))]
    paint = partial(_paint, curves=curves, xlabel="share of the rows answered", ylabel="accuracy", top=None)
    # Rows of one confidence are answered together, so that two shares may come to the same.
    return {"svg": draw_figure(label, paint), "rows": list(dict.fromkeys(map(coverage.at, SHARES)))}


# ---- Inside ----


class _Ranked(NamedTuple):
    """What is told and drawn of one ranking."""

    average_precision: float
    roc_auc: float
    precision_recall: Points
    roc: Points


def _ranked(ranking: Ranking) -> _Ranked:
    # Rankings of many rows and classes would not fit into memory together.
    curves = (thinned(curve, 2000) for curve in (ranking.precision_recall(), ranking.roc()))
    return _Ranked(ranking.average_precision, ranking.roc_auc, *curves)


def _mean(classes: list[_Ranked]) -> _Ranked:
    average_precisions, areas, precision_recall, roc = zip(*classes, strict=True)
    curves = (mean_precision_recall(precision_recall), mean_roc(roc))
    return _Ranked(float(np.mean(average_precisions)), float(np.mean(areas)), *curves)


def _precision_recall(name: str, shown: dict[str, _Ranked]) -> str:
    told = "; ".join(f"{key.strip()} {format_number(item.average_precision)}" for key, item in shown.items())
    curves = []
    for key, item in shown.items():
        curve = thinned(item.precision_recall)
        # A precision holds from the recall before it, so the first one from 0.
        points = Points(np.append(0, curve.x), np.append(curve.y[0], curve.y))
        curves.append((_legend(key, item.average_precision), points))
    paint = partial(_paint, curves=curves, xlabel="recall", ylabel="precision", steps=True)
    return draw_figure(f"Precision by recall of {name}; average precision: {told}.", paint, (4.4, 4.8))


def _roc(name: str, shown: dict[str, _Ranked]) -> str:
    told = "; ".join(f"{key.strip()} {format_number(item.roc_auc)}" for key, item in shown.items())
    curves = [(_legend(key, item.roc_auc), thinned(item.roc)) for key, item in shown.items()]
    paint = partial(_paint, curves=curves, xlabel="false positive rate", ylabel="true positive rate", chance=True)
    return draw_figure(f"ROC curve of {name}; area under the curve: {told}.", paint, (4.4, 4.8))


def _legend(key: str, score: float) -> str:
    return f"{figure_name(key, 34)} {score:.3f}"


def _paint(
    figure: Any,
    curves: list[tuple[str, Points]],
    xlabel: str,
    ylabel: str,
    steps: bool = False,
    chance: bool = False,
    line: float | None = None,
    top: float | None = 1.02,
) -> None:
    axes = figure.subplots()
    if chance:
        axes.plot((0, 1), (0, 1), color="black", linestyle=":", linewidth=1)
    if line is not None:
        axes.axvline(line, color="black", linestyle=":", linewidth=1)
    drawstyle = "steps-pre" if steps else "default"
    for (key, curve), colour, style in zip(curves, COLOURS, LINE_STYLES, strict=False):
        axes.plot(*curve, color=colour, linestyle=style, linewidth=1.5, drawstyle=drawstyle, label=key)
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1.01))
    if top is not None:
        axes.set(ylim=(0, top))
    axes.grid(alpha=0.2)
    if len(curves) > 1:
        columns = 2 if max(len(key) for key, _ in curves) <= MAX_SHORT_NAME else 1
        figure.legend(loc="outside lower left", ncols=columns, frameon=False, fontsize=9)
