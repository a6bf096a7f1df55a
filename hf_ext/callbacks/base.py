"""The base of every technique that must also shape the optimizer, the sampler or the logs."""

from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainingArguments

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

    def learning_rate_scales(self, groups: dict[str, list[str]], args: TrainingArguments) -> dict[str, float] | None:
        """
        Multipliers of the learning rate.

        Args:
            groups (`dict[str, list[str]]`): Layer groups in order from the input to the head, each with the names of
                its parameters (see [`layer_groups`]).
            args ([`~transformers.TrainingArguments`]): The run's arguments.

        Returns:
            `dict[str, float]`, one multiplier a group, or `None` for no opinion.
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

    def on_train_begin(self, args, state, control, **kwargs):
        answered = [question for question in QUESTIONS if self.answers(question)]
        if answered and not self.asked:
            raise RuntimeError(
                f"{type(self).__name__} answers {', '.join(answered)}, which a plain transformers.Trainer never asks, "
                "so it would do nothing. Use hf_ext.ExtendedTrainer (or a subclass of it) in place of Trainer."
            )
