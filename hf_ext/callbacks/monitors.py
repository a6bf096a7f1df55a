"""What watches a training: gradients by layer group, and hints where the curves ask for them."""

import logging
import math
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import IntervalStrategy

from hf_ext.callbacks.base import ExtensionCallback, steps_per_epoch
from hf_ext.errors import ConfigurationError
from hf_ext.inspection import gradient_norms, gradient_table, is_dead, is_exploding

logger = logging.getLogger(__name__)

# Logs in a row after which a group without any gradient is called dead, or a norm can be called exploding.
PATIENCE = 3
EXPLODING_FACTOR = 100.0
WAITING = "performance/data_loading_share"
# Of the time; above it a run waits for its data.
LOADER_BOUND = 0.2
# A gain below this share of the value is none.
SMALLEST_GAIN = 0.005


@dataclass
class MonitorArguments:
    """What watches the training."""

    _argument_group_name = "monitors"

    monitor_gradients: bool = field(
        default=True, metadata={"help": "Log the gradient norm of each layer group; warn of dead and exploding ones."}
    )
    gradient_table: bool = field(
        default=False, metadata={"help": "Print the gradient of each parameter in the first step."}
    )
    training_hints: bool = field(
        default=True, metadata={"help": "Say when the curves look like overfitting, a plateau or a slow loader."}
    )

    def callbacks(self) -> list[TrainerCallback]:
        """The callbacks that are asked for."""
        callbacks: list[TrainerCallback] = []
        if self.monitor_gradients or self.gradient_table:
            callbacks.append(GradientMonitorCallback(self.monitor_gradients, self.gradient_table))
        return callbacks + ([TrainingHintsCallback()] if self.training_hints else [])


class GradientMonitorCallback(ExtensionCallback):
    """
    Logs the gradient norm of each layer group (`grad_norm/<group>`), as the optimizer gets it: after clipping.

    A group whose gradient is 0 in every log, and one whose norm leaps, is said once. On a plain
    `transformers.Trainer` these warnings work; the norms reach its logs with [`ExtendedTrainer`] only.

    Args:
        norms (`bool`, *optional*, defaults to `True`): Whether to log the norms, in the steps that are logged.
        table (`bool`, *optional*, defaults to `False`): Whether to print [`gradient_table`] in the first step.
        patience (`int`, *optional*, defaults to 3): Logs in a row that make a group dead.
        exploding_factor (`float`, *optional*, defaults to 100): Times its median so far that make a norm exploding.

    Attributes:
        warnings (`list[str]`): What was said.

    Raises:
        ConfigurationError: If an argument is out of range.
    """

    works_on_plain_trainer = True

    def __init__(
        self,
        norms: bool = True,
        table: bool = False,
        patience: int = PATIENCE,
        exploding_factor: float = EXPLODING_FACTOR,
    ):
        if patience < 1:
            raise ConfigurationError(f"patience is {patience!r}; it must be at least 1.")
        if not exploding_factor > 1:
            raise ConfigurationError(f"exploding_factor is {exploding_factor!r}; it must be above 1.")
        self.norms, self.table, self.patience, self.exploding_factor = norms, table, patience, exploding_factor
        self.warnings: list[str] = []
        self._last: dict[str, float] = {}
        self._seen: dict[str, list[float]] = defaultdict(list)

    def on_pre_optimizer_step(self, args, state, control, model=None, train_dataloader=None, **kwargs):
        step = state.global_step + 1
        if self.table and step == 1 and state.is_world_process_zero:
            print(gradient_table(_unwrapped(model)), flush=True)
        if self.norms and is_logged(step, args, state, steps_per_epoch(train_dataloader, args)):
            self._last = gradient_norms(_unwrapped(model))
            for group, norm in self._last.items():
                self._watch(group, norm, step)

    def _watch(self, group: str, norm: float, step: int) -> None:
        seen = self._seen[group]
        seen.append(norm)
        if len(seen) == self.patience and is_dead(seen):
            self._say(
                f"No gradient reaches {group}: its norm was 0 in {self.patience} logs, until step {step}. Check that "
                "its outputs are used, and that its activations have not died (a lower learning rate)."
            )
        if len(seen) > self.patience and math.isfinite(norm) and is_exploding(seen, self.exploding_factor):
            self._say(
                f"The gradient of {group} explodes: its norm in step {step} is {norm:.3g}, more than "
                f"{self.exploding_factor:g} times its median before. Lower the learning rate, or clip (max_grad_norm)."
            )

    def _say(self, text: str) -> None:
        if text.partition(":")[0] not in {said.partition(":")[0] for said in self.warnings}:
            self.warnings.append(text)
            logger.warning(text)

    def metrics(self) -> dict[str, float]:
        norms, self._last = self._last, {}
        return {f"grad_norm/{group}": norm for group, norm in norms.items()}


class TrainingHintsCallback(TrainerCallback):
    """
    Says what the curves look like: overfitting, a plateau, a loader that is too slow. Each is said once.

    Attributes:
        hints (`list[str]`): What was said.
    """

    def __init__(self):
        self.hints: list[str] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self._say(training_hints(state.log_history), state)

    def _say(self, hints: dict[str, str], state) -> None:
        for kind, hint in hints.items():
            if not any(said.startswith(kind) for said in self.hints):
                self.hints.append(f"{kind}: {hint}")
                if state.is_world_process_zero:
                    logger.warning("%s (step %d): %s", kind, state.global_step, hint)


def training_hints(history: list[dict[str, Any]], patience: int = PATIENCE) -> dict[str, str]:
    """
    What a training's logs look like, and what may help.

    Args:
        history (`list[dict]`): `trainer.state.log_history`.
        patience (`int`, *optional*, defaults to 3): Evaluations, or logs, in a row that make a trend.

    Returns:
        `dict[str, str]`: Of `"Overfitting"` (the loss on validation has risen in each of the last evaluations while
        that of training fell), `"Plateau"` (neither has gained in them), `"Loader-bound"` (training has waited for
        its data in each of the last logs): those that are seen, with advice.
    """
    hints = {}
    evaluated = [entry for entry in history if "eval_loss" in entry]
    if len(evaluated) > patience:
        last = evaluated[-patience - 1 :]
        losses = [entry["eval_loss"] for entry in last]
        trained = [_training_loss(history, entry["step"]) for entry in (last[0], last[-1])]
        rises = all(later > earlier for earlier, later in pairwise(losses))
        known = None not in trained
        if rises and known and trained[1] < trained[0]:
            hints["Overfitting"] = (
                f"the training loss decreases ({trained[0]:.4f} to {trained[1]:.4f}) but the validation loss increases "
                f"({losses[0]:.4f} to {losses[-1]:.4f}). Increase regularization (dropout, weight decay), reduce model "
                "complexity, use early stopping, add more training data."
            )
        elif known and not _gains(losses) and not _gains(trained):
            hints["Plateau"] = (
                f"neither the training loss ({trained[1]:.4f}) nor the validation loss ({losses[-1]:.4f}) has "
                f"decreased over {patience} evaluations. Adjust the learning rate (a finder: --learning_rate auto), "
                "use a schedule, check the gradient flow and the data."
            )
    shares = [entry[WAITING] for entry in history if WAITING in entry][-patience:]
    if len(shares) == patience and min(shares) > LOADER_BOUND:
        hints["Loader-bound"] = (
            f"{100 * min(shares):.0f} % of the time or more goes into waiting for data: raise dataloader_num_workers."
        )
    return hints


def is_logged(step: int, args: Any, state: Any, an_epoch: int | None) -> bool:
    """Whether the Trainer logs after this step; `an_epoch`: steps of an epoch, if they are known."""
    if step == 1 and args.logging_first_step:
        return True
    if args.logging_strategy == IntervalStrategy.EPOCH:
        return step == state.max_steps or (an_epoch is not None and step % an_epoch == 0)
    return args.logging_strategy == IntervalStrategy.STEPS and step % state.logging_steps == 0


def _training_loss(history: list[dict[str, Any]], step: int) -> float | None:
    """The last one that was logged until a step."""
    losses = [entry["loss"] for entry in history if "loss" in entry and entry["step"] <= step]
    return losses[-1] if losses else None


def _gains(losses: list[float]) -> bool:
    return losses[0] - min(losses[1:]) > SMALLEST_GAIN * abs(losses[0])


def _unwrapped(model: Any) -> Any:
    return getattr(model, "module", model)
