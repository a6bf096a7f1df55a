"""Cross-validation: from rows to folds, the rows of each fold, and where its results are."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict

from hf_ext.data.folds import Fold, make_folds, row_groups
from hf_ext.data.holding_out import hold_out
from hf_ext.data.loading import TextData
from hf_ext.errors import DataError

# Holds a folder a fold.
FOLDS = "fold_runs"
# Ends the name of a folder in which a fold is being trained, or was when its process died.
PART = ".part"
# Written last: a fold whose folder has it is finished.
RESULT = "fold.json"
PROBABILITIES = "probabilities.npy"
# Shown of a group of rows.
SHOWN_CHARACTERS = 60


@dataclass
class CrossValidation:
    """
    All that the trainings of a cross-validation depend on. It can be pickled, for processes that train some of them.

    Args:
        settings (`dict[str, Any]`): Section of [`KFOLD_SETTINGS`] -> dataclass.
        data ([`TextData`]): `train` has all rows.
        folds (`list[Fold]`): From [`make_folds`].
        groups (`np.ndarray` of shape `(rows,)`): Rows with equal numbers are on one side also of the validation split.
        arguments (`dict[str, dict]`): Section -> resolved values.
    """

    settings: dict[str, Any]
    data: TextData
    folds: list[Fold]
    groups: np.ndarray
    arguments: dict[str, dict]

    @property
    def output_dir(self) -> Path:
        """The run's folder."""
        return Path(self.settings["training"].output_dir)

    def folder(self, number: int) -> Path:
        """Where the results of a fold are once it is finished."""
        return self.output_dir / FOLDS / self.folds[number].name

    def is_finished(self, number: int) -> bool:
        """Whether a fold has been trained and tested."""
        return (self.folder(number) / RESULT).is_file()

    def originals(self, rows: np.ndarray) -> np.ndarray:
        """Those of some rows that are no augmented copies: only they are tested on."""
        train = self.data.splits["train"]
        if "is_augmented" not in train.column_names:
            return rows
        return rows[~np.asarray(train["is_augmented"][:])[rows]]


def plan_folds(settings: dict[str, Any], data: TextData, arguments: dict[str, dict]) -> CrossValidation:
    """
    Deal the rows to folds. Nothing is written.

    Args:
        settings (`dict[str, Any]`): Section of [`KFOLD_SETTINGS`] -> dataclass.
        data ([`TextData`]): `train` has all rows, with `group` if there is a group column.
        arguments (`dict[str, dict]`): Section -> resolved values.

    Returns:
        [`CrossValidation`]

    Raises:
        UsageError: See [`make_folds`].
    """
    kfold, rows = settings["kfold"], data.splits["train"]
    groups = row_groups(rows, kfold.group_similarity)

    def name_group(row: int) -> str:
        text = rows[row]["text"]
        return repr(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…") + (
            f", {kfold.group_column} {rows[row]['group']}" if kfold.group_column is not None else ""
        )

    folds = make_folds(
        rows["label"][:],
        data.task.problem_type,
        kfold.num_folds,
        kfold.num_repeats,
        kfold.fold_seeds or [settings["training"].seed],
        groups,
        data.task.label_names,
        name_group,
        data.file_rows.get("train"),
    )
    return CrossValidation(settings, data, folds, groups, arguments)


def describe_folds(run: CrossValidation) -> list[str]:
    """
    How the rows were dealt, in sentences for a reader of the results.

    Args:
        run ([`CrossValidation`]): The run.
    """
    kfold, sizes = run.settings["kfold"], [len(fold.test) for fold in run.folds]
    seeds = list(dict.fromkeys(fold.seed for fold in run.folds))
    shared = np.bincount(run.groups)[run.groups] > 1
    several = f", {kfold.num_repeats} times with each" if kfold.num_repeats > 1 else ""
    notes = [
        f"{kfold.num_folds} folds of {min(sizes):,} to {max(sizes):,} rows, dealt with the seed"
        f"{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}{several}."
    ]
    if shared.any():
        notes.append(
            f"{shared.sum():,} rows share their fold with others of their group (equal texts, copies of one source"
            f"{', similar texts' * (kfold.group_similarity is not None)}"
            f"{f', equal {kfold.group_column}' if kfold.group_column is not None else ''})."
        )
    copies = sum(len(fold.test) - len(run.originals(fold.test)) for fold in run.folds[: kfold.num_folds])
    return notes + ([f"{copies:,} augmented copies are trained on only, never tested on."] if copies else [])


def fold_data(run: CrossValidation, number: int) -> TextData:
    """
    The rows of one fold: `test` are the fold's, `validation` is held out from the others, `train` is the rest.

    Args:
        run ([`CrossValidation`]): The run.
        number (`int`): Position in `run.folds`.

    Returns:
        [`TextData`]

    Raises:
        DataError: If the other rows are too few to hold any out.
    """
    fold, rows, data_args = run.folds[number], run.data.splits["train"], run.settings["data"]
    parts = {"train": fold.train}
    if data_args.validation_size > 0:
        held, rest = _hold_out(run, fold)
        parts = {"train": rest, "validation": held}
    parts["test"] = run.originals(fold.test)
    unused = [name for name in ("group",) if name in rows.column_names]
    splits = DatasetDict({name: rows.select(part).remove_columns(unused) for name, part in parts.items()})
    numbers = np.asarray(run.data.file_rows["train"])
    return TextData(
        splits,
        run.data.task,
        files=dict.fromkeys(parts, run.data.files["train"]),
        file_rows={name: numbers[part].tolist() for name, part in parts.items()},
    )


def publish_fold(run: CrossValidation, number: int, folder: Path) -> None:
    """
    Move the folder of a fold that is finished to where it belongs. If another process was first, its result stays:
    it is the same.

    Args:
        run ([`CrossValidation`]): The run.
        number (`int`): Position in `run.folds`.
        folder (`Path`): Where it was trained.
    """
    final = run.folder(number)
    if final.exists() and not run.is_finished(number):
        shutil.rmtree(final)
    try:
        os.rename(folder, final)
    except OSError:
        if not run.is_finished(number):
            raise
        shutil.rmtree(folder, ignore_errors=True)


def remove_unfinished(run: CrossValidation) -> None:
    """Remove what processes that died have left of folds."""
    for folder in (run.output_dir / FOLDS).glob(f"*{PART}*"):
        shutil.rmtree(folder, ignore_errors=True)


def read_fold(run: CrossValidation, number: int) -> tuple[dict[str, Any], np.ndarray]:
    """
    What a finished fold's training came to.

    Args:
        run ([`CrossValidation`]): The run.
        number (`int`): Position in `run.folds`.

    Returns:
        `tuple`: `fold.json`, and the probabilities (regression: values) of its test rows.
    """
    folder = run.folder(number)
    result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return result, np.load(folder / PROBABILITIES, allow_pickle=False)


# ---- Inside ----


def _hold_out(run: CrossValidation, fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    """Rows to validate on, and the rest."""
    data_args, rows = run.settings["data"], run.data.splits["train"].select(fold.train)
    names = [name for name in ("text", "text_pair", "label", "is_augmented") if name in rows.column_names]
    columns = {name: rows[name][:] for name in names}
    columns |= {"row": fold.train.tolist(), "source_idx": run.groups[fold.train].tolist()}
    held_rows = round(data_args.validation_size * len(fold.train))
    try:
        held, rest = hold_out(columns, run.data.task, held_rows, data_args.split_seed)
    except DataError as error:
        raise DataError(
            f"{fold.name}: the {len(fold.train)} rows outside of the fold are too few to hold out {held_rows} of them "
            "(validation_size) to validate on. Set --validation_size 0 to train without validation, or add rows."
        ) from error
    return np.asarray(held["row"]), np.asarray(rest["row"])
