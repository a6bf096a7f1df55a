"""PruningCallback: ends the training of a trial that does worse than others did at the same point."""

import math
from typing import Any

from transformers import TrainerCallback

from hf_ext.errors import UsageError


class PruningCallback(TrainerCallback):
    """
    Tells Optuna the loss of every evaluation, and ends the training if the study's pruner says so.

    The training is stopped as by early stopping, so that every other callback and the trackers end as they should; then
    `optuna.TrialPruned` is raised out of `trainer.train()`. Has to be the last callback. Works on any Trainer, on one
    process.

    Args:
        trial (`optuna.Trial`):
            The running trial. Of a study that maximizes, the pruner gets the loss with the opposite sign.
        metric (`str`, *optional*, defaults to `"eval_loss"`):
            What is compared, less being better. Evaluations are counted 1, 2, ...: trials are compared at the same
            count.

    Raises:
        ConfigurationError: When training begins, if the run does not evaluate.
        UsageError: Out of `trainer.train()`, if the loss is not finite.

    Example:

    ```python
    >>> def objective(trial):
    ...     args.learning_rate = trial.suggest_float("learning_rate", 1e-5, 1e-3, log=True)
    ...     trainer = ExtendedTrainer(model=make_model(), args=args, ..., callbacks=[PruningCallback(trial)])
    ...     trainer.train()
    ...     return trainer.evaluate()["eval_accuracy"]
    ```
    """

    def __init__(self, trial: Any, metric: str = "eval_loss"):
        self.trial, self.metric = trial, metric
        self._evaluations, self._training, self._step, self._ending = 0, False, 0, None

    def on_train_begin(self, args, state, control, **kwargs):
        if args.eval_strategy == "no":
            raise UsageError(
                "Pruning compares evaluations during training, but eval_strategy is 'no'. Set it to 'epoch' or "
                "'steps', or prune nothing."
            )
        self._evaluations, self._training, self._step, self._ending = 0, True, state.global_step, None

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        # Neither what is evaluated before the first step nor what is evaluated after training counts.
        if not self._training or state.global_step == self._step or self.metric not in metrics:
            return
        self._step, self._evaluations = state.global_step, self._evaluations + 1
        loss = float(metrics[self.metric])
        if not math.isfinite(loss):
            self._ending = UsageError(f"{self.metric} is {loss} at step {self._step}: training has diverged.")
            control.should_training_stop = True
            return
        maximizes = self.trial.study.direction.name == "MAXIMIZE"
        self.trial.report(-loss if maximizes else loss, self._evaluations)
        if self.trial.should_prune():
            from optuna import TrialPruned

            self._ending = TrialPruned(f"{self.metric} was {loss:.6g} at evaluation {self._evaluations}.")
            control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs):
        self._training = False
        if self._ending is not None:
            raise self._ending
