"""From a fold to a model that is trained on the rows outside of it and tested on those inside."""

import copy
import dataclasses
import gc
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase, PrinterCallback
from transformers.trainer_utils import SaveStrategy

from hf_ext.checks import check_watched_metrics
from hf_ext.data.difficulty import TRAINED_SCORERS
from hf_ext.data.folds import Fold
from hf_ext.errors import UsageError
from hf_ext.evaluation.compute_metrics import build_compute_metrics
from hf_ext.experiments.classification_run import assemble_training, build_classifier
from hf_ext.experiments.cross_validation import PROBABILITIES, RESULT, CrossValidation, fold_data
from hf_ext.experiments.one_of_many import one_tracked_run, without_bars
from hf_ext.experiments.rehearsing import begin_training
from hf_ext.files import write_json
from hf_ext.launching import wait_for_everyone
from hf_ext.preparation import quiet_arguments
from hf_ext.results import predict_splits
from hf_ext.training_log import training_log


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
    else:
        args.save_total_limit = args.save_total_limit or 1
        # Only a roll-back goes on from them; else they need no optimizer (where the library can do without).
        goes_on = own["health"].nonfinite == "roll_back"
        args.save_only_model = not goes_on and (args.save_only_model or not (args.fsdp or args.deepspeed))
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
    with tempfile.TemporaryDirectory() as folder, without_bars():
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
    wait_for_everyone()
    group = run.settings["training"].run_name or run.output_dir.name
    try:
        with training_log(folder, main), one_tracked_run(run.settings["training"].report_to, group), without_bars():
            result = _train_and_test(run, number, folder)
    except UsageError as error:
        raise type(error)(f"{fold.name}: {error}") from error
    if main:
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        write_json(folder / RESULT, result)
    wait_for_everyone()
    # A Trainer is held by its own callbacks and hooks: nothing of it goes without this.
    gc.collect()


# ---- Inside ----


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
        "notes": built.notes + training.notes + trainer.merge_notes(),
    }


def _jsonable(metrics: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: float(value) if np.isfinite(value) else None for name, value in metrics.items()}
