"""From a trainer to what a run leaves: predictions, metrics, report, card, record."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import Trainer
from transformers.trainer_utils import PredictionOutput

from hf_ext.data.loading import TextData
from hf_ext.data.preflight.report import PreflightReport
from hf_ext.errors import UsageError
from hf_ext.evaluation.calibrating import CalibrationArguments, fit_calibration
from hf_ext.evaluation.calibration import Calibration
from hf_ext.evaluation.compute_metrics import UNCALIBRATED
from hf_ext.evaluation.model_card import write_model_card
from hf_ext.evaluation.out_of_scope import OUT_OF_SCOPE
from hf_ext.evaluation.predictions import Predictions, class_notes
from hf_ext.evaluation.report import Supplements, write_report
from hf_ext.evaluation.significance import metric_intervals
from hf_ext.evaluation.tables import results_table
from hf_ext.files import write_json
from hf_ext.problem_types import SINGLE_LABEL
from hf_ext.run_record import RunRecord

# What the results files call a split's metrics, as in the library's own examples.
PREFIXES = {"validation": "eval", "test": "test"}
# What an evaluation says beside metrics.
TIMINGS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


def show_dry_run(
    record: RunRecord,
    data: TextData | dict[str, TextData],
    notes: list[str],
    findings: PreflightReport | None = None,
) -> None:
    """
    Print the resolved configuration, what the data holds, and what the preflight found; on the main process.

    Args:
        record ([`RunRecord`]): The run's facts.
        data ([`TextData`] or `dict[str, TextData]`): The rows, or those of each task by its name.
        notes (`list[str]`): What a reader has to know.
        findings ([`PreflightReport`], *optional*): From [`check_data`].
    """
    if not PartialState().is_main_process:
        return
    print(json.dumps(record.facts["arguments"], indent=2, default=str))
    for title, rows in data.items() if isinstance(data, dict) else [("Task", data)]:
        print(f"\n{title}: {rows.task.problem_type}, {len(rows.task.label_names)} outputs")
        _show_splits(rows)
    print_notes(notes)
    if findings is not None:
        print(f"\n{findings.table()}\n")
    print("Dry run: nothing was trained or written.")


def print_notes(notes: list[str]) -> None:
    """Print what a reader of the results has to know."""
    for note in notes:
        print(f"Note: {note}")


def write_preflight(output_dir: Path, findings: PreflightReport | None) -> None:
    """Write `preflight.json`, and print what is not as it should be."""
    if findings is None:
        return
    write_json(output_dir / "preflight.json", findings.as_dict())
    if findings.verdict in ("warn", "fail"):
        print(f"{findings.summary()}\n  Rows and what to do: {output_dir / 'preflight.json'}, later also report.html.")


def calibrate_model(
    wanted: CalibrationArguments,
    trainer: Trainer,
    data: TextData,
    encoded: dict[str, Any],
    out_of_scope: Dataset | None = None,
) -> Calibration | None:
    """
    Fit a calibration to what a model says of the validation rows: once, on the main process, for all of them.

    Args:
        wanted ([`CalibrationArguments`]): What was asked for.
        trainer ([`~transformers.Trainer`]): With the model as it is to be reported: the best one is loaded already.
        data ([`TextData`]): The rows.
        encoded (`dict`): The same splits, tokenised.
        out_of_scope ([`~datasets.Dataset`], *optional*): Texts of no class, tokenised.

    Returns:
        [`Calibration`], or `None` if none was asked for.
    """
    if not wanted.calibrate:
        return None
    logits, labels = _logits(trainer.predict(encoded["validation"]), "validation")
    outside = None if out_of_scope is None else _logits(trainer.predict(out_of_scope), OUT_OF_SCOPE)[0]
    fitted = None
    if PartialState().is_main_process:
        rows = {"split": "validation", "rows": len(labels), "fingerprint": data.fingerprint()["validation"]}
        task = data.task
        fitted = fit_calibration(wanted, logits, labels, task.problem_type, task.label_names, rows, outside)
    return broadcast_object_list([fitted])[0]


def calibration_notes(calibration: Calibration | None, source: str | None = None) -> list[str]:
    """
    What a reader of calibrated results has to know.

    Args:
        calibration ([`Calibration`], *optional*): Applied to the results.
        source (`str`, *optional*): Where it was found; `None` if this run fitted it.
    """
    if calibration is None:
        return []
    where = f"found beside {source} and was fitted" if source else "fitted"
    rows = calibration.fitted_on.get("rows")
    said = (
        f"A temperature of {calibration.temperature:.4g} divides the logits; it was {where} on "
        f"{f'{rows:,} ' if rows else ''}validation rows. Results with and without it are in the results files "
        f"({UNCALIBRATED}...)."
    )
    if source is None:
        said += " Those on validation, where it was fitted, flatter it: look at test."
    goal = calibration.objective.get("threshold_objective")
    if goal is not None:
        said += f" Decisions are made for {goal}, not by the largest probability (or one half)."
    outside = calibration.out_of_scope_threshold
    if outside is not None:
        said += (
            f" A text whose largest probability is below {outside:.4g} counts as out of scope, which the files of "
            "predictions say beside the class that it would have. Of the metrics only in_scope_accuracy, coverage and "
            "out_of_scope_recall know of it."
        )
    plain = (
        "A plain transformers.pipeline knows nothing of calibration.json and shows the model's own probabilities; "
        "hf_ext.load_pipeline applies it."
    )
    return [said, *calibration.notes, plain]


def with_scores(calibration: Calibration, metrics: dict[str, dict[str, float]]) -> Calibration:
    """
    A calibration that tells what it did to each labelled split.

    Args:
        calibration ([`Calibration`]): As it was applied.
        metrics (`dict[str, dict[str, float]]`): From [`predict_splits`], with it.
    """
    scores = dict(calibration.scores)
    for split, values in metrics.items():
        before = {
            name.removeprefix(UNCALIBRATED): value for name, value in values.items() if name.startswith(UNCALIBRATED)
        }
        if before:
            scores[split] = {"before": before, "after": {name: values[name] for name in before}}
    return dataclasses.replace(calibration, scores=scores)


def predict_splits(
    trainer: Trainer,
    data: TextData,
    encoded: dict[str, Any],
    calibration: Calibration | None = None,
    out_of_scope: tuple[list, Dataset] | None = None,
) -> tuple[dict[str, Predictions], dict[str, dict[str, float]]]:
    """
    Predict validation and test, and save their metrics under the library's names.

    Args:
        trainer ([`~transformers.Trainer`]): With the model as it is to be reported.
        data ([`TextData`]): The texts.
        encoded (`dict`): The same splits, tokenised.
        calibration ([`Calibration`], *optional*): Makes probabilities and decisions out of the logits. The metrics are
            those of the trainer's `compute_metrics`, which has to know of it ([`build_compute_metrics`]).
        out_of_scope (`tuple[list, Dataset]`, *optional*): Test texts of no class, and the same tokenised: the share of
            them that the calibration turns away is the metric `out_of_scope_recall` of test.

    Returns:
        `tuple`: Split -> [`Predictions`], and split -> metrics without a prefix, `loss` among them.
    """
    predictions, metrics = {}, {}
    for split, prefix in PREFIXES.items():
        if split not in encoded:
            continue
        output = trainer.predict(encoded[split], metric_key_prefix=prefix)
        logits, labels = _logits(output, split)
        if calibration is None:
            predictions[split] = Predictions.from_logits(
                logits,
                labels,
                data.texts(split),
                problem_type=data.task.problem_type,
                label_names=data.task.label_names,
            )
        else:
            predictions[split] = calibration.predict(logits, labels, data.texts(split))
        if split == "test" and out_of_scope is not None:
            texts, rows = out_of_scope
            outside = _logits(trainer.predict(rows), OUT_OF_SCOPE)[0]
            predictions[OUT_OF_SCOPE] = calibration.predict(outside, None, texts)
            recall = float(predictions[OUT_OF_SCOPE].out_of_scope.mean())
            output.metrics.update({f"{prefix}_{OUT_OF_SCOPE}_recall": recall})
        trainer.save_metrics(prefix, {**output.metrics, f"{prefix}_samples": len(encoded[split])})
        found = {name.removeprefix(f"{prefix}_"): value for name, value in output.metrics.items()}
        metrics[split] = {name: value for name, value in found.items() if name not in TIMINGS}
    return predictions, metrics


def write_results(
    output_dir: Path,
    title: str,
    predictions: dict[str, Predictions],
    metrics: dict[str, dict[str, float]],
    history: list[dict[str, Any]],
    record: RunRecord,
    notes: list[str],
    base_model: str | None = None,
    model_card: bool = True,
    supplements: Supplements | None = None,
) -> None:
    """
    Write predictions, report, model card (for a trained model) and `run.json`, and print the table of results.

    Args:
        output_dir (`Path`): Where to.
        title (`str`): What the report and the card are called.
        predictions (`dict[str, Predictions]`): From [`predict_splits`].
        metrics (`dict[str, dict[str, float]]`): From [`predict_splits`].
        history (`list[dict]`): The trainer's `log_history`.
        record ([`RunRecord`]): The run's facts.
        notes (`list[str]`): What a reader has to know.
        base_model (`str`, *optional*): The pretrained model that was fine-tuned.
        model_card (`bool`, *optional*, defaults to `True`): Whether there is a model in the folder to describe.
        supplements ([`Supplements`], *optional*): What there is to show besides the results.
    """
    intervals = {split: metric_intervals(items) for split, items in predictions.items() if items.labels is not None}
    for split, items in predictions.items():
        items.to_jsonl(output_dir / f"predictions_{split}.jsonl")
    scored = {split: values for split, values in metrics.items() if split in intervals}
    missing = class_notes(predictions)
    print_notes(missing)
    notes = [*notes, *missing]
    record.add(notes=notes)
    if supplements is not None and supplements.calibration is not None:
        record.add(calibration=supplements.calibration.as_dict())
    run = record.as_dict()
    report = write_report(
        output_dir / "report.html",
        title=title,
        splits=predictions,
        metrics=scored,
        intervals=intervals,
        history=history,
        run=run,
        notes=notes,
        supplements=supplements,
    )
    if model_card:
        write_model_card(
            output_dir / "README.md",
            title=title,
            base_model=base_model,
            metrics=scored,
            intervals=intervals,
            run=run,
            notes=notes,
            splits=predictions,
            preflight=supplements.preflight if supplements else None,
        )
    record.add(results=scored, intervals=intervals)
    record.write(output_dir)
    if scored:
        print(f"\n{results_table(scored, intervals)}")
    print(f"\nReport: {report}")


# ---- Inside ----


def _logits(output: PredictionOutput, split: str) -> tuple[np.ndarray, np.ndarray | None]:
    """What a model said, and the labels."""
    logits = output.predictions[0] if isinstance(output.predictions, tuple) else output.predictions
    if not np.isfinite(logits).all():
        raise UsageError(
            f"The model's outputs for {split} are not finite: training has diverged (see training.log). "
            "Train again with a lower learning_rate, or with max_grad_norm=1."
        )
    return logits, output.label_ids


def _show_splits(data: TextData) -> None:
    for split, dataset in data.splits.items():
        counts = ""
        if data.task.problem_type == SINGLE_LABEL and "label" in dataset.column_names:
            named = Counter(data.task.label_names[label] for label in dataset["label"][:])
            counts = f" ({', '.join(f'{name} {count:,}' for name, count in named.most_common(20))})"
        print(f"{split}: {len(dataset):,} rows{counts}")
