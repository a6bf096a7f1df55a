"""Training rows -> the rows that a run sets aside by itself, and the rest."""

import numpy as np

from hf_ext.data.duplicates import exact_duplicates
from hf_ext.data.labels import Task
from hf_ext.data.splitting import merge_groups, strata_of, stratified_group_split
from hf_ext.data.text_columns import PAIR_SEPARATOR
from hf_ext.errors import DataError
from hf_ext.problem_types import MULTI_LABEL, SINGLE_LABEL


def hold_out(
    columns: dict[str, list], task: Task, held_rows: int, seed: int
) -> tuple[dict[str, list], dict[str, list]]:
    """Split rows off: (held out, rest). Stratified for single labels; a class's only row stays in the rest."""
    from sklearn.model_selection import train_test_split

    total, groups = len(columns["text"]), _groups(columns)
    if len(set(groups.tolist())) < total:
        return _hold_out_groups(columns, groups, task, held_rows, seed)
    labels = np.asarray(columns["label"]) if task.problem_type == SINGLE_LABEL else np.zeros(total, dtype=int)
    alone = np.bincount(labels)[labels] < 2
    rows = np.flatnonzero(~alone)
    classes = len(set(labels[rows].tolist()))
    held_rows = max(held_rows, classes)
    if len(rows) - held_rows < max(classes, 1):
        raise DataError(
            f"{total} training rows are too few to hold out {max(held_rows, 1)} of them. Pass --validation_file, or "
            "set --validation_size 0 to train without validation."
        )
    rest, held = train_test_split(rows, test_size=held_rows, random_state=seed, stratify=labels[rows])
    rest = np.sort(np.concatenate([rest, np.flatnonzero(alone)]))
    if set(labels[rest].tolist()) != set(labels.tolist()):
        raise DataError(
            f"Holding out {held_rows} of {total} training rows leaves a class without any. Lower the share, or pass "
            "--validation_file and --test_file."
        )
    return tuple(
        {name: [values[i] for i in part] for name, values in columns.items()} for part in (np.sort(held), rest)
    )


# ---- Inside ----


def _groups(columns: dict[str, list]) -> np.ndarray:
    """Rows with one text, or copies of one source, share a number: on both sides of a split they would leak."""
    texts = columns["text"]
    if "text_pair" in columns:
        texts = [PAIR_SEPARATOR.join(pair) for pair in zip(texts, columns["text_pair"], strict=True)]
    same_text = exact_duplicates(texts)
    return merge_groups(same_text, np.asarray(columns["source_idx"])) if "source_idx" in columns else same_text


def _hold_out_groups(
    columns: dict[str, list], groups: np.ndarray, task: Task, held_rows: int, seed: int
) -> tuple[dict[str, list], dict[str, list]]:
    """Split whole groups off; of augmented copies that are held out, the originals are kept."""
    share, labels = held_rows / len(groups), columns["label"]
    if task.problem_type == MULTI_LABEL:
        labels = [np.flatnonzero(row).tolist() for row in labels]
    held = stratified_group_split(strata_of(labels, task.problem_type), groups, (1 - share, share), seed) == 1
    copies = np.asarray(columns.get("is_augmented", np.zeros(len(held), dtype=bool)))
    parts = (np.flatnonzero(held & ~copies), np.flatnonzero(~held))
    if not all(map(len, parts)):
        raise DataError(
            f"{len(held)} training rows with {len(set(groups.tolist()))} different texts are too few to hold out "
            f"{held_rows} of them. Pass --validation_file, or set --validation_size 0 to train without validation."
        )
    return tuple({name: [values[i] for i in part] for name, values in columns.items()} for part in parts)
