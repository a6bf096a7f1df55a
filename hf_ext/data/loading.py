"""Files or the Hub -> a `DatasetDict` with texts and encoded labels, and the task they describe."""

import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict

from hf_ext.arguments import DataArguments, ModelArguments
from hf_ext.data.difficulty import SCORERS, TRAINED_SCORERS
from hf_ext.data.holding_out import hold_out
from hf_ext.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Task, encode_labels, infer_task, parse_labels
from hf_ext.data.reading import Table, read_hub_dataset, read_table
from hf_ext.data.streaming import FORMATS
from hf_ext.errors import DataError, nearest

SPLITS = ("train", "validation", "test")
TEXT_COLUMNS = ("text", "sentence")
PAIR_COLUMNS = (
    ("text_a", "text_b"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("text", "text_pair"),
)
LABEL_COLUMNS = ("label", "labels")
# What augmented data has besides: which row a row is a copy of, and whether it is one.
COPY_COLUMNS = ("source_idx", "is_augmented")


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
            return list(zip(dataset["text"], dataset["text_pair"], strict=True))
        return list(dataset["text"])

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of each split's rows, so that a run can say what it was trained on."""
        digests = {} if self.stream is None else {"train": self.stream.fingerprint}
        for name, dataset in self.splits.items():
            digest = hashlib.sha256()
            for row in dataset:
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
    tables = _read_splits(data_args, model_args, needed)
    if task is None and "train" not in tables:
        raise DataError(
            "There are no training rows. Pass --train_file, --dataset_name, or a --data_dir that holds a train file."
        )
    if not tables:
        raise DataError(
            f"There are no {' or '.join(needed)} rows. Pass {' or '.join(f'--{name}_file' for name in needed)}."
        )
    columns = find_columns(tables[next(iter(tables))], data_args)
    splits, labels, notes = {}, {}, []
    for name, table in tables.items():
        splits[name] = read_texts(table, columns, data_args) | {"file_row": list(range(1, len(table.rows) + 1))}
    if task is None:
        train_labels = _read_labels(tables["train"], columns, optional=False)
        task = infer_task(tables["train"], train_labels, data_args.do_regression, model_args.num_labels)
    for name, table in tables.items():
        labels[name] = _read_labels(table, columns, optional=name == "test", task=task)
        if labels[name] is None:
            notes.append(f"{table.source} has no labels: its rows are predicted, not scored.")
        else:
            splits[name]["label"] = encode_labels(table, labels[name], task)
            if name != "train" and "train" in tables:
                _check_seen(table, splits[name]["label"], splits["train"]["label"], task)
    if "train" in tables:
        splits["train"] |= _read_numbers(tables["train"], columns, number_columns) | _read_copies(tables["train"])
        if group_column is not None:
            splits["train"]["group"] = _read_groups(tables["train"], group_column)
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
    ordered = {name: Dataset.from_dict(splits[name]) for name in SPLITS if name in splits}
    files = {name: tables[name if name in tables else "train"].source for name in ordered}
    limited = _limit(DatasetDict(ordered), data_args, task)
    file_rows = {name: dataset["file_row"][:] for name, dataset in limited.items()}
    return TextData(limited.remove_columns("file_row"), task, notes, files, file_rows)


# ---- Inside ----


def _read_splits(data_args: DataArguments, model_args: ModelArguments, needed: tuple[str, ...]) -> dict[str, Table]:
    files = {name: getattr(data_args, f"{name}_file") for name in SPLITS}
    if data_args.dataset_name is None and not any(files.values()) and data_args.data_dir is not None:
        files = _files_in(Path(data_args.data_dir))
    if data_args.dataset_name is not None:
        tables = read_hub_dataset(
            data_args.dataset_name, data_args.dataset_config_name, model_args.cache_dir, model_args.token
        )
        tables = _rename_splits(tables, data_args)
        return {name: tables[name] for name in needed if name in tables}
    _check_different(files)
    tables = {name: read_table(files[name]) for name in needed if files[name] is not None}
    for name, other in combinations(tables, 2):
        if tables[name].rows == tables[other].rows:
            _refuse_same(name, files[name], other, files[other])
    return tables


def _files_in(folder: Path) -> dict[str, str | None]:
    if not folder.is_dir():
        raise DataError(f"data_dir: there is no folder {folder}. Pass --train_file, or prepare the data first.")
    files: dict[str, str | None] = dict.fromkeys(SPLITS)
    for name in SPLITS:
        candidates = [folder / name] if (folder / name).is_dir() else []
        candidates += [folder / f"{name}{ending}{gz}" for ending in FORMATS for gz in ("", ".gz")]
        found = [path for path in candidates if path.exists()]
        if len(found) > 1:
            raise DataError(f"data_dir: {folder} holds {' and '.join(path.name for path in found)}; keep one of them.")
        files[name] = str(found[0]) if found else None
    if not any(files.values()):
        raise DataError(
            f"data_dir: {folder} holds none of train.json, validation.json, test.json (or .jsonl, .csv ...)."
        )
    return files


def _rename_splits(tables: dict[str, Table], data_args: DataArguments) -> dict[str, Table]:
    removed = _names(data_args.remove_splits)
    for name in SPLITS:
        given = getattr(data_args, f"{name}_split_name")
        if given is not None:
            tables = {**tables, name: _split_of(tables, given, f"{name}_split_name")}
    for name in removed:
        _split_of(tables, name, "remove_splits")
    return {name: table for name, table in tables.items() if name not in removed}


def _names(listed: str | None) -> list[str]:
    return [name.strip() for name in listed.split(",")] if listed else []


def _split_of(tables: dict[str, Table], name: str, flag: str) -> Table:
    if name not in tables:
        raise DataError(
            f"{flag}: the data set has no split {name!r}; it has {', '.join(tables)}.{nearest(name, tables)}"
        )
    return tables[name]


def _check_different(files: dict[str, str | None]) -> None:
    """Before anything is read, also for the splits that this run does not use."""
    named = [name for name, path in files.items() if path is not None and os.path.exists(path)]
    for name, other in combinations(named, 2):
        if os.path.samefile(files[name], files[other]):
            _refuse_same(name, files[name], other, files[other])


def _refuse_same(name: str, path: str, other: str, other_path: str):
    raise DataError(
        f"--{name}_file {path} and --{other}_file {other_path} are the same rows: results on them would be worthless. "
        "Name different files, or leave one out to have it split off."
    )


def find_columns(table: Table, data_args: DataArguments) -> dict[str, list[str]]:
    """Names of the columns that make `text`, `text_pair` and `label`."""
    removed = _names(data_args.remove_columns)
    for name in removed:
        table.column(name, "remove_columns")
    available = [name for name in table.columns if name not in removed]
    named = data_args.text_column_names
    columns = {"text_pair": [data_args.text_pair_column_name] if data_args.text_pair_column_name else []}
    if named is not None:
        columns["text"] = [name.strip() for name in (named.split(",") if isinstance(named, str) else named)]
    else:
        pairs = [pair for pair in PAIR_COLUMNS if set(pair) <= set(available)]
        if pairs and not columns["text_pair"]:
            columns["text"], columns["text_pair"] = [pairs[0][0]], [pairs[0][1]]
        else:
            single = [name for name in TEXT_COLUMNS if name in available]
            # An absent name is reported with the nearest one when it is read.
            columns["text"] = single[:1] or ["text"]
    if data_args.label_column_name is not None:
        columns["label"] = [data_args.label_column_name]
    else:
        columns["label"] = [name for name in LABEL_COLUMNS if name in available][:1] or ["label"]
    both = set(columns["label"]) & {*columns["text"], *columns["text_pair"]}
    if both:
        raise DataError(f"{table.source}: the column {both.pop()!r} is named as both text and label.")
    return columns


def read_texts(table: Table, columns: dict[str, list[str]], data_args: DataArguments) -> dict[str, list]:
    texts = {}
    for target, flag in (("text", "text_column_names"), ("text_pair", "text_pair_column_name")):
        parts = [table.column(name, flag) for name in columns[target]]
        for name, values in zip(columns[target], parts, strict=True):
            for index, value in enumerate(values):
                if not isinstance(value, str):
                    raise DataError(f"{table.where(index)}: {name!r} is {value!r}; it must be a string.")
                if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
                    raise DataError(f"{table.where(index)}: {name!r} holds half a character (a lone surrogate).")
        if len(parts) == 1:
            texts[target] = parts[0]
        elif parts:
            texts[target] = [data_args.text_column_delimiter.join(row) for row in zip(*parts, strict=True)]
    return texts


def _read_labels(table: Table, columns: dict[str, list[str]], optional: bool, task: Task | None = None) -> list | None:
    name = columns["label"][0]
    if optional:
        if name not in table.columns:
            meant = [column for column in table.columns if column.strip().lower() == name.lower()]
            if meant:
                raise DataError(f"{table.source} has no column {name!r}, but {meant[0]!r}: give it the same name.")
        values = [row.get(name) for row in table.rows]
        if all(value in (None, -1, "-1", "") for value in values):
            return None
    return parse_labels(table, table.column(name, "label_column_name"), task)


def _read_numbers(table: Table, columns: dict[str, list[str]], names: tuple[str, ...]) -> dict[str, list]:
    """The columns that `names` asks for, as finite numbers."""
    taken = {"text", "text_pair", "label", *columns["text"], *columns["text_pair"], *columns["label"], *COPY_COLUMNS}
    read = {}
    for name in names:
        if name in taken:
            raise DataError(f"{table.source}: the column {name!r} has another meaning; a difficulty needs its own.")
        if name not in table.columns:
            raise DataError(
                f"{table.source} has no column {name!r}, which the curriculum asks for."
                f"{nearest(name, [*table.columns, *SCORERS, *TRAINED_SCORERS])} It has {', '.join(table.columns)}; "
                f"without a column of its own a curriculum can be {', '.join([*SCORERS, *TRAINED_SCORERS])}."
            )
        read[name] = table.column(name, "curriculum")
        for index, value in enumerate(read[name]):
            try:
                read[name][index] = float(value)
            except (TypeError, ValueError):
                raise DataError(f"{table.where(index)}: {name!r} is {value!r}; it must be a number.") from None
            if not math.isfinite(read[name][index]):
                raise DataError(f"{table.where(index)}: {name!r} is {value!r}; it must be a finite number.")
    return read


def _read_copies(table: Table) -> dict[str, list]:
    """Which rows are copies, and of which: sources are numbered, and a row without one is its own."""
    read: dict[str, list] = {}
    if "source_idx" in table.columns:
        numbers: dict[str, int] = {}
        for index, row in enumerate(table.rows):
            source = row.get("source_idx")
            key = f"row {index}" if source in (None, "") else json.dumps(source)
            read.setdefault("source_idx", []).append(numbers.setdefault(key, len(numbers)))
    if "is_augmented" in table.columns:
        read["is_augmented"] = [str(row.get("is_augmented")).lower() in ("true", "1") for row in table.rows]
    return read


def _read_groups(table: Table, name: str) -> list[str]:
    if name not in table.columns:
        raise DataError(
            f"{table.source} has no column {name!r}, which group_column names.{nearest(name, table.columns)} It has "
            f"{', '.join(table.columns)}."
        )
    values = (row.get(name) for row in table.rows)
    return [f"row {n}" if value in (None, "") else json.dumps(value) for n, value in enumerate(values, start=1)]


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
        kept = set(splits["train"]["label"])
        lost = {
            label for name in splits if "label" in splits[name].column_names for label in splits[name]["label"]
        } - kept
        if len(kept) == 1 or lost:
            raise DataError(
                f"The first {data_args.max_train_samples} training rows (max_train_samples) hold {len(kept)} of "
                f"{len(task.label_names)} classes. Add --shuffle_train_dataset true, or raise max_train_samples."
            )
    return splits
