"""Cross-validation: from rows to folds, and from a fold to a model that is trained on the others and tested on it."""

import copy
import dataclasses
import gc
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from accelerate import PartialState
from datasets import DatasetDict
from transformers import PreTrainedTokenizerBase, PrinterCallback
from transformers.trainer_utils import SaveStrategy
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from hf_ext.checks import check_watched_metrics
from hf_ext.data.difficulty import TRAINED_SCORERS
from hf_ext.data.folds import Fold, make_folds, row_groups
from hf_ext.data.holding_out import hold_out
from hf_ext.data.loading import TextData
from hf_ext.errors import DataError, UsageError
from hf_ext.evaluation.compute_metrics import build_compute_metrics
from hf_ext.experiments.before_distillation import begin_training
from hf_ext.experiments.classification_run import assemble_training, build_classifier
from hf_ext.preparation import quiet_arguments
from hf_ext.results import predict_splits
from hf_ext.run_record import training_log, write_json

# Holds a folder a fold.
FOLDS = "fold_runs"
# Ends the name of a folder in which a fold is being trained, or was when its process died.
PART = ".part"
# Written last: a fold whose folder has it is finished.
RESULT = "fold.json"
PROBABILITIES = "probabilities.npy"
# Shown of a group of rows.
SHOWN_CHARACTERS = 60


@dataclass
class CrossValidation:
    """
    All that the trainings of a cross-validation depend on. It can be pickled, for processes that train some of them.

    Args:
        settings (`dict[str, Any]`): Section of [`KFOLD_SETTINGS`] -> dataclass.
        data ([`TextData`]): `train` has all rows.
        folds (`list[Fold]`): From [`make_folds`].
        groups (`np.ndarray` of shape `(rows,)`): Rows with equal numbers are on one side also of the validation split.
        arguments (`dict[str, dict]`): Section -> resolved values.
    """

    settings: dict[str, Any]
    data: TextData
    folds: list[Fold]
    groups: np.ndarray
    arguments: dict[str, dict]

    @property
    def output_dir(self) -> Path:
        """The run's folder."""
        return Path(self.settings["training"].output_dir)

    def folder(self, number: int) -> Path:
        """Where the results of a fold are once it is finished."""
        return self.output_dir / FOLDS / self.folds[number].name

    def is_finished(self, number: int) -> bool:
        """Whether a fold has been trained and tested."""
        return (self.folder(number) / RESULT).is_file()

    def originals(self, rows: np.ndarray) -> np.ndarray:
        """Those of some rows that are no augmented copies: only they are tested on."""
        train = self.data.splits["train"]
        if "is_augmented" not in train.column_names:
            return rows
        return rows[~np.asarray(train["is_augmented"][:])[rows]]


def plan_folds(settings: dict[str, Any], data: TextData, arguments: dict[str, dict]) -> CrossValidation:
    """
    Deal the rows to folds. Nothing is written.

    Args:
        settings (`dict[str, Any]`): Section of [`KFOLD_SETTINGS`] -> dataclass.
        data ([`TextData`]): `train` has all rows, with `group` if there is a group column.
        arguments (`dict[str, dict]`): Section -> resolved values.

    Returns:
        [`CrossValidation`]

    Raises:
        UsageError: See [`make_folds`].
    """
    kfold, rows = settings["kfold"], data.splits["train"]
    groups = row_groups(rows, kfold.group_similarity)

    def name_group(row: int) -> str:
        text = rows[row]["text"]
        return repr(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…") + (
            f", {kfold.group_column} {rows[row]['group']}" if kfold.group_column is not None else ""
        )

    folds = make_folds(
        rows["label"][:],
        data.task.problem_type,
        kfold.num_folds,
        kfold.num_repeats,
        kfold.fold_seeds or [settings["training"].seed],
        groups,
        data.task.label_names,
        name_group,
        data.file_rows.get("train"),
    )
    return CrossValidation(settings, data, folds, groups, arguments)


def describe_folds(run: CrossValidation) -> list[str]:
    """
    How the rows were dealt, in sentences for a reader of the results.

    Args:
        run ([`CrossValidation`]): The run.
    """
    kfold, sizes = run.settings["kfold"], [len(fold.test) for fold in run.folds]
    seeds = list(dict.fromkeys(fold.seed for fold in run.folds))
    shared = np.bincount(run.groups)[run.groups] > 1
    several = f", {kfold.num_repeats} times with each" if kfold.num_repeats > 1 else ""
    notes = [
        f"{kfold.num_folds} folds of {min(sizes):,} to {max(sizes):,} rows, dealt with the seed"
        f"{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}{several}."
    ]
    if shared.any():
        notes.append(
            f"{shared.sum():,} rows share their fold with others of their group (equal texts, copies of one source"
            f"{', similar texts' * (kfold.group_similarity is not None)}"
            f"{f', equal {kfold.group_column}' if kfold.group_column is not None else ''})."
        )
    copies = sum(len(fold.test) - len(run.originals(fold.test)) for fold in run.folds[: kfold.num_folds])
    return notes + ([f"{copies:,} augmented copies are trained on only, never tested on."] if copies else [])


def fold_data(run: CrossValidation, number: int) -> TextData:
    """
    The rows of one fold: `test` are the fold's, `validation` is held out from the others, `train` is the rest.

    Args:
        run ([`CrossValidation`]): The run.
        number (`int`): Position in `run.folds`.

    Returns:
        [`TextData`]

    Raises:
        DataError: If the other rows are too few to hold any out.
    """
    fold, rows, data_args = run.folds[number], run.data.splits["train"], run.settings["data"]
    parts = {"train": fold.train}
    if data_args.validation_size > 0:
        held, rest = _hold_out(run, fold)
        parts = {"train": rest, "validation": held}
    parts["test"] = run.originals(fold.test)
    unused = [name for name in ("group",) if name in rows.column_names]
    splits = DatasetDict({name: rows.select(part).remove_columns(unused) for name, part in parts.items()})
    numbers = np.asarray(run.data.file_rows["train"])
    return TextData(
        splits,
        run.data.task,
        files=dict.fromkeys(parts, run.data.files["train"]),
        file_rows={name: numbers[part].tolist() for name, part in parts.items()},
    )


def fold_settings(settings: dict[str, Any], fold: Fold, folder: Path) -> dict[str, Any]:
    """
    The settings of one fold's training: its own seed and folder; checkpoints only to return to the best.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass; left as they are.
        fold ([`Fold`]): The fold.
        folder (`Path`): Where it is trained.

    Returns:
        `dict[str, Any]`
    """
    own = copy.deepcopy(settings)
    args = own["training"]
    args.run_name = f"{args.run_name or Path(args.output_dir).name}-{fold.name}"
    args.output_dir, args.seed, args.disable_tqdm = str(folder), fold.training_seed, True
    # With several accelerators a lone process would split each batch among them.
    args._n_gpu = min(args.n_gpu, 1)
    if not args.load_best_model_at_end:
        args.save_strategy = SaveStrategy.NO
    elif args.save_total_limit is None:
        args.save_total_limit = 1
    return own


def rehearse_fold(run: CrossValidation) -> PreTrainedTokenizerBase:
    """
    Go as far as to the first step of the first fold's training, where every technique has looked at its settings.
    Nothing is written.

    Args:
        run ([`CrossValidation`]): The run. If there are no validation rows, its folds will not evaluate.

    Returns:
        [`~transformers.PreTrainedTokenizerBase`]: The first fold's.

    Raises:
        UsageError: With what a technique or the trainer says.
    """
    data, settings = fold_data(run, 0), run.settings
    compute_metrics = build_compute_metrics(data.task.problem_type, settings["data"].metric_name)
    check_watched_metrics(settings["training"], compute_metrics, data, settings["early_stopping"].early_stopping_metric)
    with tempfile.TemporaryDirectory() as folder, _without_bars():
        own = fold_settings(settings, run.folds[0], Path(folder))
        evaluates = own["training"].eval_strategy
        own["training"] = quiet_arguments(own["training"], folder)
        # Early stopping looks at whether there are evaluations.
        own["training"].eval_strategy = evaluates
        # What takes trainings of its own begins with the fold.
        own["lr_finder"] = dataclasses.replace(own["lr_finder"], find_learning_rate=False)
        if own["curriculum"].curriculum in TRAINED_SCORERS:
            own["curriculum"] = dataclasses.replace(own["curriculum"], curriculum="length")
        built = build_classifier(own, data)
        training = assemble_training(own, built, compute_metrics, run.arguments)
        training.trainer.remove_callback(PrinterCallback)
        begin_training(training.trainer)
    return built.tokenizer


def train_fold(run: CrossValidation, number: int, folder: Path) -> None:
    """
    Train the model of one fold and test it, into a folder; nothing of it stays in memory. All processes of a launch
    have to call this.

    Args:
        run ([`CrossValidation`]): The run.
        number (`int`): Position in `run.folds`.
        folder (`Path`): Gets the predictions, metrics, log and `fold.json`, and with `save_fold_models` the model.

    Raises:
        UsageError: With the fold, if its training diverges or its rows cannot be trained on.
    """
    fold, main = run.folds[number], PartialState().is_main_process
    if main:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    PartialState().wait_for_everyone()
    group = run.settings["training"].run_name or run.output_dir.name
    try:
        with training_log(folder, main), _one_tracked_run(run.settings["training"].report_to, group), _without_bars():
            result = _train_and_test(run, number, folder)
    except UsageError as error:
        raise type(error)(f"{fold.name}: {error}") from error
    if main:
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        write_json(folder / RESULT, result)
    PartialState().wait_for_everyone()
    # A Trainer is held by its own callbacks and hooks: nothing of it goes without this.
    gc.collect()


def publish_fold(run: CrossValidation, number: int, folder: Path) -> None:
    """
    Move the folder of a fold that is finished to where it belongs. If another process was first, its result stays:
    it is the same.

    Args:
        run ([`CrossValidation`]): The run.
        number (`int`): Position in `run.folds`.
        folder (`Path`): Where it was trained.
    """
    final = run.folder(number)
    if final.exists() and not run.is_finished(number):
        shutil.rmtree(final)
    try:
        os.rename(folder, final)
    except OSError:
        if not run.is_finished(number):
            raise
        shutil.rmtree(folder, ignore_errors=True)


def remove_unfinished(run: CrossValidation) -> None:
    """Remove what processes that died have left of folds."""
    for folder in (run.output_dir / FOLDS).glob(f"*{PART}*"):
        shutil.rmtree(folder, ignore_errors=True)


def read_fold(run: CrossValidation, number: int) -> tuple[dict[str, Any], np.ndarray]:
    """
    What a finished fold's training came to.

    Args:
        run ([`CrossValidation`]): The run.
        number (`int`): Position in `run.folds`.

    Returns:
        `tuple`: `fold.json`, and the probabilities (regression: values) of its test rows.
    """
    folder = run.folder(number)
    result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return result, np.load(folder / PROBABILITIES, allow_pickle=False)


# ---- Inside ----


def _hold_out(run: CrossValidation, fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    """Rows to validate on, and the rest."""
    data_args, rows = run.settings["data"], run.data.splits["train"].select(fold.train)
    names = [name for name in ("text", "text_pair", "label", "is_augmented") if name in rows.column_names]
    columns = {name: rows[name][:] for name in names}
    columns |= {"row": fold.train.tolist(), "source_idx": run.groups[fold.train].tolist()}
    held_rows = round(data_args.validation_size * len(fold.train))
    try:
        held, rest = hold_out(columns, run.data.task, held_rows, data_args.split_seed)
    except DataError as error:
        raise DataError(
            f"{fold.name}: the {len(fold.train)} rows outside of the fold are too few to hold out {held_rows} of them "
            "(validation_size) to validate on. Set --validation_size 0 to train without validation, or add rows."
        ) from error
    return np.asarray(held["row"]), np.asarray(rest["row"])


def _train_and_test(run: CrossValidation, number: int, folder: Path) -> dict[str, Any]:
    started, fold = time.perf_counter(), run.folds[number]
    settings, data = fold_settings(run.settings, fold, folder), fold_data(run, number)
    built = build_classifier(settings, data)
    compute_metrics = build_compute_metrics(data.task.problem_type, settings["data"].metric_name)
    arguments = {**run.arguments, "training": {**run.arguments["training"], "seed": fold.training_seed}}
    training = assemble_training(settings, built, compute_metrics, arguments)
    trainer = training.trainer
    trainer.remove_callback(PrinterCallback)
    trained = time.perf_counter()
    trainer.train()
    trained = time.perf_counter() - trained
    predictions, metrics = predict_splits(trainer, built.data, training.encoded)
    if settings["kfold"].save_fold_models:
        trainer.save_model()
    if trainer.is_world_process_zero():
        training.images(folder)
        predictions["test"].to_jsonl(folder / "predictions.jsonl")
        np.save(folder / PROBABILITIES, predictions["test"].probabilities, allow_pickle=False)
    return {
        "seed": fold.seed,
        "repeat": fold.repeat,
        "fold": fold.index,
        "training_seed": fold.training_seed,
        "train_rows": len(fold.train),
        "test_rows": len(data.splits["test"]),
        "validation_rows": len(data.splits["validation"]) if "validation" in data.splits else 0,
        "metrics": _jsonable(metrics["test"]),
        "validation_metrics": _jsonable(metrics.get("validation", {})),
        "learning_rate": settings["training"].learning_rate,
        "steps": trainer.state.global_step,
        "train_seconds": round(trained, 3),
        "seconds": round(time.perf_counter() - started, 3),
        "notes": built.notes + training.notes,
    }


def _jsonable(metrics: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: float(value) if np.isfinite(value) else None for name, value in metrics.items()}


@contextmanager
def _one_tracked_run(trackers: list[str], group: str) -> Iterator[None]:
    """A run of Weights & Biases for one fold, in the group of all; its callback would go on with an active one."""
    if "wandb" not in trackers:
        yield
        return
    import wandb

    given = os.environ.get("WANDB_RUN_GROUP")
    os.environ["WANDB_RUN_GROUP"] = given or group
    try:
        yield
    finally:
        wandb.finish()
        if given is None:
            del os.environ["WANDB_RUN_GROUP"]


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without a progress bar for each mapping of rows and each checkpoint."""
    of_rows, of_models = not datasets.are_progress_bars_disabled(), is_progress_bar_enabled()
    datasets.disable_progress_bars()
    disable_progress_bar()
    try:
        yield
    finally:
        if of_rows:
            datasets.enable_progress_bars()
        if of_models:
            enable_progress_bar()
