"""Results as plain text, and how names and numbers are written in all other forms."""

import math

Metrics = dict[str, dict[str, float]]
Intervals = dict[str, dict[str, tuple[float, float]]]

# The metrics shown first, in this order, with their titles.
METRIC_TITLES = {
    "accuracy": "Accuracy",
    "subset_accuracy": "Subset accuracy",
    "f1_macro": "F1 (macro)",
    "f1_micro": "F1 (micro)",
    "f1_weighted": "F1 (weighted)",
    "mcc": "Matthews correlation",
    "hamming_loss": "Hamming loss",
    "ece": "Expected calibration error",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "r2": "R²",
    "rmse": "Root mean squared error",
    "mae": "Mean absolute error",
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
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = (f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in rows)
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
