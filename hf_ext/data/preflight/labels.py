"""Preflight: labels that cannot be used, classes that are missing, rare or absent from folds."""

from collections.abc import Sequence

import numpy as np

from hf_ext.data.preflight.report import FAIL, MOST_EXAMPLES, OK, SKIPPED, WARN, Finding, rows_of
from hf_ext.data.preflight.rows import Labels, Rows
from hf_ext.errors import ConfigurationError
from hf_ext.problem_types import REGRESSION

# The largest class over the smallest, and the rows of a class below which its results are luck.
IMBALANCE, RARE = 10, 10
NO_CLASSES = "The labels are numbers, not classes."

Folds = list[tuple[np.ndarray, np.ndarray]]


def check_labels(splits: list[Rows], labels: Labels) -> Finding:
    """Labels that are missing, -1, out of range, or none of the classes."""
    labelled = [rows for rows in splits if rows.codes is not None]
    if not labelled:
        return Finding("labels", SKIPPED, 0, "No split has labels.")
    bad = np.asarray([bool(problem) for problem in labels.problems])
    numbers, reasons, examples = {}, {}, []
    for rows in labelled:
        wrong = np.flatnonzero(bad[rows.codes])
        numbers[rows.name] = len(wrong)
        for code, count in zip(*np.unique(rows.codes[wrong], return_counts=True), strict=True):
            reasons[labels.problems[code]] = reasons.get(labels.problems[code], 0) + int(count)
        for row in wrong[: MOST_EXAMPLES - len(examples)]:
            examples.append(rows.example(row, f"the label {labels.problems[rows.codes[row]]}"))
    total = sum(numbers.values())
    first = sorted(reasons.items(), key=lambda item: -item[1])[:5]
    described = "; ".join(f"{count:,} where it {reason}" for reason, count in first)
    more = " ..." if len(reasons) > len(first) else ""
    without = [rows.name for rows in splits if rows.codes is None]
    note = f" ({', '.join(without)} without labels.)" if without else ""
    return Finding(
        "labels",
        FAIL if total else OK,
        total,
        f"Labels that cannot be used: {described}{more} "
        f"({', '.join(f'{name} {count:,}' for name, count in numbers.items() if count)}).{note}"
        if total
        else f"Every label is one of the classes.{note}"
        if labels.problem_type != REGRESSION
        else f"Every label is a finite number.{note}",
        "Remove these rows or label them; -1 is no class.",
        examples,
        numbers,
    )


def check_unseen_classes(splits: list[Rows], labels: Labels) -> Finding:
    """Classes that a later split has and training does not."""
    train = _train(splits)
    if labels.problem_type == REGRESSION or train is None or len(splits) < 2:
        reason = NO_CLASSES if labels.problem_type == REGRESSION else "It needs labelled training rows and a split."
        return Finding("unseen_classes", SKIPPED, 0, reason)
    seen = labels.class_counts(train.codes) > 0
    numbers, parts, examples = {}, [], []
    for rows in splits:
        if rows is train or rows.codes is None:
            continue
        counts = labels.class_counts(rows.codes)
        unseen = np.flatnonzero((counts > 0) & ~seen)
        numbers[rows.name] = int(counts[unseen].sum())
        if len(unseen):
            parts.append(f"{rows.name} has {_named(labels, unseen, counts)}")
        affected = (labels.membership()[:, unseen].sum(axis=1) > 0)[rows.codes]
        for row in np.flatnonzero(affected)[: MOST_EXAMPLES - len(examples)]:
            examples.append(rows.example(row))
    total = sum(numbers.values())
    return Finding(
        "unseen_classes",
        FAIL if total else OK,
        total,
        f"Classes that training never sees: {'; '.join(parts)}." if total else "Every class of every split is trained.",
        "Add training rows of these classes, or remove their rows: they can never be predicted.",
        examples,
        numbers,
    )


def check_missing_classes(splits: list[Rows], labels: Labels) -> Finding:
    """Classes without a row in a split."""
    labelled = [rows for rows in splits if rows.codes is not None]
    if labels.problem_type == REGRESSION or not labelled:
        reason = NO_CLASSES if labels.problem_type == REGRESSION else "No split has labels."
        return Finding("missing_classes", SKIPPED, 0, reason)
    numbers, parts = {}, []
    for rows in labelled:
        absent = np.flatnonzero(labels.class_counts(rows.codes) == 0)
        numbers[rows.name] = len(absent)
        if len(absent):
            parts.append(f"{rows.name} lacks {_named(labels, absent)}")
    total = sum(numbers.values())
    return Finding(
        "missing_classes",
        WARN if total else OK,
        total,
        f"Classes without a row: {'; '.join(parts)}." if total else "Every split has every class.",
        "Nothing is measured about a class that a split lacks, and macro averages count it as 0 or leave it out. Split "
        "stratified, or take the class out of the task.",
        numbers=numbers,
    )


def check_imbalance(splits: list[Rows], labels: Labels) -> Finding:
    """Training classes of very different sizes, or of a few rows."""
    train = _train(splits)
    if labels.problem_type == REGRESSION or train is None:
        reason = NO_CLASSES if labels.problem_type == REGRESSION else "There are no labelled training rows."
        return Finding("class_imbalance", SKIPPED, 0, reason)
    counts = labels.class_counts(train.codes)
    present = np.flatnonzero(counts)
    if not len(present):
        return Finding("class_imbalance", SKIPPED, 0, "No training label can be used.")
    largest, smallest = present[counts[present].argmax()], present[counts[present].argmin()]
    ratio = counts[largest] / counts[smallest]
    rare = present[counts[present] < RARE]
    uneven = ratio >= IMBALANCE
    message = (
        f"The largest class ({labels.names[largest]}, {rows_of(counts[largest])}) has {ratio:.1f} times the rows of "
        f"the smallest ({labels.names[smallest]}, {rows_of(counts[smallest])})."
        if ratio > 1
        else f"All classes have {rows_of(counts[largest])}."
    )
    if len(rare):
        message += f" Fewer than {RARE} rows: {_named(labels, rare, counts)}."
    return Finding(
        "class_imbalance",
        WARN if uneven or len(rare) else OK,
        len(rare),
        message,
        "Report macro-F1 beside accuracy and choose by it; collect more rows of rare classes, or join them.",
        numbers={"ratio": round(float(ratio), 6), "rare": len(rare)},
    )


def check_folds(rows: Rows, labels: Labels, folds: Folds) -> Finding:
    """Classes that a fold neither trains on or nor tests."""
    if labels.problem_type == REGRESSION or rows.codes is None:
        reason = NO_CLASSES if labels.problem_type == REGRESSION else "There are no labelled training rows."
        return Finding("folds", SKIPPED, 0, reason)
    counts = labels.class_counts(rows.codes)
    present = counts > 0
    numbers, parts = {}, []
    for number, part in enumerate(folds, start=1):
        for what, indices in zip(("training", "validation"), part, strict=True):
            absent = np.flatnonzero(present & (labels.class_counts(rows.codes[indices]) == 0))
            numbers[f"fold {number}, {what}"] = len(absent)
            if len(absent):
                parts.append(f"{what} part of fold {number}: {_named(labels, absent)}")
    few = np.flatnonzero(present & (counts < len(folds)))
    absent = [count for count in numbers.values() if count]
    numbers["classes with fewer rows than folds"] = len(few)
    if few.size:
        parts.append(f"fewer rows than the {len(folds)} folds: {_named(labels, few, counts)}")
    return Finding(
        "folds",
        FAIL if absent else OK,
        sum(absent),
        f"Classes absent from folds: {'; '.join(parts[:8])}{' ...' if len(parts) > 8 else ''}."
        if absent
        else f"Each of the {len(folds)} folds trains on and tests every class.",
        "Stratify the folds; where a class has fewer rows than there are folds, use fewer folds or leave it out.",
        numbers=numbers,
    )


def read_folds(folds: Sequence, rows: int) -> Folds:
    """
    Folds in either form as pairs of row indices.

    Args:
        folds (`Sequence`): The fold of each training row, or for each fold the indices (training, validation).
        rows (`int`): Training rows.

    Raises:
        ConfigurationError: If there are not as many numbers as rows, a single fold, or indices outside the rows.
    """
    if not isinstance(folds, (Sequence, np.ndarray)) or isinstance(folds, str):
        raise ConfigurationError(
            f"folds is {folds!r}; it must be each training row's fold, or a list of (training, validation) indices."
        )
    if len(folds) and all(isinstance(part, (tuple, list)) and len(part) == 2 for part in folds):
        pairs = [tuple(np.asarray(indices, dtype=np.int64) for indices in part) for part in folds]
    else:
        numbers = np.asarray(folds)
        if numbers.shape != (rows,):
            raise ConfigurationError(
                f"folds has the shape {numbers.shape} for {rows:,} training rows. Give each row's fold, or a list of "
                "(training indices, validation indices)."
            )
        pairs = [(np.flatnonzero(numbers != fold), np.flatnonzero(numbers == fold)) for fold in np.unique(numbers)]
    if len(pairs) < 2:
        raise ConfigurationError(f"folds describes {len(pairs)} fold; it must be at least 2.")
    for number, part in enumerate(pairs, start=1):
        for indices in part:
            if not len(indices) or indices.min() < 0 or indices.max() >= rows:
                raise ConfigurationError(
                    f"folds: fold {number} has no row, or one outside the {rows:,} training rows (0 to {rows - 1})."
                )
    return pairs


# ---- Inside ----


def _train(splits: list[Rows]) -> Rows | None:
    return next((rows for rows in splits if rows.name == "train" and rows.codes is not None), None)


def _named(labels: Labels, classes: np.ndarray, counts: np.ndarray | None = None) -> str:
    shown = [labels.names[index] + ("" if counts is None else f" ({rows_of(counts[index])})") for index in classes[:8]]
    return ", ".join(shown) + (f" ... {len(classes)} in all" if len(classes) > 8 else "")
