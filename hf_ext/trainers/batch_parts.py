"""A micro-batch in parts, when it does not fit into memory as a whole."""

import logging
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from transformers import TrainerState

logger = logging.getLogger(__name__)

KEY = "hf_ext.batch_parts"
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator or the machine had too little memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)


def batch_parts(batch: Mapping[str, Any], parts: int) -> Iterator[dict[str, Any]]:
    """
    The rows of a batch in parts of about equal size, in their order.

    Args:
        batch (`Mapping[str, Any]`): Tensors (and lists) with a row for each text; what has none is in every part.
        parts (`int`): How many; no more than there are rows.

    Returns:
        `Iterator[dict]`
    """
    rows = batch_rows(batch)
    bounds = [rows * number // parts for number in range(parts + 1)]
    for begin, end in pairwise(bounds):
        yield {name: _part(value, rows, slice(begin, end)) for name, value in batch.items()}


def first_rows(batch: Mapping[str, Any], count: int) -> dict[str, Any]:
    """
    The first rows of a batch.

    Args:
        batch (`Mapping`): As [`batch_parts`] takes it.
        count (`int`): How many.

    Returns:
        `dict`: What holds no value a row is in it as it is.
    """
    return _part(batch, batch_rows(batch), slice(count))


def batch_rows(batch: Mapping[str, Any]) -> int:
    """Rows of a batch: the length of its first tensor."""
    return len(next(value for value in batch.values() if isinstance(value, torch.Tensor) and value.ndim))


class BatchParts:
    """
    Into how many parts [`ExtendedTrainer`] divides each micro-batch: one, until memory is too small for that.

    The step stays the same: the same rows in the same order, a mean over the same targets. Its sums are only made in
    another order, so the last digits may differ. The number is kept in the checkpoints: a resumed run goes on with it.

    Attributes:
        count (`int`): A power of two.
    """

    def __init__(self):
        self.count = 1

    def double(self, error: BaseException, largest: int, state: TrainerState) -> None:
        """
        Divide further after memory was too small.

        Args:
            error (`BaseException`): What was raised; it is raised again if a single row does not fit.
            largest (`int`): Rows of the largest micro-batch of the step.
            state ([`~transformers.TrainerState`]): Keeps the number.
        """
        if self.count >= largest:
            error.add_note(
                f"In step {state.global_step + 1} not even one row fits: shorten the texts (max_seq_length)."
            )
            raise error
        self.count *= 2
        state.stateful_callbacks[KEY] = {"count": self.count}
        logger.warning(
            "Out of memory in step %d. From here on every micro-batch is computed in %d parts; the rows of a step and "
            "their order stay. To have it from the beginning, divide per_device_train_batch_size by %d and multiply "
            "gradient_accumulation_steps by it.",
            state.global_step + 1,
            self.count,
            self.count,
        )

    def resume(self, state: TrainerState) -> None:
        """Go on with a checkpoint's number."""
        self.count = state.stateful_callbacks.get(KEY, {"count": 1})["count"]

    def metrics(self) -> dict[str, float]:
        """For the next log: nothing as long as batches are whole."""
        return {"batch_parts": self.count} if self.count > 1 else {}


def _part(value: Any, rows: int, which: slice) -> Any:
    if isinstance(value, Mapping):
        return {name: _part(item, rows, which) for name, item in value.items()}
    if isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        return [_part(item, rows, which) for item in value]
    has_rows = isinstance(value, list | tuple) or (isinstance(value, torch.Tensor) and value.ndim > 0)
    return value[which] if has_rows and len(value) == rows else value
