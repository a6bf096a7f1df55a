"""Look at the data before a model is trained on it: repeats, leaks, labels, lost and damaged text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from hf_ext.data.duplicates import check_threshold
from hf_ext.data.labels import Task
from hf_ext.data.preflight.duplicates import (
    check_conflicts,
    check_copy_leaks,
    check_fold_leaks,
    check_leaks,
    check_near_leaks,
    check_near_repeats,
    check_repeats,
    exact_groups,
    near_groups,
)
from hf_ext.data.preflight.labels import (
    check_folds,
    check_imbalance,
    check_labels,
    check_missing_classes,
    check_unseen_classes,
    read_folds,
)
from hf_ext.data.preflight.report import SKIPPED, Finding, PreflightReport
from hf_ext.data.preflight.rows import read_rows
from hf_ext.data.preflight.texts import (
    check_empty_texts,
    check_encoding,
    check_truncation,
    check_unknown_tokens,
    tokenize_sample,
)
from hf_ext.data.preflight.tokens import check_revealing_tokens
from hf_ext.errors import ConfigurationError


def preflight(
    splits: Mapping[str, Any],
    task: Task | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_seq_length: int | None = None,
    folds: Sequence | None = None,
    near_duplicate_threshold: float = 0.8,
    files: Mapping[str, str] | None = None,
    progress: bool = True,
) -> PreflightReport:
    """
    Check data for what makes results untrue or rows useless. Nothing is changed or written.

    Texts are compared without case and with white space joined; rows without a text are left out of comparisons. For
    near duplicates see [`~hf_ext.data.duplicates.near_duplicate_pairs`]. Truncation and unknown tokens are measured on
    20,000 evenly spaced rows of a larger split, revealing tokens on 50,000; all other counts are of all rows.

    Args:
        splits (`Mapping[str, Dataset]` or `Mapping[str, list[dict]]`):
            Split -> rows with the columns `text`, `text_pair` (pairs), `label` and `source_idx` (of augmented copies:
            the row that each is made from), all but `text` optional. A row counts as leaked if an earlier split of the
            mapping has its text: put `train` first. A split whose labels are all missing or -1 is taken as unlabelled
            (but `train`).
        task ([`Task`], *optional*):
            What is predicted; whole numbers as labels are then class ids. By default it is taken from the labels,
            which then are names.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`], *optional*): For truncation and unknown tokens.
        max_seq_length (`int`, *optional*): Tokens that the model sees, special ones among them.
        folds (`Sequence`, *optional*):
            The fold of each training row, or for each fold the indices (training, validation).
        near_duplicate_threshold (`float`, *optional*, defaults to 0.8):
            Similarity from which texts count as near duplicates, in [0.05, 1].
        files (`Mapping[str, str]`, *optional*):
            Split -> the file that its column `file_row` counts rows of (from 1). Findings then name that file and
            row; by default the row of the split.
        progress (`bool`, *optional*, defaults to `True`): Show progress bars.

    Returns:
        [`PreflightReport`]

    Raises:
        DataError: If a split has no rows or no column `text`, or a text is no string; with split and row.
        ConfigurationError: If an argument is out of range.
    """
    check_threshold(near_duplicate_threshold)
    if max_seq_length is not None and (not isinstance(max_seq_length, int) or max_seq_length < 1):
        raise ConfigurationError(f"max_seq_length is {max_seq_length!r}; it must be a whole number of at least 1.")
    rows, labels = read_rows(splits, task, files)
    train = next((split for split in rows if split.name == "train"), None)
    if folds is not None and train is None:
        raise ConfigurationError("folds were given without a split named 'train'. Name the split that is folded so.")
    held = read_folds(folds, len(train)) if folds is not None else None
    with tqdm(total=17, desc="Preflight", unit="check", disable=not progress, leave=False) as bar:
        findings: list[Finding] = []

        def add(check: Callable[..., Finding], *given) -> None:
            findings.append(check(*given))
            bar.update()

        add(check_empty_texts, rows)
        add(check_encoding, rows)
        add(check_labels, rows, labels)
        add(check_unseen_classes, rows, labels)
        add(check_missing_classes, rows, labels)
        add(check_imbalance, rows, labels)
        exact = exact_groups(rows)
        add(check_repeats, rows, exact)
        add(check_conflicts, rows, exact)
        add(check_leaks, rows, exact)
        add(check_copy_leaks, rows)
        near = near_groups(rows, near_duplicate_threshold, progress)
        add(check_near_repeats, rows, exact, near, near_duplicate_threshold)
        add(check_near_leaks, rows, exact, near, near_duplicate_threshold)
        if held is None:
            for name in ("folds", "fold_leaks"):
                add(Finding, name, SKIPPED, 0, "No folds were given.")
        else:
            add(check_folds, train, labels, held)
            add(check_fold_leaks, train, exact, [part for _, part in held])
        add(check_revealing_tokens, rows, labels)
        tokens = {split.name: tokenize_sample(split, tokenizer, progress) for split in rows} if tokenizer else {}
        add(check_truncation, rows, tokens, max_seq_length)
        add(check_unknown_tokens, rows, tokens, tokenizer)
    return PreflightReport(findings)


@dataclass
class PreflightArguments:
    """
    What is looked at before training.

    Raises:
        ConfigurationError: If a value is out of range.
    """

    _argument_group_name = "preflight"

    preflight: Literal["off", "warn", "error"] = field(
        default="warn",
        metadata={"help": "Check the data before training: off, warn (print what is found), error (stop if it fails)."},
    )
    near_duplicate_threshold: float = field(
        default=0.8,
        metadata={"help": "Similarity (Jaccard of runs of five bytes) from which two texts count as near duplicates."},
    )

    def __post_init__(self):
        check_threshold(self.near_duplicate_threshold)
