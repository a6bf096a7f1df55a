"""LRFinder: the learning-rate range test, on a bare training loop or on a Trainer's own."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from hf_ext.errors import ConfigurationError
from hf_ext.experiments.lr_loop import Loop, require
from hf_ext.experiments.lr_probe import run_probe
from hf_ext.experiments.lr_range import (
    METHODS,
    MIN_ITERATIONS,
    MODES,
    SMOOTHING,
    NoUsableSlopeError,
    RangeCurve,
    draw_range_test,
    learning_rates,
    smooth,
    suggest,
)

__all__ = ["LRFinder", "LRFinderArguments", "NoUsableSlopeError"]


class LRFinder:
    r"""
    The learning-rate range test (Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3).

    Trains for a while with a learning rate that grows at every step, and watches the loss: it stays where it is while
    the rate is too small, falls where the rate is useful, and rises where it is too large. Afterwards the model
    (weights, buffers, gradients, flags), the optimizer, its scheduler, the scaler, all random states and the order of
    the data are, bit for bit, what they were before, also when the test is interrupted. (The random state that a data
    set keeps outside of `torch.Generator`, `numpy` or `random` objects, and an iterable that can be read only once,
    are out of reach.)

    Groups of the optimizer keep the ratios of their learning rates: the group with the largest one (its `initial_lr`,
    if a scheduler is attached) gets the tested rate.

    Args:
        model (`torch.nn.Module`):
            The model, on its device.
        optimizer (`torch.optim.Optimizer`):
            An optimizer of its parameters.
        criterion (`Callable`, *optional*):
            Called with the model's output (its logits, if it has such) and the targets; returns a scalar. May be left
            out when batches are dicts and the model returns a loss.
        device (`torch.device`, *optional*):
            Where batches are moved to. Defaults to the device of the model's first parameter.
        autocast_dtype (`torch.dtype`, *optional*):
            `torch.bfloat16` or `torch.float16` for mixed precision.
        scaler (`torch.amp.GradScaler`, *optional*):
            The training's gradient scaler.

    Attributes:
        history (`dict[str, list[float]]`): `lr`, `loss` and `smoothed_loss`, one value a step.
        stopped (`str`): Why the test ended.

    Example:

    ```python
    >>> from hf_ext.experiments.lr_finder import LRFinder
    >>> finder = LRFinder(model, optimizer, criterion)
    >>> finder.range_test(train_dataloader, end_lr=1, num_iter=100)
    >>> finder.plot()
    >>> finder.suggestion()

    >>> finder = LRFinder.from_trainer(trainer)
    >>> finder.range_test()
    >>> trainer.args.learning_rate = finder.suggestion()
    ```
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        criterion: Any = None,
        device: torch.device | str | None = None,
        autocast_dtype: torch.dtype | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ):
        self.model, self.optimizer, self.criterion = model, optimizer, criterion
        self.device = None if device is None else torch.device(device)
        self.autocast_dtype, self.scaler = autocast_dtype, scaler
        self.settings: dict[str, Any] = {}
        self.history: dict[str, list[float]] = {"lr": [], "loss": [], "smoothed_loss": []}
        self.stopped: str | None = None
        self._trainer = None

    @classmethod
    def from_trainer(cls, trainer) -> "LRFinder":
        """
        A finder that runs a Trainer's own training loop, on a copy.

        Accumulation, mixed precision, DDP, clipping, sampler, collator, a loss of its own and the groups of an
        [`ExtendedTrainer`] are the real ones. Of the callbacks, those take part that set learning rates or the order of
        the rows; the others (unfreezing, early stopping, trackers) do not. No file is written.

        Needs the memory of a second copy of the model and of the optimizer. Every process of a distributed run has to
        call `range_test()`.

        Args:
            trainer ([`~transformers.Trainer`]): Before or after training, of any subclass.
        """
        finder = cls(trainer.model, trainer.optimizer)
        finder._trainer = trainer
        return finder

    def range_test(
        self,
        train_dataloader: Any = None,
        start_lr: float = 1e-7,
        end_lr: float = 1.0,
        num_iter: int = 100,
        mode: Literal["exponential", "linear"] = "exponential",
        accumulation_steps: int = 1,
        smoothing: float = SMOOTHING,
        divergence_factor: float = 4.0,
    ) -> None:
        """
        Run the test. It ends early when the loss diverges or is not finite.

        Args:
            train_dataloader (`Iterable`):
                Batches: `(inputs, targets)` or dicts with `labels`. Starts again when it ends. For a finder
                [`~LRFinder.from_trainer`], leave it out.
            start_lr (`float`, *optional*, defaults to `1e-7`): The first learning rate.
            end_lr (`float`, *optional*, defaults to `1.0`): The last learning rate.
            num_iter (`int`, *optional*, defaults to `100`): Optimizer steps; at least 10.
            mode (`str`, *optional*, defaults to `"exponential"`): How the rate grows, or `"linear"`.
            accumulation_steps (`int`, *optional*, defaults to `1`):
                Batches an optimizer step; their losses are averaged. A Trainer's come from its arguments.
            smoothing (`float`, *optional*, defaults to `0.03`):
                Standard deviation of the Gaussian that smooths the curve for the suggestions, as a share of its points.
            divergence_factor (`float`, *optional*, defaults to `4.0`): See [`RangeCurve`].

        Raises:
            UsageError: A reversed or empty range, too few steps, learning rates that are all 0, batches or a model
                output from which no loss can be computed, a loader without batches, or a Trainer with FSDP, DeepSpeed
                or tensor parallelism.
        """
        rates = learning_rates(start_lr, end_lr, num_iter, mode)
        require(accumulation_steps >= 1, f"accumulation_steps is {accumulation_steps}; it must be at least 1.")
        require(smoothing >= 0, f"smoothing is {smoothing}; it must not be negative.")
        require(divergence_factor > 1, f"divergence_factor is {divergence_factor}; it must be above 1.")
        curve = RangeCurve(rates, divergence_factor)
        self.settings = {
            "start_lr": float(start_lr),
            "end_lr": float(end_lr),
            "num_iter": int(num_iter),
            "mode": mode,
            "accumulation_steps": int(accumulation_steps),
            "smoothing": float(smoothing),
            "divergence_factor": float(divergence_factor),
        }
        try:
            if self._trainer is None:
                mixed = {"autocast_dtype": self.autocast_dtype, "scaler": self.scaler}
                loop = Loop(self.model, self.optimizer, self.criterion, self.device, **mixed)
                loop.run(train_dataloader, curve, accumulation_steps)
            else:
                own = train_dataloader is None and accumulation_steps == 1
                require(own, "A Trainer brings its own data and accumulation; call range_test() without them.")
                self.settings["accumulation_steps"] = self._trainer.args.gradient_accumulation_steps
                run_probe(self._trainer, curve)
        finally:
            smoothed = smooth(curve.losses, smoothing).tolist()
            self.history = {"lr": curve.rates[: len(curve.losses)], "loss": curve.losses, "smoothed_loss": smoothed}
            self.stopped = curve.reason or f"interrupted after {len(curve.losses)} of {num_iter} steps"

    # ---- Results ----

    def suggestion(self, method: Literal["valley", "steepest", "minimum/10"] = "valley") -> float:
        """
        A learning rate to train with (see [`suggest`] for the methods).

        Raises:
            NoUsableSlopeError: The loss never falls by more than its noise.
        """
        require(self.stopped is not None, "There is no curve yet; call range_test() first.")
        return suggest(self.history["lr"], self.history["loss"], method, self.settings["smoothing"])

    def suggestions(self) -> dict[str, float | None]:
        """What every method suggests; `None` where there is no usable slope."""
        found = {}
        for method in METHODS:
            try:
                found[method] = self.suggestion(method)
            except NoUsableSlopeError:
                found[method] = None
        return found

    def as_dict(self) -> dict[str, Any]:
        """`settings`, `history`, `suggestions` and why it `stopped`, ready for JSON."""
        suggestions = self.suggestions()
        return {
            "settings": self.settings,
            "history": self.history,
            "suggestions": suggestions,
            "stopped": self.stopped,
        }

    def plot(self, path: str | Path | None = None, method: Literal["valley", "steepest", "minimum/10"] = "valley"):
        """
        Loss by learning rate, with the suggestion.

        Args:
            path (`str` or `Path`, *optional*): Where to write the figure; the ending chooses the format (png, svg).
            method (`str`, *optional*, defaults to `"valley"`): The suggestion to mark.

        Returns:
            `matplotlib.figure.Figure`, which a notebook shows.
        """
        require(self.stopped is not None, "There is no curve yet; call range_test() first.")
        try:
            rate = self.suggestion(method)
        except NoUsableSlopeError:
            rate = None
        return draw_range_test(self.history, rate, method, self.stopped, path)


@dataclass
class LRFinderArguments:
    """Whether and how the learning rate is found before training."""

    _argument_group_name = "learning rate finder"

    find_learning_rate: bool = field(
        default=False, metadata={"help": "Find the learning rate before training; --learning_rate auto sets it."}
    )
    lr_finder_start: float = field(default=1e-7, metadata={"help": "First learning rate of the range test."})
    lr_finder_end: float = field(default=1.0, metadata={"help": "Last learning rate of the range test."})
    lr_finder_num_iter: int = field(default=100, metadata={"help": "Optimizer steps of the range test."})
    lr_finder_mode: Literal["exponential", "linear"] = field(
        default="exponential", metadata={"help": "How the learning rate grows in the range test."}
    )
    lr_finder_method: Literal["valley", "steepest", "minimum/10"] = field(
        default="valley", metadata={"help": "How the learning rate is read off the curve."}
    )

    def __post_init__(self):
        # The names of the fields, not those of `learning_rates`.
        start, end, steps = self.lr_finder_start, self.lr_finder_end, self.lr_finder_num_iter
        if not 0 < start < math.inf:
            raise ConfigurationError(f"lr_finder_start is {start}; it must be above 0.")
        if not start < end < math.inf:
            raise ConfigurationError(
                f"lr_finder_start is {start} and lr_finder_end is {end}: the range is reversed or empty; the end must "
                "be above the start."
            )
        if steps < MIN_ITERATIONS:
            raise ConfigurationError(f"lr_finder_num_iter is {steps}; it must be at least {MIN_ITERATIONS}.")
        for name, valid in (("lr_finder_mode", MODES), ("lr_finder_method", METHODS)):
            if getattr(self, name) not in valid:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be one of {', '.join(valid)}.")
