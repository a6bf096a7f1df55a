"""Which rows stay, and what their labels are."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from hf_ext.data.labels import KINDS, parse_labels
from hf_ext.data.reading import Table
from hf_ext.errors import ConfigurationError, DataError, nearest
from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

ConflictPolicy = Literal["drop", "keep_first", "error"]
# Why a row goes; the position is the code.
REASONS = (
    "kept", "empty_text", "unlabelled", "label_map", "conflicting_labels", "exact_duplicate", "near_duplicate",
    "in_a_later_split", "augmented_copy",
)  # fmt: skip
KEPT, EMPTY, UNLABELLED, MAPPED_AWAY, CONFLICT, EXACT, NEAR, LEAK, AUGMENTED = range(len(REASONS))
TEST = 2


@dataclass
class Labels:
    """
    The labels of all rows.

    Args:
        problem_type (`str`): As in a model's configuration.
        values (`list`): The distinct labels: strings, integers, floats, or sorted lists of names.
        ids (`np.ndarray` of shape `(rows,)`): Position in `values`; -1 without a label.
        reasons (`np.ndarray` of shape `(rows,)`): Code in [`REASONS`].
    """

    problem_type: str
    values: list[Any]
    ids: np.ndarray
    reasons: np.ndarray


def read_labels(
    column: pa.ChunkedArray,
    from_csv: np.ndarray,
    may_lack: np.ndarray,
    name_row: Callable[[int], str],
    label_map: dict[Any, Any] | None = None,
    drop_unlabelled: bool = False,
    do_regression: bool | None = None,
) -> Labels:
    """
    Labels of one type out of what the files hold.

    The strings of CSV files become numbers when all of them are and no other file has strings. A label is missing if
    it is null, empty, -1 or not a finite number.

    Args:
        column (`pyarrow.ChunkedArray` of shape `(rows,)`): Labels as JSON.
        from_csv (`np.ndarray` of shape `(rows,)`, `bool`): Rows whose labels are strings because CSV has nothing else.
        may_lack (`np.ndarray` of shape `(rows,)`, `bool`): Rows that are kept without a label.
        name_row (`Callable[[int], str]`): File and row, for messages.
        label_map (`dict`, *optional*): Old to new label; None drops the row, or the name out of a list of names.
        drop_unlabelled (`bool`, *optional*, defaults to `False`): Drop rows without a label instead of raising.
        do_regression (`bool`, *optional*): Take integers for numbers to predict.

    Raises:
        ConfigurationError: If `label_map` names a label that no row has.
        DataError: Missing labels, mixed types, lists that hold something else than names; with the row.
    """
    codes, values = _distinct(column)
    codes, values = _convert_csv(codes, values, from_csv)
    reasons = np.zeros(len(codes), dtype=np.int8)
    # The map comes first: it may give a class the name -1, or take a word such as "unknown" away.
    values, mapped_away = _mapped(values, np.unique(codes).tolist(), label_map or {})
    missing = np.array([_is_missing(value) for value in values], dtype=bool) & ~mapped_away
    lacking = missing[codes] & ~may_lack
    if lacking.any() and not drop_unlabelled:
        first = int(np.argmax(lacking))
        raise DataError(
            f"{name_row(first)} has no label (it is {values[codes[first]]!r}; null, an empty string, -1 and NaN mark a "
            f"missing one). {int(lacking.sum()):,} rows are affected. Drop them with --drop_unlabelled true, name the "
            "label in label_map, or write a class called -1 as another string."
        )
    reasons[lacking] = UNLABELLED
    reasons[mapped_away[codes]] = MAPPED_AWAY
    occurs = np.bincount(codes, minlength=len(values)) > 0
    usable = occurs & ~missing & ~mapped_away
    kind = _kind(values, usable, codes, name_row)
    if kind in (int, float) and (do_regression or kind is float):
        problem_type = REGRESSION
        values = [float(value) if good else value for value, good in zip(values, usable.tolist(), strict=True)]
    else:
        problem_type = MULTI_LABEL if kind is list else SINGLE_LABEL
    distinct: dict[str, int] = {}
    final: list[Any] = []
    ids = np.full(len(values), -1, dtype=np.int64)
    for code in np.flatnonzero(usable).tolist():
        value = values[code]
        value = sorted(value) if kind is list else str(value) if kind is bool else value
        position = distinct.setdefault(json.dumps(value), len(final))
        if position == len(final):
            final.append(value)
        ids[code] = position
    return Labels(problem_type, final, ids[codes], reasons)


def select_rows(
    reasons: np.ndarray,
    label_ids: np.ndarray,
    splits: np.ndarray,
    exact: np.ndarray,
    near: np.ndarray | None,
    origins: np.ndarray | None,
    conflicting_labels: ConflictPolicy,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Remove conflicting and repeated rows.

    Of equal texts the first stays; of near duplicates the first of each label, because two texts that differ in a word
    and in the label are what a classifier has to learn. Official splits are never mixed: test rows all stay, and what
    is in test goes from validation and train, what is in validation from train, whatever its label.

    Args:
        reasons (`np.ndarray` of shape `(rows,)`): Codes so far; only kept rows are looked at.
        label_ids (`np.ndarray` of shape `(rows,)`): -1 without a label.
        splits (`np.ndarray` of shape `(rows,)`): 0 train, 1 validation, 2 test.
        exact, near (`np.ndarray` of shape `(rows,)`): Cluster of each row; no `near` keeps near duplicates.
        origins (`np.ndarray` of shape `(rows,)`, *optional*): Rows of one origin (`source_idx`) are augmented copies,
            which are alike on purpose; -1 is none.
        conflicting_labels (`"drop"`, `"keep_first"` or `"error"`): Equal texts with different labels.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The codes, and for each repeated row the row that stays in its place (-1).
    """
    reasons, partner = reasons.copy(), np.full(len(reasons), -1, dtype=np.int64)
    conflicts = find_conflicts(reasons, label_ids, exact)
    if conflicting_labels == "drop":
        reasons[conflicts & (splits != TEST)] = CONFLICT
    _keep_first(reasons, partner, exact, exact, splits, EXACT)
    if near is not None:
        with_label = near * (int(label_ids.max(initial=0)) + 2) + label_ids + 1
        _keep_first(reasons, partner, with_label, near, splits, NEAR, origins)
    return reasons, partner


def find_conflicts(reasons: np.ndarray, label_ids: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Mask of shape `(rows,)`: kept rows of a text that has more than one label."""
    rows = np.flatnonzero((reasons == KEPT) & (label_ids >= 0))
    pairs = np.unique(exact[rows] * (int(label_ids.max(initial=0)) + 1) + label_ids[rows])
    labels_of = np.bincount(pairs // (int(label_ids.max(initial=0)) + 1), minlength=len(exact))
    mask = np.zeros(len(exact), dtype=bool)
    mask[rows] = labels_of[exact[rows]] > 1
    return mask


def distinct_strings(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.StringArray]:
    """The position of each row's value among the distinct values (`int64`, shape `(rows,)`), and those."""
    # In one piece: encoded piece by piece, each piece's dictionary would hold all values before it.
    encoded = pa.concat_arrays(column.chunks).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


# ---- Inside ----


def _distinct(column: pa.ChunkedArray) -> tuple[np.ndarray, list[Any]]:
    codes, values = distinct_strings(column)
    return codes, [json.loads(value) for value in values.to_pylist()]


def _convert_csv(codes: np.ndarray, values: list[Any], from_csv: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    if any(isinstance(values[code], str) for code in np.unique(codes[~from_csv]).tolist()):
        return codes, values
    strings = [code for code in np.unique(codes[from_csv]).tolist() if not _is_missing(values[code].strip())]
    if not strings:
        return codes, values
    converted = parse_labels(Table("", [], typed=False), [values[code] for code in strings])
    translation, values = np.arange(len(values)), [*values]
    for code, value in zip(strings, converted, strict=True):
        translation[code] = len(values)
        values.append(value)
    codes = codes.copy()
    codes[from_csv] = translation[codes[from_csv]]
    return codes, values


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value or value.lower() in ("nan", "inf", "-inf")
    if isinstance(value, float):
        return not math.isfinite(value)
    return value is None or (type(value) is int and value == -1)


def _mapped(values: list[Any], occurring: list[int], label_map: dict[Any, Any]) -> tuple[list[Any], np.ndarray]:
    """The new values, and which of them the map takes away."""
    new = {_key(old): value for old, value in label_map.items()}
    for value in new.values():
        if type(value) not in (str, int, float, type(None)):
            raise ConfigurationError(f"label_map: {value!r} is no label; it must be a string, a number or null.")
    found = [values[code] for code in occurring]
    present = {_key(item) for value in found for item in (value if isinstance(value, list) else [value])}
    for old in new:
        if old not in present:
            shown = ", ".join(sorted(present)[:20])
            raise ConfigurationError(
                f"label_map names the label {old!r}, which no row has.{nearest(old, present)} There are {shown}."
            )
    mapped, away = [], np.zeros(len(values), dtype=bool)
    for index, value in enumerate(values):
        if isinstance(value, list):
            # Two old names may have one new name.
            items = list(dict.fromkeys(new.get(_key(item), item) for item in value)) if new else value
            away[index] = bool(value) and all(item is None for item in items)
            mapped.append([item for item in items if item is not None] if new else items)
        else:
            mapped.append(new.get(_key(value), value))
            away[index] = _key(value) in new and new[_key(value)] is None
    return mapped, away


def _key(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _kind(values: list[Any], usable: np.ndarray, codes: np.ndarray, name_row: Callable[[int], str]) -> type:
    first: dict[type, int] = {}
    for code in np.flatnonzero(usable).tolist():
        first.setdefault(type(values[code]), code)
    for kind, code in first.items():
        if kind not in KINDS:
            raise DataError(
                f"{_row_of(code, codes, name_row)}: the label is {values[code]!r}; it must be a number, a string or a "
                "list of names."
            )
    if set(first) == {int, float}:
        return float
    if len(first) > 1:
        examples = ", ".join(
            f"{_row_of(code, codes, name_row)} has {values[code]!r} (a {KINDS[kind]})" for kind, code in first.items()
        )
        raise DataError(f"The labels are of different types: {examples}. Write all in one way, or use label_map.")
    if set(first) == {list}:
        _check_lists(values, np.flatnonzero(usable).tolist(), codes, name_row)
    if not first:
        raise DataError("No row has a label. Name the column with --label_column_name.")
    return next(iter(first))


def _check_lists(values: list[Any], usable: list[int], codes: np.ndarray, name_row: Callable[[int], str]) -> None:
    kinds: dict[type, int] = {}
    for code in usable:
        for item in values[code]:
            if type(item) not in (int, str):
                raise DataError(
                    f"{_row_of(code, codes, name_row)}: {item!r} in the label is neither a string nor a whole number."
                )
            kinds.setdefault(type(item), code)
        if len(set(values[code])) != len(values[code]):
            raise DataError(
                f"{_row_of(code, codes, name_row)}: the label {values[code]} names a class twice. A row's labels are "
                "the names of its classes, not a vector of zeros and ones."
            )
    if len(kinds) > 1:
        places = " and ".join(f"a {KINDS[kind]} in {_row_of(code, codes, name_row)}" for kind, code in kinds.items())
        raise DataError(f"The lists of labels are of different types: {places}. Write all in one way.")


def _row_of(code: int, codes: np.ndarray, name_row: Callable[[int], str]) -> str:
    return name_row(int(np.argmax(codes == code)))


def _keep_first(
    reasons: np.ndarray,
    partner: np.ndarray,
    keys: np.ndarray,
    clusters: np.ndarray,
    splits: np.ndarray,
    reason: int,
    origins: np.ndarray | None = None,
) -> None:
    """Mark what repeats an earlier row of the same key, or a row of a later split's cluster."""
    rows = np.flatnonzero(reasons == KEPT)
    # Test before validation before train, each in its order.
    rows = rows[np.argsort(-splits[rows], kind="stable")]
    _, first, place = np.unique(clusters[rows], return_index=True, return_inverse=True)
    best = rows[first][place]
    leaks = (splits[best] > splits[rows]) & (splits[rows] != TEST)
    reasons[rows[leaks]], partner[rows[leaks]] = LEAK, best[leaks]
    rows = rows[~leaks]
    _, first, place = np.unique(keys[rows], return_index=True, return_inverse=True)
    best = rows[first][place]
    repeats = (best != rows) & (splits[rows] != TEST)
    if origins is not None:
        repeats &= (origins[rows] != origins[best]) | (origins[rows] < 0)
    reasons[rows[repeats]], partner[rows[repeats]] = reason, best[repeats]
