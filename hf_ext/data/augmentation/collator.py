"""Fresh copies of the training texts in every epoch, made while batches are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from hf_ext.data.augmentation.augmenter import DataAugmenter
from hf_ext.data.augmentation.text_edits import row_keys
from hf_ext.errors import DataError

# Columns of one row's texts, then its number in the training data.
TEXTS, ROW = ("text", "text_pair"), "row"


class AugmentingCollator:
    """
    Edits the texts of training rows, tokenises them and lets another collator pad them.

    In every epoch a row stays as it is or takes one of the augmenter's techniques, each with the same probability (of
    a backend other than the native one: half of the rows stay). The edits are a pure function of (seed, epoch, row),
    so neither the order of the rows nor the number of workers matters and a resumed run goes on with the texts it
    would have seen. Rows without the column `row`, such as those of an evaluation, go to the other collator as they
    are.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The model's tokenizer.
        augmenter ([`DataAugmenter`]): How to edit.
        collator (`Callable`): Makes a batch of tokenised rows, such as [`~transformers.DataCollatorWithPadding`].
        max_length (`int`, *optional*): Longer texts are cut; the tokenizer's `model_max_length` by default.

    Attributes:
        needed_columns (`tuple[str, ...]`): What the rows must keep besides the model's inputs.

    Raises:
        DataError: If a row has no text.
    """

    needed_columns = (*TEXTS, ROW)

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        augmenter: DataAugmenter,
        collator: Callable[[list[dict[str, Any]]], dict[str, Any]],
        max_length: int | None = None,
    ):
        self.tokenizer, self.augmenter, self.collator, self.max_length = tokenizer, augmenter, collator, max_length
        # Shared, so that data loader workers that live on from epoch to epoch see it as well.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch's texts are to be made, before its first batch is asked for."""
        self._epoch.fill_(epoch)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        if ROW not in rows[0]:
            return self.collator(rows)
        names = [name for name in TEXTS if name in rows[0]]
        if TEXTS[0] not in names:
            raise DataError(f"Training rows have no 'text' to edit; they have {', '.join(rows[0])}.")
        encoded = self.tokenizer(*self.edited(rows, names), truncation=True, max_length=self.max_length)
        others = [{name: value for name, value in row.items() if name not in self.needed_columns} for row in rows]
        return self.collator([{**row, **{name: encoded[name][i] for name in encoded}} for i, row in enumerate(others)])

    def edited(self, rows: list[dict[str, Any]], names: list[str]) -> list[list[str]]:
        """
        The texts of training rows as this epoch has them.

        Args:
            rows (`list[dict]`): With the columns of `needed_columns`.
            names (`list[str]`): The columns of texts.

        Returns:
            `list[list[str]]`: A list a column.
        """
        epoch = int(self._epoch)
        numbers = np.array([row[ROW] for row in rows], dtype=np.int64)
        native = self.augmenter.backend == "native"
        choices = 1 + (len(self.augmenter.techniques) if native else 1)
        # Copies have no negative numbers, so this is a stream of its own.
        unchanged = row_keys(self.augmenter.seed, numbers, copy=-2 - epoch) % np.uint64(choices) == 0
        columns = []
        for number, name in enumerate(names):
            texts = [row[name] for row in rows]
            edited = self.augmenter.augment(texts, numbers, copy=epoch, column=number)
            columns.append([old if keep else new for old, new, keep in zip(texts, edited, unchanged, strict=True)])
        return columns
