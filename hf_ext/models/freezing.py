"""Freeze and unfreeze parameters by name pattern. Saved beside the TextCNN: imports nothing of the package."""

import re
from collections.abc import Iterable, Mapping

from torch import nn

# What a pattern may call everything but the head.
BASE_MODEL = ("base_model", "transformer")


def match_names(names: Iterable[str], pattern: str, groups: Mapping[str, list[str]]) -> list[str]:
    r"""
    The parameter names that a pattern means.

    Args:
        names (`Iterable[str]`): Dotted parameter names.
        pattern (`str`): A regular expression that has to match a group's whole name (`"embeddings"`, `"layer.0"`), or
            `"base_model"` or `"transformer"` for all groups but `"head"`, else a regular expression that has to match
            whole segments of a parameter's name: `r"layer\.[0-3]\.attention"`.
        groups (`Mapping[str, list[str]]`): Groups of the names; may be empty.

    Returns:
        `list[str]`: The matches in the given order.

    Raises:
        ValueError: If the pattern is no regular expression or matches nothing; the message lists what there is.
    """
    try:
        whole, segments = re.compile(pattern), re.compile(rf"(?:^|\.)(?:{pattern})(?:\.|$)")
    except re.error as error:
        raise ValueError(f"The pattern {pattern!r} is no regular expression: {error}.") from None
    names = list(names)
    hits = {name for group, members in groups.items() if whole.fullmatch(group) for name in members}
    if not hits and pattern in BASE_MODEL:
        hits = {name for group, members in groups.items() if group != "head" for name in members}
    hits = hits or {name for name in names if segments.search(name)}
    if not hits:
        modules = sorted({".".join(name.split(".")[:2]) for name in names})
        known = f" Layer groups: {', '.join(groups)}." if groups else ""
        raise ValueError(
            f"The pattern {pattern!r} matches no parameter.{known} Parameters lie under: {', '.join(modules)}."
        )
    return [name for name in names if name in hits]


def match_parameters(
    model: nn.Module, patterns: Iterable[str], groups: Mapping[str, list[str]] | None = None
) -> dict[str, nn.Parameter]:
    """
    The parameters that any of the patterns means (see [`match_names`]).

    Args:
        model (`torch.nn.Module`): Any model.
        patterns (`Iterable[str]`): Names or regular expressions.
        groups (`Mapping[str, list[str]]`, *optional*): Groups of the names; by default the base model and the head.

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
        matched.update(match_names(named, pattern, _groups_of(model) if groups is None else groups))
    return {name: parameter for name, parameter in named.items() if name in matched}


def freeze_parameters(
    model: nn.Module, patterns: Iterable[str], groups: Mapping[str, list[str]] | None = None
) -> list[str]:
    """
    Exclude the matching parameters from training.

    Args:
        model (`torch.nn.Module`): Any model.
        patterns (`Iterable[str]`): See [`match_parameters`].
        groups (`Mapping[str, list[str]]`, *optional*): See [`match_parameters`].

    Returns:
        `list[str]`: The names of the frozen parameters.
    """
    matched = match_parameters(model, patterns, groups)
    for parameter in matched.values():
        parameter.requires_grad_(False)
        parameter.grad = None
    return list(matched)


def unfreeze_parameters(
    model: nn.Module, patterns: Iterable[str], groups: Mapping[str, list[str]] | None = None
) -> list[str]:
    """
    Train the matching parameters again: the reverse of [`freeze_parameters`], with the same arguments and result.
    """
    matched = match_parameters(model, patterns, groups)
    for parameter in matched.values():
        parameter.requires_grad_(True)
    return list(matched)


def _groups_of(model: nn.Module) -> dict[str, list[str]]:
    """The two groups that every model with a `base_model_prefix` has."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    groups: dict[str, list[str]] = {"base_model": [], "head": []}
    for name, _ in model.named_parameters():
        groups["base_model" if name.startswith(prefix) else "head"].append(name)
    return groups
