"""Preflight: repeated texts inside a split, across splits and across folds, and what labels they have."""

from itertools import combinations

import numpy as np
import pyarrow as pa

from hf_ext.data.duplicates import exact_duplicates, first_equal, link_clusters, near_duplicate_pairs
from hf_ext.data.minhash import similarities
from hf_ext.data.preflight.report import FAIL, MOST_EXAMPLES, OK, SKIPPED, WARN, Example, Finding, rows_of, share
from hf_ext.data.preflight.rows import Rows
from hf_ext.data.text_columns import PAIR_SEPARATOR

# Near leaks are usual in small numbers (templates, short questions); from this share of a split on they carry a result.
NEAR_LEAKS_TOLERATED = 0.01
# Copies are by so much more like their source than like any row; otherwise two splits are merely numbered alike.
COPY_SIMILARITY = 0.2
# Rows of a cluster among which an example's nearest one is looked for, and pairs that tell copies from numbering.
MOST_COMPARED = 500

Groups = dict[str, np.ndarray]


def exact_groups(splits: list[Rows]) -> Groups:
    """For each split the number of each row's text, the same in all splits; -1 for empty texts."""
    return _by_split(splits, exact_duplicates(_all_texts(splits)))


def near_groups(splits: list[Rows], threshold: float, progress: bool) -> Groups:
    """For each split the number of each row's cluster of near duplicates; -1 for empty texts."""
    texts = _all_texts(splits)
    first, second, _ = near_duplicate_pairs(texts, threshold, progress=progress)
    return _by_split(splits, link_clusters(len(texts), first, second))


# ---- Inside a split ----


def check_repeats(splits: list[Rows], exact: Groups) -> Finding:
    """Rows whose text an earlier row of the split has; copies of one source are meant to be alike."""
    numbers, examples = {}, []
    for rows in splits:
        repeats = _repeats(exact[rows.name], rows.sources)
        numbers[rows.name] = len(repeats)
        first = first_equal(exact[rows.name])
        examples += [
            rows.example(row, f"the text of row {rows.number(first[row])}")
            for row in repeats[: MOST_EXAMPLES - len(examples)]
        ]
    total = sum(numbers.values())
    return Finding(
        "exact_duplicates",
        WARN if total else OK,
        total,
        f"Rows whose text an earlier row of the split has: {_counted(numbers, splits)}."
        if total
        else "No text occurs twice in a split.",
        "Remove the repeats before you split the data (a random split of repeated rows leaks), or keep them together "
        "in one split; run_preprocessing.py does both.",
        examples,
        numbers,
    )


def check_near_repeats(splits: list[Rows], exact: Groups, near: Groups, threshold: float) -> Finding:
    """Rows with a text that is much like an earlier one of the split, but not the same."""
    numbers, examples = {}, []
    for rows in splits:
        distinct = np.flatnonzero(_is_first(exact[rows.name]) & (exact[rows.name] >= 0))
        sources = None if rows.sources is None else rows.sources[distinct]
        repeats = distinct[_repeats(near[rows.name][distinct], sources)]
        numbers[rows.name] = len(repeats)
        for row in repeats[: MOST_EXAMPLES - len(examples)]:
            others = distinct[(near[rows.name][distinct] == near[rows.name][row]) & (distinct < row)]
            examples.append(_nearest(rows, row, rows, others))
    total = sum(numbers.values())
    return Finding(
        "near_duplicates",
        WARN if total else OK,
        total,
        f"Rows with a text much like an earlier one of the split (similarity {threshold:g} or more): "
        f"{_counted(numbers, splits)}."
        if total
        else f"No two texts of a split are alike (similarity {threshold:g} or more).",
        "Look at the examples: remove what says the same, and keep the rest together when you split the data or make "
        "folds (run_preprocessing.py groups by such clusters).",
        examples,
        numbers,
    )


def check_conflicts(splits: list[Rows], exact: Groups) -> Finding:
    """Texts that occur with different labels inside a split."""
    numbers, examples = {}, []
    for rows in splits:
        if rows.codes is None:
            continue
        known = np.flatnonzero((exact[rows.name] >= 0) & _usable(rows))
        texts, codes = exact[rows.name][known], rows.codes[known]
        versions = np.flatnonzero(first_equal(texts, codes) == np.arange(len(known)))
        first = first_equal(texts)
        others = versions[first[versions] != versions]
        numbers[rows.name] = len(np.unique(texts[others]))
        for place in others[: MOST_EXAMPLES - len(examples)]:
            examples.append(rows.example(known[place], f"the text of {rows.where(known[first[place]])}"))
    if not numbers:
        return Finding("conflicting_labels", SKIPPED, 0, "No split has labels.")
    total = sum(numbers.values())
    return Finding(
        "conflicting_labels",
        WARN if total else OK,
        total,
        f"Texts that occur with different labels: {_counted(numbers, splits, 'text')}."
        if total
        else "No text has two labels.",
        "Decide on one label for each such text, or remove its rows: no model can get all of them right.",
        examples,
        numbers,
    )


# ---- Across splits ----


def check_leaks(splits: list[Rows], exact: Groups) -> Finding:
    """Rows whose text also an earlier split has, and how many of them have a label there that differs."""
    numbers, parts, examples = {}, [], []
    for earlier, later in combinations(splits, 2):
        leaked = np.flatnonzero(np.isin(exact[later.name], exact[earlier.name]) & (exact[later.name] >= 0))
        pair = f"{later.name} in {earlier.name}"
        numbers[pair] = len(leaked)
        if not len(leaked):
            continue
        order = np.argsort(exact[earlier.name], kind="stable")
        sources = order[np.searchsorted(exact[earlier.name], exact[later.name][leaked], sorter=order)]
        part = f"{rows_of(len(leaked))} of {later.name} ({share(len(leaked), len(later))}) in {earlier.name}"
        if earlier.codes is not None and later.codes is not None:
            differing = _differing(earlier, later, leaked, exact)
            numbers[f"{pair}, other label"] = int(differing.sum())
            part += f", {differing.sum():,} of them with another label"
        parts.append(part)
        for row, source in list(zip(leaked, sources, strict=True))[: MOST_EXAMPLES - len(examples)]:
            examples.append(later.example(row, f"the text of {earlier.where(source)}"))
    if len(splits) < 2:
        return Finding("exact_leaks", SKIPPED, 0, "There is one split only.")
    total = sum(count for name, count in numbers.items() if not name.endswith("other label"))
    return Finding(
        "exact_leaks",
        FAIL if total else OK,
        total,
        f"Rows whose text another split has: {'; '.join(parts)}." if total else "No text is in two splits.",
        "Remove these rows from the training split (recipes/run_preprocessing.py does), so that validation and test "
        "stay what others report on; results with them are too good.",
        examples,
        numbers,
    )


def check_near_leaks(splits: list[Rows], exact: Groups, near: Groups, threshold: float) -> Finding:
    """Rows with a text much like one of an earlier split, which does not have the text itself."""
    if len(splits) < 2:
        return Finding("near_leaks", SKIPPED, 0, "There is one split only.")
    numbers, parts, examples, verdict = {}, [], [], OK
    for earlier, later in combinations(splits, 2):
        close = np.isin(near[later.name], near[earlier.name]) & ~np.isin(exact[later.name], exact[earlier.name])
        leaked = np.flatnonzero(close & (near[later.name] >= 0))
        numbers[f"{later.name} in {earlier.name}"] = len(leaked)
        if not len(leaked):
            continue
        too_many = len(leaked) > NEAR_LEAKS_TOLERATED * len(later)
        verdict = FAIL if too_many or verdict == FAIL else WARN
        parts.append(f"{rows_of(len(leaked))} of {later.name} ({share(len(leaked), len(later))}) in {earlier.name}")
        for row in leaked[: MOST_EXAMPLES - len(examples)]:
            others = np.flatnonzero(near[earlier.name] == near[later.name][row])
            examples.append(_nearest(later, row, earlier, others))
    total = sum(numbers.values())
    return Finding(
        "near_leaks",
        verdict,
        total,
        f"Rows with a text much like one of another split (similarity {threshold:g} or more, directly or by a chain "
        f"of such texts): {'; '.join(parts)}."
        if total
        else f"No two texts of different splits are alike (similarity {threshold:g} or more).",
        "Look at the examples. Where they say the same, remove them from the training split, or split anew by "
        "clusters (run_preprocessing.py).",
        examples,
        numbers,
    )


def check_copy_leaks(splits: list[Rows]) -> Finding:
    """Rows that are copies of rows of another split, by their `source_idx`."""
    known = [rows for rows in splits if rows.sources is not None]
    if len(known) < 2:
        return Finding("copy_leaks", SKIPPED, 0, "No two splits have the column source_idx.")
    texts = _all_texts(splits)
    starts = dict(zip((rows.name for rows in splits), _starts(splits), strict=True))
    numbers, parts, examples = {}, [], []
    for earlier, later in combinations(known, 2):
        order = np.argsort(earlier.sources, kind="stable")
        leaked = np.flatnonzero(np.isin(later.sources, earlier.sources))
        places = np.searchsorted(earlier.sources, later.sources[leaked], sorter=order)
        of, unrelated = order[places], order[(places + len(order) // 2) % len(order)]
        some = slice(None, None, max(1, len(leaked) // MOST_COMPARED))
        own, other = (
            similarities(texts, rows[some] + starts[earlier.name], leaked[some] + starts[later.name])
            for rows in (of, unrelated)
        )
        if len(leaked) and np.median(own) - np.median(other) < COPY_SIMILARITY:
            leaked, of = leaked[:0], of[:0]
        numbers[f"{later.name} in {earlier.name}"] = len(leaked)
        if len(leaked):
            parts.append(f"{rows_of(len(leaked))} of {later.name} with a source in {earlier.name}")
        for row, source in list(zip(leaked, of, strict=True))[: MOST_EXAMPLES - len(examples)]:
            examples.append(later.example(row, f"of one source with {earlier.where(source)}"))
    total = sum(numbers.values())
    return Finding(
        "copy_leaks",
        FAIL if total else OK,
        total,
        f"Copies of rows of another split: {'; '.join(parts)}." if total else "No split has copies of another's rows.",
        "Split first and augment the training split only; a result on copies of training rows means nothing.",
        examples,
        numbers,
    )


# ---- Across folds ----


def check_fold_leaks(rows: Rows, exact: Groups, held_out: list[np.ndarray]) -> Finding:
    """Rows of the training split with the text, or the source, of a row in another fold."""
    fold = np.full(len(rows), -1)
    for number, indices in enumerate(held_out):
        fold[indices] = number
    leaked = np.zeros(len(rows), dtype=bool)
    note = {}
    for what, groups in (("text", exact[rows.name]), ("source", rows.sources)):
        if groups is None:
            continue
        inside = np.flatnonzero((groups >= 0) & (fold >= 0))
        first = inside[first_equal(groups[inside])]
        apart = fold[inside] != fold[first]
        leaked[inside[apart]] = True
        pairs = zip(inside[apart][:MOST_EXAMPLES], first[apart][:MOST_EXAMPLES], strict=True)
        note |= {
            row: f"the {what} of row {rows.number(of)}, but in fold {fold[row] + 1}, not {fold[of] + 1}"
            for row, of in pairs
        }
    total = int(leaked.sum())
    return Finding(
        "fold_leaks",
        FAIL if total else OK,
        total,
        f"{rows_of(total)} of {rows.name} ({share(total, len(rows))}) with the text or source of a row in another fold."
        if total
        else "No text and no source is in two folds.",
        "Make folds by group: number the rows by their text or source_idx and use StratifiedGroupKFold.",
        [rows.example(row, note[row]) for row in sorted(note)[:MOST_EXAMPLES]],
        {rows.name: total},
    )


# ---- Inside ----


def _all_texts(splits: list[Rows]) -> pa.ChunkedArray:
    return pa.chunked_array([chunk for rows in splits for chunk in rows.texts.chunks], pa.string())


def _starts(splits: list[Rows]) -> np.ndarray:
    return np.cumsum([0] + [len(rows) for rows in splits])[:-1]


def _by_split(splits: list[Rows], numbers: np.ndarray) -> Groups:
    parts = np.split(numbers, _starts(splits)[1:])
    return {rows.name: np.where(rows.blank, -1, part) for rows, part in zip(splits, parts, strict=True)}


def _is_first(*columns: np.ndarray) -> np.ndarray:
    return first_equal(*columns) == np.arange(len(columns[0]))


def _repeats(groups: np.ndarray, sources: np.ndarray | None) -> np.ndarray:
    """Rows of a group that another row of it precedes; of rows of one source in a group only the first counts."""
    counted = groups >= 0
    if sources is not None:
        counted &= _is_first(groups, sources)
    return np.flatnonzero(counted & ~_is_first(groups))


def _usable(rows: Rows) -> np.ndarray:
    return np.asarray([not problem for problem in rows.labels.problems])[rows.codes]


def _differing(earlier: Rows, later: Rows, leaked: np.ndarray, exact: Groups) -> np.ndarray:
    """Which leaked rows have a label that no row of their text has in the earlier split."""
    width = len(later.labels.shown)
    known = np.isin(exact[earlier.name], exact[later.name][leaked])
    pairs = exact[earlier.name][known] * width + earlier.codes[known]
    return ~np.isin(exact[later.name][leaked] * width + later.codes[leaked], pairs)


def _nearest(rows: Rows, row: int, others: Rows, candidates: np.ndarray) -> Example:
    candidates = candidates[:MOST_COMPARED]
    texts = [rows.texts[int(row)].as_py(), *(others.texts[int(index)].as_py() for index in candidates)]
    alike = similarities(texts, np.zeros(len(candidates), np.int64), np.arange(1, len(texts)))
    best = int(alike.argmax())
    other = texts[best + 1].replace(PAIR_SEPARATOR, " | ")
    return rows.example(row, f"{alike[best]:.2f} like {others.where(candidates[best])}: {other[:80]!r}")


def _counted(numbers: dict[str, int], splits: list[Rows], noun: str = "row") -> str:
    rows = {split.name: len(split) for split in splits}
    return ", ".join(
        f"{name} {count:,}" + (f" ({share(count, rows[name])})" if noun == "row" else "")
        for name, count in numbers.items()
        if count
    )
