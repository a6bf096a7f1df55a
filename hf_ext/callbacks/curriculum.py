"""Curriculum learning: easy rows first."""

import hashlib
import logging
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from accelerate.utils import gather_object
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainingArguments

from hf_ext.callbacks.base import ExtensionCallback, require_unchanged
from hf_ext.data.difficulty import SCORERS, TRAINED_SCORERS, Scorer, difficulty_scores, row_labels, row_lengths
from hf_ext.data.sampling import MODES, CurriculumSampler, CurriculumScheduler, rows_in_use
from hf_ext.errors import ConfigurationError, nearest

logger = logging.getLogger(__name__)


class CurriculumCallback(ExtensionCallback):
    """
    Draws each epoch's training rows from the easiest share of them, which grows from epoch to epoch.

    An epoch has as many steps as without a curriculum; early ones repeat easy rows. The order is a pure function of
    (seed, epoch), so it is the same after a resume, on any number of processes, and with accumulation in place of
    larger batches. It replaces the order that `train_sampling_strategy` asks for, except `"group_by_length"`: the rows
    of a step then have similar lengths. Needs [`ExtendedTrainer`]. The logs show `curriculum/difficulty` (the share)
    and `curriculum/rows` (how many different rows the epoch draws from).

    Wu, Dyer & Neyshabur (2021), "When Do Curricula Work?", find gains for short trainings and noisy labels only. To
    see whether an effect is that of the order, compare with the modes `"random"` and `"none"`.

    Args:
        difficulty (`str`, array or `Callable`, *optional*, defaults to `"length"`):
            `"length"`, `"rarity"`, a column of the training data, an array with a number for each row (such as
            [`cross_review_scores`] returns) or a function of the rows; see [`difficulty_scores`].
        scheduler ([`CurriculumScheduler`], *optional*):
            The share by epoch. By default linear from 0.3 to 1. `num_epochs=None`, also the default, is half of the
            training (at least one epoch).
        mode (`str`, *optional*, defaults to `"curriculum"`):
            `"curriculum"`: the easiest rows first; `"anti"`: the hardest; `"random"`: any; `"none"`: all rows in every
            epoch.
        within_label (`bool`, *optional*, defaults to `True`):
            Take the share of each label's rows, and at least one. Otherwise the easiest rows may hold no row of a rare
            label. Regression has no labels in this sense.

    Raises:
        ConfigurationError: If an argument is out of range; when training begins, if the rows have no length or the run
            only one epoch; when it is resumed, if the curriculum is another than the checkpoint's.
        DataError: When training begins, if the difficulty of a row is missing or not finite.

    Example:

    ```python
    >>> from hf_ext import CurriculumCallback, CurriculumScheduler
    >>> callback = CurriculumCallback("rarity", CurriculumScheduler(0.3, 1.0, num_epochs=4, pacing="root"))
    ```
    """

    def __init__(
        self,
        difficulty: Scorer = "length",
        scheduler: CurriculumScheduler | None = None,
        mode: Literal["curriculum", "anti", "random", "none"] = "curriculum",
        within_label: bool = True,
    ):
        if mode not in MODES:
            raise ConfigurationError(
                f"mode is {mode!r}; it must be one of {', '.join(MODES)}.{nearest(str(mode), MODES)}"
            )
        if scheduler is not None and not isinstance(scheduler, CurriculumScheduler):
            raise ConfigurationError(f"scheduler is {scheduler!r}; it must be a CurriculumScheduler.")
        if not isinstance(within_label, bool):
            raise ConfigurationError(f"within_label is {within_label!r}; it must be True or False.")
        self.difficulty, self.scheduler, self.mode, self.within_label = difficulty, scheduler, mode, within_label
        self._shares: np.ndarray | None = None
        self._settings, self._epoch = {}, 0

    def train_sampler(self, dataset, args: TrainingArguments) -> Sampler:
        # Not of a number of steps: the learning rate finder takes a few, and they are no training.
        if self.mode != "none" and args.max_steps <= 0:
            check_epochs(len(dataset), args)
        scheduler = _resolved(self.scheduler or CurriculumScheduler(num_epochs=None), len(dataset), args)
        grouped = args.train_sampling_strategy == "group_by_length"
        seed = args.seed if args.data_seed is None else args.data_seed
        sampler = CurriculumSampler(
            difficulty_scores(dataset, self.difficulty),
            scheduler,
            seed,
            self.mode,
            row_labels(dataset) if self.within_label else None,
            row_lengths(dataset, args.length_column_name) if grouped else None,
            _rows_of_a_step(args) if grouped else None,
        )
        self._shares, self._scheduler = sampler.shares, scheduler
        self._settings = {
            "difficulty": self.difficulty if isinstance(self.difficulty, str) else "own",
            "mode": self.mode,
            "pacing": scheduler.pacing,
            "initial_difficulty": scheduler.initial_difficulty,
            "final_difficulty": scheduler.final_difficulty,
            "num_epochs": scheduler.num_epochs,
            "within_label": self.within_label,
            "seed": seed,
            # What the order is made from: it stands for the scores, the labels and the number of rows.
            "ranks": hashlib.sha256(sampler.shares.tobytes()).hexdigest()[:16],
        }
        return sampler

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        if self._shares is None:
            raise ConfigurationError(
                "A curriculum chooses among rows by their number, which an IterableDataset (streaming) does not have. "
                "Load the data set as a whole, or take the curriculum out."
            )
        # Ranks with different orders would train on rows twice and leave others out, without a sign of it.
        ranks = set(gather_object([self._settings["ranks"]]))
        if len(ranks) > 1:
            raise ConfigurationError(
                "The processes of this run have different difficulties for the same rows: a function that scores them "
                "must return the same in every process. Score them once and pass the array."
            )
        require_unchanged(state, "hf_ext.curriculum", self._settings)
        self._epoch = int(state.epoch or 0)
        last = self._scheduler.get_difficulty(state.num_train_epochs - 1)
        logger.info(
            "curriculum: %s, %s; the last of %d epochs draws from %d of %d rows",
            self._settings["difficulty"],
            self.mode,
            state.num_train_epochs,
            len(rows_in_use(self._shares, last)),
            len(self._shares),
        )

    def on_epoch_begin(self, args, state, control, **kwargs):
        # Of a run that goes on inside an epoch it is a fraction.
        self._epoch = int(state.epoch or 0)

    def metrics(self) -> dict[str, float]:
        if self._shares is None:
            return {}
        share = 1.0 if self.mode == "none" else self._scheduler.get_difficulty(self._epoch)
        return {"curriculum/difficulty": share, "curriculum/rows": len(rows_in_use(self._shares, share))}

    def release(self) -> None:
        # The next training asks again, with its own rows.
        self._shares = None


def check_epochs(rows: int, args: TrainingArguments) -> None:
    """
    See that a training is long enough for a curriculum.

    Args:
        rows (`int`): Training rows.
        args ([`~transformers.TrainingArguments`]): The training's.

    Raises:
        ConfigurationError: If it has no second epoch.
    """
    epochs = _epochs(rows, args)
    if epochs <= 1:
        given = f"max_steps is {args.max_steps}, which is {epochs:.2g} epochs"
        if args.max_steps <= 0:
            given = f"num_train_epochs is {epochs:g}"
        raise ConfigurationError(
            f"{given}: a curriculum takes rows in from epoch to epoch, so a single one would never see most of them. "
            "Train for at least two epochs."
        )


def _epochs(rows: int, args: TrainingArguments) -> float:
    return args.max_steps * _rows_of_a_step(args) / rows if args.max_steps > 0 else args.num_train_epochs


def _rows_of_a_step(args: TrainingArguments) -> int:
    return args.train_batch_size * args.world_size * args.gradient_accumulation_steps


def _resolved(scheduler: CurriculumScheduler, rows: int, args: TrainingArguments) -> CurriculumScheduler:
    """With half of the training in place of epochs that are left open."""
    if scheduler.num_epochs is not None:
        return scheduler
    return CurriculumScheduler(
        scheduler.initial_difficulty,
        scheduler.final_difficulty,
        max(1.0, _epochs(rows, args) / 2),
        scheduler.pacing,
    )


@dataclass
class CurriculumArguments:
    """Curriculum learning: easy rows first."""

    _argument_group_name = "curriculum"

    curriculum: str | None = field(
        default=None,
        metadata={
            "help": "What makes a row difficult: length, rarity, cross_review (the loss of models that were not "
            "trained on it), cartography (how sure a model is of its label while it trains) or a column of numbers."
        },
    )
    curriculum_mode: Literal["curriculum", "anti", "random", "none"] = field(
        default="curriculum",
        metadata={"help": "Rows that come first: curriculum the easiest, anti the hardest, random any; none: all."},
    )
    curriculum_pacing: Literal["linear", "root", "log", "exp", "step"] = field(
        default="linear", metadata={"help": "How the share of the rows grows."}
    )
    curriculum_initial_difficulty: float = field(
        default=0.3, metadata={"help": "Share of the rows, from the easiest on, that the first epoch draws from."}
    )
    curriculum_final_difficulty: float = field(
        default=1.0, metadata={"help": "Share in the end; below 1 the hardest rows are never used."}
    )
    curriculum_epochs: float | None = field(
        default=None, metadata={"help": "Epochs until that share is reached; by default half of the training."}
    )
    curriculum_within_label: bool = field(
        default=True, metadata={"help": "Take the share of each label's rows instead of all rows."}
    )

    def __post_init__(self):
        fields = type(self).__dataclass_fields__
        given = [name for name in fields if name != "curriculum" and getattr(self, name) != fields[name].default]
        if self.curriculum is None:
            if given:
                raise ConfigurationError(
                    f"{', '.join(given)}: no effect without a difficulty; pass --curriculum length, rarity, "
                    "cross_review, cartography or the name of a column."
                )
            return
        if not isinstance(self.curriculum, str) or not self.curriculum:
            raise ConfigurationError(f"curriculum is {self.curriculum!r}; it must be the name of a scorer or a column.")
        if self.curriculum_mode not in MODES:
            raise ConfigurationError(
                f"curriculum_mode is {self.curriculum_mode!r}; it must be one of {', '.join(MODES)}."
                f"{nearest(str(self.curriculum_mode), MODES)}"
            )
        epochs = self.curriculum_epochs
        if epochs is not None and not epochs >= 1:
            raise ConfigurationError(f"curriculum_epochs is {epochs}; it must be at least 1, or left out.")
        try:
            self._scheduler()
        except ConfigurationError as error:
            # It begins with the name of an argument of the scheduler.
            raise ConfigurationError(f"curriculum_{error}") from None

    @property
    def needs_scores(self) -> bool:
        """Whether the difficulty takes training runs, whose scores [`~CurriculumArguments.callbacks`] wants."""
        return self.curriculum in TRAINED_SCORERS

    def number_columns(self) -> tuple[str, ...]:
        """The column of the training data that holds the difficulty, if one does."""
        found = self.curriculum in (None, *SCORERS, *TRAINED_SCORERS)
        return () if found else (self.curriculum,)

    def callbacks(self, scores: np.ndarray | None = None) -> list[TrainerCallback]:
        """
        The callback, if a curriculum is asked for.

        Args:
            scores (`np.ndarray` of shape (rows,), *optional*): The difficulty of each training row, from
                [`cross_review_scores`] or [`cartography_scores`], where `needs_scores`.
        """
        if self.curriculum is None:
            return []
        if self.needs_scores != (scores is not None):
            raise ConfigurationError(
                f"curriculum={self.curriculum} "
                + ("needs the scores of its training runs." if self.needs_scores else "finds its scores itself.")
            )
        difficulty = self.curriculum if scores is None else scores
        return [CurriculumCallback(difficulty, self._scheduler(), self.curriculum_mode, self.curriculum_within_label)]

    def _scheduler(self) -> CurriculumScheduler:
        return CurriculumScheduler(
            self.curriculum_initial_difficulty,
            self.curriculum_final_difficulty,
            self.curriculum_epochs,
            self.curriculum_pacing,
        )
