"""What is looked at before a search begins."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_ext.callbacks.curriculum import CurriculumArguments
from hf_ext.data.loading import TextData
from hf_ext.errors import ConfigurationError, nearest
from hf_ext.evaluation.averages import MAIN_METRICS
from hf_ext.evaluation.compute_metrics import possible_metric_names
from hf_ext.experiments.search_arguments import SearchArguments
from hf_ext.experiments.search_space import SearchSpace
from hf_ext.secret_patterns import without_password


def check_launch() -> None:
    """
    See that this process trains alone.

    Raises:
        ConfigurationError: If it was launched with others, as for data-parallel training.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched > 1:
        raise ConfigurationError(
            f"{launched} processes were launched to train together, but a trial is trained by one. Start the command "
            "by itself, as often as there are devices: each takes other trials of the same study."
        )


def held_search(output_dir: Path, arguments: SearchArguments) -> str | None:
    """
    The record of this search in a folder, if it is there to be continued.

    Args:
        output_dir (`Path`): The folder.
        arguments ([`SearchArguments`]): Name the study.

    Returns:
        `str`: The path of its `run.json`, or of a study that another process has just begun; `None` if there is
        neither, or the record is of something else.
    """
    path, begun = output_dir / "run.json", output_dir / "study.db"
    if not path.exists() and begun.exists() and arguments.storage is None:
        return str(begun)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))["arguments"]["search"]
        held = (record["storage"], record["study_name"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    mine = (None if arguments.storage is None else without_password(arguments.storage), arguments.study_name)
    return str(path) if held == mine else None


def searched_metric(asked: str | None, compute_metrics: Callable, data: TextData) -> str:
    """
    The metric that trials are compared by.

    Args:
        asked (`str`, *optional*): With or without `eval_`; by default the task's main one.
        compute_metrics (`Callable`): The Trainer's.
        data ([`TextData`]): For its task.

    Raises:
        ConfigurationError: If no evaluation yields it, with the nearest that one does.
    """
    metric = MAIN_METRICS[data.task.problem_type] if asked is None else asked.removeprefix("eval_")
    names = possible_metric_names(compute_metrics, data.task.problem_type, len(data.task.label_names))
    if metric not in names:
        raise ConfigurationError(
            f"search_metric is {asked!r}, which no evaluation of this run yields.{nearest(metric, names)} "
            f"Valid: {', '.join(names)}."
        )
    return metric


def searched_columns(space: SearchSpace, values: dict[str, Any]) -> tuple[str, ...]:
    """The columns of numbers that a trial's curriculum may ask for."""
    curricula = {values.get("curriculum")}
    for parameter in space.parameters:
        curricula |= {parameter.applied(value).get("curriculum") for value in parameter.ends()}
    return tuple(dict.fromkeys(column for name in curricula for column in CurriculumArguments(name).number_columns()))
