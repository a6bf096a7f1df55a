"""A training that goes as far as its first step: whatever is wrong with its settings has been found by then."""

from contextlib import suppress

from transformers import TrainerCallback

from hf_ext.trainers.base import ExtendedTrainer


def begin_training(trainer: ExtendedTrainer) -> None:
    """
    Go as far as to the first step of a training, and no further.

    Args:
        trainer ([`ExtendedTrainer`]): Of no use afterwards.

    Raises:
        UsageError: With what a technique or the trainer says.
    """
    trainer.add_callback(_Curtain())
    with suppress(_CurtainFalls):
        trainer.train()


# ---- Inside ----


class _CurtainFalls(Exception):
    """Nothing is wrong so far."""


class _Curtain(TrainerCallback):
    """The last callback: the others have begun."""

    def on_train_begin(self, args, state, control, **kwargs):
        raise _CurtainFalls
