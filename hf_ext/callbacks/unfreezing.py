"""Gradual unfreezing: train the head first, then one layer group after the other."""

import logging
import math
import os
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Literal

import torch
from torch import nn
from transformers import TrainerCallback, TrainingArguments

from hf_ext.callbacks.base import ExtensionCallback, require_unchanged, steps_per_epoch
from hf_ext.errors import ConfigurationError, first_few
from hf_ext.evaluation.figures import draw_schedule
from hf_ext.layers import HEAD, layer_groups, match_names
from hf_ext.schedules import UNITS, stages_begun, to_step

logger = logging.getLogger(__name__)


class GradualUnfreezingCallback(ExtensionCallback):
    """
    Trains the head first and unfreezes one more layer group at a time (Howard & Ruder 2018, section 3.3).

    All parameters have to be trainable when the Trainer is built, so that they are in its optimizer. The callback
    freezes them when training begins. What is trained is a function of the step alone, so a resumed run, every process
    and every micro-batch agree on it. A frozen parameter has no gradient: it neither moves nor decays, and the backward
    pass stops above it. Afterwards everything is trainable again.

    Works on any `Trainer`. On [`ExtendedTrainer`] the log gets `unfreezing/depth` (stages that have begun) and
    `unfreezing/trainable_parameters`; on a plain Trainer they go to `log_history` and to the logger only.

    Args:
        unit (`str`, *optional*, defaults to `"epochs"`):
            What `interval` and the moments of `stages` count: `"epochs"`, `"steps"` (optimizer steps) or `"fraction"`
            (of the whole training).
        interval (`float`, *optional*):
            From one group's start to the next one's. Defaults to 1 epoch; has to be given for the other units.
        stages (`Mapping[float, list[str]]`, *optional*):
            In place of `interval`: moment -> what begins to be trained then. Items are layer groups or patterns (see
            [`match_parameters`]). The first moment has to be 0; what no stage names stays frozen.
        frozen_eval_mode (`bool`, *optional*, defaults to `False`):
            Keep modules all of whose parameters are frozen in eval mode: no dropout, no moving averages.
        allow_change (`bool`, *optional*, defaults to `False`):
            Whether a resumed run may follow another schedule than its checkpoint's.

    Raises:
        ConfigurationError: When training begins: if the head is never trained, a group would begin after the end, a
            pattern matches nothing, parameters were frozen before, the checkpoint has another schedule, or
            `ddp_find_unused_parameters=False`.

    Example:

    ```python
    >>> from hf_ext import GradualUnfreezingCallback
    >>> callback = GradualUnfreezingCallback(unit="fraction", interval=0.1)
    >>> callback = GradualUnfreezingCallback(stages={0: ["head"], 2: ["layer.[6-9]", "layer.1."], 4: ["base_model"]})
    ```
    """

    works_on_plain_trainer = True
    freezes_parameters = True

    def __init__(
        self,
        unit: Literal["epochs", "steps", "fraction"] = "epochs",
        interval: float | None = None,
        stages: Mapping[float, list[str]] | None = None,
        frozen_eval_mode: bool = False,
        allow_change: bool = False,
    ):
        if unit not in UNITS:
            raise ConfigurationError(f"unfreezing: unit is {unit!r}; it must be one of {', '.join(UNITS)}.")
        if stages is not None and interval is not None:
            raise ConfigurationError("unfreezing: interval and stages are both given; leave one out.")
        if stages is None and interval is None and unit != "epochs":
            raise ConfigurationError(f"unfreezing: unit={unit} needs an interval (or stages).")
        if interval is not None and not (isinstance(interval, Real) and 0 < interval < math.inf):
            raise ConfigurationError(f"unfreezing: interval is {interval}; it must be above 0.")
        self.unit = unit
        self.interval = 1.0 if interval is None else interval
        self.stages = None if stages is None else _checked_stages(stages)
        self.frozen_eval_mode = frozen_eval_mode
        self.allow_change = allow_change
        # Stage -> the step before which it begins, in this order; known once training begins.
        self.schedule: dict[str, int] = {}
        self.depth = 0
        self._max_steps = 0
        self._stages: list[dict[str, nn.Parameter]] = []
        # What no stage names.
        self._never: dict[str, nn.Parameter] = {}
        # With the `train` that a module had of its own, if any.
        self._kept_in_eval_mode: list[tuple[nn.Module, Callable | None]] = []
        self._model: nn.Module | None = None

    # ---- Events ----

    def on_train_begin(self, args, state, control, model=None, optimizer=None, train_dataloader=None, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self._check_ddp(args)
        self._model, self._max_steps = model, state.max_steps
        in_optimizer = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        an_epoch = steps_per_epoch(train_dataloader, args)
        self._plan(model, in_optimizer, an_epoch, state.max_steps)
        force = "allow_change=True (--allow_changed_unfreezing) goes on with the new one."
        require_unchanged(state, "hf_ext.unfreezing_schedule", self.schedule, self.allow_change, force)
        if args.torch_compile:
            # Each stage is compiled anew; beyond the limit the model would silently run without compilation.
            config = torch._dynamo.config
            config.recompile_limit = max(config.recompile_limit, 8 + len(self.schedule))
        self._apply(stages_begun(state.global_step, list(self.schedule.values())))

    def on_step_begin(self, args, state, control, **kwargs):
        depth = stages_begun(state.global_step, list(self.schedule.values()))
        if depth != self.depth:
            self._apply(depth)
        if not self.asked and state.global_step in self.schedule.values():
            state.log_history.append({**self.metrics(), "epoch": state.epoch, "step": state.global_step})

    def on_train_end(self, args, state, control, **kwargs):
        self.release()

    def release(self) -> None:
        for parameter in self._parameters():
            parameter.requires_grad_(True)
        self._release_eval_mode()

    def metrics(self) -> dict[str, float]:
        trainable = sum(p.numel() for p in self._model.parameters() if p.requires_grad)
        return {"unfreezing/depth": self.depth, "unfreezing/trainable_parameters": trainable}

    def plot(self, path: str | os.PathLike) -> str:
        """
        Draw which groups were trained when; known once training has begun.

        Args:
            path (`str` or `os.PathLike`): The PNG to write.

        Returns:
            `str`: The same in words, for those who cannot see it.
        """
        if not self.schedule:
            raise RuntimeError("There is no schedule yet: it is made when training begins.")
        draw_schedule(path, self.schedule, self._max_steps)
        begins = "; ".join(f"{title} from step {begin:,}" for title, begin in self.schedule.items())
        return f"What is trained when, of {self._max_steps:,} steps: {begins}."

    # ---- Inside ----

    def _check_ddp(self, args: TrainingArguments) -> None:
        find_unused = args.ddp_find_unused_parameters
        if find_unused is None:
            # `ExtendedTrainer` sees to it; the plain Trainer leaves it out under activation checkpointing.
            find_unused = self.asked or args.world_size == 1 or not args.activation_checkpointing
        if not find_unused or args.ddp_static_graph:
            raise ConfigurationError(
                f"unfreezing with ddp_find_unused_parameters={args.ddp_find_unused_parameters}, "
                f"ddp_static_graph={args.ddp_static_graph}, activation_checkpointing={args.activation_checkpointing}: "
                "on several processes DDP would wait for the gradients of frozen parameters. Pass "
                "ddp_find_unused_parameters=True and no ddp_static_graph."
            )

    def _plan(self, model, in_optimizer: set[int], steps_per_epoch: int | None, max_steps: int) -> None:
        """Find what begins when, and see that all of it can."""
        parameters = dict(model.named_parameters())
        if not in_optimizer & {id(parameter) for parameter in parameters.values()}:
            raise ConfigurationError(
                "unfreezing: the optimizer holds none of the model's own parameters (FSDP and DeepSpeed make new "
                "ones). Gradual unfreezing works on one process and with DDP."
            )
        # What PEFT froze was never to be trained.
        by_design = hasattr(model, "peft_config")
        frozen = [name for name, parameter in parameters.items() if id(parameter) not in in_optimizer]
        usable = set(parameters) - set(frozen) if by_design else set(parameters)
        groups = {group: [n for n in names if n in usable] for group, names in layer_groups(model).items()}
        groups = {group: names for group, names in groups.items() if names}
        planned = self._planned(groups)
        lost = sorted({name for _, _, names in planned for name in names} & set(frozen))
        if lost:
            raise ConfigurationError(
                f"unfreezing: {len(lost)} parameters are not in the optimizer, because they were frozen before the "
                "Trainer was built (or your own optimizer leaves them out), so they would never move: "
                f"{first_few(lost, 5)}. Leave them trainable (the callback freezes them), or leave them out of the "
                "stages."
            )
        if self.unit == "epochs" and steps_per_epoch is None:
            raise ConfigurationError("unfreezing: the data has no length, so no epochs; use unit='steps'.")
        begins = [(title, to_step(moment, self.unit, steps_per_epoch or 0, max_steps)) for title, moment, _ in planned]
        late = [title for title, begin in begins if begin >= max_steps]
        if late:
            raise ConfigurationError(
                f"unfreezing: training ends after {max_steps} steps, so {', '.join(late)} would never be trained. The "
                f"schedule is {', '.join(f'{title} from step {begin}' for title, begin in begins)}. Train longer or "
                "unfreeze faster (unit='fraction' fits any length), or name what is to be trained in stages."
            )
        self.schedule = dict(begins)
        self._stages = [{name: parameters[name] for name in names} for _, _, names in planned]
        never = sorted(usable - set(frozen) - {name for stage in self._stages for name in stage})
        self._never = {name: parameters[name] for name in never}
        if never:
            shown = first_few(never, 5)
            logger.info("unfreezing: no stage names %d parameters, which stay frozen: %s", len(never), shown)

    def _planned(self, groups: dict[str, list[str]]) -> list[tuple[str, float, list[str]]]:
        """Title, moment and parameter names of each stage."""
        if HEAD not in groups:
            raise ConfigurationError(
                f"unfreezing: no parameter of the head is trainable, only {', '.join(groups)}. With PEFT, "
                "task_type='SEQ_CLS' or modules_to_save trains it."
            )
        if self.stages is None:
            order = reversed(groups)
            return [(group, number * self.interval, groups[group]) for number, group in enumerate(order)]
        names = [name for members in groups.values() for name in members]
        planned, taken = [], set()
        for moment, patterns in self.stages.items():
            matched = set()
            for pattern in patterns:
                try:
                    matched.update(match_names(names, pattern, groups))
                except ValueError as error:
                    raise ConfigurationError(f"unfreezing: stage {moment:g}: {error}") from None
            new = [name for name in names if name in matched - taken]
            if not new:
                raise ConfigurationError(
                    f"unfreezing: stage {moment:g} ({', '.join(patterns)}) only names what an earlier stage unfreezes."
                )
            taken.update(new)
            planned.append((" + ".join(patterns), moment, new))
        # The pooler belongs to the head as well; what is registered last is the classifier.
        if groups[HEAD][-1] not in taken:
            raise ConfigurationError(
                "unfreezing: no stage unfreezes the head, so the classifier would keep its random weights. Its "
                f"parameters are {first_few(groups[HEAD], 5)}; add 'head' to the first stage."
            )
        return planned

    def _apply(self, depth: int) -> None:
        self.depth = depth
        self._release_eval_mode()
        for number, stage in enumerate([*self._stages, self._never]):
            trained = number < depth
            for parameter in stage.values():
                parameter.requires_grad_(trained)
                if not trained:
                    parameter.grad = None
        if self.frozen_eval_mode:
            self._keep_frozen_in_eval_mode()
        logger.info(
            "unfreezing: depth %d of %d (%s)", depth, len(self.schedule), ", ".join(list(self.schedule)[:depth])
        )

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for stage in [*self._stages, self._never] for parameter in stage.values()]

    def _keep_frozen_in_eval_mode(self) -> None:
        """Make `train()`, which the Trainer calls in each step, leave modules without a trained parameter alone."""
        for module in self._model.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                self._kept_in_eval_mode.append((module, vars(module).get("train")))
                module.train = types.MethodType(_stay_in_eval_mode, module)

    def _release_eval_mode(self) -> None:
        for module, own_train in self._kept_in_eval_mode:
            del module.train
            if own_train is not None:
                module.train = own_train
        if self._kept_in_eval_mode:
            self._kept_in_eval_mode.clear()
            self._model.train(self._model.training)


@dataclass
class UnfreezingArguments:
    """Gradual unfreezing (Howard & Ruder 2018)."""

    _argument_group_name = "gradual unfreezing"

    unfreezing: Literal["epochs", "steps", "fraction"] | None = field(
        default=None,
        metadata={
            "help": "Train the head first, then one more layer group each interval of this unit (ULMFiT: epochs)."
        },
    )
    unfreezing_interval: float | None = field(
        default=None, metadata={"help": "From one group to the next, in that unit; 1 epoch by default."}
    )
    unfreezing_stages: dict | None = field(
        default=None,
        metadata={"help": 'Moments in that unit and what begins then, as JSON: {"0": ["head"], "1": ["layer.5"]}.'},
    )
    unfreezing_eval_mode: bool = field(
        default=False, metadata={"help": "Keep dropout and norms of frozen modules in eval mode."}
    )

    def __post_init__(self):
        others = {
            "unfreezing_interval": self.unfreezing_interval,
            "unfreezing_stages": self.unfreezing_stages,
            "unfreezing_eval_mode": self.unfreezing_eval_mode or None,
        }
        given = [name for name, value in others.items() if value is not None]
        if self.unfreezing is None and given:
            raise ConfigurationError(
                f"{', '.join(given)} would have no effect: pass --unfreezing epochs, steps or fraction as well."
            )
        if self.unfreezing_stages is not None:
            _checked_stages(self.unfreezing_stages)
            # As they are read back from a record: JSON has no numbers for keys.
            self.unfreezing_stages = {str(moment): patterns for moment, patterns in self.unfreezing_stages.items()}
        self.callbacks()

    def callbacks(self, allow_change: bool = False) -> list[TrainerCallback]:
        """The callback, if it is asked for."""
        if self.unfreezing is None:
            return []
        settings = (self.unfreezing_interval, self.unfreezing_stages, self.unfreezing_eval_mode)
        return [GradualUnfreezingCallback(self.unfreezing, *settings, allow_change)]


def _checked_stages(stages: Mapping[float, list[str]]) -> dict[float, list[str]]:
    if not isinstance(stages, Mapping):
        raise ConfigurationError(f"unfreezing: stages is {stages!r}; it must be a mapping of moments to lists.")
    checked = {}
    for moment, patterns in stages.items():
        try:
            number = float(moment)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number < math.inf:
            raise ConfigurationError(f"unfreezing: a stage begins at {moment!r}; it must be a number of at least 0.")
        named = isinstance(patterns, (list, tuple)) and all(isinstance(item, str) for item in patterns)
        if not named or not patterns:
            raise ConfigurationError(
                f"unfreezing: stage {moment} is {patterns!r}; it must be a list of layer groups or patterns."
            )
        if number in checked:
            raise ConfigurationError(f"unfreezing: two stages begin at {number:g}; make them one.")
        checked[number] = list(patterns)
    if 0 not in checked:
        raise ConfigurationError(
            "unfreezing: no stage begins at 0, so nothing would be trained at first. Begin with {0: ['head']}."
        )
    return dict(sorted(checked.items()))


def _stay_in_eval_mode(module: nn.Module, mode: bool = True) -> nn.Module:
    return type(module).train(module, False)
