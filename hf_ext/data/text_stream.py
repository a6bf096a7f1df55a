"""Training rows that are read while they are trained on: memory does not depend on their number."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from datasets import DatasetDict
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerBase

from hf_ext.arguments import DataArguments, ModelArguments
from hf_ext.data.columns import find_columns, read_texts
from hf_ext.data.labels import Task, encode_labels, infer_task, parse_labels
from hf_ext.data.loading import TextData, load_text_data
from hf_ext.data.reading import Table, source_at
from hf_ext.data.streaming import Source, iter_batches
from hf_ext.errors import DataError
from hf_ext.problem_types import REGRESSION

T = TypeVar("T")
# Labels that are told apart in the first pass; numbers to predict may be more.
MOST_LABELS = 10_000
DRAWS = 4096


def shuffled(rows: Iterable[T], size: int, seed: Sequence[int]) -> Iterator[T]:
    """
    Rows in a random order, of which few are held at a time: the next one takes the place of a random one that is held.

    Args:
        rows (`Iterable`): In their order.
        size (`int`): How many are held. No row comes more than `size` places before its own; 1 keeps the order.
        seed (`Sequence[int]`): Of the order, which is a function of it and of the rows alone.

    Yields:
        Each row once.
    """
    generator = np.random.default_rng(seed)
    rows = iter(rows)
    held = list(islice(rows, size))
    draws: list[int] = []
    for row in rows:
        if not draws:
            draws = generator.integers(size, size=DRAWS).tolist()
        place = draws.pop()
        held[place], row = row, held[place]
        yield row
    yield from (held[place] for place in generator.permutation(len(held)))


class TextStream(IterableDataset):
    """
    The rows of a file that may be larger than memory, in another random order in each epoch.

    The order is a function of the seed and the epoch. A process that resumes inside an epoch reads it again up to
    there.

    Args:
        source ([`Source`]): What is read.
        columns (`dict[str, list[str]]`): Names of the columns that make `text`, `text_pair` and `label`.
        data_args ([`DataArguments`]): How texts are joined, `shuffle_buffer` and `max_train_samples`.
        task ([`Task`]): From the first pass.
        count (`int`): Rows, from the first pass.
        fingerprint (`str`): SHA-256 of the rows, from the first pass.
        seed (`int`): Of the order.

    Yields:
        `dict`: `text`, `text_pair` (pairs only) and `label`, as [`encode_labels`] has it.
    """

    def __init__(
        self,
        source: Source,
        columns: dict[str, list[str]],
        data_args: DataArguments,
        task: Task,
        count: int,
        fingerprint: str,
        seed: int,
    ):
        self.source, self.columns, self.data_args = source, columns, data_args
        self.task, self.count, self.fingerprint, self.seed, self.epoch = task, count, fingerprint, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return shuffled(self._labelled(), self.data_args.shuffle_buffer, [self.seed, self.epoch])

    def texts(self) -> Iterator[Any]:
        """The texts in the file's order: strings, or tuples of two."""
        for table in tables_of(self.source, self.data_args.max_train_samples):
            texts = read_texts(table, self.columns, self.data_args)
            yield from texts["text"] if len(texts) == 1 else zip(texts["text"], texts["text_pair"], strict=True)

    def _labelled(self) -> Iterator[dict[str, Any]]:
        read = 0
        for table in tables_of(self.source, self.data_args.max_train_samples):
            columns = read_texts(table, self.columns, self.data_args)
            values = table.column(self.columns["label"][0], "label_column_name")
            columns["label"] = encode_labels(table, parse_labels(table, values, self.task), self.task)
            read += len(table.rows)
            yield from (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        if read != self.count:
            raise DataError(
                f"{self.source.path} has {read:,} rows now, and had {self.count:,} when the run began. A file must not "
                "change while it is trained on; begin again."
            )


class TextCollator:
    """
    Batches of the rows of a [`TextStream`], which are tokenised here; rows that are already, as those that a model is
    evaluated on, are left to the collator.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): Its `model_max_length` cuts the texts.
        collator (`Callable`): From tokenised rows to a batch.
        pad_to_max_length (`bool`, *optional*, defaults to `False`): Whether all texts get the greatest length.
    """

    needed_columns = ("text", "text_pair", "label")

    def __init__(self, tokenizer: PreTrainedTokenizerBase, collator: Callable, pad_to_max_length: bool = False):
        self.tokenizer, self.collator, self.pad_to_max_length = tokenizer, collator, pad_to_max_length

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        if "text" not in rows[0]:
            return self.collator(rows)
        texts = [[row[name] for row in rows] for name in ("text", "text_pair") if name in rows[0]]
        padding = "max_length" if self.pad_to_max_length else False
        encoded = self.tokenizer(*texts, truncation=True, max_length=self.tokenizer.model_max_length, padding=padding)
        tokenised = [
            {**{name: values[place] for name, values in encoded.items()}, "labels": row["label"]}
            for place, row in enumerate(rows)
        ]
        return self.collator(tokenised)


def load_streamed_data(
    data_args: DataArguments, model_args: ModelArguments, needed: tuple[str, ...], seed: int
) -> TextData:
    """
    Training rows as a stream, beside validation and test rows in memory. The file is read once, to see that all rows
    are usable, to count them and to find the classes.

    Args:
        data_args ([`DataArguments`]): `train_file` is streamed.
        model_args ([`ModelArguments`]): For `num_labels`.
        needed (`tuple[str, ...]`): Splits that the run uses.
        seed (`int`): Of the order of the rows.

    Returns:
        [`TextData`] with a `stream`.

    Raises:
        DataError: With the file, the row and what is valid; or if the rows are sorted by their class.
    """
    stream = open_stream(data_args, model_args.num_labels, seed)
    others = tuple(name for name in needed if name != "train" and getattr(data_args, f"{name}_file") is not None)
    given = TextData(DatasetDict(), stream.task)
    if others:
        given = load_text_data(data_args, model_args, others, stream.task)
    held = min(data_args.shuffle_buffer, len(stream))
    given.notes.insert(
        0, f"The {len(stream):,} training rows are streamed from {data_args.train_file}, shuffled {held:,} at a time."
    )
    given.stream = stream
    return given


def open_stream(data_args: DataArguments, num_labels: int | None, seed: int) -> TextStream:
    """
    A stream of `train_file`, after a first pass over it.

    Args:
        data_args ([`DataArguments`]): What to read, and how.
        num_labels (`int`, *optional*): The number of classes that is expected.
        seed (`int`): Of the order of the rows.

    Raises:
        DataError: With the file, the row and what is valid; or if the rows are sorted by their class.
    """
    source = source_at(Path(data_args.train_file))
    columns, count, digest, labels = None, 0, hashlib.sha256(), _Labels()
    classes_of_first = 0
    for table in tables_of(source, data_args.max_train_samples):
        columns = columns or find_columns(table, data_args)
        texts = read_texts(table, columns, data_args)
        values = table.column(columns["label"][0], "label_column_name")
        for place, row in enumerate(zip(*texts.values(), values, strict=True)):
            digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            labels.add(values[place], table, place)
            count += 1
            if count == data_args.shuffle_buffer:
                classes_of_first = len(labels.seen)
    task = labels.task(data_args.do_regression, num_labels)
    if classes_of_first == 1 and count > data_args.shuffle_buffer > 1 and task.problem_type != REGRESSION:
        raise DataError(
            f"{source.path}: the first {data_args.shuffle_buffer:,} rows, as many as are shuffled at a time, have one "
            "label: the rows are sorted by their class, and the model would see one class after the other. Shuffle the "
            "file's rows, or pass a larger --shuffle_buffer."
        )
    return TextStream(source, columns, data_args, task, count, digest.hexdigest(), seed)


def tables_of(source: Source, limit: int | None) -> Iterator[Table]:
    """The rows of a source, some at a time; they know their numbers. `limit` is the most that are read."""
    first = 0
    for rows, _ in iter_batches(source):
        rows = rows if limit is None else rows[: limit - first]
        numbers = range(first + 1, first + len(rows) + 1)
        yield Table(str(source.path), rows, source.kind not in (".csv", ".tsv"), numbers=numbers)
        first += len(rows)
        if first == limit:
            return


# ---- Inside ----


class _Labels:
    """Labels that stand for all there are: each class, each type and each odd value is among them, with its row."""

    def __init__(self):
        self.seen: set[Any] = set()
        self.values: list[Any] = []
        self.table: Table | None = None

    def add(self, value: Any, table: Table, place: int) -> None:
        if self.table is None:
            self.table = Table(table.source, [], table.typed, numbers=[])
        items = value if isinstance(value, list) else [value]
        keys = {(type(value), type(item), repr(item)) for item in items} or {(list, None, "")}
        named_twice = len(set(map(str, items))) != len(items)
        if keys <= self.seen and not named_twice:
            return
        if len(self.seen) >= MOST_LABELS and not named_twice:
            if _is_decimal(value):
                return
            raise DataError(
                f"{table.where(place)}: there are more than {MOST_LABELS:,} different labels up to here, such as "
                f"{value!r}; they are no classes. Is --label_column_name the right column?"
            )
        self.seen |= keys
        self.values.append(value)
        self.table.numbers.append(table.numbers[place])

    def task(self, do_regression: bool | None, num_labels: int | None) -> Task:
        return infer_task(self.table, parse_labels(self.table, self.values), do_regression, num_labels)


def _is_decimal(value: Any) -> bool:
    """A finite number with decimals, also as the text of a CSV file: one to predict, not a class."""
    try:
        return isinstance(value, float | str) and not str(value).isdigit() and bool(np.isfinite(float(value)))
    except ValueError:
        return False
