"""Files or the Hub -> a `DatasetDict` with texts and encoded labels, and the task they describe."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict

from hf_ext.arguments import DataArguments, ModelArguments
from hf_ext.data.columns import find_columns, read_copies, read_groups, read_labels, read_numbers, read_texts
from hf_ext.data.holding_out import hold_out
from hf_ext.data.labels import Task, encode_labels, infer_task
from hf_ext.data.reading import Table
from hf_ext.data.split_tables import SPLITS, read_splits
from hf_ext.errors import DataError
from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

# Rows that are read at once for their checksum.
CHECKED_ROWS = 1000


@dataclass
class TextData:
    """
    Texts and labels, ready to be tokenised.

    Args:
        splits ([`~datasets.DatasetDict`]):
            `train`, `validation`, `test` (those there are), each with the columns `text`, `text_pair` (pairs only)
            and `label` (a class id, a 0/1 vector or a float; missing when the split has no labels).
        task ([`Task`]): What is predicted.
        notes (`list[str]`): What a reader of the results has to know, in sentences.
        files (`dict[str, str]`): The file that each split's rows are from.
        file_rows (`dict[str, list[int]]`): The number of each row in that file, from 1.
        stream (`TextStream`, *optional*): The training rows, if they are not in memory; `splits` has no `train` then.
    """

    splits: DatasetDict
    task: Task
    notes: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    file_rows: dict[str, list[int]] = field(default_factory=dict)
    stream: Any = None

    def texts(self, split: str) -> list:
        """The texts of a split: strings, or tuples of two."""
        dataset = self.splits[split]
        if "text_pair" in dataset.column_names:
            return list(zip(dataset["text"][:], dataset["text_pair"][:], strict=True))
        # A column without a slice is read row by row.
        return dataset["text"][:]

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of each split's rows, so that a run can say what it was trained on."""
        digests = {} if self.stream is None else {"train": self.stream.fingerprint}
        for name, dataset in self.splits.items():
            digest = hashlib.sha256()
            for batch in dataset.iter(CHECKED_ROWS):
                for values in zip(*batch.values(), strict=True):
                    row = dict(zip(batch, values, strict=True))
                    digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
            digests[name] = digest.hexdigest()
        return digests


def load_text_data(
    data_args: DataArguments,
    model_args: ModelArguments,
    needed: tuple[str, ...],
    task: Task | None = None,
    number_columns: tuple[str, ...] = (),
    group_column: str | None = None,
) -> TextData:
    """
    Read, check and split the data.

    A missing validation split is taken from the training rows, stratified by class; the test rows are never used for
    it. Labels of validation and test must occur in training. Of the rows that are split here, equal texts stay
    together, and so do augmented copies of one row (the column `source_idx`), which are never validated on.

    Args:
        data_args ([`DataArguments`]): What to read.
        model_args ([`ModelArguments`]): For `num_labels`, `cache_dir` and `token`.
        needed (`tuple[str, ...]`): Splits that the run uses; the others are not read.
        task ([`Task`], *optional*): The task of a trained model; by default it is inferred from the training labels.
        number_columns (`tuple[str, ...]`, *optional*): Columns of numbers that the training split keeps.
        group_column (`str`, *optional*): The column that becomes `group` of the training split: equal values have
            equal texts there, and a row without a value has one of its own.

    Returns:
        [`TextData`]

    Raises:
        DataError: With the file, the row and what is valid.
    """
    tables = read_splits(data_args, model_args, needed)
    if task is None and "train" not in tables:
        raise DataError(
            "There are no training rows. Pass --train_file, --dataset_name, or a --data_dir that holds a train file."
        )
    if not tables:
        raise DataError(
            f"There are no {' or '.join(needed)} rows. Pass {' or '.join(f'--{name}_file' for name in needed)}."
        )
    columns = find_columns(tables[next(iter(tables))], data_args, labelled=task is None)
    splits, notes = {}, []
    for name, table in tables.items():
        splits[name] = read_texts(table, columns, data_args) | {"file_row": list(range(1, len(table.rows) + 1))}
    if task is None:
        train_labels = read_labels(tables["train"], columns, optional=False)
        task = infer_task(tables["train"], train_labels, data_args.do_regression, model_args.num_labels)
        is_guess = task.problem_type == REGRESSION and data_args.do_regression is None
        if is_guess and all(label.is_integer() for label in train_labels):
            notes.append(
                f"The labels of {tables['train'].source} are written with decimals, such as {train_labels[0]}: a "
                "number is predicted (regression). Write classes as whole numbers or strings; if it is right, pass "
                "--do_regression true."
            )
    for name, table in tables.items():
        labels = read_labels(table, columns, optional=name == "test", task=task)
        if labels is None:
            notes.append(f"{table.source} has no labels: its rows are predicted, not scored.")
        else:
            splits[name]["label"] = encode_labels(table, labels, task)
            if name != "train" and "train" in tables:
                _check_seen(table, splits[name]["label"], splits["train"]["label"], task)
    if "train" in tables:
        splits["train"] |= read_numbers(tables["train"], columns, number_columns) | read_copies(tables["train"])
        if group_column is not None:
            splits["train"]["group"] = read_groups(tables["train"], group_column)
    notes += _hold_out_missing(splits, task, data_args, needed)
    ordered = {name: Dataset.from_dict(splits[name]) for name in SPLITS if name in splits}
    files = {name: tables[name if name in tables else "train"].source for name in ordered}
    limited = _limit(DatasetDict(ordered), data_args, task)
    file_rows = {name: dataset["file_row"][:] for name, dataset in limited.items()}
    return TextData(limited.remove_columns("file_row"), task, notes, files, file_rows)


# ---- Inside ----


def _hold_out_missing(
    splits: dict[str, dict[str, list]], task: Task, data_args: DataArguments, needed: tuple[str, ...]
) -> list[str]:
    """Take the validation and the test rows that are not given from the training rows, and say so."""
    notes = []
    # Both shares are of the rows that were given, so that 0.1 and 0.1 make 80/10/10.
    given = len(splits["train"]["text"]) if "train" in splits else 0
    for name, share in (("test", data_args.test_size), ("validation", data_args.validation_size)):
        # A test share is held out also when this run doesn't use it: the next one would test on its rows.
        wanted = name in needed or name == "test"
        if wanted and name not in splits and given and share > 0:
            splits[name], splits["train"] = hold_out(splits["train"], task, round(share * given), data_args.split_seed)
            notes.append(
                f"The {name} split is {len(splits[name]['text']):,} rows taken from the training rows "
                f"({'stratified by class, ' if task.problem_type == SINGLE_LABEL else ''}seed {data_args.split_seed})."
            )
    return notes


def _check_seen(table: Table, labels: list, train_labels: list, task: Task) -> None:
    if task.problem_type == REGRESSION:
        return
    if task.problem_type == MULTI_LABEL:
        seen = np.asarray(train_labels).any(axis=0)
        unseen = [(i, j) for i, row in enumerate(labels) for j, on in enumerate(row) if on and not seen[j]]
    else:
        seen = set(train_labels)
        unseen = [(i, label) for i, label in enumerate(labels) if label not in seen]
    if unseen:
        names = sorted({task.label_names[label] for _, label in unseen})
        raise DataError(
            f"{table.where(unseen[0][0])}: the label {task.label_names[unseen[0][1]]!r} never occurs in training, so "
            f"it cannot be predicted. {len(unseen)} row{'s are' if len(unseen) > 1 else ' is'} affected, with the "
            f"labels {', '.join(names[:10])}. Remove "
            "them, or add such rows to the training data."
        )


def _limit(splits: DatasetDict, data_args: DataArguments, task: Task) -> DatasetDict:
    if "train" in splits and data_args.shuffle_train_dataset:
        splits["train"] = splits["train"].shuffle(seed=data_args.shuffle_seed)
    limits = {
        "train": data_args.max_train_samples,
        "validation": data_args.max_eval_samples,
        "test": data_args.max_predict_samples,
    }
    for name, limit in limits.items():
        if name in splits and limit is not None:
            splits[name] = splits[name].select(range(min(limit, len(splits[name]))))
    if "train" in splits and data_args.max_train_samples is not None and task.problem_type == SINGLE_LABEL:
        kept = set(splits["train"]["label"][:])
        lost = {
            label for name in splits if "label" in splits[name].column_names for label in splits[name]["label"]
        } - kept
        if len(kept) == 1 or lost:
            raise DataError(
                f"The first {data_args.max_train_samples} training rows (max_train_samples) hold {len(kept)} of "
                f"{len(task.label_names)} classes. Add --shuffle_train_dataset true, or raise max_train_samples."
            )
    return splits
