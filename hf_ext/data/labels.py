"""Raw labels -> the kind of task, class names and ids."""

import math
import re
from dataclasses import dataclass
from typing import Any

from hf_ext.data.reading import Table
from hf_ext.errors import DataError
from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

KINDS = {bool: "true/false", int: "whole number", float: "number", str: "string", list: "list"}


@dataclass(frozen=True)
class Task:
    """
    What is predicted.

    Args:
        problem_type (`str`): As in a model's configuration.
        label_names (`list[str]`): Names of the classes, in the order of their ids; `["value"]` for regression.
    """

    problem_type: str
    label_names: list[str]


def task_of_config(config: Any) -> Task:
    """The task that a trained model's configuration describes."""
    problem_type = config.problem_type or (REGRESSION if config.num_labels == 1 else SINGLE_LABEL)
    return Task(problem_type, [config.id2label[index] for index in range(config.num_labels)])


def parse_labels(table: Table, values: list[Any], task: Task | None = None) -> list[Any]:
    """
    Labels of one consistent Python type.

    Strings of a CSV file become integers or floats when all of them are such numbers, unless they are names of the
    `task`'s classes as they stand.

    Raises:
        DataError: For missing labels, NaN and a change of type, with the rows.
    """
    if not table.typed and not (task is not None and set(values) <= set(task.label_names)):
        values = _from_strings(values)
    for index, value in enumerate(values):
        if value is None or value == "":
            raise DataError(f"{table.where(index)} has no label (it is {value!r}).")
        if isinstance(value, float) and not math.isfinite(value):
            raise DataError(f"{table.where(index)}: the label is {value}; it must be a finite number.")
        if type(value) not in KINDS:
            raise DataError(f"{table.where(index)}: the label is {value!r}; it must be a number, a string or a list.")
    kinds = {type(value) for value in values}
    if kinds == {int, float}:
        values, kinds = [float(value) for value in values], {float}
    if len(kinds) > 1:
        _raise_mixed(table, values)
    if kinds == {list}:
        _check_lists(table, values)
    if table.names:
        return values
    return [str(value) for value in values] if kinds == {bool} else values


def infer_task(table: Table, labels: list[Any], do_regression: bool | None, num_labels: int | None) -> Task:
    """
    The task that the training labels describe.

    Args:
        table ([`Table`]): Where the labels are from.
        labels (`list`): From [`parse_labels`].
        do_regression (`bool`, *optional*): Forces or forbids regression.
        num_labels (`int`, *optional*): The number of classes the user expects.

    Raises:
        DataError: One class only, labels outside the given classes, integers of -1.
    """
    kind = type(labels[0])
    if do_regression and kind not in (int, float):
        raise DataError(f"do_regression=true, but the labels of {table.source} are {KINDS[kind]}s.")
    if do_regression or (kind is float and do_regression is None):
        if num_labels not in (None, 1):
            raise DataError(
                f"{table.source} has numbers as labels (regression): num_labels must be 1, not {num_labels}."
            )
        return Task(REGRESSION, ["value"])
    if kind is float:
        raise DataError(
            f"do_regression=false, but the labels of {table.source} are numbers such as {labels[0]}. Write classes as "
            "whole numbers or strings."
        )
    flat = [item for label in labels for item in (label if kind is list else [label])]
    negative = next((i for i, label in enumerate(labels) if -1 in (label if kind is list else [label])), None)
    if negative is not None:
        raise DataError(
            f"{table.where(negative)}: the label is -1, which usually marks a missing one. Remove such rows, or, if it "
            'is a class, write the labels as strings ("-1").'
        )
    if not flat:
        raise DataError(f"{table.source}: no row names a class (all labels are empty lists).")
    names = _class_names(table, labels, flat, num_labels)
    if len(names) < 2:
        raise DataError(f"{table.source} has the single class {names[0]!r}; classification needs at least two.")
    return Task(MULTI_LABEL if kind is list else SINGLE_LABEL, names)


def encode_labels(table: Table, labels: list[Any], task: Task) -> list[Any]:
    """
    Class ids, 0/1 vectors or floats, as the model takes them.

    Raises:
        DataError: For labels that are not among the task's classes, with the rows.
    """
    if task.problem_type == REGRESSION:
        if any(not isinstance(label, (int, float)) or isinstance(label, bool) for label in labels):
            raise DataError(f"{table.source}: the labels must be numbers, as in training.")
        return [float(label) for label in labels]
    ids = {name: index for index, name in enumerate(task.label_names)}
    if all(name == f"LABEL_{index}" for name, index in ids.items()):
        # The names that the library makes up when a model was given none: its classes are known by their ids.
        ids = {**ids, **{str(index): index for index in range(len(task.label_names))}}
    named = [_named(table, label) for label in labels]
    multi = task.problem_type == MULTI_LABEL
    wrong = [
        index
        for index, label in enumerate(named)
        if isinstance(label, list) != multi or any(item not in ids for item in (label if multi else [label]))
    ]
    if wrong:
        rows = ", ".join(str(table.number(index)) for index in wrong[:5]) + (" ..." if len(wrong) > 5 else "")
        raise DataError(
            f"{table.source}, row{'s' if len(wrong) > 1 else ''} {rows}: the label {labels[wrong[0]]!r} is none of the "
            f"classes that the model is trained on ({_listed(task.label_names)}). {len(wrong)} "
            f"row{'s are' if len(wrong) > 1 else ' is'} affected."
        )
    if not multi:
        return [ids[label] for label in named]
    vectors = []
    for label in named:
        vector = [0.0] * len(ids)
        for item in label:
            vector[ids[item]] = 1.0
        vectors.append(vector)
    return vectors


# ---- Inside ----


def _from_strings(values: list[str]) -> list[Any]:
    # Only numbers as they are usually written: "01" and "1_0" are names. An empty or odd field keeps all of them
    # strings, and is then reported by its row.
    stripped = [value.strip() for value in values]
    if all(re.fullmatch(r"-?(0|[1-9]\d{0,17})", value) for value in stripped):
        return [int(value) for value in stripped]
    number = r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?|nan|NaN|-?inf"
    return [float(value) for value in stripped] if all(re.fullmatch(number, value) for value in stripped) else values


def _raise_mixed(table: Table, values: list[Any]):
    first: dict[type, int] = {}
    for index, value in enumerate(values):
        first.setdefault(type(value), index)
    examples = ", ".join(f"{values[i]!r} in row {table.number(i)} ({KINDS[kind]})" for kind, i in first.items())
    raise DataError(f"{table.source} mixes types of labels: {examples}. Write all labels in one way.")


def _check_lists(table: Table, values: list[list]) -> None:
    kinds: dict[type, int] = {}
    for index, value in enumerate(values):
        if len(set(map(str, value))) != len(value):
            raise DataError(
                f"{table.where(index)}: the label {value} names a class twice. A row's labels are the names of its "
                "classes, not a vector of zeros and ones."
            )
        for item in value:
            if type(item) not in (int, str):
                raise DataError(f"{table.where(index)}: {item!r} in the label is neither a string nor a whole number.")
            kinds.setdefault(type(item), index)
    if len(kinds) > 1:
        rows = " and ".join(f"a {KINDS[kind]} in row {table.number(index)}" for kind, index in kinds.items())
        raise DataError(f"{table.source} mixes types of labels: {rows}. Write all labels in one way.")


def _class_names(table: Table, labels: list[Any], flat: list[Any], num_labels: int | None) -> list[str]:
    column_names = next(iter(table.names.values()), None)
    if column_names is not None:
        return list(column_names)
    distinct = sorted(set(flat))
    if num_labels is None or len(distinct) == num_labels:
        return [str(name) for name in distinct]
    if all(isinstance(name, int) for name in distinct) and distinct and distinct[-1] < num_labels:
        return [str(name) for name in range(num_labels)]
    if len(distinct) < num_labels:
        raise DataError(
            f"num_labels is {num_labels}, but {table.source} has {len(distinct)} classes: {_listed(distinct)}. "
            "Leave num_labels out to take it from the data."
        )
    classes = list(range(num_labels)) if all(isinstance(name, int) for name in distinct) else distinct[:num_labels]
    outside = [
        index
        for index, label in enumerate(labels)
        if any(item not in classes for item in (label if isinstance(label, list) else [label]))
    ]
    rows = ", ".join(str(table.number(index)) for index in outside[:5]) + (" ..." if len(outside) > 5 else "")
    raise DataError(
        f"{table.source}: num_labels is {num_labels}, but there are {len(distinct)} classes: {_listed(distinct)}. "
        f"Outside {_listed(classes)}: row{'s' if len(outside) > 1 else ''} {rows} ({len(outside)} in all), label "
        f"{labels[outside[0]]!r} first."
    )


def _named(table: Table, label: Any) -> Any:
    if isinstance(label, list):
        return [str(item) for item in label]
    names = next(iter(table.names.values()), None)
    return names[label] if names is not None and isinstance(label, int) and 0 <= label < len(names) else str(label)


def _listed(names: list[Any]) -> str:
    shown = ", ".join(str(name) for name in names[:20])
    return shown + (f" ... {len(names)} in all" if len(names) > 20 else "")
