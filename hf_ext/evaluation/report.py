"""A self-contained HTML report."""

import base64
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hf_ext.evaluation.comparison import Comparison, Pair
from hf_ext.evaluation.comparison_figures import differences_plot
from hf_ext.evaluation.figures import learning_curves, reliability_diagram, scatter_plot, speed_plot
from hf_ext.evaluation.predictions import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    Predictions,
    confused_pairs,
    open_atomically,
)
from hf_ext.evaluation.tables import (
    COST_TITLES,
    METRIC_TITLES,
    Intervals,
    Metrics,
    format_cost,
    format_number,
    format_p,
    main_metrics,
)
from hf_ext.run_record import flatten

MAX_MATRIX_CLASSES = 20
MAX_PAIRS = 20
MAX_TEXT = 300


@dataclass(frozen=True)
class Image:
    """A PNG with its title and with what it shows in words."""

    title: str
    path: Path
    description: str


@dataclass(frozen=True)
class Supplements:
    """
    What a run has to show besides its results.

    Args:
        images (`list[Image]`): Pictures of the techniques that were used.
        augmented (`list[tuple[str, str]]`): Training texts before and after augmentation.
        preflight (`dict`, *optional*): [`PreflightReport.as_dict`].
        comparisons (`dict[str, Comparison]`): What was compared (a split, a task) -> how its models did.
    """

    images: list[Image] = field(default_factory=list)
    augmented: list[tuple[str, str]] = field(default_factory=list)
    preflight: dict[str, Any] | None = None
    comparisons: dict[str, Comparison] = field(default_factory=dict)


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
    supplements: Supplements | None = None,
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
        supplements ([`Supplements`], *optional*): Preflight, augmented texts, pictures, other models.
    """
    import jinja2

    supplements = supplements or Supplements()

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    environment.filters["p"] = format_p
    main_names, other_names = _metric_names(metrics)
    content = environment.get_template("report.html.j2").render(
        title=title,
        notes=notes,
        metrics=metrics,
        intervals=intervals,
        metric_titles=METRIC_TITLES,
        main_metrics=main_names,
        other_metrics=other_names,
        comparisons=[_comparison_view(name, item) for name, item in supplements.comparisons.items()],
        curves=learning_curves(history),
        preflight=supplements.preflight,
        augmented=[(_cut(before)[0], _cut(after)[0]) for before, after in supplements.augmented],
        images=[(image.title, _embedded(image.path), image.description) for image in supplements.images],
        splits=[_split_view(name, data, metrics.get(name, {})) for name, data in splits.items()],
        run=_run_tables(run),
    )
    with open_atomically(path) as file:
        file.write(content)
    return Path(path)


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _metric_names(metrics: Metrics) -> tuple[list[str], list[str]]:
    """Names over all splits: the main ones in their fixed order, then the others by name."""
    names = sorted({name for values in metrics.values() for name in values})
    main = {name for values in metrics.values() for name in main_metrics(values)}
    known = [name for name in METRIC_TITLES if name in main]
    return known + [name for name in names if name in main - set(known)], [name for name in names if name not in main]


def _run_tables(run: dict) -> dict[str, dict[str, str]]:
    """One table of `{name: text}` for the plain values of the run and one for each dictionary in it."""
    tables = {"run": {key: value for key, value in run.items() if not isinstance(value, dict)}}
    tables.update((key, value) for key, value in run.items() if isinstance(value, dict))
    return {name: flatten(table) for name, table in tables.items() if table}


def _comparison_view(name: str, comparison: Comparison) -> dict[str, Any]:
    """Gathers what the template shows of models on the same rows."""
    metrics = {model: result.metrics for model, result in comparison.models.items()}
    main, others = _metric_names(metrics)
    scores = [key for key in ("ece", "nll", "brier") if any(key in values for values in metrics.values())]
    costs = [key for key in COST_TITLES if any(key in result.costs for result in comparison.models.values())]
    models = [
        (
            *(model, result.metrics[comparison.metric], result.intervals[comparison.metric]),
            [result.metrics[key] for key in scores],
            [(format_cost(key, result.costs.get(key)), _cost_range(key, result.costs)) for key in costs],
        )
        for model, result in comparison.models.items()
    ]
    plot = speed_plot(comparison, name)
    titles = [METRIC_TITLES[key] for key in (comparison.metric, *scores)] + [COST_TITLES[key] for key in costs]
    return {
        "name": name,
        "rows": comparison.rows,
        "metric": METRIC_TITLES[comparison.metric],
        "columns": [(title, "number") for title in titles],
        "models": models,
        "metrics": metrics,
        "intervals": {model: result.intervals for model, result in comparison.models.items()},
        "names": [*main, *others],
        "sentences": comparison.sentences,
        "plot": plot,
        "differences": differences_plot(comparison, name) if plot is None else None,
        "groups": _group_view(comparison),
        "pairs": [_pair_view(pair) for pair in comparison.pairs],
    }


def _group_view(comparison: Comparison) -> dict[str, Any] | None:
    if not comparison.groups:
        return None
    metric = comparison.metric
    columns = [(comparison.group_column, ""), ("Rows", "number"), *((name, "number") for name in comparison.models)]
    columns += [(f"{pair.model} - {pair.baseline}", "number") for pair in comparison.pairs]
    rows = [
        (
            group,
            found.rows,
            [(result.metrics[metric], result.intervals[metric]) for result in found.models.values()],
            [pair.differences[metric] for pair in found.pairs],
        )
        for group, found in comparison.groups.items()
    ]
    return {"columns": columns, "rows": rows}


def _cost_range(name: str, costs: dict[str, Any]) -> str:
    bounds = costs.get(f"{name}_range")
    # The reference is 1.00 to 1.00 times as fast as itself.
    if bounds is None or bounds[0] == bounds[1]:
        return ""
    return " to ".join(format_cost(name, bound) for bound in bounds)


def _pair_view(pair: Pair) -> dict[str, Any]:
    flips = [] if pair.only_model is None else [(pair.model, pair.only_model), (pair.baseline, pair.only_baseline)]
    return {
        "pair": pair,
        "main": pair.differences[pair.metric],
        "flips": [
            {
                "right": right,
                "count": found.count,
                "rows": [
                    (item["row"], _cut(item["text"]), *(_answer(item[key]) for key in ("label", "model", "baseline")))
                    for item in found.examples
                ],
            }
            for right, found in flips
        ],
    }


def _split_view(name: str, data: Predictions, values: dict[str, float]) -> dict[str, Any]:
    """Gathers what the template shows of one split; it leaves out the parts that are missing."""
    view = {"name": name, "problem_type": data.problem_type, "rows": len(data.texts)}
    if not view["rows"]:
        return view
    if data.labels is None:
        return view if data.problem_type == REGRESSION else {**view, "predicted": _predicted_counts(data)}
    view["errors"] = _errors(data)
    if data.problem_type == REGRESSION:
        return {**view, "scatter": scatter_plot(data, name)}
    view["classes"] = _per_class(data)
    if data.problem_type == SINGLE_LABEL:
        pairs = confused_pairs(data.labels, data.predictions, len(data.label_names))
        if len(data.label_names) <= MAX_MATRIX_CLASSES:
            view["confusion"] = _confusion(data, pairs)
        else:
            view["pairs"] = _top_confusions(data, pairs)
        view["reliability"] = reliability_diagram(data, name, values)
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
    return format_number(value) if isinstance(value, float) else str(value)
