"""The figures of a report: SVG to paste into a page, and PNG files."""

import math
import os
from typing import Any

import numpy as np

from hf_ext.evaluation.charts import COLOURS, DASHES, DOTTED, MARKERS, Bars, Line, Panel, draw_chart, printable
from hf_ext.evaluation.comparison import Comparison
from hf_ext.evaluation.predictions import MULTI_LABEL, Predictions, reliability_bins
from hf_ext.evaluation.tables import METRIC_TITLES, format_cost, format_number

# Panels of the learning curves: title, then the keys of the log that it draws.
CURVES = (
    ("Loss", ("loss", "eval_loss")),
    ("Evaluation score", ("eval_accuracy", "eval_subset_accuracy", "eval_f1", "eval_f1_macro", "eval_pearson")),
    ("Evaluation error", ("eval_rmse", "eval_mae")),
    ("Gradient norm", ("grad_norm",)),
    ("Curriculum: share of the training rows", ("curriculum/difficulty",)),
)
MAX_CURVE_POINTS = 500
MAX_SCATTER_POINTS = 1000
# Width and height of a figure with as much to see across as along.
SQUARE = (317.0, 288.0)


def learning_curves(history: list[dict]) -> list[str]:
    """
    One SVG a panel of [`CURVES`] that the log has values for, and one of the learning rates.

    Args:
        history (`list[dict]`): `trainer.state.log_history`.
    """
    rates = list(dict.fromkeys(key for entry in history for key in entry if key.startswith("learning_rate/")))
    # Layer-wise decay makes dozens of groups: show some, evenly spaced, the first and the last among them.
    shown = [rates[i] for i in np.unique(np.linspace(0, len(rates) - 1, len(COLOURS)).astype(int))] if rates else []
    title = "Learning rate" if shown == rates else f"Learning rate ({len(shown)} of {len(rates)} groups)"
    panels = (*CURVES, (title, shown or ["learning_rate"]))
    figures = []
    for title, keys in panels:
        curves = {key: _curve(history, key) for key in keys}
        curves = {key: curve for key, curve in curves.items() if len(curve)}
        if curves:
            ends = (f"{key} from {curve[0, 1]:.4g} to {curve[-1, 1]:.4g}" for key, curve in curves.items())
            label = f"{title} by step: {'; '.join(ends)}."
            figures.append(draw_chart(label, [_curves_panel(title, curves)]))
    return figures


def reliability_diagram(data: Predictions, name: str, values: dict[str, float]) -> dict[str, Any]:
    """
    Accuracy by confidence; of several labels, the share of yes among labels by their probability.

    Args:
        data ([`Predictions`]): A labelled classification.
        name (`str`): The split's name.
        values (`dict[str, float]`): Its metrics; their `ece` is shown if there is one.

    Returns:
        `dict[str, Any]`: `svg`, `ece`, the `names` of what is drawn, and `bins` (range, rows, confidence, accuracy) as
        a table for those who can't see the figure.
    """
    if data.problem_type == MULTI_LABEL:
        confidences, right = data.probabilities.ravel(), data.labels.ravel() == 1
        names = ("probability", "share of yes", "labels")
    else:
        confidences, right = data.probabilities.max(axis=1), data.predictions == data.labels
        names = ("confidence", "accuracy", "rows")
    rows, confidence, accuracy = reliability_bins(confidences, right)
    ece = values.get("ece", float(np.abs(accuracy - confidence) @ rows / len(confidences)))
    filled = rows > 0
    edges = np.linspace(0, 1, len(rows) + 1)

    line = Line(confidence[filled], accuracy[filled], COLOURS[0], marker="o")
    equal = Line((0, 1), (0, 1), dashes=DOTTED, width=1)
    upper = Panel(
        [Bars(edges, accuracy, COLOURS[0], 0.45), line, equal],
        *("", names[1]),
        xlim=(0, 1),
        ylim=(0, 1.02),
        xticks=(),
        grid=False,
        share=3,
    )
    lower = Panel([Bars(edges, rows, COLOURS[1], 0.7)], names[0], names[2], xlim=(0, 1), grid=False, share=1.2)

    label = f"Reliability diagram of {name}: {names[1]} by {names[0]}; calibration error {format_number(ece)}."
    bins = [
        (f"{edges[i]:.3f} to {edges[i + 1]:.3f}", int(rows[i]), float(confidence[i]), float(accuracy[i]))
        for i in np.flatnonzero(filled)
    ]
    return {"svg": draw_chart(label, [upper, lower], SQUARE), "ece": ece, "names": names, "bins": bins}


def scatter_plot(data: Predictions, name: str) -> dict[str, Any]:
    """Predicted against true values of a regression split: `svg`, and how many rows are `shown`."""
    shown = np.unique(np.linspace(0, len(data.texts) - 1, MAX_SCATTER_POINTS).astype(int))
    true, predicted = data.labels[shown], data.predictions[shown]
    ends = (min(true.min(), predicted.min()), max(true.max(), predicted.max()))

    equal = Line(ends, ends, dashes=DOTTED, width=1)
    points = Line(true, predicted, COLOURS[0], dashes=None, marker="o", opacity=0.5)
    label = f"Predicted against true values of {name}, with the line where they are equal."
    panel = Panel([equal, points], "true value", "predicted value")
    return {"svg": draw_chart(label, [panel], SQUARE), "shown": len(shown)}


def speed_plot(comparison: Comparison, name: str) -> str | None:
    """
    Main metric with its interval against texts a second, on a logarithmic axis.

    Args:
        comparison ([`Comparison`]): Models whose speed was not measured are left out.
        name (`str`): What was compared; must differ between the figures of a page.

    Returns:
        `str`, *optional*: SVG; `None` if fewer than two speeds were measured.
    """
    metric, points = comparison.metric, {}
    for model, result in comparison.models.items():
        speed, value = result.costs.get("texts_per_second"), result.metrics[metric]
        if speed is not None and np.isfinite(value):
            points[model] = (speed, value, *result.intervals[metric])
    if len(points) < 2:
        return None
    title = METRIC_TITLES[metric]
    ends = (min(point[0] for point in points.values()) / 2, max(point[0] for point in points.values()) * 2)

    marks = []
    for index, (model, (speed, value, low, high)) in enumerate(points.items()):
        colour, marker = COLOURS[index % len(COLOURS)], list(MARKERS)[index % len(MARKERS)]
        marks.append(Line((speed, speed), (low, high), colour))
        marks.append(Line([speed], [value], colour, dashes=None, marker=marker, size=3, label=figure_name(model)))
    panel = Panel(marks, "texts a second", title, xlim=ends, xticks=_speed_ticks(*ends), logarithmic=True)
    told = (
        f"{model} {format_number(value)} at {format_cost('texts_per_second', speed)} texts a second"
        for model, (speed, value, *_) in points.items()
    )
    return draw_chart(f"{title} against speed of {name}: {'; '.join(told)}.", [panel])


def draw_schedule(path: str | os.PathLike, begins: dict[str, int], total_steps: int) -> None:
    """
    Draws what is trained when, as a PNG.

    Args:
        path (`str` or `os.PathLike`): The file to write.
        begins (`dict[str, int]`): Title of each stage, in their order -> the step before which it begins.
        total_steps (`int`): Steps of the whole training.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 1.2 + 0.3 * len(begins)), layout="constrained")
    axes = figure.subplots()
    titles = [figure_name(title) for title in begins]
    positions = range(len(begins), 0, -1)
    axes.barh(positions, total_steps, color="#dfe4ea")
    axes.barh(
        positions, [total_steps - begin for begin in begins.values()], left=list(begins.values()), color=COLOURS[0]
    )
    axes.set_yticks(list(positions), titles, parse_math=False)
    axes.set(xlabel="step (blue: trained, grey: frozen)", xlim=(0, total_steps))
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, format="png", dpi=144, metadata={"Software": None})


def figure_name(name: str, length: int = 40) -> str:
    """
    A name as figures can show it.

    Args:
        name (`str`): Of a class, a model, a log entry: any text.
        length (`int`, *optional*, defaults to `40`): Characters to show at most.
    """
    name = printable(name)
    return name if len(name) <= length else name[: length - 1] + "…"


# ---- Inside ----


def _curve(history: list[dict], key: str) -> np.ndarray:
    """`(points, 2)` steps and values; a long history becomes means of neighbours."""
    points = np.array([(entry["step"], entry[key]) for entry in history if key in entry], dtype=np.float64)
    if len(points) <= MAX_CURVE_POINTS:
        return points
    return np.array([part.mean(axis=0) for part in np.array_split(points, MAX_CURVE_POINTS)])


def _curves_panel(title: str, curves: dict[str, np.ndarray]) -> Panel:
    marks, alone = [], len(curves) == 1
    for (key, curve), colour, dashes in zip(curves.items(), COLOURS, DASHES, strict=False):
        marker = "o" if key.startswith("eval_") or len(curve) == 1 else ""
        marks.append(Line(*curve.T, colour, dashes, marker, label="" if alone else figure_name(key)))
    return Panel(marks, "step", figure_name(next(iter(curves))) if alone else "", title)


def _speed_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """1, 2 and 5 of each power of ten, or the powers alone where those would be too many."""
    factors = (1, 2, 5) if high / low < 50 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    places = [factor * 10.0**power for power in powers for factor in factors]
    return [(place, format_cost("texts_per_second", place)) for place in places]
