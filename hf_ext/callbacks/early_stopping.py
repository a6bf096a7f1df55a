"""Stop training when a metric no longer gains enough."""

import logging
import math
from dataclasses import dataclass, field
from numbers import Real
from typing import Literal

import torch
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from hf_ext.callbacks.base import ExtensionCallback
from hf_ext.errors import ConfigurationError, nearest
from hf_ext.evaluation.metrics import LESS_IS_BETTER
from hf_ext.finite import is_finite_number

logger = logging.getLogger(__name__)

THRESHOLD_MODES = ("absolute", "relative")
PATIENCE = 3


def update_reference(
    reference: float | None, value: float, threshold: float, mode: str, greater_is_better: bool
) -> tuple[float, bool]:
    """
    Compare an evaluation with the last one that counted as a gain.

    Args:
        reference (`float` or `None`): The metric at the last gain; `None` before the first evaluation.
        value (`float`): The metric now.
        threshold (`float`): What the gain must exceed.
        mode (`str`): `"absolute"`, or `"relative"` for `threshold * abs(reference)`.
        greater_is_better (`bool`): In which direction the metric improves.

    Returns:
        `tuple[float, bool]`: The new reference, and whether there was a gain.
    """
    if reference is None:
        return value, True
    gain = value - reference if greater_is_better else reference - value
    needed = threshold * abs(reference) if mode == "relative" else threshold
    return (value, True) if gain > needed else (reference, False)


class EarlyStoppingThresholdCallback(ExtensionCallback):
    """
    Stop training when a metric has not gained enough for some evaluations, has reached a target, or diverges.

    The reference moves only when the gain over it exceeds the threshold, so slow gains add up until they count.
    (`transformers.EarlyStoppingCallback` compares with the best value, which every small improvement moves.) An
    evaluation counts if the Trainer itself makes it after a step or an epoch; `evaluate()` called by hand does not.
    The state is kept in checkpoints, so a resumed run stops where it would have stopped. (Resumed from the checkpoint
    of the stop itself, it makes one more step: the Trainer looks only after a step.)

    The last weights stay in the model. For the best ones set `load_best_model_at_end=True` in
    [`~transformers.TrainingArguments`].

    A fresh run begins with one evaluation, which shows whether the metric exists. It changes neither the counts nor
    the random numbers of the training. A hyperparameter search, which could prune a trial by it, goes without.

    The idea is that of Prechelt 1998, "Early Stopping - But When?"; `divergence_threshold` is named as in Lightning.

    Args:
        metric (`str`, *optional*):
            What to watch, with or without `eval_` in front: `"loss"`, `"eval_accuracy"`, with several evaluation sets
            `"eval_<set>_accuracy"`. By default `args.metric_for_best_model`, else `"eval_loss"`.
        patience (`int` or `None`, *optional*, defaults to `3`):
            Stop after this many evaluations in a row without a gain; `None` never stops for that.
        threshold (`float`, *optional*, defaults to `0.0`):
            What a gain must exceed.
        threshold_mode (`str`, *optional*, defaults to `"absolute"`):
            `"absolute"`: in units of the metric; `"relative"`: as a share of the reference.
        target (`float`, *optional*):
            Stop as soon as the metric is at least this good.
        min_epochs (`float`, *optional*, defaults to `0`):
            No stop for patience or target before this many epochs; evaluations before it count all the same.
        divergence_threshold (`float`, *optional*):
            Stop at once, whatever `min_epochs` is, when the metric is worse than this. A value that is not finite
            always stops the run. (With `logging_nan_inf_filter`, the Trainer's default, `eval_loss` is finite as long
            as that of one row is.)
        greater_is_better (`bool`, *optional*):
            In which direction the metric improves. By default `args.greater_is_better` if the metric is
            `args.metric_for_best_model`, else `False` for losses, ece, mse, rmse and mae, and `True` for others.

    Attributes:
        stopped (`str` or `None`): Why and at which step the run was stopped.

    Raises:
        ConfigurationError: If an argument is out of range; when training begins, if the run does not evaluate, if
            another such callback watches the metric, or if `target` is not better than `divergence_threshold`;
            before the first step, if no evaluation yields the metric.
    """

    works_on_plain_trainer = True

    def __init__(
        self,
        metric: str | None = None,
        patience: int | None = PATIENCE,
        threshold: float = 0.0,
        threshold_mode: Literal["absolute", "relative"] = "absolute",
        target: float | None = None,
        min_epochs: float = 0.0,
        divergence_threshold: float | None = None,
        greater_is_better: bool | None = None,
    ):
        if patience is not None and (not isinstance(patience, int) or isinstance(patience, bool) or patience < 1):
            raise ConfigurationError(
                f"patience is {patience!r}; it must be a whole number of at least 1, or None to never stop for it."
            )
        for name, value in {"threshold": threshold, "min_epochs": min_epochs}.items():
            if not is_finite_number(value) or value < 0:
                raise ConfigurationError(f"{name} is {value!r}; it must be a finite number of at least 0.")
        for name, value in {"target": target, "divergence_threshold": divergence_threshold}.items():
            if value is not None and not is_finite_number(value):
                raise ConfigurationError(f"{name} is {value!r}; it must be a finite number, or left out.")
        if threshold_mode not in THRESHOLD_MODES:
            raise ConfigurationError(
                f"threshold_mode is {threshold_mode!r}; it must be one of {', '.join(THRESHOLD_MODES)}."
            )
        if threshold_mode == "relative" and threshold == 0:
            raise ConfigurationError("threshold_mode='relative' has no effect with threshold=0; give a threshold.")
        if threshold > 0 and patience is None:
            raise ConfigurationError(f"threshold={threshold} has no effect with patience=None; give a patience.")
        if min_epochs > 0 and patience is None and target is None:
            raise ConfigurationError(
                f"min_epochs={min_epochs} holds back patience and target only; give one of them, or leave it out."
            )
        self.metric, self.patience, self.threshold, self.threshold_mode = metric, patience, threshold, threshold_mode
        self.target, self.min_epochs, self.divergence_threshold = target, min_epochs, divergence_threshold
        self.greater_is_better = greater_is_better
        self.stopped = None
        self._name, self._progress = None, {}
        self._names, self._found, self._counting = set(), False, False

    # ---- Before the first step ----

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        if args.eval_strategy == "no":
            raise ConfigurationError(
                "Early stopping needs evaluations during training, but eval_strategy is 'no'. Set it to 'epoch' or "
                "'steps', or take the callback out."
            )
        self._name = _full_name(self.metric or args.metric_for_best_model or "loss")
        self._greater = self._direction(args)
        self._check_sides()
        # Not a class name, by which the Trainer would take it for a callback's arguments to build it anew from.
        key = f"hf_ext.{type(self).__name__}/{self._name}"
        if state.global_step == 0 and key in state.stateful_callbacks:
            raise ConfigurationError(
                f"Two early stopping callbacks watch {self._name}. Take one out, or let it watch another metric."
            )
        # The dict is the one that checkpoints are written from and that a resumed run has read.
        empty = {"reference": None, "evaluations_without_gain": 0, "step": None, "value": None}
        self._progress = state.stateful_callbacks.setdefault(key, empty)
        self.stopped = None
        self._names, self._found, self._counting = set(), self._progress["step"] is not None, False
        if self._found and self._progress["step"] == state.global_step:
            self._stop_if_due(state, control)
        self._random_state = None
        if state.global_step == 0 and not args.eval_on_start and not state.is_hyper_param_search:
            # The Trainer looks at it right after this event.
            args.eval_on_start = True
            self._random_state = torch.get_rng_state()

    def _direction(self, args) -> bool:
        if self.greater_is_better is not None:
            return self.greater_is_better
        less = self._name.endswith("loss") or self._name.rsplit("_", 1)[-1] in LESS_IS_BETTER
        best = args.metric_for_best_model
        if best is None or _full_name(best) != self._name or args.greater_is_better is None:
            return not less
        if less and args.greater_is_better and not self._name.endswith("loss"):
            raise ConfigurationError(
                f"metric_for_best_model={best} with greater_is_better=True, which TrainingArguments assumes for every "
                "name that does not end in 'loss'. Pass greater_is_better=False to TrainingArguments."
            )
        return args.greater_is_better

    def _check_sides(self) -> None:
        if self.target is None or self.divergence_threshold is None:
            return
        if (self.target > self.divergence_threshold) != self._greater or self.target == self.divergence_threshold:
            raise ConfigurationError(
                f"target={self.target} must be better than divergence_threshold={self.divergence_threshold}, but "
                f"{'greater' if self._greater else 'less'} is better for {self._name}. Exchange or correct them, or "
                "set greater_is_better."
            )

    # ---- Evaluations ----

    def on_epoch_begin(self, args, state, control, **kwargs):
        if self._random_state is not None:
            # A data loader draws a seed: without this, the run would go another way than without the callback.
            torch.set_rng_state(self._random_state)
            args.eval_on_start, self._random_state = False, None
        self._end_round()

    def on_step_begin(self, args, state, control, **kwargs):
        self._end_round()

    def on_step_end(self, args, state, control, **kwargs):
        self._counting = True

    on_epoch_end = on_step_end

    def on_train_end(self, args, state, control, **kwargs):
        self._counting = False

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        numbers = {
            name: float(value)
            for name, value in metrics.items()
            if name.startswith("eval_") and isinstance(value, Real) and not isinstance(value, bool)
        }
        self._names.update(numbers)
        # All processes have to decide the same.
        (value,) = broadcast_object_list([numbers.get(self._name)])
        if value is None:
            return
        self._found = True
        if not self._counting or self.stopped or self._progress["step"] == state.global_step:
            return
        finite = math.isfinite(value)
        self._progress.update(step=state.global_step, value=value if finite else None)
        if finite:
            reference, gained = update_reference(
                self._progress["reference"], value, self.threshold, self.threshold_mode, self._greater
            )
            without = 0 if gained else self._progress["evaluations_without_gain"] + 1
            self._progress.update(reference=reference, evaluations_without_gain=without)
        self._stop_if_due(state, control)

    def _end_round(self) -> None:
        self._counting = False
        if self._names and not self._found:
            raise ConfigurationError(
                f"Early stopping watches {self._name!r}, which is not among the numbers that an evaluation yields."
                f"{nearest(self._name, self._names)} Valid: {', '.join(sorted(self._names))}."
            )

    def _stop_if_due(self, state, control) -> None:
        reason = self._reason(state.epoch)
        if reason is not None:
            self.stopped = f"{reason} (step {state.global_step})"
            control.should_training_stop = True
            logger.info("Early stopping: %s.", self.stopped)

    def _reason(self, epoch: float) -> str | None:
        """Why to stop after the last evaluation that counted."""
        value, count = self._progress["value"], self._progress["evaluations_without_gain"]
        if value is None:
            return f"{self._name} is not finite"
        sign = 1 if self._greater else -1
        limit = self.divergence_threshold
        if limit is not None and sign * value < sign * limit:
            return f"{self._name} is {value:.6g}, worse than the divergence_threshold of {limit:.6g}"
        if epoch < self.min_epochs:
            return None
        if self.target is not None and sign * value >= sign * self.target:
            return f"{self._name} is {value:.6g} and has reached the target of {self.target:.6g}"
        if self.patience is not None and count >= self.patience:
            relative = " (relative)" if self.threshold_mode == "relative" else ""
            return (
                f"{self._name} did not gain more than {self.threshold:.6g}{relative} over "
                f"{self._progress['reference']:.6g} in {count} evaluation{'s' if count > 1 else ''}"
            )
        return None

    def metrics(self) -> dict[str, float]:
        names = [name for name in ("reference", "evaluations_without_gain") if self._progress.get(name) is not None]
        return {f"early_stopping/{self._name}/{name}": self._progress[name] for name in names}


def _full_name(metric: str) -> str:
    return metric if metric.startswith("eval_") else f"eval_{metric}"


@dataclass
class EarlyStoppingArguments:
    """
    When to stop before the last epoch. On if `early_stopping_patience`, `early_stopping_threshold`,
    `early_stopping_target` or `early_stopping_divergence_threshold` is given.

    Raises:
        ConfigurationError: If a value is out of range or could have no effect.
    """

    _argument_group_name = "early stopping"

    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": f"Evaluations without a gain; {PATIENCE} if only early_stopping_threshold is given."},
    )
    early_stopping_threshold: float | None = field(
        default=None, metadata={"help": "What a gain must exceed, else 0: every improvement counts."}
    )
    early_stopping_threshold_mode: Literal["absolute", "relative"] = field(
        default="absolute",
        metadata={"help": "Whether the threshold is in units of the metric or a share of the value to improve on."},
    )
    early_stopping_metric: str | None = field(
        default=None, metadata={"help": "The metric to watch; by default metric_for_best_model, else eval_loss."}
    )
    early_stopping_target: float | None = field(
        default=None, metadata={"help": "Stop as soon as the metric is at least this good."}
    )
    early_stopping_min_epochs: float = field(
        default=0.0, metadata={"help": "No stop for patience or target before this many epochs."}
    )
    early_stopping_divergence_threshold: float | None = field(
        default=None, metadata={"help": "Stop at once when the metric is worse than this."}
    )

    def __post_init__(self):
        if self.callbacks():
            return
        settings = {
            "early_stopping_threshold_mode": self.early_stopping_threshold_mode != "absolute",
            "early_stopping_metric": self.early_stopping_metric is not None,
            "early_stopping_min_epochs": self.early_stopping_min_epochs != 0,
        }
        given = [name for name, is_given in settings.items() if is_given]
        if given:
            raise ConfigurationError(
                f"{', '.join(given)}: no effect without early_stopping_patience, early_stopping_threshold, "
                "early_stopping_target or early_stopping_divergence_threshold. Give one of these."
            )

    def callbacks(self) -> list[TrainerCallback]:
        """What to pass to the Trainer: one [`EarlyStoppingThresholdCallback`], or nothing if none was asked for."""
        patience, threshold = self.early_stopping_patience, self.early_stopping_threshold
        limits = (self.early_stopping_target, self.early_stopping_divergence_threshold)
        if all(value is None for value in (patience, threshold, *limits)):
            return []
        return [
            EarlyStoppingThresholdCallback(
                metric=self.early_stopping_metric,
                patience=PATIENCE if patience is None and threshold is not None else patience,
                threshold=0.0 if threshold is None else threshold,
                threshold_mode=self.early_stopping_threshold_mode,
                target=self.early_stopping_target,
                min_epochs=self.early_stopping_min_epochs,
                divergence_threshold=self.early_stopping_divergence_threshold,
            )
        ]
