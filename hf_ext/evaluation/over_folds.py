"""Metrics of several folds -> their mean, spread and interval, as numbers, as a table and as a picture."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hf_ext.evaluation.figures import COLOURS, MARKERS
from hf_ext.evaluation.tables import METRIC_TITLES, aligned, format_number, main_metrics

# More folds than this are numbered here and there.
NUMBERED_FOLDS = 30


class FoldSummary(NamedTuple):
    """Of each metric: the mean over the folds, the standard deviation (n - 1), and a 95 % interval of the mean."""

    mean: dict[str, float]
    std: dict[str, float]
    ci95: dict[str, tuple[float, float]]


def summarize_folds(folds: Sequence[dict[str, float]], confidence: float = 0.95) -> FoldSummary:
    """
    Mean, standard deviation and Student's t interval of every metric over folds.

    The interval is mean +- t(n - 1) sd / sqrt(n). It takes the folds for independent, but any two of a dealing share
    most of their training rows (and the same fold of two seeds its rows), so it is too narrow to compare two methods
    with; the corrected test of Nadeau & Bengio (2003) is for that.

    Args:
        folds (`Sequence[dict[str, float]]`): The metrics of each fold, at least two. A metric that some fold lacks is
            left out; one that is undefined (NaN) in some fold is NaN.
        confidence (`float`, *optional*, defaults to `0.95`): Coverage of the intervals.

    Returns:
        [`FoldSummary`]
    """
    from scipy.stats import t

    names = [name for name in folds[0] if all(name in fold for fold in folds)]
    values = np.array([[fold[name] for name in names] for fold in folds], dtype=np.float64)
    mean, std = values.mean(axis=0), values.std(axis=0, ddof=1)
    half = t.ppf((1 + confidence) / 2, len(folds) - 1) * std / np.sqrt(len(folds))
    return FoldSummary(
        dict(zip(names, mean.tolist(), strict=True)),
        dict(zip(names, std.tolist(), strict=True)),
        dict(zip(names, zip((mean - half).tolist(), (mean + half).tolist(), strict=True), strict=True)),
    )


def folds_table(summary: FoldSummary) -> str:
    """
    Lays out the main metrics for the console.

    Args:
        summary ([`FoldSummary`]): Of the folds.

    Returns:
        `str`: A header and a row a metric, aligned; without a final newline.
    """
    rows = [("metric", "mean", "sd", "95 % interval")]
    for name in main_metrics(summary.mean):
        low, high = map(format_number, summary.ci95[name])
        rows.append((name, format_number(summary.mean[name]), format_number(summary.std[name]), f"[{low}, {high}]"))
    return aligned(rows)


def draw_folds(path: str | os.PathLike, folds: Sequence[dict[str, Any]], metric: str, summary: FoldSummary) -> str:
    """
    Draws a metric of every fold, with its mean and the mean's interval, as a PNG.

    Args:
        path (`str` or `os.PathLike`): The file to write.
        folds (`Sequence[dict]`): `seed`, `repeat`, `fold` and `metrics` of each fold.
        metric (`str`): Which one.
        summary ([`FoldSummary`]): Of the same folds.

    Returns:
        `str`: What the picture shows, in words.
    """
    from matplotlib.figure import Figure

    mean, (low, high) = summary.mean[metric], summary.ci95[metric]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    if np.isfinite([mean, low, high]).all():
        axes.axhspan(low, high, color="#dfe4ea")
        axes.axhline(mean, color="#56606b", linewidth=1)
    dealings = list(dict.fromkeys((fold["seed"], fold["repeat"]) for fold in folds))
    for number, (seed, repeat) in enumerate(dealings):
        own = [fold for fold in folds if (fold["seed"], fold["repeat"]) == (seed, repeat)]
        axes.plot(
            [fold["fold"] for fold in own],
            [fold["metrics"][metric] for fold in own],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            linestyle="none",
            label=f"seed {seed}, repeat {repeat}",
        )
    count = 1 + max(fold["fold"] for fold in folds)
    axes.set(xlabel="fold", ylabel=METRIC_TITLES.get(metric, metric))
    axes.set_xticks(range(0, count, 1 + count // NUMBERED_FOLDS))
    axes.grid(alpha=0.2)
    if 1 < len(dealings) <= len(COLOURS):
        axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, format="png", dpi=144, metadata={"Software": None})
    shown = (
        f"{METRIC_TITLES.get(name, name)} {format_number(summary.mean[name])} ± {format_number(summary.std[name])} "
        f"({format_number(summary.ci95[name][0])} to {format_number(summary.ci95[name][1])})"
        for name in main_metrics(summary.mean)
    )
    return (
        f"{METRIC_TITLES.get(metric, metric)} of each of {len(folds)} folds; the line is their mean, the band its 95 % "
        f"interval. Mean ± standard deviation over the folds (95 % interval of the mean): {'; '.join(shown)}."
    )
