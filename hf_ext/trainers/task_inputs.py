"""What a MultiTaskTrainer is given, by tasks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase, TrainingArguments, default_data_collator

from hf_ext.callbacks.base import ExtensionCallback
from hf_ext.data.task_sampling import sampling_exponent
from hf_ext.errors import ConfigurationError, nearest
from hf_ext.evaluation.compute_metrics import build_compute_metrics
from hf_ext.task_weighting import WEIGHTINGS, check_same_tasks

# Names of the Trainer's own for what comes by tasks here; `None` where there is no such thing.
NAMES_BY_TASK = {
    "model": "models",
    "model_init": None,
    "train_dataset": "datasets",
    "eval_dataset": "eval_datasets",
    "data_collator": "data_collators",
    "processing_class": "processing_classes",
    "compute_loss_func": None,
    "class_weights": None,
    "focal_gamma": None,
}
SPLITS = ("train", "validation")


def check_settings(
    args: TrainingArguments, sampling: str, temperature: float | None, weighting: str, others: Iterable[str]
) -> None:
    """
    See that settings exist and go with several tasks.

    Args:
        args ([`~transformers.TrainingArguments`]): The run's arguments.
        sampling (`str`): See [`sampling_exponent`].
        temperature (`float`, *optional*): Of the sampling.
        weighting (`str`): `"fixed"`, `"uncertainty"` or `"dwa"`.
        others (`Iterable[str]`): Names of further arguments.

    Raises:
        ConfigurationError: With what does not.
    """
    sampling_exponent(sampling, temperature=temperature)
    if weighting not in WEIGHTINGS:
        raise ConfigurationError(
            f"weighting is {weighting!r}; it must be one of {', '.join(WEIGHTINGS)}."
            f"{nearest(str(weighting), WEIGHTINGS)}"
        )
    for name in others:
        if name in NAMES_BY_TASK:
            instead = NAMES_BY_TASK[name]
            hint = f"pass {instead}, by task" if instead else "each task's model brings its loss"
            raise ConfigurationError(f"MultiTaskTrainer takes no {name}: {hint}.")
    if args.n_gpu > 1:
        raise ConfigurationError(
            f"One process has {args.n_gpu} GPUs, over which DataParallel would copy parts of the model only. Start one "
            "process a GPU (torchrun or accelerate launch), or make one GPU visible."
        )
    if args.label_smoothing_factor:
        raise ConfigurationError(
            f"label_smoothing_factor={args.label_smoothing_factor}: it is not done with several tasks. Leave it out."
        )
    if args.train_sampling_strategy == "batch_rebalance":
        raise ConfigurationError(
            "train_sampling_strategy='batch_rebalance' forms batches of its own, which would mix tasks. Use 'random', "
            "'sequential' or 'group_by_length'."
        )


def check_run(args: TrainingArguments, callbacks: Iterable[ExtensionCallback], share_encoder: bool) -> None:
    """
    See that a training's techniques go with several tasks.

    Args:
        args ([`~transformers.TrainingArguments`]): The run's arguments.
        callbacks (`Iterable[ExtensionCallback]`): The techniques.
        share_encoder (`bool`): Whether there is one encoder.

    Raises:
        ConfigurationError: With the one that does not.
    """
    for callback in callbacks:
        name = type(callback).__name__
        if callback.answers("train_sampler"):
            raise ConfigurationError(
                f"{name} orders the training rows, but batches of several tasks have their own order (sampling). Leave "
                "the callback out."
            )
        if not share_encoder and (callback.freezes_parameters or callback.answers("learning_rate_scales")):
            raise ConfigurationError(
                f"{name} goes by the layers of one encoder, but the tasks do not share theirs. Leave the callback out, "
                "or load all models from one checkpoint."
            )
    if args.world_size > 1 and args.ddp_find_unused_parameters is False:
        raise ConfigurationError(
            "ddp_find_unused_parameters=False does not go with several tasks: the heads of the tasks that a batch is "
            "not of get no gradient. Leave it out."
        )


def metrics_by_task(
    compute_metrics: Mapping[str, Callable] | None, problem_types: Mapping[str, str]
) -> dict[str, Callable]:
    """
    Each task's `compute_metrics`: what is given, else that of its kind of task.

    Raises:
        ConfigurationError: If it is no mapping, or names what is no task.
    """
    given = {} if compute_metrics is None else compute_metrics
    if not isinstance(given, Mapping):
        raise ConfigurationError("compute_metrics must be a mapping of tasks to functions: each has its own kind.")
    check_known("compute_metrics", given, list(problem_types))
    return {task: given.get(task) or build_compute_metrics(kind) for task, kind in problem_types.items()}


def check_known(argument: str, given: Iterable[str], tasks: Sequence[str]) -> None:
    """
    See that all names are those of tasks.

    Raises:
        ConfigurationError: With the first that is not.
    """
    for name in given:
        if name not in tasks:
            raise ConfigurationError(
                f"{argument} names {name!r}, which is no task. Tasks: {', '.join(tasks)}.{nearest(str(name), tasks)}"
            )


def one_a_task(argument: str, given: Any, tasks: Sequence[str]) -> dict[str, Any]:
    """
    One object for all tasks, or a mapping with one for each, as a mapping.

    Raises:
        ConfigurationError: If a mapping lacks a task or has others.
    """
    # A tokenizer's output is a mapping, but a tokenizer is not.
    if not isinstance(given, Mapping):
        return dict.fromkeys(tasks, given)
    check_same_tasks(argument, given, tasks)
    return {task: given[task] for task in tasks}


def default_collator(task: str, processing_class: Any, rows: Any) -> Callable:
    """
    Padding with a task's tokenizer; without one, rows of equal length as they are.

    Raises:
        ConfigurationError: If rows of different lengths have no tokenizer.
    """
    if isinstance(processing_class, PreTrainedTokenizerBase):
        return DataCollatorWithPadding(processing_class)
    lengths = {len(rows[index]["input_ids"]) for index in range(len(rows)) if "input_ids" in rows[index]}
    if len(lengths) > 1:
        raise ConfigurationError(
            f"Rows of the task {task!r} have from {min(lengths)} to {max(lengths)} tokens, and nothing says how they "
            "become a batch: pass processing_classes (a tokenizer pads them) or data_collators."
        )
    return default_data_collator


def train_and_eval_rows(
    datasets: Mapping[str, Any], eval_datasets: Mapping[str, Any] | None, tasks: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    The rows to train and to evaluate on.

    Args:
        datasets (`Mapping[str, Dataset | Mapping[str, Dataset]]`):
            Task -> training rows, or a mapping with `train` and, optionally, `validation`.
        eval_datasets (`Mapping[str, Dataset]`, *optional*):
            Task -> rows to evaluate on, in place of `validation`.
        tasks (`Sequence[str]`): The tasks.

    Returns:
        `tuple[dict, dict]`: Task -> training rows; task -> rows to evaluate on, of those that have any.

    Raises:
        ConfigurationError: If tasks are missing or unknown, or splits have no `train`.
    """
    if not isinstance(datasets, Mapping):
        raise ConfigurationError("datasets must be a mapping of tasks to their rows.")
    check_same_tasks("datasets", datasets, tasks)
    train, evaluated = {}, {}
    for task in tasks:
        given = datasets[task]
        if isinstance(given, Mapping):
            if SPLITS[0] not in given:
                raise ConfigurationError(
                    f"datasets: the task {task!r} has the splits {', '.join(map(str, given)) or 'none'}, no 'train'."
                )
            train[task] = given[SPLITS[0]]
            if SPLITS[1] in given:
                evaluated[task] = given[SPLITS[1]]
        else:
            train[task] = given
    check_known("eval_datasets", eval_datasets or {}, tasks)
    evaluated.update(eval_datasets or {})
    return train, {task: evaluated[task] for task in tasks if task in evaluated}
