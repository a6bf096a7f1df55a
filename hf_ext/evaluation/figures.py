"""The figures of a report: SVG to paste into a page, and PNG files."""

import html
import io
import os
import re
import unicodedata
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from hf_ext.evaluation.comparison import Comparison
from hf_ext.evaluation.figure_layout import place_axes
from hf_ext.evaluation.predictions import Predictions, reliability_bins
from hf_ext.evaluation.tables import METRIC_TITLES, format_cost, format_number
from hf_ext.problem_types import MULTI_LABEL

# Panels of the learning curves: title, then the keys of the log that it draws.
CURVES = (
    ("Loss", ("loss", "eval_loss")),
    ("Evaluation score", ("eval_accuracy", "eval_subset_accuracy", "eval_f1", "eval_f1_macro", "eval_pearson")),
    ("Evaluation error", ("eval_rmse", "eval_mae")),
    ("Gradient norm", ("grad_norm",)),
    ("Curriculum: share of the training rows", ("curriculum/difficulty",)),
)
# Legible on white and on near-black; the line styles tell them apart without colour.
COLOURS = ("#2f7fd1", "#c8641b", "#2a8f5a", "#a35bc4", "#8a7a1f", "#c44569")
LINE_STYLES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)))
MARKERS = "osD^vP"
MAX_CURVE_POINTS = 500
MAX_SCATTER_POINTS = 1000
MAX_TICK_INTERVALS = 5


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
            figures.append(draw_figure(label, partial(_plot, title=title, curves=curves)))
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

    def paint(figure):
        upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        upper.bar(edges[:-1], accuracy, width=1 / len(rows), align="edge", color=COLOURS[0], alpha=0.45)
        upper.plot(confidence[filled], accuracy[filled], color=COLOURS[0], marker="o", markersize=4)
        upper.plot((0, 1), (0, 1), color="black", linestyle=":", linewidth=1)
        upper.set(ylabel=names[1], xlim=(0, 1), ylim=(0, 1.02))
        lower.bar(edges[:-1], rows, width=1 / len(rows), align="edge", color=COLOURS[1], alpha=0.7)
        lower.set(xlabel=names[0], ylabel=names[2])
        if len(confidences) >= 10_000:
            lower.yaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")

    label = f"Reliability diagram of {name}: {names[1]} by {names[0]}; calibration error {format_number(ece)}."
    bins = [
        (f"{edges[i]:.3f} to {edges[i + 1]:.3f}", int(rows[i]), float(confidence[i]), float(accuracy[i]))
        for i in np.flatnonzero(filled)
    ]
    return {"svg": draw_figure(label, paint, (4.4, 4.0)), "ece": ece, "names": names, "bins": bins}


def scatter_plot(data: Predictions, name: str) -> dict[str, Any]:
    """Predicted against true values of a regression split: `svg`, and how many rows are `shown`."""
    shown = np.unique(np.linspace(0, len(data.texts) - 1, MAX_SCATTER_POINTS).astype(int))
    true, predicted = data.labels[shown], data.predictions[shown]
    ends = (min(true.min(), predicted.min()), max(true.max(), predicted.max()))

    def paint(figure):
        axes = figure.subplots()
        axes.plot(ends, ends, color="black", linestyle=":", linewidth=1)
        axes.plot(true, predicted, color=COLOURS[0], linestyle="none", marker="o", markersize=4, alpha=0.5)
        axes.set(xlabel="true value", ylabel="predicted value")
        axes.grid(alpha=0.2)

    label = f"Predicted against true values of {name}, with the line where they are equal."
    return {"svg": draw_figure(label, paint, (4.4, 4.0)), "shown": len(shown)}


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

    def paint(figure):
        from matplotlib.ticker import LogLocator, NullFormatter

        axes = figure.subplots()
        for index, (model, (speed, value, low, high)) in enumerate(points.items()):
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            axes.plot((speed, speed), (low, high), color=colour, linewidth=1.5)
            axes.plot(speed, value, color=colour, marker=marker, linestyle="none", label=figure_name(model))
        axes.set(xscale="log", xlabel="texts a second", ylabel=title, xlim=ends)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if ends[1] / ends[0] < 50 else (1,)))
        axes.xaxis.set_major_formatter(lambda value, _: format_cost("texts_per_second", value))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.2, which="both")
        axes.legend(frameon=False, fontsize=9)

    told = (
        f"{model} {format_number(value)} at {format_cost('texts_per_second', speed)} texts a second"
        for model, (speed, value, *_) in points.items()
    )
    return draw_figure(f"{title} against speed of {name}: {'; '.join(told)}.", paint)


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


def draw_figure(label: str, paint: Callable[[Any], None], size: tuple[float, float] = (4.4, 3.1)) -> str:
    """
    Draws an SVG to paste into a page.

    Args:
        label (`str`): What the figure shows, for readers who cannot see it. Must differ between figures.
        paint (`Callable`): Draws on the `matplotlib.figure.Figure` that it is given.
        size (`tuple[float, float]`, *optional*, defaults to `(4.4, 3.1)`): Inches.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # A Figure of its own, not pyplot: nothing global changes and no display is looked for. The salt makes the ids
    # inside the SVG the same in every run and different between figures, which share one page.
    label = _printable(label)
    settings = {"svg.hashsalt": label, "svg.fonttype": "none", "text.parse_math": False, "font.size": 10}
    settings |= {"axes.spines.top": False, "axes.spines.right": False, "font.sans-serif": ["DejaVu Sans"]}
    settings |= {"figure.facecolor": "none", "axes.facecolor": "none"}
    buffer = io.StringIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The browser draws the text, in fonts that have these letters.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size)
        paint(figure)
        for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
            # More numbers than a small figure has room for are also what takes longest to draw.
            if isinstance(axis.get_major_locator(), MaxNLocator):
                axis.get_major_locator().set_params(nbins=MAX_TICK_INTERVALS)
        place_axes(figure)
        # Figure.savefig draws twice.
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # Every figure numbers its groups from 1; nothing refers to these ids.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    # Black is the colour of axes and text: let it follow the page.
    svg = re.sub("(fill|stroke): #000000", r"\1: currentColor", svg)
    quoted, end = html.escape(label), svg.index(">")
    return f'<svg role="img" aria-label="{quoted}"{svg[4:end]}><title>{quoted}</title>{svg[end + 1 :]}'


def figure_name(name: str, length: int = 40) -> str:
    """
    A name as figures can show it.

    Args:
        name (`str`): Of a class, a model, a log entry: any text.
        length (`int`, *optional*, defaults to `40`): Characters to show at most.
    """
    name = _printable(name)
    # Matplotlib leaves names that begin with an underscore out of a legend.
    name = f" {name}" if name.startswith("_") else name
    return name if len(name) <= length else name[: length - 1] + "…"


# ---- Inside ----


def _printable(text: str) -> str:
    """Neither line breaks nor control characters nor half a surrogate pair: no font and no encoding has them."""
    return "".join(" " if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") else letter for letter in text)


def _curve(history: list[dict], key: str) -> np.ndarray:
    """`(points, 2)` steps and values; a long history becomes means of neighbours."""
    points = np.array([(entry["step"], entry[key]) for entry in history if key in entry], dtype=np.float64)
    if len(points) <= MAX_CURVE_POINTS:
        return points
    return np.array([part.mean(axis=0) for part in np.array_split(points, MAX_CURVE_POINTS)])


def _plot(figure: Any, title: str, curves: dict[str, np.ndarray]) -> None:
    axes = figure.subplots()
    for (key, curve), colour, style in zip(curves.items(), COLOURS, LINE_STYLES, strict=False):
        marker = "o" if key.startswith("eval_") or len(curve) == 1 else None
        axes.plot(*curve.T, color=colour, linestyle=style, marker=marker, markersize=4, label=figure_name(key))
    axes.set(title=title, xlabel="step")
    axes.grid(alpha=0.2)
    if len(curves) == 1:
        axes.set_ylabel(figure_name(key))
    else:
        axes.legend(frameon=False, fontsize=9)
