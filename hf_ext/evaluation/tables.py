"""Results as plain text, and how names and numbers are written in all other forms."""

import math
from collections.abc import Sequence

Metrics = dict[str, dict[str, float]]
Intervals = dict[str, dict[str, tuple[float, float]]]

# The metrics shown first, in this order, with their titles.
METRIC_TITLES = {
    "accuracy": "Accuracy",
    "in_scope_accuracy": "Accuracy in scope",
    "out_of_scope_recall": "Recall out of scope",
    "coverage": "Coverage",
    "subset_accuracy": "Subset accuracy",
    "f1_macro": "F1 (macro)",
    "f1_micro": "F1 (micro)",
    "f1_weighted": "F1 (weighted)",
    "mcc": "Matthews correlation",
    "hamming_loss": "Hamming loss",
    "ece": "Expected calibration error",
    "nll": "Negative log-likelihood",
    "brier": "Brier score",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "r2": "R²",
    "rmse": "Root mean squared error",
    "mae": "Mean absolute error",
}
# What a model costs, in this order, with its titles.
COST_TITLES = {
    "parameters": "parameters",
    "megabytes": "MB",
    "texts_per_second": "texts/s",
    "speed_up": "speed-up",
    "p50_ms": "p50 ms",
    "p95_ms": "p95 ms",
}


def results_table(metrics: Metrics, intervals: Intervals) -> str:
    """
    Lays out the main metrics of every split as plain text for the console.

    Args:
        metrics (`dict[str, dict[str, float]]`): Value of each metric of each split, names without prefix.
        intervals (`dict[str, dict[str, tuple[float, float]]]`): 95 % intervals, where there are any.

    Returns:
        `str`: A header and a row per split and metric, aligned; without a final newline.
    """
    rows = [("split", "metric", "value", "95 % interval")]
    for split, values in metrics.items():
        rows += [
            (split, name, format_number(values[name]), format_interval(intervals, split, name))
            for name in main_metrics(values)
        ]
    return aligned(rows, names=2)


def aligned(rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """
    Lays out rows of text in columns.

    Args:
        rows (`Sequence[Sequence[str]]`): The header first; all of one length.
        names (`int`, *optional*, defaults to `1`): The first columns, flush left; the others are numbers, flush right.

    Returns:
        `str`: A line a row, without a final newline.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(f"{cell:{'<' if i < names else '>'}{widths[i]}}" for i, cell in enumerate(row)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def main_metrics(values: dict[str, float]) -> list[str]:
    """The metrics to show first, in their fixed order."""
    # A metric function of the user's own may have none of ours: then all of its metrics are the main ones.
    return [name for name in METRIC_TITLES if name in values] or sorted(values)


def format_number(value: float) -> str:
    """Four decimals, or six digits of a large number."""
    if not math.isfinite(value):
        return "undefined"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.6g}"


def format_interval(intervals: Intervals, split: str, name: str) -> str:
    """`[low, high]`, or nothing where there is no interval."""
    bounds = intervals.get(split, {}).get(name)
    return "" if bounds is None else f"[{format_number(bounds[0])}, {format_number(bounds[1])}]"


def format_p(p: float) -> str:
    """`p = 0.012`, two digits; `p < 0.001` below that."""
    if not math.isfinite(p):
        return "p undefined"
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def p_value(p: float) -> str:
    """A p value for a column: two digits, `< 0.001` below that."""
    return format_p(p).removeprefix("p = ").removeprefix("p ")


def signed(value: float) -> str:
    """Four decimals with a sign."""
    return f"{round(value, 4) + 0.0:+.4f}" if math.isfinite(value) else "undefined"


def format_cost(name: str, value: float | None) -> str:
    """A cost of [`COST_TITLES`] to three digits; nothing where it was not measured."""
    if value is None:
        return ""
    if name == "parameters":
        for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
            if value >= 0.9995 * size:
                return f"{_three_digits(value / size)}{unit}"
        return str(value)
    return _three_digits(value) + ("x" if name == "speed_up" else "")


def _three_digits(value: float) -> str:
    """At least three digits and no exponent: 1,234, 123, 12.3, 1.23, 0.012."""
    decimals = next((decimals for decimals, bound in ((2, 9.995), (1, 99.95)) if value < bound), 0)
    return f"{value:,.3f}" if value < 0.0995 else f"{value:,.{decimals}f}"
