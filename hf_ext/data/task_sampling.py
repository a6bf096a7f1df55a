"""The order of several tasks' training rows: batches of one task each, a pure function of (seed, epoch)."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from torch.utils.data import Sampler

from hf_ext.data.sampling import length_grouped_order
from hf_ext.errors import ConfigurationError, nearest

SAMPLINGS = ("proportional", "sqrt", "temperature", "uniform", "annealed")
# Streams of random numbers: which task comes when, and which of its rows.
TASKS, ROWS, LENGTHS = 1, 2, 3


def sampling_exponent(sampling: str, epoch: int = 0, num_epochs: int = 1, temperature: float | None = None) -> float:
    r"""
    The exponent $a$ of a sampling: a task of $n$ rows gets a share of the batches in proportion to $n^a$.

    Args:
        sampling (`str`):
            `"proportional"`: 1; `"sqrt"`: 1/2; `"temperature"`: 1 / `temperature`; `"uniform"`: 0; `"annealed"`
            (Stickland & Murray 2019, "BERT and PALs"): from 1 in the first epoch down to 0.2 in the last,
            $a = 1 - 0.8 \, e / (E - 1)$ in epoch $e$ of $E$, counted from 0.
        epoch (`int`, *optional*, defaults to 0): $e$.
        num_epochs (`int`, *optional*, defaults to 1): $E$.
        temperature (`float`, *optional*): For `"temperature"` only; at least 1.

    Returns:
        `float`: In [0, 1].

    Raises:
        ConfigurationError: For an unknown sampling, or a temperature that is missing, below 1 or without effect.
    """
    if sampling not in SAMPLINGS:
        raise ConfigurationError(
            f"sampling is {sampling!r}; it must be one of {', '.join(SAMPLINGS)}.{nearest(str(sampling), SAMPLINGS)}"
        )
    if (sampling == "temperature") != (temperature is not None):
        raise ConfigurationError(
            "sampling='temperature' needs a sampling_temperature, such as 3."
            if temperature is None
            else f"sampling_temperature={temperature} has no effect with sampling={sampling!r}; use 'temperature'."
        )
    if sampling == "temperature":
        is_number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
        if not is_number or not 1 <= temperature < float("inf"):
            raise ConfigurationError(
                f"sampling_temperature is {temperature!r}; it must be a number of at least 1 (proportional); the "
                "greater, the more even the shares."
            )
        return 1 / temperature
    if sampling == "annealed":
        return 1.0 if num_epochs <= 1 else 1 - 0.8 * min(epoch, num_epochs - 1) / (num_epochs - 1)
    return {"proportional": 1.0, "sqrt": 0.5, "uniform": 0.0}[sampling]


def task_quotas(sizes: Sequence[int], batch_size: int, exponent: float) -> list[int]:
    """
    How many batches of each task an epoch has. In all these are as many as all rows fill, whatever the exponent.

    Args:
        sizes (`Sequence[int]`): Rows of each task.
        batch_size (`int`): Rows of a batch over all processes.
        exponent (`float`):
            1 gives each task the batches that its own rows fill (the last one filled up). Below 1, the shares are in
            proportion to the sizes to this power, rounded by the largest remainder, and each task gets at least one.

    Returns:
        `list[int]`
    """
    own = [-(-size // batch_size) for size in sizes]
    if exponent == 1:
        return own
    powers = np.asarray(sizes, dtype=np.float64) ** exponent
    exact = sum(own) * powers / powers.sum()
    quotas = np.floor(exact).astype(int)
    largest_remainders = np.argsort(-(exact - quotas), kind="stable")
    quotas[largest_remainders[: sum(own) - quotas.sum()]] += 1
    while quotas.min() == 0:
        quotas[quotas.argmax()] -= 1
        quotas[quotas.argmin()] += 1
    return quotas.tolist()


def task_order(quotas: Sequence[int], seed: int, epoch: int) -> np.ndarray:
    """
    Which task each batch of an epoch is of: a random order of as many batches as the tasks' quotas.

    Args:
        quotas (`Sequence[int]`): From [`task_quotas`].
        seed (`int`): With `epoch`, the only source of randomness.
        epoch (`int`): Which epoch's order.

    Returns:
        `np.ndarray` of shape (batches,): numbers of tasks.
    """
    generator = np.random.default_rng([seed, TASKS, epoch])
    return generator.permutation(np.repeat(np.arange(len(quotas)), quotas))


def task_rows(size: int, start: int, count: int, seed: int, task: int, shuffle: bool = True) -> np.ndarray:
    """
    A piece of a task's endless stream of rows: one random order of all of them after the other.

    Args:
        size (`int`): Rows of the task.
        start (`int`): Where in the stream the piece begins.
        count (`int`): Rows of the piece.
        seed (`int`): With `task`, the only source of randomness.
        task (`int`): Number of the task.
        shuffle (`bool`, *optional*, defaults to `True`): Whether the orders are random, else as the rows stand.

    Returns:
        `np.ndarray` of shape (count,): indices below `size`.
    """
    first, last = start // size, -(-(start + count) // size)
    passes = [
        np.random.default_rng([seed, ROWS, task, number]).permutation(size) if shuffle else np.arange(size)
        for number in range(first, last)
    ]
    return np.concatenate(passes)[start - first * size :][:count]


class TaskBatchSampler(Sampler[int]):
    """
    Draws the rows of several tasks, concatenated, in runs of one batch (over all processes) of a single task.

    A plain `DataLoader` (and accelerate, which deals whole batches to the processes) then makes batches of one task
    each, the same task on all processes. The length is constant, and the order is a pure function of (seed, epoch): a
    run resumed in the middle of an epoch continues with the rows it would have seen.

    A task that gets less than its rows in an epoch continues in the next one where it stopped. One that gets more
    begins each epoch anew; what fills its last batch is from its next random order.

    Args:
        sizes (`Sequence[int]`):
            Rows of each task, in the order in which they are concatenated.
        batch_size (`int`):
            Rows of a batch over all processes.
        seed (`int`):
            Seed of the order.
        sampling (`str`, *optional*, defaults to `"proportional"`):
            `"proportional"`, `"sqrt"`, `"temperature"`, `"uniform"` or `"annealed"`; see [`sampling_exponent`].
        temperature (`float`, *optional*):
            For `sampling="temperature"`.
        num_epochs (`int`, *optional*, defaults to 1):
            Epochs of the training, for `sampling="annealed"`.
        lengths (`Sequence[Sequence[int]]`, *optional*):
            Of each task, each row's length in tokens; rows of similar lengths then come together.
        shuffle (`bool`, *optional*, defaults to `True`):
            Whether a task's rows come in a random order. The order of the tasks is random in any case.

    Raises:
        ConfigurationError: For a task without rows, or a sampling that does not exist.

    Example:

    ```python
    >>> from hf_ext import TaskBatchSampler
    >>> sampler = TaskBatchSampler([3668, 67349, 5452], batch_size=32, seed=0, sampling="sqrt")
    >>> sampler.quotas(epoch=0)
    [368, 1575, 448]
    ```
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch_size: int,
        seed: int,
        sampling: Literal["proportional", "sqrt", "temperature", "uniform", "annealed"] = "proportional",
        temperature: float | None = None,
        num_epochs: int = 1,
        lengths: Sequence[Sequence[int]] | None = None,
        shuffle: bool = True,
    ):
        if len(sizes) == 0 or min(sizes) < 1:
            raise ConfigurationError(f"Every task needs rows to draw from; the tasks have {list(sizes)} rows.")
        if lengths is not None and [len(of_task) for of_task in lengths] != list(sizes):
            raise ConfigurationError(
                f"There are {[len(of_task) for of_task in lengths]} lengths for tasks of {list(sizes)} rows."
            )
        sampling_exponent(sampling, 0, num_epochs, temperature)
        self.sizes, self.batch_size, self.seed, self.epoch = list(sizes), batch_size, seed, 0
        self.sampling, self.temperature, self.num_epochs = sampling, temperature, num_epochs
        self.lengths = None if lengths is None else [np.asarray(of_task) for of_task in lengths]
        self.shuffle = shuffle

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def quotas(self, epoch: int) -> list[int]:
        """
        How many batches of each task an epoch has.

        Args:
            epoch (`int`): Epochs done; 0 for the first.
        """
        exponent = sampling_exponent(self.sampling, epoch, self.num_epochs, self.temperature)
        return task_quotas(self.sizes, self.batch_size, exponent)

    def __len__(self) -> int:
        return sum(-(-size // self.batch_size) for size in self.sizes) * self.batch_size

    def __iter__(self) -> Iterator[int]:
        quotas = self.quotas(self.epoch)
        offsets = np.cumsum([0, *self.sizes[:-1]])
        batches = [
            iter((self._drawn(task, quotas[task]) + offsets[task]).reshape(-1, self.batch_size).tolist())
            for task in range(len(self.sizes))
        ]
        for task in task_order(quotas, self.seed, self.epoch):
            yield from next(batches[task])

    def _drawn(self, task: int, quota: int) -> np.ndarray:
        """The rows of a task in this epoch."""
        size, count = self.sizes[task], quota * self.batch_size
        rows = task_rows(size, self._start(task), count, self.seed, task, self.shuffle)
        if self.lengths is None:
            return rows
        seed = int(np.random.default_rng([self.seed, LENGTHS, task]).integers(2**31))
        return rows[length_grouped_order(self.lengths[task][rows], self.batch_size, seed, self.epoch)]

    def _start(self, task: int) -> int:
        """Where in the task's stream of rows this epoch begins."""
        start, size = 0, self.sizes[task]
        for epoch in range(self.epoch):
            drawn = self.quotas(epoch)[task] * self.batch_size
            start += drawn // size * size if drawn >= size else drawn
        return start
