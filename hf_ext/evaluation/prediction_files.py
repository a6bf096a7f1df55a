"""Files of predictions -> [`Predictions`], with errors that name the file and the line."""

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hf_ext.errors import DataError, first_few
from hf_ext.evaluation.predictions import Predictions
from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

PREDICTIONS_FILE = "predictions_test.jsonl"
KEYS = ("index", "label", "prediction", "probabilities", "text")
# Probabilities are written with six decimals: one that reads 0 was at most this.
LEAST_PROBABILITY = 5e-7
# Rounding a thousand classes to six decimals moves a sum by less.
SUM_TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class PredictionFile:
    """
    What a file of predictions holds, sorted by `index`.

    Args:
        path (`Path`): The file.
        predictions ([`Predictions`]): With the decisions that the file holds, whatever they were made by.
        index (`list[int]`): The rows' places in the data that was predicted.
        columns (`dict[str, list]`): Keys beside the usual five, such as groups; `None` in rows that lack one.
    """

    path: Path
    predictions: Predictions
    index: list[int]
    columns: dict[str, list] = field(default_factory=dict)


def read_predictions(path: str | os.PathLike) -> Predictions:
    """
    Reads what [`Predictions.to_jsonl`] wrote: single label, multi-label, regression; texts or pairs of texts.

    The kind of task is told by the first row (`probabilities` is null: a regression; `label` is a list: multi-label),
    the classes by the keys of `probabilities`. What is compared later is the file's `prediction`, which need not be the
    likeliest class. Probabilities have six decimals in the file; 0 (and 1, of several labels) is taken as half a unit
    of the last one away from it, so that no row's log-likelihood falls below -14.5.

    Args:
        path (`str` or `os.PathLike`): The file, or a folder that holds `predictions_test.jsonl`.

    Returns:
        [`Predictions`]: In the order of `index`.

    Raises:
        DataError: If there is no such file, it is empty, not JSON lines, lacks a key, has an index twice, holds a
            number that is not finite, classes or labels that do not fit together, or no labels.
    """
    return read_prediction_file(path).predictions


def read_prediction_file(path: str | os.PathLike) -> PredictionFile:
    """[`read_predictions`], with the rows' indices and what else the file holds."""
    path = find_file(Path(path), PREDICTIONS_FILE, "A run of run_classification.py or run_evaluation.py makes one.")
    reader, lines = None, {}
    for line, row in enumerate_lines(path):
        _check_index(row["index"], line, lines, path)
        lines[row["index"]] = line
        if reader is None:
            reader = _RowReader(*_task_of(row, f"{path}, line {line}"))
        try:
            reader.add(row)
        except ValueError as error:
            raise DataError(f"{path}, line {line}: {error}") from None
    if reader is None:
        raise DataError(f"{path} is empty; it must hold a line of predictions for each row of the test set.")
    index = list(lines)
    order = sorted(range(len(index)), key=index.__getitem__)
    columns = {key: [reader.further[row].get(key) for row in order] for further in reader.further for key in further}
    return PredictionFile(path, reader.predictions(order), [index[row] for row in order], columns)


def find_file(path: Path, name: str, origin: str) -> Path:
    """
    A file that is named, or the file `name` in a folder that is.

    Raises:
        DataError: If there is none; the message ends with `origin`, which says where such files come from.
    """
    if path.is_dir():
        found = path / name
        if found.is_file():
            return found
        others = ", ".join(sorted(item.name for item in path.glob(f"*{found.suffix}"))[:5])
        raise DataError(f"The folder {path} holds no {name}{f'; name one of {others}' if others else ''}. {origin}")
    if not path.is_file():
        raise DataError(f"There is no file {path}. {origin}")
    return path


def enumerate_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line from 1, row) of JSON lines; lines without a character are passed over."""
    with path.open("rb") as file:
        for line, content in enumerate(file, 1):
            if not content.strip():
                continue
            where = f"{path}, line {line}"
            try:
                row = json.loads(content.decode("utf-8").removeprefix("\ufeff"))
            except UnicodeDecodeError as error:
                raise DataError(f"{where} is not UTF-8: broken at byte {error.start}.") from None
            except (json.JSONDecodeError, RecursionError) as error:
                reason = (
                    f"{error.msg} at column {error.colno}" if isinstance(error, ValueError) else "nested too deeply"
                )
                raise DataError(f"{where} is not JSON: {reason}. Each line must be one JSON object.") from None
            if not isinstance(row, dict):
                raise DataError(f"{where} holds a JSON {type(row).__name__}; each line must be one JSON object.")
            missing = [key for key in KEYS if key not in row]
            if missing:
                raise DataError(f"{where} has no {missing[0]!r}; it has {', '.join(row) or 'nothing'}.")
            yield line, row


# ---- Inside ----


def _check_index(index: Any, line: int, lines: dict[int, int], path: Path) -> None:
    if type(index) is not int or index < 0:
        raise DataError(f"{path}, line {line}: index is {index!r}; it must be a whole number from 0.")
    if index in lines:
        raise DataError(
            f"{path}: lines {lines[index]} and {line} both have the index {index}; each row may occur once."
        )


def _task_of(row: dict[str, Any], where: str) -> tuple[str, list[str]]:
    probabilities, label = row["probabilities"], row["label"]
    if probabilities is None:
        return REGRESSION, ["value"]
    if not isinstance(probabilities, dict) or not probabilities:
        raise DataError(
            f"{where}: probabilities is {_short(probabilities)}; it must hold a number for each class by its name, or "
            "be null in a regression."
        )
    # An unlabelled row tells by what was predicted.
    given = row["prediction"] if label is None else label
    return (MULTI_LABEL if isinstance(given, list) else SINGLE_LABEL), list(probabilities)


class _RowReader:
    """Gathers rows of one kind of task; raises `ValueError`s that say what is wrong with a row."""

    def __init__(self, kind: str, names: list[str]):
        self.kind, self.names = kind, names
        self.ids = {name: index for index, name in enumerate(names)}
        self.labels: list = []
        self.decisions: list = []
        self.probabilities: list[np.ndarray] = []
        self.texts: list = []
        self.further: list[dict[str, Any]] = []
        self.read: Callable[[Any, str], Any] = {
            SINGLE_LABEL: self._class, MULTI_LABEL: self._classes, REGRESSION: _number
        }[kind]  # fmt: skip

    def add(self, row: dict[str, Any]) -> None:
        if row["label"] is None:
            raise ValueError("label is null; without the true labels there is nothing to compare.")
        self.labels.append(self.read(row["label"], "label"))
        self.decisions.append(self.read(row["prediction"], "prediction"))
        self.probabilities.append(self._probabilities(row["probabilities"]))
        self.texts.append(_text(row["text"]))
        self.further.append({key: value for key, value in row.items() if key not in KEYS})

    def predictions(self, order: list[int]) -> Predictions:
        labels, decisions, texts = (
            [values[row] for row in order] for values in (self.labels, self.decisions, self.texts)
        )
        if self.kind == REGRESSION:
            values = np.array(decisions, dtype=np.float64)[:, None]
            return Predictions(self.kind, self.names, values, np.array(labels, dtype=np.float64), texts)
        probabilities = np.stack([self.probabilities[row] for row in order])
        highest = 1 - LEAST_PROBABILITY if self.kind == MULTI_LABEL else 1.0
        probabilities = np.clip(probabilities, LEAST_PROBABILITY, highest)
        labels, decisions = self._ids(labels), self._ids(decisions)
        return Predictions(self.kind, self.names, probabilities, labels, texts, decisions=decisions)

    def _ids(self, values: list) -> np.ndarray:
        if self.kind == SINGLE_LABEL:
            return np.array(values, dtype=np.int64)
        chosen = np.zeros((len(values), len(self.names)), dtype=np.int64)
        for row, ids in enumerate(values):
            chosen[row, ids] = 1
        return chosen

    def _class(self, value: Any, key: str) -> int:
        name = str(value) if type(value) is int else value
        if not isinstance(name, str) or name not in self.ids:
            raise ValueError(f"{key} is {_short(value)}, which is none of the classes {first_few(self.names, 10)}.")
        return self.ids[name]

    def _classes(self, value: Any, key: str) -> list[int]:
        if not isinstance(value, list):
            raise ValueError(f"{key} is {_short(value)}; in this file it must be a list of classes.")
        return [self._class(item, key) for item in value]

    def _probabilities(self, value: Any) -> np.ndarray:
        if self.kind == REGRESSION:
            if value is not None:
                raise ValueError("probabilities are given, but in the first row they are null (a regression).")
            return np.zeros(0)
        if not isinstance(value, dict) or value.keys() != self.ids.keys():
            classes = first_few(list(value), 10) if isinstance(value, dict) else _short(value)
            raise ValueError(
                f"probabilities are of {classes}; in the first row they are of {first_few(self.names, 10)}."
            )
        numbers = [value[name] for name in self.names]
        # Looked at one by one, millions of numbers take longer than all the rest.
        if not _are_shares(numbers):
            for name, number in zip(self.names, numbers, strict=True):
                if not 0 <= _number(number, f"the probability of {name!r}") <= 1:
                    raise ValueError(f"the probability of {name!r} is {number}; it must lie between 0 and 1.")
        if self.kind == SINGLE_LABEL and abs(sum(numbers) - 1) > SUM_TOLERANCE:
            raise ValueError(f"the probabilities add up to {sum(numbers):.4g}; those of one row must add up to 1.")
        return np.array(numbers, dtype=np.float64)


def _are_shares(values: list) -> bool:
    if not {*map(type, values)} <= {int, float}:
        return False
    try:
        numbers = np.array(values, dtype=np.float64)
    except OverflowError:
        return False
    return bool(((numbers >= 0) & (numbers <= 1)).all())


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key} is {_short(value)}; it must be a number.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{key} is {number}; it must be a finite number. The model may have diverged.")
    return number


def _text(value: Any) -> str | tuple[str, str]:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return value[0], value[1]
    raise ValueError(f"text is {_short(value)}; it must be a text or a list of two.")


def _short(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 60 else shown[:59] + "…"
