"""The differences of a comparison as a picture."""

import os
from typing import Any

import numpy as np

from hf_ext.evaluation.comparison import Comparison
from hf_ext.evaluation.figures import COLOURS, draw_figure
from hf_ext.evaluation.tables import METRIC_TITLES

# Beyond so many lines the groups are left out.
MAX_LINES = 60
MAX_NAME = 40


def differences_plot(comparison: Comparison, name: str) -> str | None:
    """
    A forest plot: each pair's difference in the main metric with its interval, on all rows and in each group.

    Args:
        comparison ([`Comparison`]): Pairs whose difference is undefined are left out.
        name (`str`): What was compared; must differ between the figures of a page.

    Returns:
        `str`, *optional*: SVG; `None` if there is no difference to draw.
    """
    lines = _lines(comparison)
    if not lines:
        return None
    told = "; ".join(f"{title} {value:.2f} ({low:.2f} to {high:.2f})" for title, value, low, high in lines)
    label = f"Differences in {_metric(comparison)} of {name}: {told}."
    return draw_figure(label, lambda figure: _paint(figure, comparison, lines), _size(lines))


def draw_differences(path: str | os.PathLike, comparison: Comparison) -> bool:
    """
    [`differences_plot`] as a PNG.

    Args:
        path (`str` or `os.PathLike`): The file to write.
        comparison ([`Comparison`]): As there.

    Returns:
        `bool`: Whether there was a difference to draw.
    """
    from matplotlib.figure import Figure

    lines = _lines(comparison)
    if lines:
        figure = Figure(figsize=_size(lines), layout="constrained")
        _paint(figure, comparison, lines)
        figure.savefig(path, format="png", dpi=144, metadata={"Software": None})
    return bool(lines)


# ---- Inside ----


def _in_points(comparison: Comparison) -> bool:
    return comparison.metric != "pearson"


def _metric(comparison: Comparison) -> str:
    title = METRIC_TITLES[comparison.metric]
    return f"{title.lower()} (points)" if _in_points(comparison) else title


def _lines(comparison: Comparison) -> list[tuple[str, float, float, float]]:
    """Title, difference and interval of each line, from top to bottom."""
    factor, lines = 100 if _in_points(comparison) else 1, []
    with_groups = len(comparison.pairs) * (1 + len(comparison.groups)) <= MAX_LINES
    for place, pair in enumerate(comparison.pairs):
        parts = {f"{pair.model} - {pair.baseline}": pair}
        if with_groups:
            parts |= {f"{group} ({found.rows:,})": found.pairs[place] for group, found in comparison.groups.items()}
        for title, part in parts.items():
            values = [factor * number for number in part.differences[comparison.metric][:3]]
            if np.isfinite(values).all():
                lines.append((title, *values))
    return lines


def _size(lines: list) -> tuple[float, float]:
    return 6.4, 1.1 + 0.3 * len(lines)


def _paint(figure: Any, comparison: Comparison, lines: list[tuple[str, float, float, float]]) -> None:
    axes = figure.subplots()
    margins = [pair.equivalence.margin for pair in comparison.pairs if pair.equivalence is not None]
    if margins:
        axes.axvspan(-100 * margins[0], 100 * margins[0], color="#8a94a0", alpha=0.2, linewidth=0)
    axes.axvline(0, color="black", linewidth=1, linestyle=":")
    heads = {f"{pair.model} - {pair.baseline}" for pair in comparison.pairs}
    positions = range(len(lines), 0, -1)
    for position, (title, value, low, high) in zip(positions, lines, strict=True):
        colour = COLOURS[0] if title in heads else COLOURS[1]
        axes.plot((low, high), (position, position), color=colour, linewidth=1.5)
        axes.plot(value, position, color=colour, marker="s" if title in heads else "o", markersize=5)
    titles = [title if len(title) <= MAX_NAME else title[: MAX_NAME - 1] + "…" for title, *_ in lines]
    axes.set_yticks(list(positions), titles, parse_math=False)
    axes.set(xlabel=f"difference in {_metric(comparison)}", ylim=(0.4, len(lines) + 0.6))
    axes.spines[["top", "right", "left"]].set_visible(False)
