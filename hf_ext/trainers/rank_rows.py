"""Which rows of a training batch are a process's own, and which only fill it up so that all processes have one."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.data_loader import BatchSamplerShard, prepare_data_loader
from torch.utils.data import DataLoader, IterableDataset
from transformers import TrainingArguments

from hf_ext.errors import ConfigurationError
from hf_ext.trainers.batch_parts import first_rows

# In batches of a stream: how many of the rows count.
OWN_ROWS = "hf_ext_own_rows"


class RankRow(NamedTuple):
    """A row, and whether it is the process's own."""

    row: Any
    own: bool


class RankRows(IterableDataset):
    """
    The part of a stream that one process trains on: of every `batch_size * num_processes` rows the `process_index`-th
    `batch_size`. So all processes together see each row once a pass, in the batches of one process.

    Every process reads the whole stream, which has to be in the same order on each. Where the last batch has no row
    for a process, it gets one of another that does not count: all processes have equally many batches.

    Args:
        rows (`Iterable`): The stream. Its `set_epoch` is passed on, and its length if it has one.
        batch_size (`int`): Rows of a batch of one process.
        num_processes (`int`): How many there are.
        process_index (`int`): Which of them this is, from 0.
    """

    def __init__(self, rows: Iterable, batch_size: int, num_processes: int, process_index: int):
        self.rows, self.batch_size = rows, batch_size
        self.num_processes, self.process_index = num_processes, process_index

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.rows, "set_epoch"):
            self.rows.set_epoch(epoch)

    def __len__(self) -> int:
        # A TypeError if the stream does not know.
        return math.ceil(len(self.rows) / (self.batch_size * self.num_processes)) * self.batch_size

    def __iter__(self) -> Iterator[RankRow]:
        whole, first = self.batch_size * self.num_processes, self.batch_size * self.process_index
        batch: list[Any] = []
        for row in self.rows:
            batch.append(row)
            if len(batch) == whole:
                yield from (RankRow(row, True) for row in batch[first : first + self.batch_size])
                batch = []
        if len(batch) > first:
            yield from (RankRow(row, True) for row in batch[first : first + self.batch_size])
        elif batch:
            yield RankRow(batch[0], False)


class RankCollator:
    """
    Makes batches of [`RankRow`]s, with the number of those that count as `OWN_ROWS`.

    Args:
        collate (`Callable`): From rows to a batch.
    """

    def __init__(self, collate: Callable[[list[Any]], dict[str, Any]]):
        self.collate = collate

    def __call__(self, rows: list[RankRow]) -> dict[str, Any]:
        batch = self.collate([row.row for row in rows])
        batch[OWN_ROWS] = torch.tensor(sum(row.own for row in rows))
        return batch


def stream_dataloader(
    rows: Iterable,
    collate: Callable[[list[Any]], dict[str, Any]],
    batch_size: int,
    accelerator: Accelerator,
    args: TrainingArguments,
    is_training: bool,
) -> DataLoader:
    """
    The loader of a stream for several processes: each reads it, and trains on its own part.

    Args:
        rows (`Iterable`): The stream.
        collate (`Callable`): From rows to a batch.
        batch_size (`int`): Rows of a batch of one process.
        accelerator ([`~accelerate.Accelerator`]): Knows the processes.
        args ([`~transformers.TrainingArguments`]): Workers of the loader.
        is_training (`bool`): Whether the rows are to train on.

    Raises:
        ConfigurationError: If they are to be evaluated.
    """
    if not is_training:
        raise ConfigurationError(
            f"The rows to evaluate are a stream, and there are {args.world_size} processes: some rows would count "
            "twice. Evaluate on a data set that has a length, or in one process."
        )
    loader = DataLoader(
        RankRows(rows, batch_size, args.world_size, args.process_index),
        batch_size=batch_size,
        collate_fn=RankCollator(collate),
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory,
        prefetch_factor=args.dataloader_prefetch_factor,
    )
    # As for one process: the library would deal the rows out once more.
    return prepare_data_loader(loader, accelerator.device, 1, 0, put_on_device=True, dispatch_batches=False)


def rows_of_rank(total: int, batch_size: int, process_index: int) -> int:
    """
    How many rows of the last batch are a process's own.

    Args:
        total (`int`): Rows that are left for the last batch of all processes.
        batch_size (`int`): Rows of a batch of one process.
        process_index (`int`): Which process, from 0.
    """
    return min(batch_size, max(0, total - process_index * batch_size))


def leave_own_rows(batches: list[dict[str, Any]], accelerator: Accelerator) -> set[int]:
    """
    Cut the rows off the micro-batches of a step that only fill them up.

    Args:
        batches (`list[dict[str, torch.Tensor]]`): Of this process; changed in place.
        accelerator ([`~accelerate.Accelerator`]): Knows the processes, and the loader that the batches are from.

    Returns:
        `set[int]`: The places of the batches that have no row of this process. They stay as they are, because all
        processes have to compute equally many, and must not count.
    """
    idle = set()
    for place, batch in enumerate(batches):
        own = batch.pop(OWN_ROWS, None)
        if own is None and place == len(batches) - 1:
            own = _own_rows_of_last(accelerator)
        if own is not None and int(own) == 0:
            idle.add(place)
        elif own is not None:
            batches[place] = first_rows(batch, int(own))
    return idle


# ---- Inside ----


def _own_rows_of_last(accelerator: Accelerator) -> int | None:
    """Of the loader's last batch, if that is reached and filled up; `None` otherwise."""
    state = accelerator.gradient_state
    if accelerator.num_processes == 1 or not state.end_of_dataloader:
        return None
    shard = getattr(state.active_dataloader, "batch_sampler", None)
    while shard is not None and not isinstance(shard, BatchSamplerShard):
        # A resumed run skips the first batches of its epoch.
        shard = getattr(shard, "batch_sampler", None)
    if shard is None or shard.num_processes == 1 or shard.split_batches or shard.drop_last or not shard.even_batches:
        return None
    left = len(shard.batch_sampler.sampler) % (shard.batch_size * shard.num_processes)
    return rows_of_rank(left, shard.batch_size, shard.process_index) if left else None
