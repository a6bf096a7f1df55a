"""What the three models of a distillation answered, compared and written down."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_ext.arguments import ModelArguments
from hf_ext.assembly import build_trainer, tokenize_splits, trainer_settings
from hf_ext.data.loading import TextData
from hf_ext.data.transfer_set import TransferSet
from hf_ext.evaluation.comparison import Comparison, compare_models
from hf_ext.evaluation.predictions import Predictions
from hf_ext.evaluation.speed import compare_speed, model_cost
from hf_ext.experiments.distillation_run import CONTROL, DISTILLED, TEACHER, ask, load_part
from hf_ext.files import write_json
from hf_ext.models.building import load_tokenizer
from hf_ext.models.teacher import Teacher
from hf_ext.results import PREFIXES, predict_splits


def predict_with(folder: Path, settings: dict[str, Any], data: TextData, compute_metrics) -> dict[str, Predictions]:
    """The predictions, by split, of the model in a folder of the run, with its metrics written beside it."""
    trusted = settings["model"].trust_remote_code
    model = load_part(settings, folder)
    tokenizer = load_tokenizer(str(folder), ModelArguments(model_name_or_path=str(folder), trust_remote_code=trusted))
    own = copy.deepcopy(settings["training"])
    own.output_dir, own.report_to, own.push_to_hub = str(folder), [], False
    held_out = DatasetDict({split: rows for split, rows in data.splits.items() if split in PREFIXES})
    encoded = tokenize_splits(tokenizer, settings["data"], own, held_out)
    trainer = build_trainer(
        model, tokenizer, encoded, own, trainer_settings(settings, with_loss=False), compute_metrics
    )
    predictions, _ = predict_splits(trainer, data, encoded)
    return predictions


def teacher_predictions(
    settings: dict[str, Any], teacher: Teacher, data: TextData
) -> tuple[dict[str, Predictions], list[str]]:
    """
    What the teacher says of the validation and test rows, in float32.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        teacher ([`Teacher`]): Is asked only for texts that it has not answered before.
        data ([`TextData`]): The rows.

    Returns:
        `tuple`: Its answers by split, and sentences for the reader of the results.
    """
    predictions, notes = {}, []
    for split, rows in data.splits.items():
        if split not in PREFIXES:
            continue
        answers = ask(settings, teacher, data.texts(split), "float32")
        notes += answers.notes
        predictions[split] = Predictions.from_logits(
            answers.logits,
            labels_of(rows),
            data.texts(split),
            problem_type=data.task.problem_type,
            label_names=data.task.label_names,
        )
    return predictions, notes


def labels_of(rows: Dataset) -> np.ndarray | None:
    """The labels of a split as an array, numbers as a trainer has them (float32); `None` if it has none."""
    if "label" not in rows.column_names:
        return None
    labels = np.asarray(rows["label"][:])
    return labels.astype(np.float32) if labels.dtype.kind == "f" else labels


def compare_distillation(
    predictions: dict[str, dict[str, Predictions]],
    models: dict[str, list[tuple[PreTrainedModel, PreTrainedTokenizerBase, int]]],
    data: TextData,
) -> dict[str, Comparison]:
    """
    Teacher, distilled student and control on the test rows, or on the validation rows if those have no labels.

    Args:
        predictions (`dict[str, dict[str, Predictions]]`): By model, then by split.
        models (`dict[str, list[tuple]]`):
            By model, what it is made of: model, tokenizer, and the length in tokens to which it reads.
        data ([`TextData`]): The texts that the speed is measured on.

    Returns:
        `dict[str, Comparison]`: By split; empty without labelled rows.
    """
    labelled = [
        split for split in ("test", "validation") if split in data.splits and "label" in data.splits[split].features
    ]
    if not labelled:
        return {}
    split = labelled[0]
    members = {_member(name, number): part for name, parts in models.items() for number, part in enumerate(parts)}
    pairs = {name: (model, tokenizer) for name, (model, tokenizer, _) in members.items()}
    lengths = {name: length for name, (_, _, length) in members.items()}
    speeds = compare_speed(pairs, data.texts(split), max_length=lengths)
    costs = {}
    for name, parts in models.items():
        own = [{**model_cost(model), **speeds[_member(name, n)]} for n, (model, *_) in enumerate(parts)]
        costs[name] = own[0] if len(own) == 1 else _added_up(own)
    if len(models[TEACHER]) > 1:
        for own in costs.values():
            own["speed_up"] = own["texts_per_second"] / costs[TEACHER]["texts_per_second"]
            own.pop("speed_up_range", None)
    # One architecture, one cost.
    costs[CONTROL] = costs[DISTILLED]
    pairs = [(DISTILLED, CONTROL), (DISTILLED, TEACHER)]
    return {split: compare_models({name: items[split] for name, items in predictions.items()}, pairs, costs)}


def _member(name: str, number: int) -> str:
    return name if not number else f"{name} {number + 1}"


def _added_up(members: list[dict[str, Any]]) -> dict[str, Any]:
    """What several models cost of which all are asked."""
    together = {name: sum(costs[name] for costs in members) for name in ("parameters", "megabytes", "p50_ms", "p95_ms")}
    return {**together, "texts_per_second": 1 / sum(1 / costs["texts_per_second"] for costs in members)}


def write_distillation(
    output_dir: Path,
    predictions: dict[str, dict[str, Predictions]],
    comparisons: dict[str, Comparison],
    transfer: TransferSet,
    steps: int,
) -> None:
    """
    Write `distillation.json` and the predictions of teacher and control, and print the table.

    Args:
        output_dir (`Path`): The run's folder.
        predictions (`dict[str, dict[str, Predictions]]`): By model, then by split.
        comparisons (`dict[str, Comparison]`): From [`compare_distillation`].
        transfer ([`TransferSet`]): What the student learnt from.
        steps (`int`): Optimizer steps of the student and of the control.
    """
    for name in (TEACHER, CONTROL):
        for split, items in predictions[name].items():
            items.to_jsonl(output_dir / name / f"predictions_{split}.jsonl")
    facts = {"steps": steps, "transfer_set": transfer.counts}
    for split, comparison in comparisons.items():
        facts |= {"split": split, **comparison.as_dict()}
        print(f"\n{split}:\n{comparison.table()}\n")
        for sentence in comparison.sentences:
            print(sentence)
    write_json(output_dir / "distillation.json", facts)
