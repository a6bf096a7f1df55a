"""Whether several models were asked the same, and how to bring their answers into one order."""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import numpy as np

from hf_ext.errors import DataError, first_few
from hf_ext.evaluation.prediction_files import PredictionFile
from hf_ext.evaluation.predictions import Predictions
from hf_ext.problem_types import REGRESSION


def take_rows(predictions: Predictions, rows: Sequence[int]) -> Predictions:
    """Some rows, in the order given."""
    decisions, labels, outside = predictions.decisions, predictions.labels, predictions.out_of_scope
    return replace(
        predictions,
        probabilities=predictions.probabilities[rows],
        labels=None if labels is None else labels[rows],
        texts=[predictions.texts[row] for row in rows],
        decisions=None if decisions is None else decisions[rows],
        out_of_scope=None if outside is None else outside[rows],
    )


def align_rows(files: dict[str, PredictionFile]) -> tuple[dict[str, PredictionFile], list[str]]:
    """
    Bring what several models said about the same test set into one order of rows and classes: that of the first.

    Rows belong together when index and text are the same. Where the texts of two files are the same but stand at other
    indices (a shuffled copy of the test set), they belong together by text and label, equal ones in their order.

    Args:
        files (`dict[str, PredictionFile]`): By the model's name.

    Returns:
        `tuple[dict[str, PredictionFile], list[str]]`: The files in one order, with the indices of the first, and a
        sentence on each that was matched by text.

    Raises:
        DataError: If test sets, labels, classes or kinds of task differ; the message shows the first mismatch.
    """
    (reference, first), *others = files.items()
    aligned, notes = {reference: first}, []
    for name, file in others:
        given, columns = _with_classes(file.predictions, first.predictions.label_names), file.columns
        _check_same_task(reference, first.predictions, name, given)
        if file.index != first.index or given.texts != first.predictions.texts:
            rows = _matching_rows(reference, first, name, replace(file, predictions=given))
            given = take_rows(given, rows)
            columns = {key: [values[row] for row in rows] for key, values in columns.items()}
            notes.append(f"The rows of {name} have other indices than those of {reference}; they were matched by text.")
        aligned[name] = replace(file, predictions=given, index=first.index, columns=columns)
    check_same_rows({name: file.predictions for name, file in aligned.items()})
    return aligned, notes


def check_same_rows(predictions: dict[str, Predictions]) -> None:
    """
    See that every model answered the same labelled rows as the first, in the same order.

    Args:
        predictions (`dict[str, Predictions]`): By the model's name.

    Raises:
        DataError: If there are no labels or no rows, or if problem types, classes, texts or labels differ; the message
            shows the first row that does.
    """
    for name, given in predictions.items():
        if given.labels is None or not len(given.texts):
            raise DataError(f"The predictions of {name} have no labelled rows; a comparison needs the true labels.")
    (reference, first), *others = predictions.items()
    for name, given in others:
        _check_same_task(reference, first, name, given)
        if len(given.texts) != len(first.texts):
            raise DataError(
                f"{reference} answered {len(first.texts):,} rows and {name} {len(given.texts):,}. Let both answer the "
                "same file."
            )
        for row, (mine, theirs) in enumerate(zip(_questions(first), _questions(given), strict=True)):
            for what, x, y in zip(("text", "label"), mine, theirs, strict=True):
                if x != y:
                    x, y = _where_they_differ(repr(x), repr(y))
                    raise DataError(
                        f"Row {row} (from 0) has the {what} {x} in the predictions of {reference} and {y} in those of "
                        f"{name}. Let both answer the same file, in the same order."
                    )


# ---- Inside ----


def _check_same_task(reference: str, first: Predictions, name: str, given: Predictions) -> None:
    if given.problem_type != first.problem_type:
        raise DataError(
            f"The predictions of {reference} are {first.problem_type}, those of {name} {given.problem_type}; "
            "compare models of one task."
        )
    if given.label_names != first.label_names:
        pairs = zip_longest(first.label_names, given.label_names, fillvalue="nothing")
        place, (mine, theirs) = next((place, pair) for place, pair in enumerate(pairs) if pair[0] != pair[1])
        raise DataError(
            f"The classes of {reference} are {first_few(first.label_names, 10)}; those of {name} are "
            f"{first_few(given.label_names, 10)}. The first that differ are number {place} (from 0): {mine} and "
            f"{theirs}. Give both the same classes in the same order."
        )


def _with_classes(given: Predictions, names: list[str]) -> Predictions:
    """With the columns of its classes in the order of `names`; other classes are left for the check to refuse."""
    if given.problem_type == REGRESSION or given.label_names == names or sorted(given.label_names) != sorted(names):
        return given
    order = [given.label_names.index(name) for name in names]
    labels, decisions = (
        values[:, order] if values.ndim == 2 else np.argsort(order)[values]
        for values in (given.labels, given.decisions)
    )
    probabilities = given.probabilities[:, order]
    return replace(given, label_names=names, probabilities=probabilities, labels=labels, decisions=decisions)


def _matching_rows(reference: str, first: PredictionFile, name: str, file: PredictionFile) -> list[int]:
    """The row of `file` that belongs to each row of `first`."""
    mine, theirs = first.predictions.texts, file.predictions.texts
    if len(mine) == len(theirs) and first.index == file.index and set(mine) != set(theirs):
        # The same indices: a place where the texts differ says more than a text that is missing.
        check_same_rows({reference: first.predictions, name: file.predictions})
    waiting: dict[Any, deque[int]] = defaultdict(deque)
    for row, text in enumerate(theirs):
        waiting[text].append(row)
    rows, labels = [], file.predictions.named(file.predictions.labels)
    for row, (text, label) in enumerate(zip(mine, first.predictions.named(first.predictions.labels), strict=True)):
        candidates = waiting[text]
        if not candidates:
            raise DataError(
                f"{reference} answered {len(mine):,} rows and {name} {len(theirs):,}, of another test set: {name} has "
                f"no row for {_cut(text)} (index {first.index[row]} of {reference}). Let both answer the same file."
            )
        same = next((item for item in candidates if labels[item] == label), candidates[0])
        candidates.remove(same)
        rows.append(same)
    if len(rows) < len(theirs):
        left = min(row for candidates in waiting.values() for row in candidates)
        raise DataError(
            f"{reference} answered {len(mine):,} rows and {name} {len(theirs):,}, of another test set: {reference} has "
            f"no row for {_cut(theirs[left])} (index {file.index[left]} of {name}). Let both answer the same file."
        )
    return rows


def _cut(text: Any) -> str:
    shown = repr(text)
    return shown if len(shown) <= 100 else shown[:100] + "…"


def _questions(given: Predictions) -> Iterator[tuple[Any, Any]]:
    """Text and label of each row; a pair of texts that was read from JSON is a list."""
    texts = (text if isinstance(text, str) else tuple(text) for text in given.texts)
    return zip(texts, given.labels.tolist(), strict=True)


def _where_they_differ(x: str, y: str) -> list[str]:
    shared = next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))
    start = max(0, shared - 40)
    return [
        ("…" if start else "") + text[start : start + 100] + ("…" if text[start + 100 :] else "") for text in (x, y)
    ]
