"""Freeze and unfreeze parameters by name pattern. Saved beside the TextCNN: imports nothing of the package."""

import re
from collections.abc import Iterable

from torch import nn


def match_parameters(model: nn.Module, patterns: Iterable[str]) -> dict[str, nn.Parameter]:
    r"""
    The parameters whose dotted name contains a match of any pattern.

    A pattern is a regular expression that has to match whole segments of the name: `"embeddings"`, `"layer.0"` (not
    `layer.01`) and `r"layer\.[0-3]\.attention"` all work.

    Args:
        model (`torch.nn.Module`): Any model.
        patterns (`Iterable[str]`): Names or regular expressions.

    Returns:
        `dict[str, torch.nn.Parameter]`: The matches, in the model's order.

    Raises:
        ValueError: If a pattern matches nothing; the message lists what there is.
        TypeError: If a single string is given instead of a list.
    """
    if isinstance(patterns, str):
        raise TypeError(f"patterns is the string {patterns!r}; pass a list: [{patterns!r}].")
    named = dict(model.named_parameters())
    matched = set()
    for pattern in patterns:
        expression = re.compile(rf"(?:^|\.)(?:{pattern})(?:\.|$)")
        hits = {name for name in named if expression.search(name)}
        if not hits:
            modules = sorted({".".join(name.split(".")[:2]) for name in named})
            raise ValueError(
                f"The pattern {pattern!r} matches no parameter of {type(model).__name__}. "
                f"Its parameters lie under: {', '.join(modules)}."
            )
        matched |= hits
    return {name: parameter for name, parameter in named.items() if name in matched}


def freeze_parameters(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """
    Exclude the matching parameters from training.

    Args:
        model (`torch.nn.Module`): Any model.
        patterns (`Iterable[str]`): See [`match_parameters`].

    Returns:
        `list[str]`: The names of the frozen parameters.
    """
    matched = match_parameters(model, patterns)
    for parameter in matched.values():
        parameter.requires_grad_(False)
        parameter.grad = None
    return list(matched)


def unfreeze_parameters(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """
    Train the matching parameters again: the reverse of [`freeze_parameters`], with the same arguments and result.
    """
    matched = match_parameters(model, patterns)
    for parameter in matched.values():
        parameter.requires_grad_(True)
    return list(matched)
