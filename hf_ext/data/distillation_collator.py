"""Training rows with what their teacher says, or is to be asked, beside them."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, concatenate_datasets

from hf_ext.data.augmentation.collator import AugmentingCollator
from hf_ext.data.difficulty import TEXTS, column, column_names
from hf_ext.errors import DataError
from hf_ext.models.teacher import Teacher

# The column of a row's logits and, in a batch, their tensor; the tensors that the teacher takes.
TEACHER_LOGITS, TEACHER_INPUTS = "teacher_logits", "teacher_inputs"
KEEP_TEXTS = "Keep the texts: tokenize_dataset(..., keep_columns=('text',)), for pairs ('text', 'text_pair')."


class DistillationCollator:
    """
    Lets another collator make the student's batch, and adds the teacher's part to it.

    Without a teacher that is `teacher_logits`, a float32 tensor of shape (rows, num_labels) from the rows' column of
    that name. With one it is `teacher_inputs`: the rows' texts (columns `text` and, of pairs, `text_pair`) as the
    teacher's own tokenizer has them. If the other collator edits the texts ([`AugmentingCollator`]), the teacher gets
    the edited ones.

    Args:
        collator (`Callable`): Makes the student's batch.
        num_labels (`int`): The student's classes.
        teacher ([`Teacher`], *optional*): Who will be asked.

    Attributes:
        needed_columns (`tuple[str, ...]`): What the rows must keep besides the model's inputs.

    Raises:
        DataError: If a row has no logits, other ones than `num_labels` finite numbers, or no text.
    """

    def __init__(
        self, collator: Callable[[list[dict[str, Any]]], Any], num_labels: int, teacher: Teacher | None = None
    ):
        self.collator, self.num_labels, self.teacher = collator, num_labels, teacher
        self.own_columns = (TEACHER_LOGITS,) if teacher is None else TEXTS
        self._passed = tuple(getattr(collator, "needed_columns", ()))
        self.needed_columns = tuple(dict.fromkeys((*self._passed, *self.own_columns)))

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        dropped = set(self.own_columns) - set(self._passed)
        batch = self.collator([{name: value for name, value in row.items() if name not in dropped} for row in rows])
        if self.teacher is not None:
            batch[TEACHER_INPUTS] = self.teacher.collate(self._texts(rows))
        elif TEACHER_LOGITS not in rows[0]:
            raise DataError(f"Training rows have no column {TEACHER_LOGITS!r}; they have {', '.join(rows[0])}.")
        else:
            logits = checked_logits([row[TEACHER_LOGITS] for row in rows], self.num_labels, "of a batch")
            batch[TEACHER_LOGITS] = torch.from_numpy(logits)
        return batch

    def __getstate__(self) -> dict[str, Any]:
        # To a worker process goes what it needs of the teacher: the tokenizers, not the models.
        state = dict(vars(self))
        if self.teacher is not None:
            state["teacher"] = copy.copy(self.teacher)
            state["teacher"].members = [copy.copy(member) for member in self.teacher.members]
            for member in state["teacher"].members:
                member.model = member.running = None
        return state

    def _texts(self, rows: list[dict[str, Any]]) -> list[str] | list[tuple[str, str]]:
        names = [name for name in TEXTS if name in rows[0]]
        if TEXTS[0] not in names:
            raise DataError(
                f"Training rows have no column 'text' for the teacher; they have {', '.join(rows[0])}. {KEEP_TEXTS}"
            )
        if isinstance(self.collator, AugmentingCollator):
            columns = self.collator.edited(rows, names)
        else:
            columns = [[row[name] for row in rows] for name in names]
        return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def checked_logits(values: Sequence[Any], num_labels: int, where: str = "of train_dataset") -> np.ndarray:
    """
    A column of logits as an array.

    Args:
        values (`Sequence`): The logits of each row.
        num_labels (`int`): How many each must have.
        where (`str`, *optional*, defaults to `"of train_dataset"`): What the rows are of, for the message.

    Returns:
        `np.ndarray` of shape (rows, num_labels), float32.

    Raises:
        DataError: With the first row whose logits are not `num_labels` finite numbers.
    """
    array = _as_array(values)
    if array is None or array.shape != (len(values), num_labels) or not np.isfinite(array).all():
        for index, value in enumerate(values):
            row = _as_array(value)
            if row is None or row.shape != (num_labels,) or not np.isfinite(row).all():
                raise DataError(
                    f"Row {index + 1} {where}: {TEACHER_LOGITS} is {value!r}; it must be {num_labels} finite numbers, "
                    "the teacher's logits in the order of the student's classes."
                )
    return array


def logits_column(dataset: Any, num_labels: int) -> np.ndarray:
    """The column `teacher_logits` of a map-style data set; see [`checked_logits`]."""
    if not isinstance(dataset, Dataset):
        return checked_logits(column(dataset, TEACHER_LOGITS), num_labels)
    # Rows of one length come as one array.
    stored = dataset.select_columns([TEACHER_LOGITS]).with_format("numpy")
    return checked_logits(stored[TEACHER_LOGITS][:], num_labels)


def text_column(dataset: Any) -> list[str] | list[tuple[str, str]]:
    """
    The texts of a map-style data set, or its pairs of texts.

    Raises:
        DataError: If there is no column `text`, or a row has no text.
    """
    names = column_names(dataset)
    if TEXTS[0] not in names:
        raise DataError(f"train_dataset has no column 'text' for the teacher; it has {', '.join(names)}. {KEEP_TEXTS}")
    columns = [column(dataset, name) for name in TEXTS if name in names]
    for name, texts in zip(TEXTS, columns, strict=False):
        wrong = next((index for index, text in enumerate(texts) if not isinstance(text, str)), None)
        if wrong is not None:
            raise DataError(f"Row {wrong + 1} of train_dataset: {name} is {texts[wrong]!r}; it must be a string.")
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def add_logits_column(dataset: Any, logits: np.ndarray) -> Any:
    """
    A data set with the column `teacher_logits`.

    Args:
        dataset ([`~datasets.Dataset`] or a sequence of `dict`): Training rows.
        logits (`np.ndarray` of shape (rows, num_labels)): In their order.

    Returns:
        [`~datasets.Dataset`] of the same format, or a list of `dict`.
    """
    if not isinstance(dataset, Dataset):
        return [{**dataset[index], TEACHER_LOGITS: row} for index, row in enumerate(logits)]
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(logits).astype(np.float32)), logits.shape[1])
    shown = dataset.format
    added = Dataset(pa.table({TEACHER_LOGITS: values}))
    together = concatenate_datasets([dataset.with_format(None), added], axis=1)
    return together.with_format(shown["type"], **shown["format_kwargs"])


def _as_array(values: Any) -> np.ndarray | None:
    try:
        return np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        return None
