"""The base of every technique that must also shape the optimizer, the sampler or the logs."""

import math
from typing import Any

from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerState, TrainingArguments

from hf_ext.errors import ConfigurationError

QUESTIONS = ("learning_rate_scales", "train_sampler", "metrics")


class ExtensionCallback(TrainerCallback):
    """
    A `TrainerCallback` that [`ExtendedTrainer`] asks up to three more questions.

    A subclass overrides the questions it answers. It keeps no trainer, sampler or other callback: what it does is a
    function of `state.global_step` or of (seed, epoch, position), so that a resumed run does the same.

    On a plain `transformers.Trainer` nobody asks; a callback that answers a question then raises when training begins
    instead of silently doing nothing.
    """

    asked = False
    # Whether the technique does its work through the Trainer's events alone, so that only its metrics need the asking.
    works_on_plain_trainer = False
    # Whether parameters are frozen for a time: DDP has to look for those without a gradient.
    freezes_parameters = False

    def learning_rate_scales(self, groups: dict[str, list[str]], args: TrainingArguments) -> dict[str, float] | None:
        """
        Multipliers of the learning rate.

        The optimizer's groups are made once, for all parameters that are trainable then: they hold through every
        schedule and through a resume.

        Args:
            groups (`dict[str, list[str]]`): Layer groups in order from the input to the head, each with the names of
                its parameters (see [`layer_groups`]).
            args ([`~transformers.TrainingArguments`]): The run's arguments.

        Returns:
            `dict[str, float]`, one multiplier a group, and one for each parameter (by name) that is to have another
            than its group; or `None` for no opinion.
        """
        return None

    def train_sampler(self, dataset, args: TrainingArguments) -> Sampler | None:
        """
        The order of the training rows.

        Args:
            dataset: The training data with all of its columns.
            args ([`~transformers.TrainingArguments`]): The run's arguments.

        Returns:
            A `torch.utils.data.Sampler` of constant length whose order is a function of the epoch that `set_epoch`
            tells it, the same on every rank; or `None` for no opinion.
        """
        return None

    def metrics(self) -> dict[str, float]:
        """Numbers for the next log: they reach `state.log_history` and every tracker."""
        return {}

    @classmethod
    def answers(cls, question: str) -> bool:
        """Whether this class overrides `question`."""
        return getattr(cls, question) is not getattr(ExtensionCallback, question)

    def release(self) -> None:
        """Leave the model as it was; [`ExtendedTrainer`] calls it when training has ended, also by an exception."""

    def on_train_begin(self, args, state, control, **kwargs):
        if self.asked or self.works_on_plain_trainer:
            return
        answered = [question for question in QUESTIONS if self.answers(question)]
        if answered:
            raise RuntimeError(
                f"{type(self).__name__} answers {', '.join(answered)}, which a plain transformers.Trainer never asks, "
                "so it would do nothing. Use hf_ext.ExtendedTrainer (or a subclass of it) in place of Trainer."
            )


def steps_per_epoch(train_dataloader: Any, args: TrainingArguments) -> int | None:
    """
    The optimizer steps of an epoch.

    Args:
        train_dataloader (`Any`): As the Trainer hands it to its callbacks.
        args ([`~transformers.TrainingArguments`]): `gradient_accumulation_steps`.

    Returns:
        `int`, or `None` for a stream, whose length is not known.
    """
    try:
        batches = len(train_dataloader)
    except TypeError:
        return None
    return max(1, math.ceil(batches / args.gradient_accumulation_steps))


def require_unchanged(
    state: TrainerState, key: str, settings: dict, allow_change: bool = False, force: str = ""
) -> None:
    """
    Keep a technique's settings in the checkpoints, and see that a resumed run has those that it began with.

    Args:
        state ([`~transformers.TrainerState`]): The run's state, as `on_train_begin` gets it.
        key (`str`): Under which the settings are kept. Not a class name: those are the Trainer's own, which makes the
            callback anew from them.
        settings (`dict`): JSON-able.
        allow_change (`bool`, *optional*, defaults to `False`): Whether a resumed run may go on with other settings.
        force (`str`, *optional*): What to do to go on all the same.

    Raises:
        ConfigurationError: With the settings of then and of now.
    """
    before = state.stateful_callbacks.get(key, {})
    if state.global_step > 0 and before != settings and not allow_change:
        raise ConfigurationError(
            f"The checkpoint of step {state.global_step} was made with another {key.removeprefix('hf_ext.')}.\n"
            f"  then: {_shown(before, settings)}\n  now:  {_shown(settings, settings)}\n"
            f"Resume with the same settings, or start anew.{' ' + force if force else ''}"
        )
    if settings:
        state.stateful_callbacks[key] = settings


def _shown(settings: dict, order: dict) -> str:
    # A checkpoint's JSON is sorted by name.
    names = [name for name in (*order, *(name for name in settings if name not in order)) if name in settings]
    return ", ".join(f"{name}: {settings[name]}" for name in names) or "none"
