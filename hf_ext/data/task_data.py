"""Rows of several tasks as one dataset, and their batches."""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch.utils.data import Dataset

from hf_ext.errors import ConfigurationError, DataError
from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

TASK_ID = "task_id"
LABEL_COLUMNS = ("labels", "label")


class TaskDataset(Dataset):
    """
    The rows of several tasks, concatenated; each carries the id of its task as `task_id`.

    Args:
        parts (`Mapping[int, Sequence[dict]]`):
            Task id -> rows: a [`~datasets.Dataset`] or any sequence of dictionaries.
        columns (`Mapping[int, set[str]]`, *optional*):
            Task id -> the columns to read; by default all.
    """

    def __init__(self, parts: Mapping[int, Any], columns: Mapping[int, set[str]] | None = None):
        self.columns = dict(columns or {})
        self.parts = {task: self._without_unused_columns(task, rows) for task, rows in parts.items()}
        self.starts, total = {}, 0
        for task, rows in self.parts.items():
            self.starts[task] = total
            total += len(rows)
        self._length = total

    def _without_unused_columns(self, task: int, rows: Any) -> Any:
        if task not in self.columns or not hasattr(rows, "remove_columns"):
            return rows
        return rows.remove_columns([name for name in rows.column_names if name not in self.columns[task]])

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """All rows of a batch at once, as a `DataLoader` asks for them: one read where they are of one task."""
        places = [self._place(index) for index in indices]
        if len({task for task, _ in places}) > 1:
            return [row for index in indices for row in self.__getitems__([index])]
        task, rows = places[0][0], self.parts[places[0][0]]
        numbers = [number for _, number in places]
        read = rows.__getitems__(numbers) if hasattr(rows, "__getitems__") else [rows[number] for number in numbers]
        kept = self.columns.get(task)
        return [
            {**{name: value for name, value in row.items() if kept is None or name in kept}, TASK_ID: task}
            for row in read
        ]

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < self._length:
            raise IndexError(f"There is no row {index} among {self._length}.")
        task = next(task for task in reversed(self.starts) if self.starts[task] <= index)
        return task, index - self.starts[task]


class TaskCollator:
    """
    Makes a batch by the collator of its rows' task, and adds the task's id.

    Args:
        collators (`Mapping[int, Callable]`): Task id -> collator.
    """

    def __init__(self, collators: Mapping[int, Callable]):
        self.collators = dict(collators)

    @property
    def needed_columns(self) -> list[str]:
        """Columns that a collator takes although the model does not."""
        return [name for collator in self.collators.values() for name in getattr(collator, "needed_columns", ())]

    def set_epoch(self, epoch: int) -> None:
        for collator in self.collators.values():
            if hasattr(collator, "set_epoch"):
                collator.set_epoch(epoch)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        tasks = {row[TASK_ID] for row in rows}
        if len(tasks) != 1:
            raise ConfigurationError(
                f"A batch has rows of {len(tasks)} tasks; it must be of one. Its sampler has to draw them in runs of a "
                "batch, as TaskBatchSampler does."
            )
        (task,) = tasks
        batch = dict(self.collators[task]([{k: v for k, v in row.items() if k != TASK_ID} for row in rows]))
        # A tensor of a value a row, and behind the others: the batch's size is read from the first.
        batch[TASK_ID] = torch.full((len(rows),), task)
        return batch


def infer_problem_type(rows: Any, num_labels: int) -> str:
    """
    The kind of task that a model without `problem_type` in its configuration is trained for, as the library has it.

    Args:
        rows (`Sequence[dict]`): Labelled rows.
        num_labels (`int`): Outputs of the model.
    """
    if num_labels == 1:
        return REGRESSION
    # Without labels, as a head for classes; what is missing, `check_rows` says.
    return MULTI_LABEL if is_labelled(rows) and isinstance(_labels(rows)[0], list) else SINGLE_LABEL


def is_labelled(rows: Any) -> bool:
    """Whether rows, of which there is at least one, have labels."""
    return _label_column(rows) is not None


def check_rows(task: str, split: str, rows: Any, problem_type: str | None = None, num_labels: int = 0) -> None:
    """
    See that there are rows and that a model's head has an output for each label.

    Args:
        task (`str`): Name of the task, for messages.
        split (`str`): Name of the rows, for messages.
        rows (`Sequence[dict]`): The rows.
        problem_type (`str`, *optional*): As in the model's configuration; without it, labels are not looked at.
        num_labels (`int`, *optional*, defaults to 0): Outputs of the head.

    Raises:
        ConfigurationError: If the rows cannot be counted.
        DataError: If there are no rows, or for the first label that cannot be trained on, with its row.
    """
    if not hasattr(rows, "__len__") or not hasattr(rows, "__getitem__") or isinstance(rows, (str, Mapping)):
        raise ConfigurationError(
            f"The {split} rows of the task {task!r} are a {type(rows).__name__}; they must be a Dataset with a length: "
            "tasks are sampled by their sizes."
        )
    if len(rows) == 0:
        raise DataError(f"The task {task!r} has no {split} rows. Give it some, or leave the task out everywhere.")
    if problem_type is None:
        return
    if not is_labelled(rows):
        raise DataError(f"The {split} rows of the task {task!r} have no column named {' or '.join(LABEL_COLUMNS)}.")
    for number, label in enumerate(_labels(rows)):
        wrong = _wrong_label(label, problem_type, num_labels)
        if wrong is not None:
            raise DataError(
                f"The task {task!r}, {split} row {number + 1}: the label is {label!r}, but {wrong} (the model's "
                f"head is for {problem_type} with num_labels={num_labels})."
            )


# ---- Inside ----


def _label_column(rows: Any) -> str | None:
    names = getattr(rows, "column_names", None) or rows[0]
    return next((name for name in LABEL_COLUMNS if name in names), None)


def _labels(rows: Any) -> list[Any]:
    name = _label_column(rows)
    labels = rows[name][:] if hasattr(rows, "column_names") else [row[name] for row in rows]
    return [label.tolist() if hasattr(label, "tolist") else label for label in labels]


def _wrong_label(label: Any, problem_type: str, num_labels: int) -> str | None:
    """What is wrong with a label, if anything."""
    if problem_type == SINGLE_LABEL:
        whole = isinstance(label, Integral) and not isinstance(label, bool)
        return None if whole and 0 <= label < num_labels else f"a class is a whole number from 0 to {num_labels - 1}"
    if problem_type == REGRESSION:
        values = label if isinstance(label, list) else [label]
        finite = all(isinstance(value, Real) and not _is_whole(value) and math.isfinite(value) for value in values)
        right = finite and len(values) == num_labels
        return None if right else f"a value is a finite decimal number, {num_labels} a row"
    flags = label if isinstance(label, list) else []
    right = len(flags) == num_labels and all(not _is_whole(flag) and flag in (0.0, 1.0) for flag in flags)
    return None if right else f"a row names its classes by a list of {num_labels} decimal numbers, 0.0 or 1.0"


def _is_whole(value: Any) -> bool:
    # Of whole numbers a collator makes integers, which losses of decimal numbers refuse.
    return isinstance(value, Integral)
