"""A self-contained HTML report."""

import base64
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_ext.evaluation.calibration import Calibration
from hf_ext.evaluation.comparison import Comparison, Pair
from hf_ext.evaluation.comparison_figures import differences_plot
from hf_ext.evaluation.figures import learning_curves, speed_plot
from hf_ext.evaluation.pages import TEMPLATES, write_page
from hf_ext.evaluation.predictions import Predictions
from hf_ext.evaluation.run_cost import cost_table
from hf_ext.evaluation.split_views import shown_answer, shown_text, split_view
from hf_ext.evaluation.tables import COST_TITLES, METRIC_TITLES, Intervals, Metrics, format_cost, main_metrics
from hf_ext.run_record import flatten

TEMPLATE = TEMPLATES / "report.html.j2"
# Where on the page the tables of a run stand; those that are not named here belong to the configuration.
SECTIONS = {
    **dict.fromkeys(("versions", "code", "hardware"), "environment"),
    **dict.fromkeys(("times", "memory", "model"), "cost"),
}


@dataclass(frozen=True)
class Image:
    """A PNG with its title and with what it shows in words."""

    title: str
    path: Path
    description: str


@dataclass(frozen=True)
class Table:
    """
    Runs side by side.

    Args:
        title (`str`): Its heading.
        caption (`str`): What it shows in words.
        columns (`list[tuple[str, str]]`): The name of each column, and `"number"` if it holds numbers, else `""`.
        rows (`list[list[str]]`): Their cells; the first names the row.
    """

    title: str
    caption: str
    columns: list[tuple[str, str]]
    rows: list[list[str]]


@dataclass(frozen=True)
class Supplements:
    """
    What a run has to show besides its results.

    Args:
        tables (`list[Table]`): The trials of a search, the folds of a cross-validation.
        images (`list[Image]`): Pictures of the techniques that were used.
        augmented (`list[tuple[str, str]]`): Training texts before and after augmentation.
        preflight (`dict`, *optional*): [`PreflightReport.as_dict`].
        comparisons (`dict[str, Comparison]`): What was compared (a split, a task) -> how its models did.
        calibration ([`Calibration`], *optional*): What was applied to the results, with its scores of each split.
    """

    tables: list[Table] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    augmented: list[tuple[str, str]] = field(default_factory=list)
    preflight: dict[str, Any] | None = None
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    calibration: Calibration | None = None


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
        run (`dict`): JSON-able, nested: arguments, command, versions, hardware, times. Shown as it is; what it cost is
            also shown in words, as [`cost_table`].
        notes (`list[str]`): Sentences to show at the top.
        supplements ([`Supplements`], *optional*): Preflight, augmented texts, tables, pictures, other models.

    Returns:
        `Path`: The file.
    """
    supplements = supplements or Supplements()
    main_names, other_names = _metric_names(metrics)
    compared = supplements.comparisons.items()
    return write_page(
        path,
        TEMPLATE,
        title=title,
        notes=notes,
        metrics=metrics,
        intervals=intervals,
        metric_titles=METRIC_TITLES,
        main_metrics=main_names,
        other_metrics=other_names,
        verdicts=[(name, text) for name, item in compared for text in item.sentences if text not in notes],
        comparisons=[_comparison_view(name, item) for name, item in compared],
        calibration=None if supplements.calibration is None else _calibration_view(supplements.calibration),
        tables=supplements.tables,
        curves=learning_curves(history),
        preflight=supplements.preflight,
        augmented=[(shown_text(before)[0], shown_text(after)[0]) for before, after in supplements.augmented],
        images=[(image.title, _embedded(image.path), image.description) for image in supplements.images],
        splits=[split_view(name, data, metrics.get(name, {})) for name, data in splits.items()],
        cost=cost_table(run, history),
        run=_run_tables(run),
    )


# ---- Inside ----


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _metric_names(metrics: Metrics) -> tuple[list[str], list[str]]:
    """Names over all splits: the main ones in their fixed order, then the others by name."""
    names = sorted({name for values in metrics.values() for name in values})
    main = {name for values in metrics.values() for name in main_metrics(values)}
    known = [name for name in METRIC_TITLES if name in main]
    return known + [name for name in names if name in main - set(known)], [name for name in names if name not in main]


def _run_tables(run: dict) -> dict[str, dict[str, dict[str, str]]]:
    """
    Section of the page -> name -> a table of `{name: text}`: one for the plain values of the run and one for each
    dictionary in it.
    """
    tables = {"run": {key: value for key, value in run.items() if not isinstance(value, dict)}}
    tables.update((key, value) for key, value in run.items() if isinstance(value, dict))
    sections = {"configuration": {}, "environment": {}, "cost": {}}
    for name, table in tables.items():
        if table:
            sections[SECTIONS.get(name, "configuration")][name] = flatten(table)
    return sections


def _calibration_view(calibration: Calibration) -> dict[str, Any]:
    """Before and after of the scores that a calibration is for and of the main metrics, and where it decides."""
    rows = [
        (split, METRIC_TITLES[name], values["before"][name], values["after"][name])
        for split, values in calibration.scores.items()
        for name in METRIC_TITLES
        if name in values["before"]
    ]
    thresholds = None if calibration.thresholds is None else calibration.thresholds.tolist()
    return {
        "temperature": calibration.temperature,
        "fitted_on": calibration.fitted_on,
        "rows": rows,
        "thresholds": thresholds and list(zip(calibration.label_names, thresholds, strict=True)),
    }


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
                    (
                        item["row"],
                        shown_text(item["text"]),
                        *(shown_answer(item[key]) for key in ("label", "model", "baseline")),
                    )
                    for item in found.examples
                ],
            }
            for right, found in flips
        ],
    }
