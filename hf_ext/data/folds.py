"""Rows -> the folds of a cross-validation: which rows each model learns from, and which it is tested on."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from hf_ext.data.duplicates import exact_duplicates, near_duplicates
from hf_ext.data.splitting import merge_groups, strata_of
from hf_ext.data.text_columns import PAIR_SEPARATOR
from hf_ext.errors import ConfigurationError, DataError
from hf_ext.problem_types import MULTI_LABEL, REGRESSION

MAX_SEED = 2**32 - 1
# Row numbers that a message lists.
SHOWN_ROWS = 10


@dataclass(frozen=True, eq=False)
class Fold:
    """
    One fold: the rows that one model is tested on, and all others.

    Args:
        seed (`int`): What the rows were dealt with.
        repeat (`int`): Which dealing with that seed, from 0.
        index (`int`): Which fold of that dealing, from 0.
        train (`np.ndarray` of shape `(rows,)`): Row numbers from 0, rising.
        test (`np.ndarray` of shape `(rows,)`): Row numbers from 0, rising.
    """

    seed: int
    repeat: int
    index: int
    train: np.ndarray
    test: np.ndarray

    @property
    def name(self) -> str:
        """Such as `seed42_repeat0_fold3`."""
        return f"seed{self.seed}_repeat{self.repeat}_fold{self.index}"

    @property
    def training_seed(self) -> int:
        """The seed of the fold's training: the first word of numpy's `SeedSequence([seed, repeat, index])`, halved."""
        return int(np.random.SeedSequence([self.seed, self.repeat, self.index]).generate_state(1)[0]) // 2


def make_folds(
    labels: Sequence,
    problem_type: str,
    num_folds: int,
    repeats: int,
    seeds: Sequence[int],
    groups: Sequence | None = None,
    label_names: Sequence[str] | None = None,
    name_group: Callable[[int], str] | None = None,
    file_rows: Sequence[int] | None = None,
) -> list[Fold]:
    """
    Deal rows to folds: once a seed and repeat, each row to one fold of it.

    Each class has its share of each fold (scikit-learn's `StratifiedKFold`; with groups `StratifiedGroupKFold`); for
    numbers each tenth of them has, unless there are too few rows for that. Of several labels each has its share by
    iterative stratification (Sechidis et al. 2011); a group is dealt as one row there that has the labels of all of
    its rows. A dealing with seed s and repeat 0 is scikit-learn's with `shuffle=True, random_state=s`; later repeats
    take the first word of numpy's `SeedSequence([s, repeat])`.

    Args:
        labels (`Sequence` of length rows): Class ids, 0/1 vectors (multi-label) or numbers (regression).
        problem_type (`str`): As in a model's configuration.
        num_folds (`int`): Folds of a dealing, at least 2.
        repeats (`int`): Dealings with each seed.
        seeds (`Sequence[int]`): Of the dealing; different ones.
        groups (`Sequence` of length rows, *optional*): Rows with equal entries are in one fold.
        label_names (`Sequence[str]`, *optional*): What messages call the classes.
        name_group (`Callable[[int], str]`, *optional*): From a row number to what messages call its group.
        file_rows (`Sequence[int]`, *optional*): What messages call the rows; by default from 1.

    Returns:
        `list[Fold]`: By seed, repeat and index.

    Raises:
        ConfigurationError: For fewer than two folds, more folds than the rarest class has rows, or seeds that are none.
        DataError: If the groups cannot be dealt: a class in fewer groups than there are folds, or a group that is
            larger than a fold.
    """
    labels = np.asarray(labels)
    _check_numbers(len(labels), num_folds, repeats, seeds)
    numbers = np.arange(1, len(labels) + 1) if file_rows is None else np.asarray(file_rows)
    entries = np.arange(len(labels)) if groups is None else np.asarray(groups)
    if len(entries) != len(labels):
        raise DataError(f"There are {len(entries)} groups for {len(labels)} rows; each row needs one.")
    _, first, members = np.unique(entries, return_index=True, return_inverse=True)
    of_class = list(_rows_of_classes(labels, problem_type, label_names))
    _check_classes(of_class, num_folds, numbers)
    if len(first) < len(labels):
        _check_groups(of_class, members, num_folds, lambda group: _group_name(first[group], name_group, numbers))
    folds = []
    for seed in seeds:
        for repeat in range(repeats):
            fold_of = _deal(labels, problem_type, members, num_folds, _dealing_seed(seed, repeat))
            _check_dealing(fold_of, of_class, num_folds, seed)
            folds += [
                Fold(seed, repeat, index, np.flatnonzero(fold_of != index), np.flatnonzero(fold_of == index))
                for index in range(num_folds)
            ]
    return folds


def row_groups(rows: Dataset, similarity: float | None = None) -> np.ndarray:
    """
    Which rows have to be in one fold, because a model that saw one of them would know the other: those with equal
    texts, with equal `source_idx` (augmented copies), with equal `group`, and chains of them.

    Args:
        rows ([`~datasets.Dataset`]): With `text`; `text_pair`, `source_idx` and `group` if there are any.
        similarity (`float`, *optional*): From this similarity on, texts that differ count as equal; see
            [`near_duplicates`].

    Returns:
        `np.ndarray` of shape `(rows,)`: Integers; a row that stands alone has a number of its own.
    """
    texts = rows["text"][:]
    if "text_pair" in rows.column_names:
        texts = [PAIR_SEPARATOR.join(pair) for pair in zip(texts, rows["text_pair"][:], strict=True)]
    groupings = [exact_duplicates(texts) if similarity is None else near_duplicates(texts, similarity)]
    for name in ("source_idx", "group"):
        if name in rows.column_names:
            groupings.append(np.unique(np.asarray(rows[name][:]), return_inverse=True)[1])
    return merge_groups(*groupings)


# ---- Inside ----


def _dealing_seed(seed: int, repeat: int) -> int:
    return seed if repeat == 0 else int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0])


def _deal(labels: np.ndarray, problem_type: str, members: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """The fold of each row."""
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    settings = {"n_splits": num_folds, "shuffle": True, "random_state": seed}
    grouped = members.max() + 1 < len(labels)
    if problem_type == MULTI_LABEL and labels.shape[1] > 1:
        splitter = _iterative_stratification()(**settings)
        united = np.zeros((members.max() + 1, labels.shape[1]), dtype=bool)
        np.logical_or.at(united, members, labels.astype(bool))
        return _fold_of(splitter.split(np.zeros(len(united)), united), len(united))[members]
    strata = np.unique(strata_of(labels.reshape(len(labels)), problem_type), return_inverse=True)[1]
    # With fewer rows in each tenth than there are folds, there is nothing to stratify numbers by.
    stratified = np.bincount(strata).max() >= num_folds
    kinds = (StratifiedGroupKFold, GroupKFold) if grouped else (StratifiedKFold, KFold)
    splitter = kinds[0 if stratified else 1](**settings)
    with warnings.catch_warnings():
        # That some of the tenths have fewer rows than there are folds.
        warnings.simplefilter("ignore", UserWarning)
        return _fold_of(splitter.split(strata, strata, members if grouped else None), len(labels))


def _fold_of(parts: Iterator[tuple[np.ndarray, np.ndarray]], rows: int) -> np.ndarray:
    fold_of = np.empty(rows, dtype=np.int64)
    for index, (_, test) in enumerate(parts):
        fold_of[test] = index
    return fold_of


def _iterative_stratification():
    try:
        from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
    except ImportError as error:
        raise ConfigurationError(
            "Folds of rows with several labels need iterative-stratification, which is not installed: "
            "pip install 'hf_ext[experiments]'."
        ) from error
    return MultilabelStratifiedKFold


def _rows_of_classes(
    labels: np.ndarray, problem_type: str, label_names: Sequence[str] | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and rows of each class that occurs; none of a regression."""
    if problem_type == REGRESSION:
        return
    multi_label = problem_type == MULTI_LABEL
    for number in range(labels.shape[1]) if multi_label else np.unique(labels).tolist():
        rows = np.flatnonzero(labels[:, number] if multi_label else labels == number)
        if len(rows):
            yield str(number if label_names is None else label_names[number]), rows


def _check_numbers(rows: int, num_folds: int, repeats: int, seeds: Sequence[int]) -> None:
    if num_folds < 2:
        raise ConfigurationError(f"num_folds is {num_folds}; it must be at least 2.")
    if num_folds > rows:
        raise ConfigurationError(f"num_folds is {num_folds}, but there are only {rows} rows. Take fewer folds.")
    if repeats < 1:
        raise ConfigurationError(f"num_repeats is {repeats}; it must be at least 1.")
    if not len(seeds) or len(set(seeds)) < len(seeds) or not all(0 <= seed <= MAX_SEED for seed in seeds):
        raise ConfigurationError(
            f"fold_seeds is {list(seeds)}; it must be one or more different seeds from 0 to {MAX_SEED}."
        )


def _check_classes(of_class: list[tuple[str, np.ndarray]], num_folds: int, numbers: np.ndarray) -> None:
    name, rows = min(of_class, key=lambda item: len(item[1]), default=("", None))
    if rows is not None and len(rows) < num_folds:
        listed = ", ".join(map(str, numbers[rows[:SHOWN_ROWS]])) + (" ..." if len(rows) > SHOWN_ROWS else "")
        few = f"{len(rows)} rows (rows {listed})" if len(rows) > 1 else f"1 row (row {listed})"
        advice = f"Take at most {len(rows)} folds, or" if len(rows) > 1 else "Add rows of it, or"
        raise ConfigurationError(
            f"num_folds is {num_folds}, but the class {name!r} has only {few}: some folds could not be tested on it. "
            f"{advice} leave the class out."
        )


def _check_groups(
    of_class: list[tuple[str, np.ndarray]], members: np.ndarray, num_folds: int, name_of: Callable[[int], str]
) -> None:
    sizes = np.bincount(members)
    if len(sizes) < num_folds:
        raise DataError(f"num_folds is {num_folds}, but there are only {len(sizes)} groups of rows. Take fewer folds.")
    largest, most = int(sizes.argmax()), -(-len(members) // num_folds)
    if sizes[largest] > most:
        fitting = len(members) // int(sizes[largest])
        advice = f"Take at most {fitting} folds, or split" if fitting > 1 else "Split"
        raise DataError(
            f"{name_of(largest)} has {sizes[largest]} of {len(members)} rows, which have to be in one fold, but one of "
            f"{num_folds} folds has at most {most}. {advice} the group."
        )
    for name, rows in of_class:
        holding = len(np.unique(members[rows]))
        if holding < num_folds:
            advice = f"Take at most {holding} folds, or other" if holding > 1 else "Take other"
            raise DataError(
                f"num_folds is {num_folds}, but the {len(rows)} rows of the class {name!r} are in only {holding} "
                f"group{'s' * (holding > 1)} (the first: {name_of(members[rows[0]])}), each of which has to be in one "
                f"fold. {advice} groups."
            )


def _check_dealing(fold_of: np.ndarray, of_class: list[tuple[str, np.ndarray]], num_folds: int, seed: int) -> None:
    """The large groups may leave no room for even folds."""
    if len(np.unique(fold_of)) < num_folds:
        raise DataError(
            f"The groups of rows fill only {len(np.unique(fold_of))} of {num_folds} folds. Take fewer folds."
        )
    for name, rows in of_class:
        if len(np.unique(fold_of[rows])) == 1:
            raise DataError(
                f"With seed {seed} all rows of the class {name!r} came into one fold, so that its model would not know "
                "the class. Take fewer folds, or another seed."
            )


def _group_name(row: int, name_group: Callable[[int], str] | None, numbers: np.ndarray) -> str:
    return f"The group of row {numbers[row]}" + (f" ({name_group(int(row))})" if name_group is not None else "")
