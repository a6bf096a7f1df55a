"""Discriminative learning rates: lower layers move less."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from transformers import TrainerCallback, TrainingArguments

from hf_ext.callbacks.base import ExtensionCallback
from hf_ext.errors import ConfigurationError
from hf_ext.finite import is_finite_number
from hf_ext.layers import HEAD, match_names


def layerwise_scales(groups: list[str], decay: float) -> dict[str, float]:
    r"""
    Each group's rate is that of the group above it divided by `decay` (Howard & Ruder 2018, section 3.2:
    $\eta^{l-1} = \eta^l / 2.6$).

    Args:
        groups (`list[str]`): Names of the layer groups from the input to the head.
        decay (`float`): A divisor of at least 1.

    Returns:
        `dict[str, float]`: 1 for the last group, less for those before it.
    """
    return {group: decay ** -(len(groups) - 1 - depth) for depth, group in enumerate(groups)}


class DiscriminativeLearningRateCallback(ExtensionCallback):
    """
    Gives each layer group a learning rate of its own, as a fixed multiple of `args.learning_rate`.

    The optimizer's groups are made once, so the ratios hold under every schedule, and each group's rate is logged as
    `learning_rate/<group>`. Needs [`ExtendedTrainer`]. What is given later in this list wins: `layerwise_lr_decay`,
    `head_learning_rate`, `scales`.

    Args:
        layerwise_lr_decay (`float`, *optional*):
            A group's rate is that of the group above it divided by this. Howard & Ruder (2018) take 2.6 for 4 groups;
            with the 14 groups of BERT-base 2.6 leaves the embeddings 1/250,000 of the rate, and 1.05 to 1.2 is usual.
        head_learning_rate (`float`, *optional*): The head's rate, absolute.
        scales (`Mapping[str, float]`, *optional*):
            Pattern -> multiple of `args.learning_rate`; see [`match_parameters`] for patterns. Of two patterns for
            one parameter the later wins.

    Raises:
        ConfigurationError: If nothing is asked for, a value is out of range, or a pattern matches nothing. A resumed
            run that asks for other rates is refused: the optimizer would go on with the checkpoint's.

    Example:

    ```python
    >>> from hf_ext import DiscriminativeLearningRateCallback
    >>> callback = DiscriminativeLearningRateCallback(layerwise_lr_decay=1.2, head_learning_rate=1e-3)
    ```
    """

    def __init__(
        self,
        layerwise_lr_decay: float | None = None,
        head_learning_rate: float | None = None,
        scales: Mapping[str, float] | None = None,
    ):
        if layerwise_lr_decay is None and head_learning_rate is None and not scales:
            raise ConfigurationError("Pass layerwise_lr_decay, head_learning_rate or scales.")
        if layerwise_lr_decay is not None and not (is_finite_number(layerwise_lr_decay) and layerwise_lr_decay >= 1):
            is_factor = is_finite_number(layerwise_lr_decay) and 0 < layerwise_lr_decay < 1
            hint = f" A factor of {layerwise_lr_decay} is a divisor of {1 / layerwise_lr_decay:g}." if is_factor else ""
            raise ConfigurationError(
                f"layerwise_lr_decay is {layerwise_lr_decay}; it divides the rate, so it must be at least 1.{hint}"
            )
        if head_learning_rate is not None and not (is_finite_number(head_learning_rate) and head_learning_rate > 0):
            raise ConfigurationError(f"head_learning_rate is {head_learning_rate}; it must be above 0.")
        if scales is not None and not isinstance(scales, Mapping):
            raise ConfigurationError(f"scales is {scales!r}; it must be a mapping of patterns to numbers.")
        for pattern, scale in (scales or {}).items():
            if not (is_finite_number(scale) and scale >= 0):
                raise ConfigurationError(f"scales gives {pattern!r} {scale!r}; it must be a number of at least 0.")
        self.layerwise_lr_decay = layerwise_lr_decay
        self.head_learning_rate = head_learning_rate
        self.scales = dict(scales or {})

    def learning_rate_scales(self, groups: dict[str, list[str]], args: TrainingArguments) -> dict[str, float]:
        scales = layerwise_scales(list(groups), self.layerwise_lr_decay or 1.0)
        if self.head_learning_rate is not None:
            if HEAD not in groups:
                raise ConfigurationError(f"head_learning_rate: no head is trained, only {', '.join(groups)}.")
            if not args.learning_rate > 0:
                raise ConfigurationError(
                    f"head_learning_rate is {self.head_learning_rate} with learning_rate={args.learning_rate}: the "
                    "head's rate is kept as a multiple of it, so it must be above 0. To train the head alone, freeze "
                    "the rest."
                )
            scales[HEAD] = self.head_learning_rate / args.learning_rate
        names = [name for members in groups.values() for name in members]
        for pattern, scale in self.scales.items():
            try:
                matched = set(match_names(names, pattern, groups))
            except ValueError as error:
                raise ConfigurationError(f"scales: {error}") from None
            for group, members in groups.items():
                if matched.issuperset(members):
                    scales[group] = scale
                    for name in members:
                        scales.pop(name, None)
                else:
                    scales.update({name: scale for name in members if name in matched})
        return scales


@dataclass
class LearningRateArguments:
    """Discriminative learning rates (Howard & Ruder 2018)."""

    _argument_group_name = "discriminative learning rates"

    layerwise_lr_decay: float | None = field(
        default=None,
        metadata={"help": "Divide the rate by this from each layer group to the one below it (ULMFiT: 2.6)."},
    )
    head_learning_rate: float | None = field(default=None, metadata={"help": "Learning rate of the head, absolute."})
    learning_rate_scales: dict | None = field(
        default=None,
        metadata={"help": 'Pattern -> multiple of learning_rate, as JSON: {"embeddings": 0, "layer.[0-3]": 0.1}.'},
    )

    def __post_init__(self):
        self.callbacks()

    def callbacks(self) -> list[TrainerCallback]:
        """The callback, if anything is asked for."""
        asked = (self.layerwise_lr_decay, self.head_learning_rate, self.learning_rate_scales or None)
        if all(value is None for value in asked):
            return []
        return [DiscriminativeLearningRateCallback(*asked)]
