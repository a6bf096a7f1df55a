"""Rows -> splits in which every class has its share and no group is in two."""

from collections.abc import Sequence

import numpy as np

from hf_ext.errors import ConfigurationError

# Strata of a regression: enough to spread the values, few enough to fill each.
QUANTILES = 10
# Sets of labels with fewer rows are strata together with others.
SMALLEST_SET = 10


def stratified_group_split(labels: np.ndarray, groups: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """
    Split rows so that each class has its share of every split, and a group stays together.

    Groups of several rows are placed first, the largest first, each where it brings the classes' counts nearest to
    their targets; rows that stand alone then fill the splits up to the targets. A class that is all in one
    group (so also one of a single row) goes to the first split. Where no class is large enough to give a split a row,
    the rows that the split lacks come from the classes with the largest remainders.

    Args:
        labels (`np.ndarray` of shape `(rows,)`): Class of each row as a non-negative integer, see [`strata_of`].
        groups (`np.ndarray` of shape `(rows,)`): Integers; equal ones stay together.
        shares (`Sequence[float]`): Share of each split, the first one's (training) included; they sum to 1.
        seed (`int`): The only source of randomness.

    Returns:
        `np.ndarray` of shape `(rows,)`, `int8`: The position in `shares` of each row's split.

    Raises:
        ConfigurationError: If the shares do not sum to 1, or the first is not above 0.
    """
    if abs(sum(shares) - 1) > 1e-9 or min(shares) < 0 or shares[0] <= 0:
        raise ConfigurationError(
            f"The shares {list(shares)} must not be negative, sum to 1 and leave some for training."
        )
    assigned = np.zeros(len(labels), dtype=np.int8)
    if not len(labels):
        return assigned
    _, labels = np.unique(labels, return_inverse=True)
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    generator = np.random.default_rng(seed)
    targets = _targets(np.bincount(labels), shares)
    counts = np.zeros_like(targets)
    alone = sizes[groups] == 1
    _place_groups(assigned, counts, np.flatnonzero(~alone), labels, groups, targets, generator)
    _fill_with_single_rows(assigned, counts, np.flatnonzero(alone), labels, targets, generator)
    return assigned


def strata_of(labels: list | np.ndarray, problem_type: str) -> np.ndarray:
    """
    What to stratify by.

    Args:
        labels (`list` or `np.ndarray` of length rows): Class ids, numbers (regression), or lists of class ids
            (multi-label).
        problem_type (`str`): `"regression"`, `"multi_label_classification"` or `"single_label_classification"`.

    Returns:
        `np.ndarray` of shape `(rows,)`: Non-negative integers: the class, the tenth of the values that a number is in,
        or the set of labels; sets with fewer than ten rows are pooled by their rarest label.
    """
    if problem_type == "regression":
        values = np.asarray(labels, dtype=np.float64)
        edges = np.unique(np.quantile(values, np.arange(1, QUANTILES) / QUANTILES)) if len(values) else []
        return np.searchsorted(edges, values, side="left")
    if problem_type == "multi_label_classification":
        return _label_sets(labels)
    return np.asarray(labels)


def merge_groups(*groupings: np.ndarray) -> np.ndarray:
    """
    Rows that share a group in any of the groupings, directly or through others, share one in the result.

    Args:
        groupings (`np.ndarray` of shape `(rows,)`): Integers; -1 is no group.

    Returns:
        `np.ndarray` of shape `(rows,)`: Group of each row.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows = len(groupings[0])
    heads, tails = [], []
    for grouping in groupings:
        member = np.flatnonzero(grouping >= 0)
        _, first, group = np.unique(grouping[member], return_index=True, return_inverse=True)
        heads.append(member)
        tails.append(member[first[group]])
    heads, tails = np.concatenate(heads), np.concatenate(tails)
    links = coo_matrix((np.ones(len(heads), dtype=bool), (heads, tails)), shape=(rows, rows))
    return connected_components(links, directed=False)[1].astype(np.int64)


# ---- Inside ----


def _targets(class_sizes: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """`(classes, splits)` rows: whole numbers that sum to the class, whose columns sum to the split's share."""
    targets = np.zeros((len(class_sizes), len(shares)), dtype=np.int64)
    # A class's only row is for training.
    divisible = np.where(class_sizes > 1, class_sizes, 0)
    left = divisible - (class_sizes > 1)
    for split in range(1, len(shares)):
        exact = divisible * shares[split]
        rows = np.minimum(np.floor(exact).astype(np.int64), left)
        wanted = round(float(class_sizes.sum()) * shares[split]) - int(rows.sum())
        remainders = np.where(rows < left, exact - rows, -1.0)
        best = np.argsort(-remainders, kind="stable")[: max(wanted, 0)]
        rows[best[remainders[best] > 0]] += 1
        targets[:, split] = rows
        left = left - rows
    targets[:, 0] = class_sizes - targets[:, 1:].sum(axis=1)
    return targets


def _place_groups(assigned, counts, rows, labels, groups, targets, generator) -> None:
    if not len(rows):
        return
    # How many rows of each class a group has: one entry a group and class, in the order of the groups.
    pairs, amounts = np.unique(groups[rows].astype(np.int64) * len(targets) + labels[rows], return_counts=True)
    owners, classes = pairs // len(targets), pairs % len(targets)
    begins = np.flatnonzero(np.r_[True, np.diff(owners) != 0])
    ends = np.r_[begins[1:], len(owners)].tolist()
    sizes = np.add.reduceat(amounts, begins)
    shuffle = generator.permutation(len(begins))
    order = shuffle[np.argsort(-sizes[shuffle], kind="stable")].tolist()
    pieces = np.bincount(np.unique(groups.astype(np.int64) * len(targets) + labels) % len(targets)).tolist()
    # Plain lists: numpy would cost ten times as much on groups of two or three rows.
    placed, starts, classes, amounts = [0] * len(begins), begins.tolist(), classes.tolist(), amounts.tolist()
    filled, wanted = counts.tolist(), targets.tolist()
    for group in order:
        parts = [(classes[i], amounts[i]) for i in range(starts[group], ends[group])]
        # The last piece of a class that training has nothing of yet.
        needed = any(pieces[name] == 1 and not filled[name][0] for name, _ in parts)
        split = 0 if needed else _best_split(parts, filled, wanted)
        placed[group] = split
        for name, amount in parts:
            filled[name][split] += amount
            pieces[name] -= 1
    counts[:] = filled
    split_of_group = np.zeros(int(groups.max()) + 1, dtype=np.int8)
    split_of_group[owners[begins]] = placed
    assigned[rows] = split_of_group[groups[rows]]


def _best_split(parts: list[tuple[int, int]], filled: list[list[int]], wanted: list[list[int]]) -> int:
    """The split whose sum of squared distances from the targets grows least, each relative to its target."""
    costs = [0.0] * len(wanted[0])
    for name, amount in parts:
        for split, (have, target) in enumerate(zip(filled[name], wanted[name], strict=True)):
            costs[split] += amount * (2 * (have - target) + amount) / (target + 1)
    return costs.index(min(costs))


def _fill_with_single_rows(assigned, counts, rows, labels, targets, generator) -> None:
    if not len(rows):
        return
    rows = rows[generator.permutation(len(rows))]
    rows = rows[np.argsort(labels[rows], kind="stable")]
    available = np.bincount(labels[rows], minlength=len(targets))
    first = np.concatenate([[0], np.cumsum(available)[:-1]])
    rank = np.arange(len(rows)) - first[labels[rows]]
    taken = np.zeros(len(targets), dtype=np.int64)
    # A class whose groups are all held out leaves a row for training.
    spare = available - (counts[:, 0] == 0)
    for split in range(1, targets.shape[1]):
        need = np.minimum(np.maximum(targets[:, split] - counts[:, split], 0), np.maximum(spare - taken, 0))
        here = (rank >= taken[labels[rows]]) & (rank < (taken + need)[labels[rows]])
        assigned[rows[here]] = split
        taken = taken + need


def _label_sets(labels: list) -> np.ndarray:
    sets = [tuple(sorted(row)) for row in labels]
    ids: dict[tuple, int] = {}
    codes = np.array([ids.setdefault(row, len(ids)) for row in sets], dtype=np.int64)
    rows_of_set = np.bincount(codes, minlength=len(ids))
    rows_of_label: dict[int, int] = {}
    for row, count in zip(ids, rows_of_set.tolist(), strict=True):
        for label in row:
            rows_of_label[label] = rows_of_label.get(label, 0) + count
    pools: dict[tuple, int] = {}
    merged = np.empty(len(ids), dtype=np.int64)
    for row, code in ids.items():
        rare = rows_of_set[code] < SMALLEST_SET and row
        key = ("rarest", min(row, key=lambda label: (rows_of_label[label], label))) if rare else ("set", row)
        merged[code] = pools.setdefault(key, len(pools))
    return merged[codes]
