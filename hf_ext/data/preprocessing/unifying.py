"""Files with columns of several names -> one Arrow file with `text`, `text_pair`, `label` and what is kept beside."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from hf_ext.arguments import RawDataArguments
from hf_ext.data.augmentation.checks import ADDED_COLUMNS
from hf_ext.data.columns import LABEL_COLUMNS, PAIR_COLUMNS, TEXT_COLUMNS
from hf_ext.data.streaming import Rows, Source, iter_batches
from hf_ext.errors import DataError, nearest

RESERVED = ("text", "text_pair", "label")
# Rows of a file whose columns stand for all of it.
PEEKED_ROWS = 100
NUMBER = re.compile(r"0|-?[1-9]\d{0,17}")
SURROGATES = re.compile("[\ud800-\udfff]")
_quoted = json.encoder.encode_basestring


@dataclass(frozen=True)
class Form:
    """
    Which columns of a source hold what.

    Args:
        text (`tuple[str, ...]`): Columns that make the text.
        text_pair (`str`, *optional*): Column of a pair's second text.
        label (`str`, *optional*): Column of the label; `None` in a source without labels.
        kept (`tuple[str, ...]`): Columns that are kept beside.
        dropped (`tuple[str, ...]`): Columns that are not.
        choices (`int`): How many ways there were to choose the text; more than one is ambiguous between files.
    """

    text: tuple[str, ...]
    text_pair: str | None
    label: str | None
    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    choices: int = 1

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read: of the texts, then of the label."""
        return (*self.text, *([self.text_pair] if self.text_pair else []), *([self.label] if self.label else []))


@dataclass
class SourceFacts:
    """What reading a source told: its columns, its rows, and rows with half a character (which is removed)."""

    name: str
    split: str
    form: Form
    rows: int = 0
    surrogates: int = 0
    kinds: dict[str, set[str]] = field(default_factory=dict)


def find_forms(sources: list[Source], data_args: RawDataArguments, keep_columns: list[str]) -> dict[Source, Form]:
    """
    The form of every source, from its first rows.

    The user's names win; otherwise the names are those that training looks for. Files may name their columns
    differently as long as each has only one that fits.

    Args:
        sources (`list[Source]`): From [`~hf_ext.data.preprocessing.sources.find_sources`].
        data_args ([`RawDataArguments`]): For the names of the columns.
        keep_columns (`list[str]`): Further columns, which every source must have; `source_idx` and `is_augmented`
            are kept where there are any.

    Returns:
        `dict[Source, Form]`

    Raises:
        DataError: If a file lacks a column, or two files have different columns that cannot be told apart; with the
            files, their columns and the arguments that help.
    """
    columns = {source: _peek(source) for source in sources}
    present = [name for name in ADDED_COLUMNS if any(name in names for names in columns.values())]
    keep_columns = list(dict.fromkeys([*keep_columns, *present]))
    forms = {source: _form(source, columns, data_args, keep_columns) for source in sources}
    first = sources[0]
    for source, form in forms.items():
        same_names = form.columns == forms[first].columns
        if bool(form.text_pair) != bool(forms[first].text_pair):
            _raise_different(first, source, columns, "one has single texts, the other pairs")
        if not same_names and max(form.choices, forms[first].choices) > 1:
            _raise_different(first, source, columns, "more than one column could be the text")
    labelled = next((source for source in sources if forms[source].label), None)
    for source, form in forms.items():
        if form.label is None and (labelled is None or source.split != "test"):
            other = labelled or next((other for other in sources if other != source), None)
            if other is not None:
                _raise_different(other, source, columns, f"{source.name} has no column of labels")
            raise DataError(
                f"{source.path} has no column of labels. It has {', '.join(columns[source])}; name the right one with "
                "--label_column_name."
            )
    return forms


def unified_batches(
    source: Source, form: Form, facts: SourceFacts, delimiter: str, advance: Callable[[int], Any]
) -> Iterator[pa.RecordBatch]:
    """
    A source's rows as Arrow: strings `text` and `text_pair`, and JSON in `label` and the kept columns.

    JSON keeps 1, 1.0, "1" and a list apart in one column of strings, until all files are known.

    Args:
        source ([`Source`]): What to read.
        form ([`Form`]): Its columns.
        facts ([`SourceFacts`]): Is filled in.
        delimiter (`str`): Joins several text columns.
        advance (`Callable[[int], Any]`): Is told the bytes read so far.

    Raises:
        DataError: With the file and the row.
    """
    facts.kinds = {name: set() for name in form.kept}
    for rows, position in iter_batches(source):
        where = _Where(source, facts.rows)
        columns = {"text": _texts(rows, form.text, delimiter, where, facts)}
        if form.text_pair:
            columns["text_pair"] = _texts(rows, (form.text_pair,), delimiter, where, facts)
        labels = [None] * len(rows) if form.label is None else _column(rows, form.label, where, "label_column_name")
        columns["label"] = _json_strings(labels, where, "label")
        for name in form.kept:
            values = _column(rows, name, where, "keep_columns")
            if source.kind in (".csv", ".tsv") and name == "source_idx":
                # So that a source has one name, whatever the kind of file.
                values = [int(value) if NUMBER.fullmatch(value) else value or None for value in values]
            facts.kinds[name] |= {type(value).__name__ for value in values}
            columns[name] = _json_strings(values, where, name)
        facts.rows += len(rows)
        yield pa.RecordBatch.from_pydict(columns)
        advance(position)


# ---- Inside ----


class _Where:
    """Names the rows of a batch."""

    def __init__(self, source: Source, rows_before: int):
        self.source, self.rows_before = source, rows_before

    def __call__(self, index: int) -> str:
        return row_name(self.source, self.rows_before + index, self.source.path)


def row_name(source: Source, index: int, path: Path | str) -> str:
    """`"<file>, row <n>"`, or the text's own file in a folder of classes."""
    if source.texts:
        text = source.texts[index]
        return f"{path}/{text.relative_to(source.path).as_posix()}"
    return f"{path}, row {index + 1}"


def _peek(source: Source) -> list[str]:
    if source.texts:
        return ["text", "label"]
    rows, _ = next(iter_batches(source))
    return list(dict.fromkeys(key for row in rows[:PEEKED_ROWS] for key in row))


def _form(
    source: Source, columns: dict[Source, list[str]], data_args: RawDataArguments, keep_columns: list[str]
) -> Form:
    removed = _names(data_args.remove_columns)
    available = [name for name in columns[source] if name not in removed]
    pair, named = data_args.text_pair_column_name, _names(data_args.text_column_names)
    if named:
        choices = [(tuple(named), pair)]
    else:
        pairs = [] if pair else [((one,), other) for one, other in PAIR_COLUMNS if {one, other} <= set(available)]
        choices = pairs or [((name,), pair) for name in TEXT_COLUMNS if name in available]
    if not choices:
        _raise_lacking(source, columns, available, "text", TEXT_COLUMNS, "text_column_names")
    text, text_pair = choices[0]
    if data_args.label_column_name is not None:
        label = data_args.label_column_name
    else:
        label = next((name for name in LABEL_COLUMNS if name in available), None)
        meant = next((name for name in available if name.strip().lower() in LABEL_COLUMNS), None)
        if label is None and meant is not None:
            raise DataError(
                f"{source.path} has no column 'label', but {meant!r}: pass --label_column_name {meant!r}, or rename it."
            )
    for name, flag in [(name, "text_column_names") for name in text] + [(text_pair, "text_pair_column_name")]:
        if name is not None and name not in available:
            _raise_lacking(source, columns, available, name, (name,), flag)
    unlabelled_test = source.split == "test" and label not in available
    if label is not None and label not in available and not unlabelled_test:
        _raise_lacking(source, columns, available, label, (label,), "label_column_name")
    if label is not None and label in (*text, text_pair):
        raise DataError(f"{source.path}: the column {label!r} is named as both text and label.")
    form = Form(text, text_pair, None if unlabelled_test else label, choices=len(choices))
    for name in keep_columns:
        if name in RESERVED:
            raise DataError(f"keep_columns: {name!r} is a name that the output gives a meaning of its own; rename it.")
        if name not in available:
            _raise_lacking(source, columns, available, name, (name,), "keep_columns")
    dropped = tuple(name for name in columns[source] if name not in (*form.columns, *keep_columns))
    return Form(form.text, form.text_pair, form.label, tuple(keep_columns), dropped, form.choices)


def _names(listed: list[str] | str | None) -> list[str]:
    parts = listed.split(",") if isinstance(listed, str) else listed or []
    return [name.strip() for name in parts]


def _raise_lacking(source, columns, available, name, wanted, flag):
    other = next((other for other in columns if other != source and set(wanted) & set(columns[other])), None)
    if other is not None:
        _raise_different(other, source, columns, f"{source.name} has no column {name!r}", flag)
    kind = f"column {wanted[0]!r}" if len(wanted) == 1 else f"column of texts ({', '.join(wanted)})"
    raise DataError(
        f"{source.path} has no {kind}.{nearest(name, available)} It has {', '.join(available) or 'none'}; name the "
        f"right one with --{flag}."
    )


def _raise_different(one: Source, other: Source, columns: dict[Source, list[str]], why: str, flag: str = ""):
    flags = f"--{flag}" if flag else "--text_column_names (and --text_pair_column_name, --label_column_name)"
    raise DataError(
        f"Two files have different columns: {one.path} has {', '.join(columns[one])}; {other.path} has "
        f"{', '.join(columns[other])}, and {why}. Name the columns with {flags} if both have them, or rename those of "
        "one file."
    )


def _column(rows: Rows, name: str, where: _Where, flag: str) -> list[Any]:
    try:
        return [row[name] for row in rows]
    except KeyError:
        index = next(index for index, row in enumerate(rows) if name not in row)
        raise DataError(
            f"{where(index)} has no {name!r}; it has {', '.join(rows[index]) or 'nothing'}. Give every row one, "
            f"or name another with --{flag}."
        ) from None


def _texts(rows: Rows, names: tuple[str, ...], delimiter: str, where: _Where, facts: SourceFacts) -> pa.Array:
    flag = "text_pair_column_name" if names == (facts.form.text_pair,) else "text_column_names"
    parts = [_column(rows, name, where, flag) for name in names]
    for name, values in zip(names, parts, strict=True):
        if not {type(value) for value in values} <= {str, type(None)}:
            index = next(i for i, value in enumerate(values) if not isinstance(value, str | None))
            raise DataError(f"{where(index)}: {name!r} is {values[index]!r:.80}; it must be a string.")
    # A missing text is an empty one; those are counted and dropped later.
    texts = [value or "" for value in parts[0]]
    if len(parts) > 1:
        texts = [delimiter.join(value or "" for value in row) for row in zip(*parts, strict=True)]
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        facts.surrogates += sum(1 for text in texts if SURROGATES.search(text))
        return pa.array([SURROGATES.sub("", text) for text in texts], pa.string())


def _json_strings(values: list[Any], where: _Where, name: str) -> pa.Array:
    try:
        return pa.array([_json_string(value) for value in values], pa.string())
    except UnicodeEncodeError:
        index = next(i for i, value in enumerate(values) if SURROGATES.search(_json_string(value)))
        raise DataError(f"{where(index)}: {name!r} holds half a character (a lone surrogate).") from None


def _json_string(value: Any) -> str:
    if type(value) is str:
        return _quoted(value)
    if type(value) is int:
        return int.__repr__(value)
    return json.dumps(value, ensure_ascii=False, default=str)
