"""Which rows of the data a training batch was made of."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch.utils.data import IterableDataset
from transformers import Trainer
from transformers.trainer_utils import has_length


def rows_of_step(trainer: Trainer, batches: list[dict]) -> list[dict[str, Any]]:
    """
    The rows of the step that a Trainer is in, on this process; see [`shown_rows`].

    Args:
        trainer ([`~transformers.Trainer`]): In its training.
        batches (`list[dict]`): The step's micro-batches, as the model got them.
    """
    loader, accumulation, rows = trainer.get_train_dataloader(), trainer.args.gradient_accumulation_steps, None
    if has_length(loader) and not isinstance(loader.dataset, IterableDataset):
        epoch, step = divmod(trainer.state.global_step, max(1, -(-len(loader) // accumulation)))
        rows = rows_of_update(loader, epoch, step * accumulation, len(batches))
    return [
        row
        for place, batch in enumerate(batches)
        for row in shown_rows(
            trainer.train_dataset, None if rows is None else rows[place], batch, trainer.processing_class
        )
    ]


def rows_of_update(loader: Iterable, epoch: int, first: int, count: int) -> list[list[int]] | None:
    """
    The rows of some batches of an epoch, from the order alone: no row is read.

    Args:
        loader (`DataLoader`): Made anew, as the Trainer makes it: its order is a function of the epoch.
        epoch (`int`): Which epoch.
        first (`int`): Number of the first batch of this process in the epoch.
        count (`int`): How many batches.

    Returns:
        `list[list[int]]`: Indices of the training data, a list a batch; `None` where the data has no order of indices
        (a stream).
    """
    sampler = getattr(loader, "batch_sampler", None)
    if sampler is None:
        return None
    part = loader
    while part is not None:
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)
        inner = getattr(part, "batch_sampler", None)
        part = inner if inner is not None else getattr(part, "sampler", None)
    return [[int(row) for row in batch] for batch in islice(sampler, first, first + count)]


def shown_rows(dataset: Any, rows: list[int] | None, batch: dict, tokenizer: Any) -> list[dict[str, Any]]:
    """
    Rows of a batch as they can be looked up and read.

    Args:
        dataset (`Any`): The training data; its columns `text`, `text_pair` are shown if it has them.
        rows (`list[int]`, *optional*): Their indices, from [`rows_of_update`].
        batch (`dict`): As the model got it.
        tokenizer (`Any`): Decodes the ids of a text that the data does not hold; `None` leaves the ids.

    Returns:
        `list[dict]`: `row` (from 0; `None` if unknown), `text` and `label` of each.
    """
    size = len(next(value for value in batch.values() if isinstance(value, torch.Tensor) and value.ndim))
    if rows is not None and len(rows) != size:
        rows = None
    columns = [name for name in ("text", "text_pair") if name in (getattr(dataset, "column_names", None) or ())]
    shown = []
    for place in range(size):
        row = None if rows is None else rows[place]
        if row is not None and columns:
            texts = [dataset[row][name] for name in columns]
            text: Any = texts[0] if len(texts) == 1 else texts
        else:
            text = _decoded(batch, place, tokenizer)
        labels = batch.get("labels")
        shown.append({"row": row, "text": text, "label": None if labels is None else labels[place].tolist()})
    return shown


def _decoded(batch: dict, place: int, tokenizer: Any) -> Any:
    ids = batch.get("input_ids")
    if ids is None:
        return None
    mask = batch.get("attention_mask")
    ids = ids[place] if mask is None else ids[place][mask[place].bool()]
    return ids.tolist() if tokenizer is None else tokenizer.decode(ids)
