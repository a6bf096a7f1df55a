"""Orders of the training rows: of constant length and a pure function of (seed, epoch)."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

# Batches that are sorted together. Fewer leave more padding, more leave less randomness.
BATCHES_A_POOL = 50


def length_grouped_order(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """
    A random order in which the rows of a batch have similar lengths.

    The rows are shuffled, cut into pools of 50 batches and sorted by length inside each pool; then the batches are
    shuffled, the one with the longest row first (so that a batch too large for the memory shows at once) and an
    incomplete one last.

    Args:
        lengths (`Sequence[int]`): Length of each row in tokens.
        batch_size (`int`): Rows that should have similar lengths.
        seed (`int`): With `epoch`, the only source of randomness.
        epoch (`int`): Which epoch's order.

    Returns:
        `np.ndarray` of shape (rows,): every row's index once.
    """
    lengths = np.asarray(lengths)
    generator = np.random.default_rng([seed, epoch])
    shuffled = generator.permutation(len(lengths))
    pool = batch_size * BATCHES_A_POOL
    # Stable, so that equal lengths keep the shuffled order.
    pools = [shuffled[i : i + pool] for i in range(0, len(shuffled), pool)]
    ordered = np.concatenate([rows[np.argsort(-lengths[rows], kind="stable")] for rows in pools])
    complete = len(ordered) // batch_size * batch_size
    batches = ordered[:complete].reshape(-1, batch_size)
    if len(batches):
        batches = batches[generator.permutation(len(batches))]
        longest = int(lengths[batches].max(axis=1).argmax())
        batches[[0, longest]] = batches[[longest, 0]]
    return np.concatenate([batches.reshape(-1), ordered[complete:]])


class LengthGroupedSampler(Sampler[int]):
    """
    Draws rows of similar lengths together, so that little of a batch is padding.

    Unlike the library's sampler of the same purpose, the order is a pure function of (seed, epoch): a run resumed in
    the middle of an epoch continues with the batches it would have seen, and all ranks agree without communicating.

    Args:
        lengths (`Sequence[int]`): Length of each row in tokens.
        batch_size (`int`): Rows of one optimizer step over all processes.
        seed (`int`): Seed of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int):
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(length_grouped_order(self.lengths, self.batch_size, self.seed, self.epoch).tolist())
