"""The range test in a plain PyTorch loop."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from hf_ext.errors import UsageError
from hf_ext.experiments.lr_range import RangeCurve, base_rates
from hf_ext.experiments.restoring import keep_modules, keep_optimizer, keep_order, keep_random, keep_scaler


@dataclass
class Loop:
    """What a training step needs; see [`LRFinder`]."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    criterion: Any = None
    device: torch.device | None = None
    autocast_dtype: torch.dtype | None = None
    scaler: torch.amp.GradScaler | None = None

    def run(self, loader: Any, curve: RangeCurve, accumulation_steps: int) -> None:
        """
        Train along a curve's learning rates, and put everything back.

        Args:
            loader (`Iterable`): Batches.
            curve ([`RangeCurve`]): Gets the mean loss of every optimizer step.
            accumulation_steps (`int`): Batches a step.
        """
        require(loader is not None, "range_test() needs a train_dataloader.")
        require(
            not isinstance(loader, Iterator),
            f"train_dataloader is a {type(loader).__name__}, which can be read only once; pass a DataLoader or a list.",
        )
        shares = _rate_shares(self.optimizer)
        parts = [part for part in (self.model, self.criterion) if isinstance(part, nn.Module)]
        parameters = [p for part in parts for p in part.parameters()]
        parameters += [p for group in self.optimizer.param_groups for p in group["params"]]
        silent = torch.distributed.is_initialized() and torch.distributed.get_rank() != 0
        with ExitStack() as stack:
            stack.callback(keep_random())
            stack.callback(keep_order(loader))
            stack.callback(keep_modules(parts, parameters))
            stack.callback(keep_optimizer(self.optimizer, parameters))
            if self.scaler is not None:
                stack.callback(keep_scaler(self.scaler))
            batches = _endless(loader)
            stack.callback(batches.close)
            bar = stack.enter_context(tqdm(total=len(curve.rates), desc="learning rate range test", disable=silent))
            for part in parts:
                part.train()
            for rate in curve.rates:
                for group, share in shares:
                    lr = group["lr"]
                    group["lr"] = torch.full_like(lr, rate * share) if isinstance(lr, torch.Tensor) else rate * share
                for parameter in parameters:
                    parameter.grad = None
                loss = self._accumulate(batches, accumulation_steps)
                if curve.add(loss):
                    return
                if self.scaler is None:
                    self.optimizer.step()
                else:
                    self.scaler.step(self.optimizer)
                    self.scaler.update()
                bar.update()

    def _accumulate(self, batches: Iterator, steps: int) -> float:
        """Mean loss over the next batches, with its gradient unless the loss is not finite."""
        device = self.device or next(self.model.parameters()).device
        total = 0.0
        for _ in range(steps):
            batch = _to_device(next(batches), device)
            with torch.autocast(device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None):
                loss = self._loss(batch)
            value = loss.detach().float()
            if isinstance(self.model, DistributedDataParallel):
                # All processes have to stop at the same step.
                torch.distributed.all_reduce(value)
                value /= torch.distributed.get_world_size()
            total += value.item() / steps
            if not math.isfinite(total):
                break
            loss = loss / steps
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        return total

    def _loss(self, batch: Any) -> torch.Tensor:
        if isinstance(batch, Mapping):
            loss = self._loss_of_dict(dict(batch))
        elif isinstance(batch, (tuple, list)) and len(batch) == 2:
            require(self.criterion is not None, "Batches of (inputs, targets) need a criterion; none was given.")
            inputs, targets = batch
            loss = self.criterion(_call(self.model, inputs), targets)
        else:
            size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
            raise UsageError(
                f"A batch is a {type(batch).__name__}{size}; it must be a tuple or list (inputs, targets), or a dict "
                "of the model's arguments with labels."
            )
        scalar = isinstance(loss, torch.Tensor) and loss.numel() == 1
        require(scalar, "The loss is not a single number; use a criterion that averages (reduction='mean').")
        return loss.reshape(())

    def _loss_of_dict(self, batch: dict[str, Any]) -> torch.Tensor:
        if self.criterion is None:
            outputs = self.model(**batch)
            loss = outputs[0] if isinstance(outputs, tuple) else getattr(outputs, "loss", None)
            if isinstance(outputs, Mapping):
                loss = outputs.get("loss")
            require(
                isinstance(loss, torch.Tensor) and loss.numel() == 1,
                f"No criterion was given, and the model returns no loss for a batch with {', '.join(batch)}. Pass a "
                "criterion, or give the model its labels.",
            )
            return loss
        key = next((key for key in ("labels", "label") if key in batch), None)
        require(key is not None, f"A batch has {', '.join(batch)}; the criterion needs labels (or label) beside them.")
        targets = batch.pop(key)
        outputs = self.model(**batch)
        logits = getattr(outputs, "logits", None)
        if isinstance(outputs, Mapping):
            logits = outputs.get("logits")
        elif isinstance(outputs, (tuple, list)) and logits is None:
            logits = outputs[0]
        elif isinstance(outputs, torch.Tensor):
            logits = outputs
        require(logits is not None, f"The model returns a {type(outputs).__name__} without logits.")
        return self.criterion(logits, targets)


def require(condition: bool, message: str) -> None:
    """Raise a [`UsageError`] unless the condition holds."""
    if not condition:
        raise UsageError(message)


def _rate_shares(optimizer: torch.optim.Optimizer) -> list[tuple[dict, float]]:
    """Every group with its share of the largest learning rate."""
    rates = base_rates(optimizer.param_groups)
    return [(group, rate / max(rates)) for group, rate in zip(optimizer.param_groups, rates, strict=True)]


def _endless(loader: Any) -> Iterator:
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield batch
        require(not empty, "train_dataloader has no batches.")


def _to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        return {key: _to_device(item, device) for key, item in value.items()}
    if hasattr(value, "to"):
        return value.to(device)
    if isinstance(value, (tuple, list)):
        moved = [_to_device(item, device) for item in value]
        return moved if isinstance(value, list) else tuple(moved)
    return value


def _call(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)
