"""Orders of the training rows: of constant length and a pure function of (seed, epoch)."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from torch.utils.data import Sampler

from hf_ext.data.difficulty import checked_scores, percentile_within_label
from hf_ext.errors import ConfigurationError, nearest
from hf_ext.finite import is_finite_number
from hf_ext.schedules import PACINGS, competence

MODES = ("curriculum", "anti", "random", "none")
# Of a share of the rows: 0.1 * 30 is a little more than 3.
ROUNDING = 1e-9
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
    generator = np.random.default_rng([seed, epoch])
    return _grouped(generator.permutation(len(lengths)), np.asarray(lengths), batch_size, generator)


def _grouped(shuffled: np.ndarray, lengths: np.ndarray, batch_size: int, generator: np.random.Generator) -> np.ndarray:
    """Bring rows of similar lengths together, in pools of the order that is given."""
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


# ---- Curriculum ----


class CurriculumScheduler:
    """
    The share of the rows, from the easiest on, that each epoch draws from.

    Args:
        initial_difficulty (`float`, *optional*, defaults to 0.3):
            Share in epoch 0, in (0, 1].
        final_difficulty (`float`, *optional*, defaults to 1.0):
            Share from epoch `num_epochs` on, at least `initial_difficulty`. Below 1, the hardest rows are never used:
            with noisy labels these are mostly the wrong ones.
        num_epochs (`float` or `None`, *optional*, defaults to 10):
            How many epochs the way takes; at least 1. Epochs are counted from 0: a run of 10 epochs with
            `num_epochs=10` ends in epoch 9, a tenth short of `final_difficulty`. `None` leaves it to a
            [`CurriculumCallback`], which knows the length of the training.
        pacing (`str`, *optional*, defaults to `"linear"`):
            `"linear"`, `"root"`, `"log"`, `"exp"` or `"step"`; see [`competence`] for the formulas.

    Raises:
        ConfigurationError: If a value is out of range.

    Example:

    ```python
    >>> from hf_ext import CurriculumScheduler
    >>> scheduler = CurriculumScheduler(initial_difficulty=0.3, final_difficulty=1.0, num_epochs=10)
    >>> scheduler.get_difficulty(5)
    0.65
    ```
    """

    def __init__(
        self,
        initial_difficulty: float = 0.3,
        final_difficulty: float = 1.0,
        num_epochs: float | None = 10,
        pacing: Literal["linear", "root", "log", "exp", "step"] = "linear",
    ):
        for name, value in {"initial_difficulty": initial_difficulty, "final_difficulty": final_difficulty}.items():
            if not is_finite_number(value) or not 0 < value <= 1:
                raise ConfigurationError(
                    f"{name} is {value!r}; it must be a share of the rows: above 0 (a run needs some), at most 1."
                )
        if initial_difficulty > final_difficulty:
            raise ConfigurationError(
                f"initial_difficulty={initial_difficulty} is above final_difficulty={final_difficulty}; a curriculum "
                "takes rows in. To begin with the hardest rows, use the mode 'anti'."
            )
        if num_epochs is not None and (not is_finite_number(num_epochs) or num_epochs < 1):
            raise ConfigurationError(f"num_epochs is {num_epochs!r}; it must be a number of at least 1.")
        if pacing not in PACINGS:
            raise ConfigurationError(
                f"pacing is {pacing!r}; it must be one of {', '.join(PACINGS)}.{nearest(str(pacing), PACINGS)}"
            )
        self.initial_difficulty, self.final_difficulty = float(initial_difficulty), float(final_difficulty)
        self.num_epochs, self.pacing = num_epochs, pacing

    def get_difficulty(self, epoch: float) -> float:
        """
        The share that an epoch draws from.

        Args:
            epoch (`float`): Epochs done; 0 for the first.
        """
        if self.num_epochs is None:
            raise ConfigurationError("num_epochs is None, so the share is known in a training only; give num_epochs.")
        return competence(epoch, self.num_epochs, self.initial_difficulty, self.final_difficulty, self.pacing)

    __call__ = get_difficulty


def curriculum_shares(
    difficulty: Sequence[float], mode: str = "curriculum", seed: int = 0, labels: Any = None
) -> np.ndarray:
    """
    The share of the rows above which a curriculum takes a row in.

    Args:
        difficulty (`Sequence[float]`): A score for each row; the greater, the harder.
        mode (`str`, *optional*, defaults to `"curriculum"`):
            Which rows come first: `"curriculum"` the easiest, `"anti"` the hardest, `"random"` any (both are the
            controls that show whether the order or only the growth has an effect); `"none"`: all from the start.
        seed (`int`, *optional*, defaults to 0): Orders equal scores.
        labels (`Sequence`, *optional*): Shares are of each label's rows (see [`percentile_within_label`]).

    Returns:
        `np.ndarray` of shape (rows,) in [0, 1).

    Raises:
        ConfigurationError: For an unknown mode.
        DataError: For scores that are not finite numbers, or not one label a row.
    """
    if mode not in MODES:
        raise ConfigurationError(f"mode is {mode!r}; it must be one of {', '.join(MODES)}.{nearest(str(mode), MODES)}")
    scores = checked_scores(difficulty, len(difficulty))
    if mode == "none":
        return np.zeros(len(scores))
    sign = {"curriculum": 1, "anti": -1, "random": 0}[mode]
    return percentile_within_label(sign * scores, labels, seed)


def rows_in_use(shares: np.ndarray, share: float) -> np.ndarray:
    """
    The rows that a curriculum draws from.

    Args:
        shares (`np.ndarray`): From [`curriculum_shares`].
        share (`float`): Of the rows, in (0, 1].

    Returns:
        `np.ndarray`: Their indices, ascending; of each label at least one.
    """
    return np.flatnonzero(shares < max(share - ROUNDING, ROUNDING))


def curriculum_order(
    shares: np.ndarray,
    share: float,
    seed: int,
    epoch: int,
    lengths: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> np.ndarray:
    """
    As many rows as there are, drawn from a share of them: one random order of that share after the other.

    Args:
        shares (`np.ndarray`): From [`curriculum_shares`].
        share (`float`): Of the rows, in (0, 1].
        seed (`int`): With `epoch`, the only source of randomness.
        epoch (`int`): Which epoch's order.
        lengths (`Sequence[int]`, *optional*): Put rows of similar lengths together, as [`length_grouped_order`] does.
        batch_size (`int`, *optional*): Rows that should have similar lengths.

    Returns:
        `np.ndarray` of shape (rows,): indices, in which each row of the share comes as often as any other, or once
        more.
    """
    generator = np.random.default_rng([seed, epoch])
    used, rows = rows_in_use(shares, share), len(shares)
    passes = [generator.permutation(used) for _ in range(-(-rows // len(used)))]
    drawn = np.concatenate(passes)[:rows]
    return drawn if lengths is None else _grouped(drawn, np.asarray(lengths), batch_size, generator)


class CurriculumSampler(Sampler[int]):
    """
    Draws each epoch's rows from the easiest share of them; the share grows with the epoch.

    Its length is constant (a Trainer counts its steps once), so early epochs repeat easy rows. The order is a pure
    function of (seed, epoch): a resumed run continues with the rows it would have seen, and all ranks agree.

    Args:
        difficulty (`Sequence[float]`):
            A score for each row; the greater, the harder. See [`difficulty_scores`].
        scheduler ([`CurriculumScheduler`]):
            The share by epoch.
        seed (`int`):
            Seed of the order, and of the order of equal scores.
        mode (`str`, *optional*, defaults to `"curriculum"`):
            `"curriculum"`, `"anti"`, `"random"` or `"none"`; see [`curriculum_shares`].
        labels (`Sequence`, *optional*):
            Take the share of each label's rows, and at least one: class ids, or 0/1 vectors for several labels.
        lengths (`Sequence[int]`, *optional*):
            Length of each row; rows of similar lengths then come together. Needs `batch_size`.
        batch_size (`int`, *optional*):
            Rows of one optimizer step over all processes.

    Raises:
        ConfigurationError: For an unknown mode, no rows, or one of `lengths` and `batch_size` without the other.
        DataError: For scores or labels that cannot be used.
    """

    def __init__(
        self,
        difficulty: Sequence[float],
        scheduler: CurriculumScheduler,
        seed: int,
        mode: Literal["curriculum", "anti", "random", "none"] = "curriculum",
        labels: Any = None,
        lengths: Sequence[int] | None = None,
        batch_size: int | None = None,
    ):
        if len(difficulty) == 0:
            raise ConfigurationError("A curriculum needs rows to draw from; there is no difficulty of any.")
        if (lengths is None) != (batch_size is None):
            raise ConfigurationError("lengths and batch_size are of use together only; pass both or neither.")
        if lengths is not None and len(lengths) != len(difficulty):
            raise ConfigurationError(f"There are {len(lengths)} lengths for {len(difficulty)} rows.")
        self.shares = curriculum_shares(difficulty, mode, seed, labels)
        self.scheduler, self.seed, self.epoch = scheduler, seed, 0
        self.lengths, self.batch_size = lengths, batch_size

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.shares)

    def __iter__(self) -> Iterator[int]:
        share = self.scheduler.get_difficulty(self.epoch)
        order = curriculum_order(self.shares, share, self.seed, self.epoch, self.lengths, self.batch_size)
        return iter(order.tolist())
