"""A table's columns: which are the texts, the labels, the numbers and the groups, and what is in them."""

import json
import math

from hf_ext.arguments import DataArguments
from hf_ext.data.augmentation.checks import ADDED_COLUMNS
from hf_ext.data.difficulty import SCORERS, TRAINED_SCORERS
from hf_ext.data.labels import Task, parse_labels
from hf_ext.data.reading import Table
from hf_ext.errors import DataError, nearest

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


def find_columns(table: Table, data_args: DataArguments, labelled: bool = True) -> dict[str, list[str]]:
    """Names of the columns that make `text`, `text_pair` and, where rows have to be `labelled`, `label`."""
    removed = listed_names(data_args.remove_columns)
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
    guessed = columns["text"] == ["text"] and columns["label"] == ["label"]
    if labelled and guessed and not {"text", "label"} & set(available) and not nearest("text", available):
        raise DataError(
            f"{table.source} has neither a column 'text' nor 'label'. It has {', '.join(available)}; name the right "
            "ones with --text_column_names and --label_column_name."
        )
    both = set(columns["label"]) & {*columns["text"], *columns["text_pair"]}
    if both:
        raise DataError(f"{table.source}: the column {both.pop()!r} is named as both text and label.")
    return columns


def read_texts(table: Table, columns: dict[str, list[str]], data_args: DataArguments) -> dict[str, list]:
    """
    The texts of a table.

    Args:
        table ([`Table`]): The rows.
        columns (`dict[str, list[str]]`): From [`find_columns`]; several columns of a text are joined.
        data_args ([`DataArguments`]): By what.

    Returns:
        `dict[str, list]`: `text` and, for pairs, `text_pair`.

    Raises:
        DataError: With the first row whose text is no string, or holds half a character.
    """
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


def read_labels(table: Table, columns: dict[str, list[str]], optional: bool, task: Task | None = None) -> list | None:
    """
    The labels of a table, parsed.

    Args:
        table ([`Table`]): The rows.
        columns (`dict[str, list[str]]`): From [`find_columns`].
        optional (`bool`): Whether there may be none.
        task ([`Task`], *optional*): Whose labels they are.

    Returns:
        `list`, or `None` if there are none.

    Raises:
        DataError: If some rows have none, or labels that cannot be read.
    """
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


def read_numbers(table: Table, columns: dict[str, list[str]], names: tuple[str, ...]) -> dict[str, list]:
    """
    The columns that `names` asks for, as finite numbers.

    Raises:
        DataError: If one is not there, has another meaning, or a row has no number in it.
    """
    taken = {"text", "text_pair", "label", *columns["text"], *columns["text_pair"], *columns["label"], *ADDED_COLUMNS}
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


def read_copies(table: Table) -> dict[str, list]:
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


def read_groups(table: Table, name: str) -> list[str]:
    """A text for each row: equal ones for equal values of the column; a row without a value has one of its own."""
    if name not in table.columns:
        raise DataError(
            f"{table.source} has no column {name!r}, which group_column names.{nearest(name, table.columns)} It has "
            f"{', '.join(table.columns)}."
        )
    values = (row.get(name) for row in table.rows)
    return [f"row {n}" if value in (None, "") else json.dumps(value) for n, value in enumerate(values, start=1)]


def listed_names(listed: str | None) -> list[str]:
    """Names that are separated by commas."""
    return [name.strip() for name in listed.split(",")] if listed else []
