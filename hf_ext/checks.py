"""What is looked at before anything is trained or written."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_reporting_integration_callbacks

from hf_ext.checkpoints import check_resumable, newest_whole_checkpoint
from hf_ext.compilation import check_compilation
from hf_ext.data.loading import TextData
from hf_ext.errors import ConfigurationError, nearest
from hf_ext.evaluation.compute_metrics import possible_metric_names
from hf_ext.launching import check_joined, check_same_checkpoint
from hf_ext.lr_schedules import OWN_SCHEDULES
from hf_ext.run_lock import LOCK

logger = logging.getLogger(__name__)

# Where answers are kept changes nothing; of tasks, rows, order, weights and lengths are compared.
WITHOUT_CONSEQUENCE = ("teacher_cache_dir", "tasks", "single_task_baselines", "peft_merge")
# What in the section "model" decides which weights there are.
SHAPES = ("model_name_or_path", "model_type", "config_name", "tokenizer_name", "num_hidden_layers")

# What in the section "training" decides the weights.
LEARNING = (
    "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
    "optim", "optim_args", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
    "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "label_smoothing_factor", "train_sampling_strategy",
    "seed", "data_seed", "bf16", "fp16",
)  # fmt: skip
# What has to be as it was when a run goes on: section -> what a message calls it.
SECTIONS = {
    "model": "model",
    "textcnn": "model",
    "peft": "adapter",
    "augmentation": "augmentation",
    "loss": "loss",
    "curriculum": "curriculum",
    "learning_rates": "set of layer-wise learning rates",
    "teacher": "teacher",
    "distillation": "distillation",
    "multitask": "way of learning several tasks",
}
# The same of the facts about the data.
LEARNT_FROM = {
    "transfer": "unlabelled texts (or edited copies) are others than those that it",
    "teacher": "weights, tokenizer or settings of the teacher are others than those that it",
    "tasks": "tasks (or their order, weights or lengths) are others than those that it",
}


def learning_settings(training_args: TrainingArguments) -> dict[str, Any]:
    """What decides how a model learns, JSON-able."""
    settings = training_args.to_dict()
    return {name: settings[name] for name in LEARNING}


def check_training_arguments(training_args: TrainingArguments) -> None:
    """
    See that the optimizer, the schedule and the trackers can be made with what they are given, that what is to be
    compiled can be, and that several processes that were asked for belong together.

    Raises:
        ConfigurationError: With what they say.
    """
    check_joined()
    try:
        optimizer_cls, kwargs = Trainer.get_optimizer_cls_and_kwargs(training_args)
        if isinstance(optimizer_cls, type) and issubclass(optimizer_cls, torch.optim.Optimizer):
            optimizer = optimizer_cls([torch.nn.Parameter(torch.zeros(1))], **kwargs)
        else:
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=training_args.learning_rate)
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise ConfigurationError(f"optim={training_args.optim.value} cannot be made: {error}") from error
    schedule = training_args.lr_scheduler_type.value
    try:
        if schedule in OWN_SCHEDULES:
            OWN_SCHEDULES[schedule](optimizer, 100, **(training_args.lr_scheduler_kwargs or {}))
        else:
            get_scheduler(
                schedule,
                optimizer,
                num_warmup_steps=training_args.get_warmup_steps(100),
                num_training_steps=100,
                scheduler_specific_kwargs=training_args.lr_scheduler_kwargs,
            )
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"lr_scheduler_type={schedule} cannot be made with the lr_scheduler_kwargs "
            f"{training_args.lr_scheduler_kwargs}: {error}"
        ) from error
    try:
        for tracker in get_reporting_integration_callbacks(training_args.report_to):
            tracker()
    except (ValueError, ImportError, RuntimeError, KeyError) as error:
        raise ConfigurationError(f"report_to={', '.join(training_args.report_to)}: {error}") from error
    check_compilation(training_args)


def check_same_run(
    checkpoint: str | None, arguments: dict[str, Any], fingerprint: dict[str, str], allow_changed_unfreezing: bool
) -> None:
    """
    See that a run continues on the data, with the architecture and with the techniques of its checkpoint.

    Args:
        checkpoint (`str`, *optional*): The checkpoint to continue from; its folder's parent holds the run's `run.json`.
        arguments (`dict`): The resolved arguments by section.
        fingerprint (`dict[str, str]`):
            Of the data; in a distillation `transfer` and `teacher`, of the texts and of the classifier that it learns
            from, are compared too, with several tasks `tasks`, what else there is to them.
        allow_changed_unfreezing (`bool`): Whether the unfreezing schedule may differ.

    Raises:
        ConfigurationError: With what differs.
    """
    record = _record_of(checkpoint)
    if record is None:
        return
    if record.get("data", fingerprint).get("train") != fingerprint["train"]:
        raise ConfigurationError(
            f"{checkpoint} was trained on other rows (or another split of them) than are given now, so words and "
            "classes may have other ids. Give the same data, or start anew in another output_dir."
        )
    _refuse_other_settings(checkpoint, record["arguments"], arguments, allow_changed_unfreezing)
    for name, meaning in LEARNT_FROM.items():
        if name in fingerprint and record.get("data", {}).get(name, fingerprint[name]) != fingerprint[name]:
            raise ConfigurationError(
                f"{checkpoint}: the {meaning} was trained with. Give the same, or start anew with --overwrite."
            )


def found_learning_rate(checkpoint: str) -> float:
    """
    The learning rate that a run, which is to be continued, found when it began.

    Args:
        checkpoint (`str`): The checkpoint; its folder's parent holds the run's `run.json`.

    Raises:
        ConfigurationError: If there is no record of it.
    """
    record = _record_of(checkpoint)
    if record is None:
        raise ConfigurationError(
            f"learning_rate=auto: there is no run.json beside {checkpoint}, so the rate that was found is not known. "
            "Pass it as a number."
        )
    return record["arguments"]["training"]["learning_rate"]


def check_watched_metrics(
    training_args: TrainingArguments, compute_metrics, data: TextData, early_stopping_metric: str | None = None
) -> None:
    """
    See, before anything is trained, that evaluations will yield what the best model and the end are chosen by.

    Args:
        training_args ([`~transformers.TrainingArguments`]): Names `metric_for_best_model`.
        compute_metrics (`Callable`): The Trainer's.
        data ([`TextData`]): Whether there is anything to evaluate on.
        early_stopping_metric (`str`, *optional*): What early stopping watches.

    Raises:
        ConfigurationError: If no evaluation yields one of them, or there is nothing to evaluate on.
    """
    names = []
    if training_args.do_train:
        names = possible_metric_names(compute_metrics, data.task.problem_type, len(data.task.label_names))
    check_watched_names(training_args, names, "validation" in data.splits, early_stopping_metric)


def check_watched_names(
    training_args: TrainingArguments, names: list[str], evaluates: bool, early_stopping_metric: str | None = None
) -> None:
    """
    [`check_watched_metrics`], given the names of what evaluations yield.

    Args:
        training_args ([`~transformers.TrainingArguments`]): Names `metric_for_best_model`.
        names (`list[str]`): Without `eval_`.
        evaluates (`bool`): Whether there is anything to evaluate on.
        early_stopping_metric (`str`, *optional*): What early stopping watches.

    Raises:
        ConfigurationError: If no evaluation yields one of them, or there is nothing to evaluate on.
    """
    if not evaluates:
        if training_args.load_best_model_at_end:
            raise ConfigurationError(
                "load_best_model_at_end needs validation rows: pass --validation_file or a --validation_size above 0."
            )
        training_args.eval_strategy = type(training_args.eval_strategy)("no")
        training_args.do_eval = False
    watched = {
        "metric_for_best_model": training_args.metric_for_best_model,
        "early_stopping_metric": early_stopping_metric,
    }
    if not training_args.do_train:
        return
    for field, metric in watched.items():
        if metric is not None and metric.removeprefix("eval_") not in names:
            raise ConfigurationError(
                f"{field} is {metric!r}, which no evaluation of this run yields.{nearest(metric, names)} "
                f"Valid: {', '.join(names)}."
            )


def resume_point(training_args: TrainingArguments) -> tuple[bool, str | None]:
    """
    Whether a run is to be continued, and the checkpoint of its (main) training, if it has come to one.

    `resume_from_checkpoint` is `true` for the newest whole checkpoint in `output_dir`, or a path. Newer ones that are
    not whole are named and left out.

    Args:
        training_args ([`~transformers.TrainingArguments`]): `resume_from_checkpoint`, `output_dir` and `world_size`.

    Returns:
        `tuple[bool, str | None]`

    Raises:
        ConfigurationError: If there is nothing to continue, the checkpoint is not whole, it was saved by another
            number of processes, or the processes have found different ones.
    """
    asked, output_dir = training_args.resume_from_checkpoint, Path(training_args.output_dir)
    if asked is None or str(asked).lower() == "false":
        return False, None
    if str(asked).lower() != "true":
        check_resumable(Path(asked), training_args.world_size)
        return True, asked
    checkpoint, left_out = newest_whole_checkpoint(output_dir)
    check_same_checkpoint(checkpoint)
    for path, reason in left_out.items():
        logger.warning("%s is left out: %s.", path, reason)
    if checkpoint is not None:
        check_resumable(checkpoint, training_args.world_size)
        return True, str(checkpoint)
    if not any((output_dir / name).exists() for name in ("run.json", "training.log", LOCK)):
        raise ConfigurationError(
            f"resume_from_checkpoint=true, but {output_dir} holds no run and no whole checkpoint-<step> folder."
        )
    return True, None


# ---- Inside ----


def _record_of(checkpoint: str | None) -> dict[str, Any] | None:
    path = Path(checkpoint).parent / "run.json" if checkpoint is not None else None
    return json.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else None


def _refuse_other_settings(
    checkpoint: str, recorded: dict[str, Any], arguments: dict[str, Any], allow_changed_unfreezing: bool
) -> None:
    sections = dict(SECTIONS)
    if {"teacher", "multitask"} & set(arguments):
        # Its models are compared with each other.
        sections["training"] = "training"
    if not allow_changed_unfreezing:
        sections["unfreezing"] = "unfreezing schedule"
    for section, meaning in sections.items():
        if section not in arguments:
            continue
        before, now = recorded.get(section), arguments[section]
        names = {"model": SHAPES, "training": LEARNING}.get(section, now)
        names = [name for name in names if name not in WITHOUT_CONSEQUENCE]
        changed = [
            f"{name} ({(before or {}).get(name)} then, {now[name]} now)"
            for name in names
            if (before or {}).get(name) != now[name]
        ]
        if before is not None and changed:
            force = " --allow_changed_unfreezing goes on with the new one." if section == "unfreezing" else ""
            raise ConfigurationError(f"{checkpoint} was trained with another {meaning}: {', '.join(changed)}.{force}")
