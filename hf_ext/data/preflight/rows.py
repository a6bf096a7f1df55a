"""Splits in any of their forms -> the columns that the preflight's checks work on."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset

from hf_ext.data.labels import Task
from hf_ext.data.preflight.report import Example, shorten
from hf_ext.data.text_columns import PAIR_SEPARATOR
from hf_ext.errors import DataError
from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

SURROGATE = re.compile("[\ud800-\udfff]")
UNLABELLED = (None, -1, "-1", "")


@dataclass
class Labels:
    """
    The distinct labels of all splits; a row holds the number of its label.

    Args:
        problem_type (`str`): As in [`Task`].
        names (`list[str]`): Classes; none for regression.
        shown (`list[str]`): Each label as examples show it.
        classes (`list[tuple[int, ...]]`): The classes that each label names.
        problems (`list[str]`): Why a label cannot be used; empty if it can.
    """

    problem_type: str
    names: list[str]
    shown: list[str]
    classes: list[tuple[int, ...]]
    problems: list[str]

    def class_counts(self, codes: np.ndarray) -> np.ndarray:
        """Rows of each class among rows with these labels: shape (classes,), int64."""
        return np.bincount(codes, minlength=len(self.shown)) @ self.membership()

    def membership(self):
        """Which label names which class: a sparse matrix of shape (labels, classes), int64."""
        from scipy.sparse import csr_array

        counts = [len(classes) for classes in self.classes]
        columns = np.fromiter((item for classes in self.classes for item in classes), np.int64, sum(counts))
        offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        return csr_array((np.ones(len(columns), np.int64), columns, offsets), shape=(len(counts), len(self.names)))


@dataclass
class Rows:
    """
    The rows of one split.

    Args:
        name (`str`): The split.
        parts (`list[pyarrow.ChunkedArray]`): Texts; for pairs two columns.
        texts (`pyarrow.ChunkedArray`): The same in one column, the two of a pair joined by `PAIR_SEPARATOR`.
        absent (`np.ndarray`): Indices of rows without a text (null).
        blank (`np.ndarray` of bool): Rows with an empty text, nulls among them; of a pair, either.
        broken (`np.ndarray`): Indices of rows with half a character (a lone surrogate), here replaced by U+FFFD.
        codes (`np.ndarray` or `None`): Number of each row's label in `labels`; `None` for a split without labels.
        sources (`np.ndarray` or `None`): Number of the row that each row is a copy of.
        file (`str`, *optional*): The file that the rows are from, where it is not the split's own.
        file_rows (`np.ndarray` or `None`): The number of each row in that file, from 1.
        labels ([`Labels`]): The labels of all splits.
    """

    name: str
    parts: list[pa.ChunkedArray]
    texts: pa.ChunkedArray
    absent: np.ndarray
    broken: np.ndarray
    blank: np.ndarray
    codes: np.ndarray | None = None
    sources: np.ndarray | None = None
    file: str | None = None
    file_rows: np.ndarray | None = None
    labels: Labels | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def example(self, index: int, note: str = "", around: int = 0) -> Example:
        """A row as findings show it; `around`: the character that must be seen."""
        text = self.texts[int(index)].as_py().replace(PAIR_SEPARATOR, " | ")
        if around > 150:
            text = "..." + text[around - 100 :]
        return Example(self.title, self.number(index), shorten(text), self.label(index), note)

    @property
    def title(self) -> str:
        """What messages call the split."""
        return self.name if self.file is None else f"{self.name} ({self.file})"

    def number(self, index: int) -> int:
        """What messages call a row: its number in the split or, if that is known, in its file."""
        return int(index) + 1 if self.file_rows is None else int(self.file_rows[index])

    def label(self, index: int) -> str | None:
        """A row's label as it is shown; `None` without labels."""
        return None if self.codes is None else self.labels.shown[self.codes[index]]

    def where(self, index: int) -> str:
        """What messages call a row, with its split and its label."""
        label = self.label(index)
        return f"{self.title}, row {self.number(index)}" + ("" if label is None else f" [{label}]")


def read_rows(
    splits: Mapping[str, Any], task: Task | None, files: Mapping[str, str] | None = None
) -> tuple[list[Rows], Labels]:
    """
    Texts, labels and sources of all splits.

    Args:
        splits (`Mapping[str, Dataset]` or `Mapping[str, list[dict]]`):
            With the columns `text`, `text_pair`, `label`, `source_idx`, `file_row`; all but the first are optional.
        task ([`Task`], *optional*): What is predicted; by default it is taken from the labels.
        files (`Mapping[str, str]`, *optional*): Split -> the file that `file_row` counts rows of.

    Raises:
        DataError: If there are no rows, no column `text`, or a text that is no string.
    """
    if not isinstance(splits, Mapping):
        raise DataError(f'splits is a {type(splits).__name__}; name the split, such as {{"train": rows}}.')
    if not splits:
        raise DataError("There is nothing to check: no split was given.")
    rows, raw = [], {}
    for name, given in splits.items():
        columns = _columns(name, given)
        parts, absent, broken = [], [], []
        for column in ("text", "text_pair"):
            if column in columns:
                texts, missing, surrogates = _texts(name, column, columns[column])
                parts.append(texts)
                absent.append(missing)
                broken.append(surrogates)
        joined = parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, PAIR_SEPARATOR)
        blank = np.any([pc.binary_length(pc.utf8_trim_whitespace(part)).to_numpy() == 0 for part in parts], axis=0)
        absent, broken = np.unique(np.concatenate(absent)), np.unique(np.concatenate(broken))
        rows.append(Rows(name, parts, joined, absent, broken, blank))
        values = _values(columns["label"]) if "label" in columns else None
        if values is not None and not (name != "train" and all(_is_unlabelled(value) for value in values)):
            raw[name] = values
        if "source_idx" in columns:
            rows[-1].sources = _whole_numbers(name, "source_idx", columns["source_idx"])
        if "file_row" in columns:
            rows[-1].file_rows = _whole_numbers(name, "file_row", columns["file_row"])
            rows[-1].file = (files or {}).get(name)
    by_id = task is not None
    if task is None:
        task, by_id = _task_of(splits, raw)
    labels, codes = _encode(raw, task, by_id)
    for split in rows:
        split.codes, split.labels = codes.get(split.name), labels
    return rows, labels


# ---- Columns ----


def _columns(name: str, given: Any) -> dict[str, Any]:
    wanted = ("text", "text_pair", "label", "source_idx", "file_row")
    if isinstance(given, Dataset):
        available = given.column_names
        found = [column for column in wanted if column in available]
        table = given.select_columns(found).with_format("arrow")[:] if found and len(given) else None
        columns = {column: table.column(column) for column in found} if table is not None else dict.fromkeys(found)
    else:
        if not isinstance(given, Sequence) or not all(isinstance(row, Mapping) for row in given):
            raise DataError(f"The split {name!r} is a {type(given).__name__}; it must be a Dataset or a list of dicts.")
        available = list(dict.fromkeys(key for row in given for key in row))
        columns = {column: [row.get(column) for row in given] for column in wanted if column in available}
    if not len(given):
        raise DataError(f"The split {name!r} holds no rows. Leave it out, or give it rows.")
    if "text" not in columns:
        raise DataError(f"The split {name!r} has no column 'text'; it has {', '.join(available)}. Rename its column.")
    return columns


def _texts(name: str, column: str, values: Any) -> tuple[pa.ChunkedArray, np.ndarray, np.ndarray]:
    """The texts, the rows without one, and the rows with half a character."""
    broken: list[int] = []
    if not isinstance(values, (pa.Array, pa.ChunkedArray)):
        values = list(values)
        for index, value in enumerate(values):
            if not isinstance(value, str) and value is not None:
                raise DataError(f"{name}, row {index + 1}: {column!r} is {value!r}; it must be a string.")
            if value is not None and not value.isascii() and SURROGATE.search(value):
                broken.append(index)
                values[index] = SURROGATE.sub("\ufffd", value)
        # Several chunks: one can hold at most 2 GiB.
        values = pa.chunked_array(
            [pa.array(values[i : i + 10_000], pa.string()) for i in range(0, len(values), 10_000)], pa.string()
        )
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        raise DataError(f"{name}: the column {column!r} is of the type {values.type}; it must hold strings.")
    # Columns of several splits are joined, so they have to be of one type.
    values = values.cast(pa.string()) if pa.types.is_large_string(values.type) else values
    absent = np.flatnonzero(pc.is_null(values).to_numpy()) if values.null_count else np.empty(0, np.int64)
    return pc.fill_null(values, "") if len(absent) else values, absent, np.asarray(broken, dtype=np.int64)


def _values(column: Any) -> list[Any]:
    if isinstance(column, (pa.Array, pa.ChunkedArray)):
        return column.to_pylist()
    return [value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value for value in column]


def _whole_numbers(name: str, what: str, column: Any) -> np.ndarray:
    values = _values(column)
    for index, value in enumerate(values):
        if not isinstance(value, int) or isinstance(value, bool):
            raise DataError(f"{name}, row {index + 1}: {what!r} is {value!r}; it must be a whole number.")
    return np.asarray(values, dtype=np.int64)


def _is_unlabelled(value: Any) -> bool:
    return not isinstance(value, (list, tuple)) and (value in UNLABELLED or value != value)


# ---- Labels ----


def _task_of(splits: Mapping[str, Any], raw: Mapping[str, list]) -> tuple[Task, bool]:
    """The task that labels describe by themselves, and whether they are class ids (else names)."""
    for name in raw:
        feature = splits[name].features["label"] if isinstance(splits[name], Dataset) else None
        if isinstance(feature, ClassLabel):
            return Task(SINGLE_LABEL, feature.names), True
    values = [value for column in raw.values() for value in column]
    lists = [value for value in values if isinstance(value, (list, tuple))]
    distinct = set()
    for value in values:
        distinct.update(item for item in (value if isinstance(value, (list, tuple)) else [value]) if _is_name(item))
    if lists and distinct <= {0, 1} and len({len(value) for value in lists}) == 1 and len(lists[0]) > 2:
        return Task(MULTI_LABEL, [str(index) for index in range(len(lists[0]))]), True
    if not lists and distinct and all(isinstance(value, float) for value in distinct):
        return Task(REGRESSION, ["value"]), False
    numbers = sorted(value for value in distinct if not isinstance(value, str))
    strings = sorted(value for value in distinct if isinstance(value, str))
    return Task(MULTI_LABEL if lists else SINGLE_LABEL, list(dict.fromkeys(map(str, numbers + strings)))), False


def _is_name(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not _is_unlabelled(value)


def _encode(raw: Mapping[str, list], task: Task, by_id: bool) -> tuple[Labels, dict[str, np.ndarray]]:
    """Number the distinct labels in the order in which they occur."""
    names = [] if task.problem_type == REGRESSION else list(task.label_names)
    labels = Labels(task.problem_type, names, [], [], [])
    ids = {name: index for index, name in enumerate(names)}
    numbers: dict[Any, int] = {}
    known: dict[Any, int] = {}
    codes = {}
    for split, values in raw.items():
        codes[split] = np.empty(len(values), dtype=np.int64)
        for index, value in enumerate(values):
            key = (type(value), tuple(value) if isinstance(value, (list, tuple)) else value)
            # NaN differs from itself.
            key = key if key[1] == key[1] else (float, "nan")
            try:
                code = numbers.get(key)
            except TypeError:
                raise DataError(f"{split}, row {index + 1}: the label {value!r} is no name, number or list.") from None
            if code is None:
                code = numbers[key] = _number(value, labels, ids, by_id, known)
            codes[split][index] = code
    return labels, codes


def _number(value: Any, labels: Labels, ids: dict[str, int], by_id: bool, known: dict[Any, int]) -> int:
    """The number of a label, which one of the same meaning may have already."""
    classes, problem = _classes_of(value, labels, ids, by_id)
    shown = list(value) if isinstance(value, (list, tuple)) else value
    meaning = (problem, shown if labels.problem_type == REGRESSION and not problem else classes)
    if meaning not in known:
        known[meaning] = len(labels.shown)
        labels.classes.append(classes)
        labels.problems.append(problem)
        labels.shown.append(", ".join(labels.names[index] for index in classes) or str(shown))
    return known[meaning]


def _classes_of(value: Any, labels: Labels, ids: dict[str, int], by_id: bool) -> tuple[tuple[int, ...], str]:
    """The classes that a label names, or why it cannot be used."""
    is_list = isinstance(value, (list, tuple))
    if not is_list and (value is None or value == "" or value != value):
        return (), "is missing"
    if labels.problem_type == REGRESSION:
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return (), "" if good else f"is {value!r}, which is not a finite number"
    if labels.problem_type == SINGLE_LABEL:
        return ((), "is a list, but rows have one label each") if is_list else _class_of(value, labels, ids, by_id)
    if not is_list:
        return (), f"is {value!r}, but rows have lists of labels"
    if by_id and not any(isinstance(item, str) for item in value):
        if len(value) != len(labels.names) or not all(item in (0, 1) for item in value):
            return (), f"is {list(value)}, not {len(labels.names)} zeros and ones"
        return tuple(index for index, on in enumerate(value) if on), ""
    found = [_class_of(item, labels, ids, by_id) for item in value]
    problem = next((problem for _, problem in found if problem), "")
    return (() if problem else tuple(sorted({classes[0] for classes, _ in found}))), problem


def _class_of(value: Any, labels: Labels, ids: dict[str, int], by_id: bool) -> tuple[tuple[int, ...], str]:
    if value in (-1, "-1") and "-1" not in ids:
        return (), "is -1, which marks a missing label"
    if isinstance(value, str) or not by_id:
        return ((ids[str(value)],), "") if str(value) in ids else ((), f"is {value!r}, which is none of the classes")
    if isinstance(value, bool) or not isinstance(value, int):
        return (), f"is {value!r}; it must be a class id or a class name"
    if not 0 <= value < len(labels.names):
        return (), f"is {value}, outside 0 to {len(labels.names) - 1}"
    return (value,), ""
