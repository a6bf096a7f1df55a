"""Trainers whose loss or memory fails for one row, for the contract tests."""

import math
from dataclasses import dataclass

import torch
from runs import VOCABULARY, Case, make_rows
from transformers import TrainerCallback

from hf_ext import ExtendedTrainer

MARK = VOCABULARY - 1


class AilingTrainer(ExtendedTrainer):
    """
    The loss of a batch with the marked row (or after `at_step` steps) is NaN, as long as the learning rate is above
    `heals_below`.
    """

    heals_below = 0.0
    at_step = None

    def batch_loss(self, model, inputs):
        loss, outputs = super().batch_loss(model, inputs)
        rate = self.optimizer.param_groups[0]["lr"] if self.optimizer is not None else 1.0
        ails = (inputs["input_ids"] == MARK).any() if self.at_step is None else self.state.global_step == self.at_step
        if model.training and ails and rate >= self.heals_below:
            loss = loss * math.nan
        return loss, outputs


@dataclass(frozen=True)
class Ailing:
    """`settings` of a [`Case`] whose row `row` is bad."""

    row: int = 20
    heals_below: float = 0.0
    nonfinite: str = "skip"
    nonfinite_budget: int = 10
    at_step: int | None = None

    def __call__(self, case: Case) -> dict:
        rows = make_rows(case)
        rows[self.row] = {**rows[self.row], "input_ids": [MARK, *rows[self.row]["input_ids"]]}
        own = type("Own", (AilingTrainer,), {"heals_below": self.heals_below, "at_step": self.at_step})
        return {
            "trainer_class": own,
            "train_dataset": rows,
            "nonfinite": self.nonfinite,
            "nonfinite_budget": self.nonfinite_budget,
        }


@dataclass(frozen=True)
class Marked:
    """The same rows, none of them bad."""

    row: int = 20

    def __call__(self, case: Case) -> dict:
        return {"train_dataset": Ailing(self.row)(case)["train_dataset"]}


class LeavesOutStepsTwoAndFour(TrainerCallback):
    """The reference of skipped steps: gradients that are there, and are thrown away."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step + 1 in (2, 4):
            model.zero_grad()


class CrampedTrainer(ExtendedTrainer):
    """There is no memory for more than `fitting` rows at a time, from a step on."""

    fitting, from_step = 1000, 0

    def batch_loss(self, model, inputs):
        loss, outputs = super().batch_loss(model, inputs)
        if model.training and len(inputs["labels"]) > self.fitting and self.state.global_step >= self.from_step:
            raise torch.OutOfMemoryError("Tried to allocate more than there is")
        return loss, outputs


@dataclass(frozen=True)
class Cramped:
    """`settings` of a [`Case`] with too little memory."""

    fitting: int
    from_step: int = 0

    def __call__(self, case: Case) -> dict:
        own = type("Own", (CrampedTrainer,), {"fitting": self.fitting, "from_step": self.from_step})
        return {"trainer_class": own}
