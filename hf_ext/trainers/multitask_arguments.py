"""What a configuration says of several tasks."""

from dataclasses import dataclass, field
from typing import Literal

from hf_ext.arguments import DataArguments
from hf_ext.data.task_sampling import sampling_exponent
from hf_ext.errors import ConfigurationError
from hf_ext.models.multitask import check_task_names


@dataclass
class TaskArguments(DataArguments):
    """
    One of several tasks: its texts and labels, and how much its loss counts.

    Raises:
        ConfigurationError: If a value is out of range.
    """

    weight: float = field(default=1.0, metadata={"help": "Weight of its loss, in proportion to the other tasks'."})

    def __post_init__(self):
        super().__post_init__()
        if self.weight < 0:
            raise ConfigurationError(f"weight is {self.weight}; it must be at least 0.")


@dataclass
class MultiTaskArguments:
    """
    How several tasks are learned together; see [`MultiTaskTrainer`].

    Raises:
        ConfigurationError: If there are fewer than two tasks, a name cannot be a task's, or a value is out of range.
    """

    _argument_group_name = "multi-task"

    tasks: dict[str, TaskArguments] = field(
        default_factory=dict,
        metadata={
            "help": "Task -> its data settings (train_file, label_column_name, max_seq_length ...) and weight, as an "
            "object in a file or as JSON. What is given outside holds for all tasks."
        },
    )
    share_encoder: Literal["auto", "true", "false"] = field(
        default="auto", metadata={"help": "One encoder for all tasks; auto: wherever the models allow it."}
    )
    task_sampling: Literal["proportional", "sqrt", "temperature", "uniform", "annealed"] = field(
        default="proportional", metadata={"help": "Each task's share of the batches, by its number of rows."}
    )
    sampling_temperature: float | None = field(
        default=None,
        metadata={"help": "For task_sampling=temperature: shares by rows to the power of 1 / temperature."},
    )
    task_weighting: Literal["fixed", "uncertainty", "dwa"] = field(
        default="fixed",
        metadata={
            "help": "fixed: the tasks' weights; uncertainty: learned (Kendall 2018); dwa: by how fast the losses fall."
        },
    )
    single_task_baselines: bool = field(
        default=False,
        metadata={"help": "Train each task alone too, for as many steps, and report what was transferred."},
    )

    def __post_init__(self):
        if not self.tasks:
            raise ConfigurationError(
                "There are no tasks. Name them under `tasks` in a file, or pass --tasks "
                '\'{"first": {"train_file": ...}, "second": {"train_file": ...}}\'.'
            )
        check_task_names(self.tasks)
        if len(self.tasks) == 1:
            raise ConfigurationError(
                f"tasks names {next(iter(self.tasks))!r} only: there is nothing to learn it together with. Name "
                "another task, or use run_classification.py."
            )
        self.tasks = {name: _task_arguments(name, given) for name, given in self.tasks.items()}
        if not any(task.weight for task in self.tasks.values()):
            raise ConfigurationError("The weights of all tasks are 0, so nothing would be trained.")
        sampling_exponent(self.task_sampling, temperature=self.sampling_temperature)

    def trainer_settings(self) -> dict:
        """The arguments of [`MultiTaskTrainer`] that stand here."""
        return {
            "loss_weights": {name: task.weight for name, task in self.tasks.items()},
            "share_encoder": {"true": True, "false": False}.get(self.share_encoder, self.share_encoder),
            "sampling": self.task_sampling,
            "sampling_temperature": self.sampling_temperature,
            "weighting": self.task_weighting,
        }


def _task_arguments(name: str, given: dict | TaskArguments) -> TaskArguments:
    if isinstance(given, TaskArguments):
        return given
    try:
        return TaskArguments(**given)
    except ConfigurationError as error:
        raise ConfigurationError(f"tasks.{name}: {error}") from None
