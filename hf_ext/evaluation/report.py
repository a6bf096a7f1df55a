"""Results for people: a console table, a self-contained HTML report and a model card."""

import html
import io
import json
import math
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hf_ext.evaluation.predictions import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    Predictions,
    confused_pairs,
    open_atomically,
    reliability_bins,
)

__all__ = ["results_table", "write_model_card", "write_report"]

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
# What the Hub calls the metrics that it knows under another name.
HUB_METRICS = {
    "f1_macro": "f1",
    "f1_micro": "f1",
    "f1_weighted": "f1",
    "mcc": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
}
# Facts about data and training that a model card repeats when the run has them, under any parent key.
CARD_FACTS = (
    *("dataset_name", "dataset_config_name", "train_file", "validation_file", "test_file"),
    *("text_column", "label_column", "max_length", "seed", "num_train_epochs", "learning_rate"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "weight_decay", "train_runtime"),
)
CARD_USAGE = (
    "```python",
    "from transformers import pipeline",
    'classifier = pipeline("text-classification", model="path/to/this/folder")',
    'print(classifier("A text to classify.", top_k=None))',
    "```",
)
# Panels of the learning curves: title, then the keys of the log that it draws.
CURVES = (
    ("Loss", ("loss", "eval_loss")),
    ("Evaluation score", ("eval_accuracy", "eval_subset_accuracy", "eval_f1", "eval_f1_macro", "eval_pearson")),
    ("Evaluation error", ("eval_rmse", "eval_mae")),
    ("Gradient norm", ("grad_norm",)),
)
# Legible on white and on near-black; the line styles tell them apart without colour.
COLOURS = ("#2f7fd1", "#c8641b", "#2a8f5a", "#a35bc4", "#8a7a1f", "#c44569")
LINE_STYLES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)))
MAX_MATRIX_CLASSES = 20
MAX_PAIRS = 20
MAX_CURVE_POINTS = 500
MAX_SCATTER_POINTS = 1000
MAX_TEXT = 300


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
        rows += [(split, name, _number(values[name]), _interval(intervals, split, name)) for name in _main(values)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = (f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in rows)
    return "\n".join(line.rstrip() for line in lines)


def write_report(
    path: str | os.PathLike,
    *,
    title: str,
    splits: dict[str, Predictions],
    metrics: Metrics,
    intervals: Intervals,
    history: list[dict],
    run: dict,
    notes: list[str],
) -> Path:
    """
    Writes one HTML file that needs neither a network nor JavaScript; equal arguments give equal bytes.

    Args:
        path (`str` or `os.PathLike`): The file to write.
        title (`str`): Heading of the report.
        splits (`dict[str, Predictions]`): Predictions by split; an unlabelled split shows only their distribution.
        metrics (`dict[str, dict[str, float]]`): Value of each metric of each split, names without prefix.
        intervals (`dict[str, dict[str, tuple[float, float]]]`): 95 % intervals, where there are any.
        history (`list[dict]`): `trainer.state.log_history`; empty after an evaluation without training.
        run (`dict`): JSON-able, nested: arguments, command, versions, hardware, times. Shown as it is.
        notes (`list[str]`): Sentences to show at the top.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    main_metrics, other_metrics = _metric_names(metrics)
    content = environment.get_template("report.html.j2").render(
        title=title,
        notes=notes,
        metrics=metrics,
        intervals=intervals,
        metric_titles=METRIC_TITLES,
        main_metrics=main_metrics,
        other_metrics=other_metrics,
        curves=_learning_curves(history),
        splits=[_split_view(name, data, metrics.get(name, {})) for name, data in splits.items()],
        run=_run_tables(run),
    )
    with open_atomically(path) as file:
        file.write(content)
    return Path(path)


def write_model_card(
    path: str | os.PathLike,
    *,
    title: str,
    base_model: str | None,
    metrics: Metrics,
    intervals: Intervals,
    run: dict,
    notes: list[str],
    library_name: str = "transformers",
) -> Path:
    """
    Writes the `README.md` of a model folder: Hub metadata, results, how to load it, how it was trained.

    Args:
        path (`str` or `os.PathLike`): The file to write.
        title (`str`): Name of the model.
        base_model (`str`, *optional*): Hub id, or folder, of the model that training started from.
        metrics, intervals, run, notes: As for [`write_report`].
        library_name (`str`, *optional*, defaults to `"transformers"`): Library that loads the model.
    """
    facts = _card_facts(run)
    lines = ["---", _card_metadata(title, base_model, metrics.get("test", {}), facts, library_name), "---", ""]
    lines += [f"# {_markdown(title)}", ""]
    if base_model:
        lines += [f"Fine-tuned from `{base_model if _is_hub_id(base_model) else Path(base_model).name}`.", ""]
    if metrics:
        lines += ["## Results", "", *_card_results(metrics, intervals), ""]
    lines += ["## How to use", "", *CARD_USAGE, ""]
    if facts:
        lines += ["## Training", "", *(f"- {name}: `{value}`" for name, value in facts.items()), ""]
    if notes:
        lines += ["## Notes", "", *(f"- {_markdown(note)}" for note in notes), ""]
    with open_atomically(path) as file:
        file.write("\n".join(lines))
    return Path(path)


def _card_results(metrics: Metrics, intervals: Intervals) -> list[str]:
    lines = ["| Split | Metric | Value | 95 % interval |", "|---|---|---:|---:|"]
    for split, values in metrics.items():
        for name in _main(values):
            cells = (split, METRIC_TITLES.get(name, name), _number(values[name]), _interval(intervals, split, name))
            lines.append("| " + " | ".join(_markdown(cell) for cell in cells) + " |")
    if intervals:
        lines += ["", "The intervals are bootstrap intervals over the rows of the split."]
    return lines


def _card_metadata(title: str, base_model: str | None, values: dict, facts: dict, library_name: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    dataset = str(facts.get("dataset_name", "local data"))
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=dataset if _is_hub_id(dataset) else "custom",
            dataset_name=dataset,
            dataset_split="test",
            metric_type=HUB_METRICS.get(name, name),
            metric_name=METRIC_TITLES.get(name, name),
            metric_value=round(float(values[name]), 6),
        )
        for name in _main(values)
        # The Hub rejects NaN.
        if math.isfinite(values[name])
    ]
    return ModelCardData(
        base_model=base_model if base_model and _is_hub_id(base_model) else None,
        library_name=library_name,
        pipeline_tag="text-classification",
        model_name=title,
        eval_results=results or None,
    ).to_yaml()


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name) is not None and not Path(name).exists()


def _card_facts(run: dict) -> dict[str, str]:
    facts = {}
    for key, value in _flatten(run).items():
        name = key.rpartition(".")[2]
        if name in CARD_FACTS and value != "null":
            # The folders of the machine that trained it say nothing to a reader elsewhere.
            local = name.endswith("_file") or value.startswith(("/", ".", "~"))
            facts.setdefault(name, re.sub(r'[^"]*/', "", value) if local else value)
    return {name: facts[name] for name in CARD_FACTS if name in facts}


def _markdown(text: str) -> str:
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _main(values: dict[str, float]) -> list[str]:
    # A metric function of the user's own may have none of ours: then all of its metrics are the main ones.
    return [name for name in METRIC_TITLES if name in values] or sorted(values)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "undefined"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.6g}"


def _interval(intervals: Intervals, split: str, name: str) -> str:
    bounds = intervals.get(split, {}).get(name)
    return "" if bounds is None else f"[{_number(bounds[0])}, {_number(bounds[1])}]"


def _metric_names(metrics: Metrics) -> tuple[list[str], list[str]]:
    """Names over all splits: the main ones in their fixed order, then the others by name."""
    names = sorted({name for values in metrics.values() for name in values})
    main = {name for values in metrics.values() for name in _main(values)}
    known = [name for name in METRIC_TITLES if name in main]
    return known + [name for name in names if name in main - set(known)], [name for name in names if name not in main]


def _flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """Turns nested dictionaries into `{"outer.inner": text}`."""
    if isinstance(value, dict) and value:
        parts = (_flatten(inner, f"{prefix}.{key}" if prefix else str(key)) for key, inner in value.items())
        return {key: text for part in parts for key, text in part.items()}
    return {prefix: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)}


def _run_tables(run: dict) -> dict[str, dict[str, str]]:
    """One table of `{name: text}` for the plain values of the run and one for each dictionary in it."""
    tables = {"run": {key: value for key, value in run.items() if not isinstance(value, dict)}}
    tables.update((key, value) for key, value in run.items() if isinstance(value, dict))
    return {name: _flatten(table) for name, table in tables.items() if table}


def _split_view(name: str, data: Predictions, values: dict[str, float]) -> dict[str, Any]:
    """Gathers what the template shows of one split; it leaves out the parts that are missing."""
    view = {"name": name, "problem_type": data.problem_type, "rows": len(data.texts)}
    if not view["rows"]:
        return view
    if data.labels is None:
        return view if data.problem_type == REGRESSION else {**view, "predicted": _predicted_counts(data)}
    view["errors"] = _errors(data)
    if data.problem_type == REGRESSION:
        return {**view, "scatter": _scatter(data, name)}
    view["classes"] = _per_class(data)
    if data.problem_type == SINGLE_LABEL:
        pairs = confused_pairs(data.labels, data.predictions, len(data.label_names))
        if len(data.label_names) <= MAX_MATRIX_CLASSES:
            view["confusion"] = _confusion(data, pairs)
        else:
            view["pairs"] = _top_confusions(data, pairs)
        view["reliability"] = _reliability(data, name, values)
    return view


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


def _per_class(data: Predictions) -> list[tuple[str, list[str], int]]:
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        data.labels, data.predictions, labels=range(len(data.label_names)), zero_division=0
    )
    return [
        (name, [f"{score:.4f}" for score in scores], int(support))
        for name, *scores, support in zip(data.label_names, *columns, strict=True)
    ]


def _errors(data: Predictions) -> list[dict[str, Any]]:
    found = data.most_confident_errors()
    rows = [row for row, _ in found]
    answers = zip(data.named(data.labels[rows]), data.named(data.predictions[rows]), strict=True)
    return [
        {"row": row, "score": score, "texts": _cut(data.texts[row]), "truth": _answer(truth), "answer": _answer(answer)}
        for (row, score), (truth, answer) in zip(found, answers, strict=True)
    ]


def _cut(text: str | tuple[str, str]) -> list[str]:
    parts = [text] if isinstance(text, str) else text
    return [part if len(part) <= MAX_TEXT else part[:MAX_TEXT] + "…" for part in parts]


def _answer(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return _number(value) if isinstance(value, float) else str(value)


def _figure(label: str, paint: Callable[[Any], None], size: tuple[float, float] = (4.4, 3.1)) -> str:
    """
    Draws an SVG to paste into a page.

    Args:
        label (`str`): What the figure shows, for readers who cannot see it. Must differ between figures.
        paint (`Callable`): Draws on the `matplotlib.figure.Figure` that it is given.
        size (`tuple[float, float]`, *optional*, defaults to `(4.4, 3.1)`): Inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # A Figure of its own, not pyplot: nothing global changes and no display is looked for. The salt makes the ids
    # inside the SVG the same in every run and different between figures, which share one page.
    settings = {"svg.hashsalt": label, "svg.fonttype": "none", "text.parse_math": False, "font.size": 10}
    settings |= {"axes.spines.top": False, "axes.spines.right": False, "font.sans-serif": ["DejaVu Sans"]}
    buffer = io.StringIO()
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # Every figure numbers its groups from 1; nothing refers to these ids.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    # Black is the colour of axes and text: let it follow the page.
    svg = svg.replace("#000000", "currentColor")
    quoted = html.escape(label)
    return re.sub("<svg (.*?)>", rf'<svg role="img" aria-label="{quoted}" \1><title>{quoted}</title>', svg, count=1)


def _learning_curves(history: list[dict]) -> list[str]:
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
            figures.append(_figure(label, partial(_plot, title=title, curves=curves)))
    return figures


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
        axes.plot(*curve.T, color=colour, linestyle=style, marker=marker, markersize=4, label=key)
    axes.set(title=title, xlabel="step")
    axes.grid(alpha=0.2)
    if len(curves) == 1:
        axes.set_ylabel(key)
    else:
        axes.legend(frameon=False, fontsize=9)


def _reliability(data: Predictions, name: str, values: dict[str, float]) -> dict[str, Any]:
    confidences = data.probabilities.max(axis=1)
    rows, confidence, accuracy = reliability_bins(confidences, data.predictions == data.labels)
    ece = values.get("ece", float(np.abs(accuracy - confidence) @ rows / len(confidences)))
    filled = rows > 0
    edges = np.linspace(0, 1, len(rows) + 1)

    def paint(figure):
        upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        upper.bar(edges[:-1], accuracy, width=1 / len(rows), align="edge", color=COLOURS[0], alpha=0.45)
        upper.plot(confidence[filled], accuracy[filled], color=COLOURS[0], marker="o", markersize=4)
        upper.plot((0, 1), (0, 1), color="black", linestyle=":", linewidth=1)
        upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        lower.bar(edges[:-1], rows, width=1 / len(rows), align="edge", color=COLOURS[1], alpha=0.7)
        lower.set(xlabel="confidence", ylabel="rows")

    label = f"Reliability diagram of {name}: accuracy by confidence; expected calibration error {_number(ece)}."
    bins = [
        (f"{edges[i]:.3f} to {edges[i + 1]:.3f}", int(rows[i]), float(confidence[i]), float(accuracy[i]))
        for i in np.flatnonzero(filled)
    ]
    return {"svg": _figure(label, paint, (4.4, 4.0)), "ece": ece, "bins": bins}


def _scatter(data: Predictions, name: str) -> dict[str, Any]:
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
    return {"svg": _figure(label, paint, (4.4, 4.0)), "shown": len(shown)}
