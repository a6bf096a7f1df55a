"""What the folds come to together: results of each, over all, and of the predictions of every row by a model that never
saw it."""

import math
from typing import Any

import numpy as np

from hf_ext.data.preflight import PreflightReport
from hf_ext.evaluation.averages import MAIN_METRICS
from hf_ext.evaluation.comparison import all_metrics
from hf_ext.evaluation.over_folds import FoldSummary, draw_folds, folds_table, summarize_folds
from hf_ext.evaluation.predictions import Predictions
from hf_ext.evaluation.report import Image, Supplements, Table
from hf_ext.evaluation.significance import metric_intervals
from hf_ext.evaluation.tables import METRIC_TITLES, format_number, main_metrics
from hf_ext.experiments.cross_validation import CrossValidation, read_fold
from hf_ext.files import write_json
from hf_ext.results import write_results
from hf_ext.run_record import RunRecord

OUT_OF_FOLD = "out_of_fold"


def out_of_fold_predictions(run: CrossValidation) -> Predictions:
    """
    The predictions of every row, in the order of the rows, each by the model that was not trained on it, from the
    first dealing. Augmented copies among the rows are left out.

    Args:
        run ([`CrossValidation`]): With all folds finished.

    Returns:
        [`Predictions`]
    """
    first = (run.folds[0].seed, run.folds[0].repeat)
    numbers = [number for number, fold in enumerate(run.folds) if (fold.seed, fold.repeat) == first]
    rows = np.concatenate([run.originals(run.folds[number].test) for number in numbers])
    probabilities = np.concatenate([read_fold(run, number)[1] for number in numbers])
    order = np.argsort(rows, kind="stable")
    texts, labels = run.data.texts("train"), np.asarray(run.data.splits["train"]["label"][:])
    task = run.data.task
    return Predictions(
        task.problem_type,
        task.label_names,
        probabilities[order],
        labels[rows[order]],
        [texts[row] for row in rows[order].tolist()],
    )


def write_kfold(
    run: CrossValidation, title: str, record: RunRecord, notes: list[str], findings: PreflightReport | None
) -> dict[str, Any]:
    """
    Write `kfold_results.json`, the picture of the folds, the predictions of all rows, the report and `run.json`, and
    print the table of results.

    Args:
        run ([`CrossValidation`]): With all folds finished.
        title (`str`): What the report is called.
        record ([`RunRecord`]): The run's facts.
        notes (`list[str]`): What a reader has to know.
        findings ([`PreflightReport`], *optional*): From [`check_data`].

    Returns:
        `dict[str, Any]`: What `kfold_results.json` holds.
    """
    output_dir, metric = run.output_dir, MAIN_METRICS[run.data.task.problem_type]
    folds = [read_fold(run, number)[0] for number in range(len(run.folds))]
    # What is undefined is null in JSON.
    measured = [
        {**fold, "metrics": {name: math.nan if value is None else value for name, value in fold["metrics"].items()}}
        for fold in folds
    ]
    summary = summarize_folds([fold["metrics"] for fold in measured])
    pooled = out_of_fold_predictions(run)
    metrics, intervals = all_metrics(pooled), metric_intervals(pooled)
    results = {
        "metric": metric,
        "folds": [{name: value for name, value in fold.items() if name != "notes"} for fold in folds],
        "mean": _jsonable(summary.mean),
        "std": _jsonable(summary.std),
        "ci95": {name: _jsonable(bounds) for name, bounds in summary.ci95.items()},
        "pooled": {
            "rows": len(pooled.texts),
            "metrics": _jsonable(metrics),
            "ci95": {name: _jsonable(bounds) for name, bounds in intervals.items()},
        },
    }
    write_json(output_dir / "kfold_results.json", results)
    picture = output_dir / "kfold.png"
    about = draw_folds(picture, measured, metric, summary)
    of_first = [f"The first fold: {note}" for note in folds[0]["notes"]]
    shown = Supplements(
        tables=[_report_table(measured, summary)],
        images=[Image("Folds", picture, about)],
        preflight=findings.as_dict() if findings else None,
    )
    print(f"\nOver {len(folds)} folds:\n{folds_table(summary)}\n\nEvery row by a model that did not see it:")
    record.add(folds={"mean": results["mean"], "std": results["std"], "ci95": results["ci95"]})
    write_results(
        output_dir,
        title,
        {OUT_OF_FOLD: pooled},
        {OUT_OF_FOLD: metrics},
        [],
        record,
        notes + of_first,
        run.settings["model"].model_name_or_path,
        model_card=False,
        supplements=shown,
    )
    return results


# ---- Inside ----


def _report_table(folds: list[dict[str, Any]], summary: FoldSummary) -> Table:
    """The main metrics of each fold, and over all of them."""
    names = main_metrics(summary.mean)
    columns = [("Fold", ""), ("Rows trained", "number"), ("Rows tested", "number")]
    columns += [*((METRIC_TITLES.get(name, name), "number") for name in names), ("Seconds", "number")]
    rows = [
        [
            f"{fold['fold']} of seed {fold['seed']}, repeat {fold['repeat']}",
            *(f"{fold[key]:,}" for key in ("train_rows", "test_rows")),
            *(format_number(fold["metrics"][name]) for name in names),
            f"{fold['seconds']:.1f}",
        ]
        for fold in folds
    ]
    for title, values in (("Mean", summary.mean), ("Standard deviation", summary.std)):
        rows.append([title, "", "", *(format_number(values[name]) for name in names), ""])
    bounds = [" to ".join(map(format_number, summary.ci95[name])) for name in names]
    rows.append(["95 % interval of the mean", "", "", *bounds, ""])
    return Table("Folds", f"The test rows of each of {len(folds)} folds", columns, rows)


def _jsonable(values):
    if isinstance(values, dict):
        return {name: _jsonable(value) for name, value in values.items()}
    if isinstance(values, tuple):
        return [_jsonable(value) for value in values]
    return float(values) if np.isfinite(values) else None
