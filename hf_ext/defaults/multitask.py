"""What follows from the settings of a run on several tasks."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from hf_ext.arguments import DataArguments
from hf_ext.defaults.streaming import refuse_streaming
from hf_ext.defaults.training import complete_training_values
from hf_ext.defaults.whole_run import all_of_the_run
from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.metrics import LESS_IS_BETTER


def complete_multitask_values(values: dict[str, Any]) -> dict[str, Any]:
    """
    Add what the settings of a run on several tasks imply: those of a training run that does all that the data allows.

    - Settings of the data that are given once are those of each task that does not have its own.
    - The best model and an early end are chosen by `avg_score`, the mean of the tasks' main metrics.

    Args:
        values (`dict[str, Any]`): Field names -> given values.

    Returns:
        `dict[str, Any]`

    Raises:
        ConfigurationError: If settings contradict each other or could have no effect.
    """
    values = all_of_the_run(values, "A run on several tasks trains and evaluates all of them")
    _refuse_techniques_of_one_task(values)
    for own in values.get("tasks", {}).values():
        refuse_streaming(own)
    metric = values.get("metric_for_best_model")
    if values.get("load_best_model_at_end") and metric is None:
        metric = values["metric_for_best_model"] = "avg_score"
    if metric is not None:
        values.setdefault("greater_is_better", not _is_less_better(metric, values.get("tasks", {})))
    limits = ("patience", "threshold", "target", "divergence_threshold")
    if metric is None and any(values.get(f"early_stopping_{name}") is not None for name in limits):
        values.setdefault("early_stopping_metric", "avg_score")
    values = complete_training_values(values)
    of_all = {field.name: values[field.name] for field in dataclasses.fields(DataArguments) if field.name in values}
    values["tasks"] = {name: {**of_all, **own} for name, own in values.get("tasks", {}).items()}
    return values


# ---- Inside ----


def _is_less_better(metric: str, tasks: Iterable[str]) -> bool:
    name = metric.removeprefix("eval_")
    own = next((name.removeprefix(f"{task}_") for task in ("avg", *tasks) if name.startswith(f"{task}_")), name)
    return own in LESS_IS_BETTER


def _refuse_techniques_of_one_task(values: dict[str, Any]) -> None:
    if values.get("find_learning_rate"):
        raise ConfigurationError(
            "learning_rate=auto: the recipe finds no rate for several tasks. Find one on each task with "
            "run_lr_finder.py, and pass a number."
        )
    if values.get("curriculum") is not None:
        raise ConfigurationError(
            f"curriculum={values['curriculum']}: batches of several tasks have their own order (task_sampling). Leave "
            "it out."
        )
    if values.get("augmentation_on_the_fly"):
        raise ConfigurationError(
            "augmentation_on_the_fly is not done with several tasks; leave it out, which stores the copies "
            "(augmentation_factor)."
        )
    if values.get("push_to_hub"):
        raise ConfigurationError(
            "push_to_hub: several tasks are several models. Leave it out, and push each of them when they are trained: "
            "recipes/push_to_hub.py --model_dir <output_dir>/tasks/<task>."
        )
    if values.get("num_labels") is not None:
        raise ConfigurationError(
            f"num_labels={values['num_labels']}: each task has its own number of classes, from its rows. Leave it out."
        )
    for name in ("peft", "peft_config"):
        if values.get(name):
            raise ConfigurationError(
                f"{name}={values[name]}: the tasks share an encoder whose weights are trained and saved whole; an "
                "adapter is not done with several tasks. Leave it out, or train each task with run_classification.py."
            )
    for name in ("label_smoothing_factor", "class_weights", "focal_gamma", "calibrate"):
        if values.get(name):
            raise ConfigurationError(f"{name}={values[name]}: it is not done with several tasks. Leave it out.")
