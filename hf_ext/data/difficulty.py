"""How difficult each training row is: scores for a curriculum, and their percentiles within each label."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from numbers import Real
from typing import Any

import numpy as np
from datasets import Dataset

from hf_ext.errors import DataError, nearest

SCORERS = ("length", "rarity")
# Scores that only a training run can give; they are passed as an array.
TRAINED_SCORERS = ("cross_review", "cartography")
TEXTS = ("text", "text_pair")

Scorer = str | Sequence[float] | np.ndarray | Callable[[Any], Any]


def difficulty_scores(dataset: Any, scorer: Scorer) -> np.ndarray:
    r"""
    A number for each row; the greater, the harder.

    Augmented copies (rows with a true `is_augmented`) are not scored: they have the score of the row that they were
    made from, found by `source_idx`.

    Args:
        dataset ([`~datasets.Dataset`] or a sequence of `dict`):
            The rows, tokenised or as texts.
        scorer (`str`, array or `Callable`):
            - `"length"`: the column `length`, else the number of `input_ids`, else of words.
            - `"rarity"`: $-\sum \log p(w)$ over the row's `input_ids`, else words, $p$ being their share in all rows
              (Platanios et al. 2019, section 3.1, without padding).
            - another string: the column of that name.
            - an array of shape (rows,), such as [`cross_review_scores`] returns.
            - a function of the rows (without augmented copies) that returns such an array.

    Returns:
        `np.ndarray` of shape (rows,), float64, all finite.

    Raises:
        DataError: If there is no row, no such column, or a score that is not a finite number.
    """
    if len(dataset) == 0:
        raise DataError("There are no rows whose difficulty could be told.")
    if not isinstance(scorer, str) and not callable(scorer):
        return checked_scores(scorer, len(dataset))
    sources = source_rows(dataset)
    originals = np.flatnonzero(sources == np.arange(len(sources)))
    rows = dataset if len(originals) == len(dataset) else select_rows(dataset, originals)
    if callable(scorer):
        name = getattr(scorer, "__name__", type(scorer).__name__)
        scores = checked_scores(scorer(rows), len(rows), f"The difficulty that {name} returns", originals)
    elif scorer == "length":
        scores = checked_scores(_lengths(rows, originals), len(rows), "The length", originals)
    elif scorer == "rarity":
        scores = _rarity(_tokens(rows, originals))
    else:
        scores = checked_scores(_named_column(rows, scorer), len(rows), f"The column {scorer!r}", originals)
    return spread_to_copies(scores, sources)


def percentile_within_label(scores: Any, labels: Any = None, seed: int = 0) -> np.ndarray:
    """
    The share of a label's rows that come before a row when they are sorted by score.

    Taken over all rows, the easiest 30 % may hold no row of a rare or hard label at all; taken within each label, they
    hold 30 % of each.

    Args:
        scores (`Sequence[float]`): Of shape (rows,).
        labels (`Sequence`, *optional*): See [`label_groups`]; without them all rows are one group.
        seed (`int`, *optional*, defaults to 0): Orders equal scores at random.

    Returns:
        `np.ndarray` of shape (rows,) in [0, 1), 0 for each label's easiest row. `share < c` holds for the easiest
        `ceil(c * n)` of a label's `n` rows.

    Raises:
        DataError: If scores are not finite numbers or there are not as many labels.
    """
    scores = checked_scores(scores, len(scores))
    groups = label_groups(labels, len(scores))
    # Not default_rng(seed): that is [seed, 0] too, which shuffles the first epoch, and what users draw noise from.
    by_chance = np.random.default_rng([seed, 0, 1]).permutation(len(scores))
    # Stable, so that equal scores keep the random order.
    order = by_chance[np.lexsort((scores[by_chance], groups[by_chance]))]
    counts = np.bincount(groups)
    positions = np.arange(len(scores)) - np.repeat(np.cumsum(counts) - counts, counts)
    shares = np.empty(len(scores))
    shares[order] = positions / np.repeat(counts, counts)
    return shares


def label_groups(labels: Any, rows: int) -> np.ndarray:
    """
    Which rows have the same label.

    Args:
        labels (`Sequence`): Class ids or names; 0/1 vectors (several labels), grouped by the set of labels; floats
            (regression) or `None` make one group.
        rows (`int`): How many there must be.

    Returns:
        `np.ndarray` of shape (rows,): a group number from 0 on for each row.

    Raises:
        DataError: If there is not one label a row, all of one kind.
    """
    if labels is None:
        return np.zeros(rows, dtype=np.int64)
    if len(labels) != rows:
        raise DataError(f"There are {len(labels)} labels for {rows} rows; each row needs one.")
    try:
        values = np.asarray(labels)
    except ValueError:
        values = np.asarray(None)
    if values.ndim not in (1, 2) or values.dtype.kind not in "biufUS":
        missing = next((row for row, label in enumerate(labels) if label is None), None)
        what = f"row {missing + 1} has none" if missing is not None else "they are of several kinds or lengths"
        raise DataError(f"The labels cannot be grouped: {what}. Give each row a class, a 0/1 vector or a number.")
    if values.ndim == 1 and values.dtype.kind == "f":
        return np.zeros(rows, dtype=np.int64)
    return np.unique(values, axis=0, return_inverse=True)[1].reshape(-1)


def row_labels(dataset: Any) -> Any:
    """The column `labels`, else `label`, else `None`."""
    names = column_names(dataset)
    found = [name for name in ("labels", "label") if name in names]
    return column(dataset, found[0]) if found else None


def row_lengths(dataset: Any, length_column: str = "length") -> list[int]:
    """
    Tokens of each row: the column of that name, else the number of `input_ids`.

    Raises:
        DataError: If there is neither.
    """
    names = column_names(dataset)
    if length_column in names:
        return column(dataset, length_column)
    if "input_ids" not in names:
        raise DataError(f"The rows have neither {length_column!r} nor 'input_ids', only {', '.join(names)}.")
    return [len(ids) for ids in column(dataset, "input_ids")]


def source_rows(dataset: Any) -> np.ndarray:
    """
    The row that each row was made from by augmentation: its own number for the originals.

    Raises:
        DataError: If an augmented copy does not say its source, or the source is not among the rows.
    """
    names, rows = column_names(dataset), np.arange(len(dataset))
    if "is_augmented" not in names:
        return rows
    copied = np.asarray(column(dataset, "is_augmented"), dtype=bool)
    if not copied.any():
        return rows
    if "source_idx" not in names:
        raise DataError("Rows are marked as is_augmented, but no column source_idx says of which row they are copies.")
    identities = column(dataset, "source_idx")
    originals = {identities[row]: row for row in np.flatnonzero(~copied)[::-1].tolist()}
    lost = next((row for row in np.flatnonzero(copied).tolist() if identities[row] not in originals), None)
    if lost is not None:
        raise DataError(
            f"Row {lost + 1} is an augmented copy of source_idx {identities[lost]}, which is not among the "
            f"{len(rows)} rows, so its difficulty is not known. Select the rows first, then augment them."
        )
    sources = rows.copy()
    sources[copied] = [originals[identities[row]] for row in np.flatnonzero(copied).tolist()]
    return sources


def spread_to_copies(scores: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """
    Give augmented copies the score of their source.

    Args:
        scores (`np.ndarray`): Of the originals, in their order.
        sources (`np.ndarray`): From [`source_rows`].

    Returns:
        `np.ndarray` of shape (rows,).
    """
    whole = np.empty(len(sources), dtype=np.float64)
    whole[sources == np.arange(len(sources))] = scores
    return whole[sources]


def select_rows(dataset: Any, rows: np.ndarray) -> Any:
    """Some rows, in that order: of a `Dataset` without a copy, of another sequence as a list."""
    return dataset.select(rows) if isinstance(dataset, Dataset) else [dataset[row] for row in rows.tolist()]


def column_names(dataset: Any) -> list[str]:
    """Names of the columns; of a sequence of `dict`, the keys of its first row."""
    names = getattr(dataset, "column_names", None)
    if names is not None:
        return list(names)
    first = dataset[0]
    if not isinstance(first, Mapping):
        raise DataError(f"Each row must be a mapping of column names to values; the first is a {type(first).__name__}.")
    return list(first)


def column(dataset: Any, name: str) -> list:
    """The values of a column as Python objects, `None` where a row has none."""
    if isinstance(dataset, Dataset):
        # As it is stored, not as a format or a transform would show it.
        return dataset.with_format(None)[name][:]
    return [dataset[row].get(name) for row in range(len(dataset))]


def checked_scores(
    values: Any, rows: int, what: str = "The difficulty", numbers: np.ndarray | None = None
) -> np.ndarray:
    """
    Values as float64, after seeing that there is a finite number for each row.

    Args:
        values (`Sequence[float]`): What was given.
        rows (`int`): How many there must be.
        what (`str`, *optional*): What an error calls them.
        numbers (`np.ndarray`, *optional*): The rows that they belong to, where that is not all of them.

    Raises:
        DataError: With the first row that has no such number.
    """
    given = np.asarray(values, dtype=object)
    if given.ndim != 1 or len(given) != rows:
        raise DataError(f"{what} has the shape {given.shape}; it must be one number a row, of shape ({rows},).")
    typed = np.asarray(values)
    if typed.dtype.kind not in "iuf":
        kinds = [isinstance(value, Real) and not isinstance(value, bool | np.bool_) for value in given.tolist()]
        if not all(kinds):
            _refuse_score(what, given, kinds.index(False), numbers)
    # Not from the objects: the missing value of pandas is none that becomes NaN.
    scores = (typed if typed.dtype.kind in "iuf" else given).astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        _refuse_score(what, given, int(wrong[0]), numbers)
    return scores


# ---- Inside ----


def _refuse_score(what: str, values: np.ndarray, index: int, numbers: np.ndarray | None):
    row = index if numbers is None else int(numbers[index])
    raise DataError(
        f"{what} is {values[index]!r} in row {row + 1}; it must be a finite number in every row. Fill it in, or take "
        "the row out."
    )


def _named_column(dataset: Any, name: str) -> list:
    names = column_names(dataset)
    if name in names:
        return column(dataset, name)
    if name in TRAINED_SCORERS:
        raise DataError(
            f"The difficulty {name!r} takes training runs: compute it with {name}_scores and pass the array."
        )
    valid = [*SCORERS, *names]
    raise DataError(
        f"There is no difficulty {name!r}: it is neither a scorer ({', '.join(SCORERS)}) nor one of the columns "
        f"{', '.join(names)}.{nearest(name, valid)}"
    )


def _lengths(dataset: Any, numbers: np.ndarray) -> list[float]:
    if "length" in column_names(dataset):
        return column(dataset, "length")
    return [len(tokens) for tokens in _tokens(dataset, numbers)]


def _rarity(tokens: list[Sequence]) -> np.ndarray:
    lengths = np.asarray([len(row) for row in tokens])
    flat = np.asarray(list(chain.from_iterable(tokens)))
    if not len(flat):
        return np.zeros(len(tokens))
    _, kinds, counts = np.unique(flat, return_inverse=True, return_counts=True)
    surprise = np.log(len(flat)) - np.log(counts[kinds])
    # Sums between the rows' ends; the row of an empty text adds nothing.
    return np.bincount(np.repeat(np.arange(len(tokens)), lengths), weights=surprise, minlength=len(tokens))


def _tokens(dataset: Any, numbers: np.ndarray) -> list[Sequence]:
    """Token ids without padding, else words; `numbers` are what an error calls the rows."""
    names = column_names(dataset)
    if "input_ids" in names:
        ids = column(dataset, "input_ids")
        if "attention_mask" not in names:
            return ids
        masks = column(dataset, "attention_mask")
        return [[i for i, on in zip(row, mask, strict=True) if on] for row, mask in zip(ids, masks, strict=True)]
    texts = [column(dataset, name) for name in TEXTS if name in names]
    if not texts:
        raise DataError(
            f"Lengths and rarities need the column length, input_ids or text; there are only {', '.join(names)}."
        )
    for name, values in zip(TEXTS, texts, strict=False):
        for row, text in enumerate(values):
            if not isinstance(text, str):
                raise DataError(f"Row {numbers[row] + 1}: {name!r} is {text!r}; it must be a string.")
    return [" ".join(parts).split() for parts in zip(*texts, strict=True)]
