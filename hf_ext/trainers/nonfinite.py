"""A loss or gradient that is not finite: met before the optimizer makes a step of it."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import nn
from transformers import TrainerState

from hf_ext.errors import ConfigurationError, UsageError
from hf_ext.files import write_json
from hf_ext.inspection import gradient_values

logger = logging.getLogger(__name__)

POLICIES = ("raise", "skip", "roll_back")
KEY = "hf_ext.nonfinite"
BUDGET, FACTOR = 10, 0.5
SHOWN_PARAMETERS = 20


@dataclass
class NonFiniteArguments:
    """A loss or gradient that is NaN or infinite, before the optimizer makes a step of it."""

    _argument_group_name = "health"

    nonfinite: Literal["raise", "skip", "roll_back"] = field(
        default="raise",
        metadata={
            "help": "raise: end the run and name the rows; skip: leave the step out; roll_back: go on from the last "
            "checkpoint with a lower learning rate."
        },
    )
    nonfinite_budget: int = field(
        default=BUDGET, metadata={"help": "Steps that may be left out, or rolled back from, before the run ends."}
    )
    roll_back_factor: float = field(
        default=FACTOR, metadata={"help": "The learning rate is multiplied by this at every roll-back."}
    )

    def __post_init__(self):
        NonFiniteGuard(**self.trainer_settings())

    def trainer_settings(self) -> dict[str, Any]:
        """For [`ExtendedTrainer`]."""
        return {
            "nonfinite": self.nonfinite,
            "nonfinite_budget": self.nonfinite_budget,
            "roll_back_factor": self.roll_back_factor,
        }


class NonFiniteError(UsageError):
    """The loss or a gradient is not finite, and the run is not to go on."""


class RollBack(Exception):
    """Ends the Trainer's loop, so that it can begin again from a checkpoint."""


class NonFiniteGuard:
    """
    What [`ExtendedTrainer`] does when a loss or a gradient is not finite.

    Whether one is, all processes find together. What has happened is kept in the checkpoints.

    Args:
        nonfinite (`str`, *optional*, defaults to `"raise"`): `"raise"`, `"skip"` or `"roll_back"`.
        nonfinite_budget (`int`, *optional*, defaults to 10): Steps that may be skipped or rolled back from.
        roll_back_factor (`float`, *optional*, defaults to 0.5): Of the learning rate, at every roll-back; in (0, 1).

    Attributes:
        met (`int`): Steps so far whose loss or gradient was not finite.
        factor (`float`): What the learning rate was multiplied by in all.
        is_watching (`bool`): Off where a loss that is not finite is a result, as in a range test.

    Raises:
        ConfigurationError: If an argument is out of range, or has no effect with the policy.
    """

    def __init__(self, nonfinite: str = "raise", nonfinite_budget: int = BUDGET, roll_back_factor: float = FACTOR):
        if nonfinite not in POLICIES:
            raise ConfigurationError(f"nonfinite is {nonfinite!r}; it must be one of {', '.join(POLICIES)}.")
        if isinstance(nonfinite_budget, bool) or not isinstance(nonfinite_budget, int) or nonfinite_budget < 1:
            raise ConfigurationError(
                f"nonfinite_budget is {nonfinite_budget!r}; it must be a whole number of at least 1. To allow none, "
                "set nonfinite=raise."
            )
        if not 0 < roll_back_factor < 1:
            raise ConfigurationError(f"roll_back_factor is {roll_back_factor!r}; it must lie between 0 and 1.")
        if nonfinite == "raise" and nonfinite_budget != BUDGET:
            raise ConfigurationError(
                f"nonfinite_budget={nonfinite_budget} has no effect with nonfinite=raise; choose skip or roll_back."
            )
        if nonfinite != "roll_back" and roll_back_factor != FACTOR:
            raise ConfigurationError(
                f"roll_back_factor={roll_back_factor} has no effect with nonfinite={nonfinite}; choose roll_back."
            )
        self.policy, self.budget, self.step_factor = nonfinite, nonfinite_budget, roll_back_factor
        self.met, self.factor, self.is_watching = 0, 1.0, True
        self.losses: list[torch.Tensor] = []
        self.batches: list[dict] = []

    # ---- A step ----

    def begin(self, batches: list[dict]) -> None:
        """An update begins, of these micro-batches."""
        self.losses, self.batches = [], batches

    def is_met(self, grad_norm: Any, accelerator: Accelerator) -> bool:
        """
        Whether a micro-batch's loss, or the gradient, is not finite on any process.

        Args:
            grad_norm (`torch.Tensor` or `float`): Of the whole gradient, the same on all processes.
            accelerator ([`~accelerate.Accelerator`]): Knows the processes. Under fp16 the gradient's overflow is its
                scaler's own business.
        """
        if not self.is_watching:
            return False
        losses = torch.stack([loss.detach().float() for loss in self.losses]) if self.losses else torch.zeros(1)
        bad = (~torch.isfinite(losses)).any().reshape(1).float()
        if accelerator.num_processes > 1:
            bad = accelerator.reduce(bad.to(accelerator.device))
        scaled = accelerator.scaler is not None and accelerator.scaler.is_enabled()
        return bool(bad.item()) or (not scaled and not math.isfinite(float(grad_norm)))

    def meet(self, model: nn.Module, state: TrainerState, describe: Callable[[], list[dict]], folder: str) -> None:
        """
        Follow the policy; all processes call this together.

        Args:
            model (`torch.nn.Module`): Whose gradients are dropped if the step is to be left out.
            state ([`~transformers.TrainerState`]): The run's.
            describe (`Callable`): The rows of all processes' batches, for the file that says what happened.
            folder (`str`): Where that file is written by the main process.

        Raises:
            NonFiniteError: By policy, or when the budget is spent.
            RollBack: By policy.
        """
        self.met += 1
        step, rows = state.global_step + 1, describe()
        path = Path(folder) / f"nonfinite_step_{step}.json"
        broken = [
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is not None and not _is_finite(parameter.grad)
        ]
        if state.is_world_process_zero:
            path.parent.mkdir(parents=True, exist_ok=True)
            losses = [float(loss) for loss in self.losses]
            write_json(
                path,
                {
                    "step": step,
                    "epoch": state.epoch,
                    "losses": [loss if math.isfinite(loss) else str(loss) for loss in losses],
                    "gradients": {"count": len(broken), "first": broken[:SHOWN_PARAMETERS]},
                    "rows": rows,
                },
            )
        numbers = [item["row"] + 1 for item in rows if item["row"] is not None]
        among = f" among the rows {', '.join(map(str, numbers[:10]))}{' ...' if len(numbers) > 10 else ''}"
        what = f"In step {step} {self._found(broken)} not finite{among if numbers else ''}; the batch stands in {path}."
        if self.policy == "raise" or self.met > self.budget:
            spent = "" if self.policy == "raise" else f" That is more than nonfinite_budget={self.budget} times."
            raise NonFiniteError(
                f"{what}{spent} The training has diverged, or these rows are damaged; the weights are those of step "
                f"{step - 1}. Lower the learning rate, clip gradients (max_grad_norm), look at the rows, or leave such "
                "steps out (nonfinite=skip)."
            )
        if self.policy == "roll_back":
            self.factor *= self.step_factor
            logger.warning("%s Back to the last checkpoint, with %g of the learning rate.", what, self.factor)
            raise RollBack
        for parameter in model.parameters():
            parameter.grad = None
        self._keep(state)
        logger.warning("%s The step is left out (%d of at most %d).", what, self.met, self.budget)

    def _found(self, broken: list[str]) -> str:
        if not all(_is_finite(loss) for loss in self.losses):
            return "the loss is"
        return f"the gradient of {broken[0]} is" if broken else "the loss of another process is"

    # ---- The run ----

    def metrics(self) -> dict[str, float]:
        """For the next log: nothing as long as nothing has happened."""
        rolled = {"roll_back_learning_rate_factor": self.factor} if self.factor != 1 else {}
        return {"nonfinite_steps": self.met, **rolled} if self.met else {}

    def _keep(self, state: TrainerState) -> None:
        state.stateful_callbacks[KEY] = {"met": self.met, "factor": self.factor}

    def resume(self, state: TrainerState, optimizer: Any, scheduler: Any) -> None:
        """
        After a checkpoint was loaded: go on with its counts, or, rolling back, with a lower rate than it had.

        Args:
            state ([`~transformers.TrainerState`]): The checkpoint's.
            optimizer, scheduler: As they were loaded.
        """
        kept = state.stateful_callbacks.get(KEY, {"met": 0, "factor": 1.0})
        if self.met <= kept["met"]:
            self.met, self.factor = kept["met"], kept["factor"]
        ratio = self.factor / kept["factor"]
        if ratio != 1:
            for group in optimizer.param_groups:
                for name in ("lr", "initial_lr"):
                    if name in group:
                        group[name] *= ratio
            if hasattr(scheduler, "base_lrs"):
                scheduler.base_lrs = [rate * ratio for rate in scheduler.base_lrs]
                scheduler._last_lr = [rate * ratio for rate in scheduler._last_lr]
        if self.met:
            self._keep(state)


def _is_finite(value: torch.Tensor) -> bool:
    return bool(torch.isfinite(gradient_values(value)).all())
