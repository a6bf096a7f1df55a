"""Keeps the losses of several tasks, and what follows from them: weights and logs."""

import math
from collections.abc import Callable, Mapping

import torch

from hf_ext.callbacks.base import ExtensionCallback, require_unchanged
from hf_ext.task_weighting import dynamic_weight_average

SETTINGS, PROGRESS = "hf_ext.multitask_settings", "hf_ext.task_losses"


class TaskLosses(ExtensionCallback):
    """
    The mean loss of each task over an epoch and since the last log, the same on all processes.

    Logs `multitask/<task>_loss`, `multitask/<task>_weight` and `multitask/<task>_share` (of the rows since the last
    log). The sums of the epoch and the weights of `weighting="dwa"` are kept in checkpoints.

    Args:
        weights (`Mapping[str, float]`): Task -> weight of its loss, with a mean of 1.
        weighting (`str`): `"fixed"`, `"uncertainty"` or `"dwa"`.
        settings (`dict`): What a resumed run must not change, JSON-able.
    """

    def __init__(self, weights: Mapping[str, float], weighting: str, settings: dict):
        self.tasks, self.base = list(weights), list(weights.values())
        self.weighting, self.settings = weighting, settings
        self.weights = list(self.base)
        self._learned = [1.0] * len(self.base)
        # Of each task: sum of the losses and number of rows.
        self._pending, self._since_log = None, self._zeros()
        self._progress = self._nothing()

    def _nothing(self) -> dict:
        return {"epoch": 0, "sums": self._zeros(), "means": []}

    def _zeros(self) -> list[list[float]]:
        return [[0.0, 0.0] for _ in self.tasks]

    # ---- In every step ----

    def add(self, task: int, loss: torch.Tensor, rows: int) -> None:
        """
        Take note of a micro-batch.

        Args:
            task (`int`): Id of its task.
            loss (`torch.Tensor`): Its mean loss, a scalar without a gradient.
            rows (`int`): Its rows.
        """
        if self._pending is None:
            self._pending = torch.zeros(len(self.tasks), 2, device=loss.device)
        self._pending[task, 0] += loss.float() * rows
        self._pending[task, 1] += rows

    def settle(self, sum_over_processes: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """
        Add up what has been noted in this optimizer step.

        Args:
            sum_over_processes (`Callable`): From a tensor of this process to the sum over all.
        """
        if self._pending is None:
            return
        step = sum_over_processes(self._pending).tolist()
        self._pending = None
        # A step that is not finite is left out, or ends the run; an epoch's weights must not hang on it.
        finite = all(math.isfinite(new[0]) for new in step)
        for sums in (self._since_log, *([self._progress["sums"]] if finite else [])):
            for total, new in zip(sums, step, strict=True):
                total[0] += new[0]
                total[1] += new[1]

    def forget_step(self) -> None:
        """The step's micro-batches are computed again."""
        self._pending = None

    # ---- Events ----

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        require_unchanged(state, SETTINGS, self.settings)
        # The dict is the one that checkpoints are written from and that a resumed run has read.
        self._progress = state.stateful_callbacks.setdefault(PROGRESS, self._nothing())
        self._pending, self._since_log = None, self._zeros()
        self._set_weights()

    def on_epoch_begin(self, args, state, control, **kwargs):
        # Of a run that goes on inside an epoch it is a fraction.
        epoch = int(state.epoch)
        if epoch == self._progress["epoch"]:
            return
        means = [total / rows if rows else None for total, rows in self._progress["sums"]]
        self._progress.update(epoch=epoch, sums=self._zeros(), means=[*self._progress["means"], means][-2:])
        self._set_weights()

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if self.weighting == "uncertainty" and control.should_log:
            variances = [model.log_variances[task].detach().squeeze() for task in self.tasks]
            self._learned = torch.stack(variances).float().neg().exp().tolist()

    on_epoch_end = on_step_end

    def _set_weights(self) -> None:
        means = self._progress["means"]
        known = len(means) == 2 and None not in (*means[0], *means[1])
        if self.weighting != "dwa" or not known:
            self.weights = list(self.base)
            return
        dynamic = [base * rate for base, rate in zip(self.base, dynamic_weight_average(*means), strict=True)]
        self.weights = [weight * len(dynamic) / sum(dynamic) for weight in dynamic]

    # ---- Logs ----

    def metrics(self) -> dict[str, float]:
        rows_of_all = sum(rows for _, rows in self._since_log)
        logs = {}
        for number, task in enumerate(self.tasks):
            total, rows = self._since_log[number]
            if rows:
                logs[f"multitask/{task}_loss"] = total / rows
            logs[f"multitask/{task}_weight"] = self.weights[number] * self._learned[number]
            logs[f"multitask/{task}_share"] = rows / rows_of_all if rows_of_all else 0.0
        self._since_log = self._zeros()
        return logs
