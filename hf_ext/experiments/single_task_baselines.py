"""Each of several tasks alone, for as many steps as it was given beside the others: what was transferred."""

import copy
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from transformers import PreTrainedModel

from hf_ext.arguments import ModelArguments, RecipeTrainingArguments
from hf_ext.assembly import build_trainer, technique_callbacks, trainer_settings
from hf_ext.checks import learning_settings
from hf_ext.data.task_sampling import TaskBatchSampler, task_order
from hf_ext.evaluation.comparison import Comparison, compare_models
from hf_ext.evaluation.metrics import LESS_IS_BETTER
from hf_ext.evaluation.tables import METRIC_TITLES, format_number, format_p
from hf_ext.experiments.loaded_tasks import LoadedTask, build_task_model, own_metric
from hf_ext.experiments.multitask_run import BASELINES, TaskResults, build_multitask_trainer, predict_task
from hf_ext.experiments.rehearsing import begin_training
from hf_ext.experiments.teacher_and_control import control_training_arguments
from hf_ext.experiments.trained_parts import StopAt, train_once
from hf_ext.models.building import load_pretrained
from hf_ext.preparation import quiet_arguments
from hf_ext.trainers.base import ExtendedTrainer
from hf_ext.trainers.multitask import MultiTaskTrainer

MULTI, SINGLE = "multi-task", "single-task"


def steps_by_task(sampler: TaskBatchSampler, steps: int, accumulation: int = 1) -> list[int]:
    """
    How many of a run's optimizer steps each task was given.

    Args:
        sampler ([`TaskBatchSampler`]): The run's; the order of the tasks is a function of its seed and the epoch.
        steps (`int`): Optimizer steps of the run.
        accumulation (`int`, *optional*, defaults to 1): Batches of a step. They may be of several tasks: a task then
            has its batches divided by this, rounded up.

    Returns:
        `list[int]`
    """
    batches = len(sampler) // sampler.batch_size
    steps_per_epoch = -(-batches // accumulation)
    counts = np.zeros(len(sampler.sizes), dtype=np.int64)
    for epoch in range(-(-steps // steps_per_epoch)):
        order = task_order(sampler.quotas(epoch), sampler.seed, epoch)
        done = min((steps - epoch * steps_per_epoch) * accumulation, batches)
        counts += np.bincount(order[:done], minlength=len(counts))
    return [math.ceil(count / accumulation) for count in counts.tolist()]


def task_steps(trainer: MultiTaskTrainer, steps: int) -> dict[str, int]:
    """
    Optimizer steps of each task among the first `steps` of a run.

    Args:
        trainer ([`MultiTaskTrainer`]): The run's.
        steps (`int`): Optimizer steps of all tasks.
    """
    found = steps_by_task(trainer._get_train_sampler(), steps, trainer.args.gradient_accumulation_steps)
    return dict(zip(trainer.tasks, found, strict=True))


def planned_steps(trainer: MultiTaskTrainer) -> int:
    """How many optimizer steps a run will make, if nothing ends it early."""
    args = trainer.args
    if args.max_steps > 0:
        return args.max_steps
    sampler = trainer._get_train_sampler()
    steps_per_epoch = -(-(len(sampler) // sampler.batch_size) // args.gradient_accumulation_steps)
    return math.ceil(args.num_train_epochs * steps_per_epoch)


def baseline_arguments(
    settings: dict[str, Any], task: LoadedTask, folder: Path, planned: int, planned_of_all: int
) -> RecipeTrainingArguments:
    """
    How a task is trained alone: as with the others, in schedules of its own number of steps.

    What is counted in steps of all tasks (a warm-up, the time between evaluations or checkpoints) becomes the same
    share of the task's.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        task ([`LoadedTask`]): The task.
        folder (`Path`): Where its model goes.
        planned (`int`): Its optimizer steps.
        planned_of_all (`int`): Those of all tasks.
    """
    training_args = settings["training"]
    own = control_training_arguments(training_args, folder, planned)
    if own.warmup_steps >= 1:
        own.warmup_steps = min(round(own.warmup_steps * planned / planned_of_all), planned)
    if own.eval_steps is not None and own.eval_steps >= 1:
        own.eval_steps = max(1, round(own.eval_steps * planned / planned_of_all))
    if own.eval_strategy == "steps":
        own.eval_delay = round((own.eval_delay or 0) * planned / planned_of_all)
    if own.save_steps >= 1:
        own.save_steps = max(1, round(own.save_steps * planned / planned_of_all))
        if own.load_best_model_at_end and own.eval_strategy == own.save_strategy == "steps" and own.eval_steps >= 1:
            # Only what was evaluated can be the best.
            own.save_steps = own.eval_steps * max(1, round(training_args.save_steps / training_args.eval_steps))
    if "validation" not in task.encoded:
        own.eval_strategy, own.load_best_model_at_end = type(own.eval_strategy)("no"), False
    elif own.metric_for_best_model is not None:
        own.metric_for_best_model = own_metric(own.metric_for_best_model, task)
        own.greater_is_better = own.metric_for_best_model not in LESS_IS_BETTER
    return own


def rehearse_tasks(
    settings: dict[str, Any], models: dict[str, PreTrainedModel], tasks: dict[str, LoadedTask]
) -> list[str]:
    """
    Go as far as to the first step of each training, where every technique has looked at its settings: those of the
    baselines are shorter. Nothing is written.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        models (`dict[str, PreTrainedModel]`): Task -> model; copies of them are used.
        tasks (`dict[str, LoadedTask]`): The tasks.

    Returns:
        `list[str]`: What a reader of the results has to know.

    Raises:
        UsageError: With what a technique or a trainer says.
    """
    own = copy.deepcopy(settings["training"])
    own.report_to, own.push_to_hub, own.disable_tqdm = [], False, True
    with tempfile.TemporaryDirectory() as folder:
        own.output_dir = folder
        trainer = build_multitask_trainer({**settings, "training": own}, copy.deepcopy(models), tasks)
        begin_training(trainer)
        if not settings["multitask"].single_task_baselines:
            return trainer.notes
        planned_of_all = planned_steps(trainer)
        for name, planned in task_steps(trainer, planned_of_all).items():
            if planned:
                alone = baseline_arguments(settings, tasks[name], Path(folder), planned, planned_of_all)
                begin_training(_baseline_trainer(settings, tasks[name], quiet_arguments(alone, folder), planned))
    return trainer.notes


def train_baselines(
    settings: dict[str, Any], tasks: dict[str, LoadedTask], trainer: MultiTaskTrainer, output_dir: Path, resume: bool
) -> TaskResults:
    """
    Train each task alone, into `output_dir/baselines/<task>`, for exactly as many steps as it was given.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        tasks (`dict[str, LoadedTask]`): The tasks.
        trainer ([`MultiTaskTrainer`]): After its training.
        output_dir (`Path`): The run's folder.
        resume (`bool`): Whether baselines that are there already are taken, or continued.

    Returns:
        `dict`: Task -> predictions and metrics as [`predict_splits`]; without tasks that were given no step.
    """
    planned = task_steps(trainer, trainer.state.max_steps)
    made = task_steps(trainer, trainer.state.global_step)
    found = {}
    for number, (name, task) in enumerate(tasks.items(), 1):
        if not made[name]:
            continue
        if PartialState().is_main_process:
            print(f"\nBaseline {number} of {len(tasks)}: {name} alone, {made[name]:,} steps.", flush=True)
        folder = output_dir / BASELINES / name
        own = baseline_arguments(settings, task, folder, planned[name], trainer.state.max_steps)
        depends_on = {part: vars(settings[part]) for part in ("model", "textcnn", "augmentation")}
        depends_on |= {part: vars(settings[part]) for part in ("unfreezing", "learning_rates")}
        depends_on["training"] = learning_settings(settings["training"])
        depends_on |= {"data": task.given.fingerprint(), "steps": made[name]}
        depends_on["max_seq_length"] = task.args.max_seq_length
        train_once(
            folder,
            lambda task=task, own=own, steps=made[name]: _baseline_trainer(settings, task, own, steps),
            depends_on,
            resume,
            made[name],
        )
        found[name] = predict_task(settings, task, _load(settings, task, folder), folder)
        if PartialState().is_main_process:
            for split, items in found[name][0].items():
                items.to_jsonl(folder / f"predictions_{split}.jsonl")
    return found


def compare_tasks(together: TaskResults, alone: TaskResults) -> dict[str, tuple[str, Comparison]]:
    """
    Each task's model beside its baseline, on the test rows, or on the validation rows if those have no labels.

    Args:
        together, alone (`dict`): Task -> predictions and metrics.

    Returns:
        `dict[str, tuple[str, Comparison]]`: By task, the split and the comparison; without tasks that have no labels.
    """
    compared = {}
    for task, (baseline, _) in alone.items():
        labelled = [s for s in ("test", "validation") if s in baseline and baseline[s].labels is not None]
        if labelled:
            split = labelled[0]
            given = {MULTI: together[task][0][split], SINGLE: baseline[split]}
            compared[task] = (split, compare_models(given, [(MULTI, SINGLE)]))
    return compared


def transfer_sentence(task: str, split: str, comparison: Comparison) -> str:
    """
    What a task gained from the others.

    Args:
        task (`str`): Its name.
        split (`str`): On which rows.
        comparison ([`Comparison`]): From [`compare_tasks`].
    """
    (pair,) = comparison.pairs
    value, low, high, _ = pair.differences[pair.metric]
    title = METRIC_TITLES[pair.metric].lower() if pair.metric != "pearson" else "Pearson's correlation"
    where = f"{pair.rows:,} {split} rows"
    if not math.isfinite(value):
        return f"{task}: transfer unknown; {title} is undefined on the {where} for one of the two."
    if pair.metric == "pearson":
        size = f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
    else:
        size = f"{100 * value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    scores = [format_number(comparison.models[name].metrics[pair.metric]) for name in (MULTI, SINGLE)]
    return f"{task}: transfer {size}, {format_p(pair.p)}; {title} {scores[0]}, alone {scores[1]}, on {where}."


# ---- Inside ----


def _baseline_trainer(
    settings: dict[str, Any], task: LoadedTask, own: RecipeTrainingArguments, steps: int
) -> ExtendedTrainer:
    model, _, _ = build_task_model(settings, task)
    callbacks = [*technique_callbacks(settings), StopAt(steps)]
    return build_trainer(
        model,
        task.tokenizer,
        task.encoded,
        own,
        trainer_settings(settings, with_loss=False),
        task.compute_metrics,
        callbacks,
    )


def _load(settings: dict[str, Any], task: LoadedTask, folder: Path):
    given = settings["model"]
    own = ModelArguments(
        model_name_or_path=str(folder),
        trust_remote_code=given.trust_remote_code,
        attn_implementation=given.attn_implementation,
    )
    model, _ = load_pretrained(own, task.given.task, settings["training"].use_cpu)
    return model
