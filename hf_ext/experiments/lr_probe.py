"""The range test inside a Trainer's own training loop, on a copy of the Trainer."""

import copy
import random
from collections.abc import Callable
from contextlib import ExitStack
from types import MethodType
from typing import Any

import numpy as np
import torch
from accelerate.utils import TorchDynamoPlugin
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm
from transformers import DefaultFlowCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import CallbackHandler
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, TrainerMemoryTracker

from hf_ext.callbacks.base import ExtensionCallback
from hf_ext.errors import UsageError
from hf_ext.experiments.lr_range import RangeCurve, base_rates
from hf_ext.experiments.restoring import keep_order, undisturbed
from hf_ext.trainers.nonfinite import NonFiniteGuard
from hf_ext.trainers.safe import SafeTrainer

# What a run does beside training.
QUIET = {
    "eval_strategy": IntervalStrategy.NO,
    "eval_on_start": False,
    "save_strategy": SaveStrategy.NO,
    "logging_strategy": IntervalStrategy.NO,
    "logging_first_step": False,
    "load_best_model_at_end": False,
    "push_to_hub": False,
    "skip_memory_metrics": True,
}
# Attributes of a Trainer that the probe makes anew, or may share.
NOT_COPIED = (
    *("accelerator", "args", "callback_handler", "control", "data_collator", "lr_scheduler", "model", "model_wrapped"),
    *("optimizer", "state", "train_dataset", "eval_dataset", "processing_class"),
)
RANDOM_SOURCES = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def run_probe(trainer: Any, curve: RangeCurve) -> None:
    """
    Train a copy of a Trainer along a curve's learning rates. The Trainer and what is random stay as they are.

    Args:
        trainer ([`~transformers.Trainer`]): The Trainer.
        curve ([`RangeCurve`]): Gets the mean loss over processes of every optimizer step.
    """
    _check_trainer(trainer)
    with ExitStack() as stack:
        stack.enter_context(undisturbed())
        probe = _copy_trainer(trainer, len(curve.rates))
        stack.callback(probe.accelerator.free_memory)
        # The copies go now, not when the garbage collector finds them.
        stack.callback(vars(probe).clear)
        bar = stack.enter_context(
            tqdm(
                total=len(curve.rates),
                desc="learning rate range test",
                disable=trainer.args.disable_tqdm or not trainer.is_world_process_zero(),
            )
        )
        if isinstance(probe, SafeTrainer):
            # A loss that is not finite is where the curve ends.
            probe.nonfinite = NonFiniteGuard()
            probe.nonfinite.is_watching = False
        probe.callback_handler.add_callback(_Recorder(probe, curve, bar))
        probe.create_scheduler = _scheduler_factory(probe, curve.rates)
        get_train_dataloader = probe.get_train_dataloader

        def get_kept_dataloader():
            # A subclass may hand out one loader again and again.
            loader = get_train_dataloader()
            stack.callback(keep_order(loader))
            return loader

        probe.get_train_dataloader = get_kept_dataloader
        probe.train()


class _Recorder(TrainerCallback):
    """Adds the loss of every optimizer step to the curve, and ends the training when the curve says so."""

    def __init__(self, probe: Any, curve: RangeCurve, bar: Any):
        self.probe, self.curve, self.bar, self.loss = probe, curve, bar, 0.0
        training_step = probe.training_step

        def recorded_step(*args, **kwargs):
            loss = training_step(*args, **kwargs)
            self.loss = self.loss + loss.detach().float()
            return loss

        probe.training_step = recorded_step

    def on_train_begin(self, args, state, control, **kwargs):
        # Not only at the start: `auto_find_batch_size` begins again.
        self.curve.clear()
        self.loss = 0.0

    def on_step_end(self, args, state, control, lr_scheduler=None, **kwargs):
        # The mean over processes, so that all stop at the same step.
        loss = self.probe.accelerator.reduce(self.loss, reduction="mean").item()
        self.loss = 0.0
        if self.curve.add(loss):
            control.should_training_stop = True
        # Where a gradient overflowed, neither optimizer nor scheduler stepped; the range goes on.
        while lr_scheduler.last_epoch < state.global_step:
            lr_scheduler.step()
        self.bar.update()


def _scheduler_factory(probe: Any, rates: list[float]) -> Callable:
    def create_scheduler(num_training_steps=None, optimizer=None):
        optimizer = probe.optimizer if optimizer is None else optimizer
        largest = max(base_rates(optimizer.param_groups))
        # One call comes after the last step.
        probe.lr_scheduler = LambdaLR(optimizer, lambda step: rates[min(step, len(rates) - 1)] / largest)
        return probe.lr_scheduler

    return create_scheduler


def _check_trainer(trainer: Any) -> None:
    reasons = {
        "FSDP": trainer.is_fsdp_enabled or trainer.is_fsdp_xla_enabled,
        "DeepSpeed": trainer.is_deepspeed_enabled,
        "tensor parallelism": (getattr(trainer.model, "tp_size", None) or 1) > 1
        or trainer.is_distributed_loading_by_transformers,
    }
    for reason, used in reasons.items():
        if used:
            raise UsageError(
                f"The range test trains a copy of the model, which {reason} does not allow. Run it on one process or "
                "with DDP, on a smaller model of the same family if need be."
            )
    optim = getattr(trainer.args.optim, "value", str(trainer.args.optim))
    if "layerwise" in optim:
        raise UsageError(
            f"optim={optim} steps inside the backward pass, where no schedule reaches its learning rates. Run the "
            f"range test with optim={optim.replace('_layerwise', '')}."
        )


def _copy_trainer(trainer: Any, steps: int) -> Any:
    probe = copy.copy(trainer)
    # Copies refer to the probe where the originals refer to the Trainer, and share the data.
    shared = (trainer.train_dataset, trainer.eval_dataset, trainer.processing_class)
    memo = {id(trainer): probe, **{id(value): value for value in shared}}
    probe.model = probe.model_wrapped = _unprepared(copy.deepcopy(trainer.model, memo))
    optimizer = trainer.optimizer
    probe.optimizer = _copy_optimizer(getattr(optimizer, "optimizer", optimizer), memo)
    probe.lr_scheduler = None
    for name, value in vars(trainer).items():
        if name not in NOT_COPIED:
            setattr(probe, name, _own(value, memo))
    probe.data_collator = _own_attributes(trainer.data_collator, memo)
    probe.model_init = None
    probe._memory_tracker = TrainerMemoryTracker(skip_memory_metrics=True)

    probe.args = copy.copy(trainer.args)
    for name, value in {**QUIET, "max_steps": steps}.items():
        setattr(probe.args, name, value)
    probe.args.accelerator_config = copy.deepcopy(trainer.args.accelerator_config)
    # Put there by the Trainer, which refuses it when it finds it.
    (probe.args.accelerator_config.gradient_accumulation_kwargs or {}).pop("num_steps", None)
    probe.create_accelerator_and_postprocess()
    # The curve is the same without compilation, and sooner there.
    probe.accelerator.state.dynamo_plugin = TorchDynamoPlugin(backend="no")

    shaping = [
        copy.deepcopy(callback, memo)
        for callback in trainer.callback_handler.callbacks
        if isinstance(callback, ExtensionCallback)
        and any(callback.answers(question) for question in ("learning_rate_scales", "train_sampler"))
    ]
    probe.callback_handler = CallbackHandler(
        [DefaultFlowCallback, *shaping], probe.model, trainer.processing_class, probe.optimizer, None
    )
    probe.state, probe.control = TrainerState(), TrainerControl()
    return probe


def _unprepared(model: nn.Module) -> nn.Module:
    """Undo, on a copy of a model that has been trained, what accelerate notes on it."""
    attributes = vars(model)
    attributes.pop("_is_accelerate_prepared", None)
    original = attributes.pop("_original_forward", None)
    if original is not None:
        attributes.pop("forward", None)
        if getattr(original, "__func__", None) is not type(model).forward:
            model.forward = original
    return model


def _copy_optimizer(optimizer: Any, memo: dict) -> Any:
    if optimizer is None:
        return None
    copied = copy.deepcopy(optimizer, memo)
    for name, value in vars(optimizer).items():
        # PyTorch copies state and groups only. `step` is there when a scheduler has wrapped the original's.
        if name not in vars(copied) and name != "step":
            setattr(copied, name, copy.deepcopy(value, memo))
    return copied


def _own(value: Any, memo: dict) -> Any:
    """A copy of what training may change: modules, tensors, random sources, and containers of such."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, (nn.Module, *RANDOM_SOURCES)) or (isinstance(value, torch.Tensor) and value.is_leaf):
        return copy.deepcopy(value, memo)
    if isinstance(value, MethodType) and id(value.__self__) in memo:
        return MethodType(value.__func__, memo[id(value.__self__)])
    if isinstance(value, dict):
        copied = copy.copy(value)
        copied.update({key: _own(item, memo) for key, item in value.items()})
        return copied
    if type(value) in (list, tuple, set):
        return type(value)(_own(item, memo) for item in value)
    return value


def _own_attributes(value: Any, memo: dict) -> Any:
    if not hasattr(value, "__dict__") or isinstance(value, (type, MethodType)) or hasattr(value, "__code__"):
        return _own(value, memo)
    copied = copy.copy(value)
    for name, item in vars(value).items():
        object.__setattr__(copied, name, _own(item, memo))
    return copied
