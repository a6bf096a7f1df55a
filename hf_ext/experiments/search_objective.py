"""What a trial is worth: the mean over one or several trainings."""

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_utils import SaveStrategy

from hf_ext.arguments import RecipeTrainingArguments
from hf_ext.data.folds import make_folds, row_groups
from hf_ext.data.loading import TextData
from hf_ext.errors import ConfigurationError, UsageError
from hf_ext.experiments.classification_run import assemble_training, build_classifier
from hf_ext.experiments.one_of_many import one_tracked_run
from hf_ext.experiments.restoring import undisturbed
from hf_ext.results import TIMINGS
from hf_ext.run_record import plain_arguments
from hf_ext.trainers.batch_parts import is_out_of_memory

# From settings, rows, a folder and further callbacks to the metrics on `data.splits["validation"]`.
TrainOnce = Callable[[dict[str, Any], TextData, Path, Sequence[TrainerCallback]], dict[str, float]]


@dataclass(frozen=True)
class TrainingPart:
    """
    One of the trainings whose mean is a trial's value.

    Args:
        name (`str`): Such as `"seed 1"` or `"fold 2, seed 1"`.
        data ([`TextData`]): What it trains on (`train`) and is judged by (`validation`).
        seed (`int`): Of the training.
    """

    name: str
    data: TextData
    seed: int


def training_parts(data: TextData, seeds: Sequence[int], folds: int | None, split_seed: int) -> list[TrainingPart]:
    """
    The trainings of every trial.

    Args:
        data ([`TextData`]): With `train` and, without folds, `validation`.
        seeds (`Sequence[int]`): Training seeds.
        folds (`int`, *optional*): Into how many parts the training rows are dealt, each of which is held out once.
        split_seed (`int`): Of the dealing.

    Returns:
        `list[TrainingPart]`: Fold by fold, in each seed by seed.

    Raises:
        ConfigurationError: If there is nothing to validate on, or the rows cannot be dealt to so many folds.
    """
    if folds is None and "validation" not in data.splits:
        raise ConfigurationError(
            "A search compares trials on validation rows, of which there are none: pass --validation_file, a "
            "--validation_size above 0, or --search_folds."
        )
    parts = [("", data)] if folds is None else fold_data(data, folds, split_seed)
    return [
        TrainingPart(f"{name}, seed {seed}".removeprefix(", "), rows, seed) for name, rows in parts for seed in seeds
    ]


def fold_data(data: TextData, folds: int, seed: int) -> list[tuple[str, TextData]]:
    """
    The training rows without each fold, which is validated on; see [`make_folds`] and [`row_groups`]. Augmented copies
    are not validated on.

    Args:
        data ([`TextData`]): Only `train` is used.
        folds (`int`): How many.
        seed (`int`): Of the dealing.

    Returns:
        `list[tuple[str, TextData]]`: The fold's name and the rows.

    Raises:
        UsageError: See [`make_folds`].
    """
    rows, file_rows = data.splits["train"], np.asarray(data.file_rows["train"])
    groups = row_groups(rows)
    labels, task = rows["label"][:], data.task
    try:
        dealt = make_folds(labels, task.problem_type, folds, 1, [seed], groups, task.label_names, file_rows=file_rows)
    except UsageError as error:
        raise type(error)(f"search_folds={folds}: {error}") from error
    copies = np.zeros(len(rows), dtype=bool)
    if "is_augmented" in rows.column_names:
        copies = np.asarray(rows["is_augmented"][:])
    parts = []
    for fold in dealt:
        chosen = {"train": fold.train, "validation": fold.test[~copies[fold.test]]}
        splits = DatasetDict({split: rows.select(indices) for split, indices in chosen.items()})
        files = dict.fromkeys(chosen, data.files["train"])
        numbers = {split: file_rows[indices].tolist() for split, indices in chosen.items()}
        parts.append((f"fold {fold.index + 1}", replace(data, splits=splits, files=files, file_rows=numbers)))
    return parts


def evaluate_parts(
    parts: Sequence[TrainingPart],
    make_settings: Callable[[int], dict[str, Any]],
    train_once: TrainOnce,
    metric: str,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
) -> tuple[float, list[dict[str, Any]]]:
    """
    The mean of a metric over trainings that differ in seed or rows only.

    Args:
        parts (`Sequence[TrainingPart]`): The trainings, one at least.
        make_settings (`Callable`): From a seed to fresh settings, section -> dataclass.
        train_once (`Callable`): Such as [`train_classifier`].
        metric (`str`): Without `eval_`.
        folder (`Path`): Where trackers and checkpoints write while it trains.
        callbacks (`Sequence[TrainerCallback]`, *optional*): Of the first training alone, such as [`PruningCallback`]:
            a trial that is no good in it is not worth the others.

    Returns:
        `tuple`: The mean, and of each training `name`, `value`, `metrics` and `seconds`.

    Raises:
        UsageError: If the metric of a training is not finite.
    """
    results = []
    for number, part in enumerate(parts):
        begun = time.perf_counter()
        own = callbacks if number == 0 else ()
        where = folder / part.name.replace(", ", "-").replace(" ", "-") if len(parts) > 1 else folder
        metrics = train_once(make_settings(part.seed), part.data, where, own)
        value = metrics[metric]
        if not np.isfinite(value):
            raise UsageError(f"{metric} is {value} after training ({part.name}): there is nothing to compare.")
        seconds = round(time.perf_counter() - begun, 2)
        results.append({"name": part.name, "value": value, "metrics": metrics, "seconds": seconds})
    return float(np.mean([result["value"] for result in results])), results


def train_classifier(
    settings: dict[str, Any],
    data: TextData,
    folder: Path,
    callbacks: Sequence[TrainerCallback],
    compute_metrics: Any,
) -> dict[str, float]:
    """
    Train a classifier as `run_classification.py` does, and evaluate it; neither it nor its checkpoints are kept, and
    what comes after it goes on as if it had not been.

    Args:
        settings (`dict[str, Any]`): Section of [`TRAINING_SETTINGS`] -> dataclass.
        data ([`TextData`]): With `train` and `validation`.
        folder (`Path`): Where it writes while it trains.
        callbacks (`Sequence[TrainerCallback]`): Beside the techniques.
        compute_metrics (`Callable`): The Trainer's.

    Returns:
        `dict[str, float]`: The metrics on validation, without `eval_`.

    Raises:
        UsageError: If the model's outputs are not finite.
    """
    training_args = settings["training"]
    use_folder(settings, folder)
    try:
        with undisturbed(), one_tracked_run(training_args.report_to, training_args.run_name):
            built = build_classifier(settings, data)
            training = assemble_training(
                settings, built, compute_metrics, plain_arguments(settings), more_callbacks=callbacks
            )
            trainer = training.trainer
            # A line a trial is enough; what is logged is in training.log.
            trainer.remove_callback(PrinterCallback)
            try:
                trainer.train()
                output = trainer.predict(training.encoded["validation"], metric_key_prefix="eval")
            finally:
                trainer.accelerator.free_memory()
    finally:
        remove_checkpoints(folder)
    logits = output.predictions[0] if isinstance(output.predictions, tuple) else output.predictions
    if not np.isfinite(logits).all():
        raise UsageError("the model's outputs are not finite: training has diverged")
    found = {name.removeprefix("eval_"): float(value) for name, value in output.metrics.items()}
    return {name: value for name, value in found.items() if name not in TIMINGS}


def use_folder(settings: dict[str, Any], folder: Path) -> None:
    """Let a training write nowhere else, and no more than what its own end, or a roll-back, needs."""
    training_args: RecipeTrainingArguments = settings["training"]
    remove_checkpoints(folder)
    training_args.output_dir, training_args.disable_tqdm = str(folder), True
    training_args.push_to_hub = False
    if training_args.load_best_model_at_end:
        training_args.save_total_limit = 1
        training_args.save_only_model = settings["health"].nonfinite != "roll_back"
    else:
        training_args.save_strategy = SaveStrategy.NO


def remove_checkpoints(folder: Path) -> None:
    """Remove a training's checkpoints, and its folder if nothing else is in it."""
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    with suppress(OSError):
        folder.rmdir()


def failure_reason(error: BaseException) -> str | None:
    """
    Why a trial has failed, if others may do better.

    Args:
        error (`BaseException`): What its training raised.

    Returns:
        `str` for memory that is too small, a training that has diverged, and what a technique says of its settings;
        `None` for an error that is not the trial's.
    """
    text = str(error).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    if is_out_of_memory(error):
        return f"out of memory: {first}"
    if isinstance(error, UsageError):
        return text
    if isinstance(error, ValueError | FloatingPointError):
        return f"{type(error).__name__}: {first}"
    return None
