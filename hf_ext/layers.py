"""A model's ordered layer groups, and freezing by group or name pattern."""

import re
from collections.abc import Iterable

from torch import nn

from hf_ext.models import freezing
from hf_ext.models.freezing import match_names

__all__ = ["freeze_parameters", "layer_groups", "match_names", "match_parameters", "unfreeze_parameters"]

# A stack with a smaller share of the largest stack's parameters is a part of the embeddings or of the head.
SMALLEST_STACK = 0.1
EMBEDDINGS, HEAD = "embeddings", "head"


def layer_groups(model: nn.Module) -> dict[str, list[str]]:
    """
    The parameters of a model in ordered groups: embeddings, layer 0 .. n, head.

    Found by structure: the layers are the items of the outermost `ModuleList`s of blocks (modules with children), in
    the order in which the model registers them: an encoder's, then a decoder's. What comes before the first is the
    embeddings, what comes after the last (final norm, pooler, classifier) is the head; what follows an inner stack
    belongs to that stack's last layer. Embeddings outside the layers, and what their owner registers after them behind
    its layers (the relative positions of DeBERTa-v2 and MPNet), are embeddings too. In a model without such a list,
    such as the TextCNN, all of the base model but its embeddings is layer 0.

    Args:
        model (`torch.nn.Module`): Any model, also one that is wrapped by PEFT. Parameters that several modules share
            are counted at their first name.

    Returns:
        `dict[str, list[str]]`: `"embeddings"`, `"layer.0"` .. `"layer.n"`, `"head"` (those that have parameters), each
        with its parameters' names. Every parameter is in exactly one group.
    """
    names = [name for name, _ in model.named_parameters()]
    stacks = _layer_stacks(model)
    groups = _groups_of_stacks(model, names, stacks) if stacks else _groups_without_stack(model, names)
    order = sorted(groups, key=lambda group: (group == HEAD, group != EMBEDDINGS, _number(group)))
    return {group: groups[group] for group in order}


def match_parameters(model: nn.Module, patterns: Iterable[str]) -> dict[str, nn.Parameter]:
    r"""
    The parameters that any of the patterns means.

    A pattern is the name of a layer group (see [`layer_groups`]: `"embeddings"`, `"layer.0"`, `"head"`, also as a
    regular expression: `r"layer\.[0-3]"`), or `"base_model"` or `"transformer"` for all groups but the head, else a
    regular expression that matches whole segments of parameters' names (`"classifier"`, `r"attention\.self"`).

    Args:
        model (`torch.nn.Module`): Any model.
        patterns (`Iterable[str]`): Patterns.

    Returns:
        `dict[str, torch.nn.Parameter]`: The matches, in the model's order.

    Raises:
        ValueError: If a pattern matches nothing; the message lists what there is.
        TypeError: If a single string is given instead of a list.
    """
    return freezing.match_parameters(model, patterns, layer_groups(model))


def freeze_parameters(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """
    Exclude the matching parameters from training. Do it before the Trainer is built, or let
    [`GradualUnfreezingCallback`] do it: an optimizer does not take up parameters that are unfrozen later.

    Args:
        model (`torch.nn.Module`): Any model.
        patterns (`Iterable[str]`): See [`match_parameters`].

    Returns:
        `list[str]`: The names of the frozen parameters.
    """
    return freezing.freeze_parameters(model, patterns, layer_groups(model))


def unfreeze_parameters(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """
    Train the matching parameters again: the reverse of [`freeze_parameters`], with the same arguments and result.
    """
    return freezing.unfreeze_parameters(model, patterns, layer_groups(model))


# ---- Inside ----


def _groups_of_stacks(model: nn.Module, names: list[str], stacks: dict[str, list[str]]) -> dict[str, list[str]]:
    blocks = [block for items in stacks.values() for block in items]
    layer_of = {block: f"layer.{number}" for number, block in enumerate(blocks)}
    last_of_stack = {layer_of[items[-1]] for items in list(stacks.values())[:-1]}
    embedded = _embedding_prefixes(model, stacks)
    base_model = _base_model_prefix(model, next(iter(stacks)))
    groups: dict[str, list[str]] = {}
    current = EMBEDDINGS
    for name in names:
        block = next((block for block in blocks if name.startswith(f"{block}.")), None)
        if block is not None:
            group = current = layer_of[block]
        elif name.startswith(embedded):
            group = EMBEDDINGS
        elif current == EMBEDDINGS:
            # XLM-RoBERTa and CamemBERT register the classifier before the base model.
            group = EMBEDDINGS if name.startswith(base_model) else HEAD
        else:
            group = current if current in last_of_stack else HEAD
        groups.setdefault(group, []).append(name)
    return groups


def _base_model_prefix(model: nn.Module, stack: str) -> str:
    """What the names of the base model around a stack begin with; nothing if there is no head around that."""
    segments, prefix = stack.split("."), getattr(model, "base_model_prefix", "")
    if prefix not in segments:
        return ""
    # PEFT's wrappers stand in front, and "model" may be the name of both.
    last = len(segments) - segments[::-1].index(prefix)
    return ".".join(segments[:last]) + "."


def _groups_without_stack(model: nn.Module, names: list[str]) -> dict[str, list[str]]:
    embedded = _embedding_prefixes(model, {})
    base_model = re.compile(rf"(?:^|\.){re.escape(getattr(model, 'base_model_prefix', '') or '-')}\.")
    groups: dict[str, list[str]] = {}
    for name in names:
        group = EMBEDDINGS if name.startswith(embedded) else "layer.0" if base_model.search(name) else HEAD
        groups.setdefault(group, []).append(name)
    return groups


def _layer_stacks(model: nn.Module) -> dict[str, list[str]]:
    """Name of each outermost `ModuleList` of blocks -> names of its blocks, without the small ones."""
    stacks: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{stack}.") for stack in stacks):
            blocks = _blocks(module, name)
            if blocks:
                stacks[name] = blocks
    sizes = {name: sum(parameter.numel() for parameter in model.get_submodule(name).parameters()) for name in stacks}
    return {name: items for name, items in stacks.items() if sizes[name] >= SMALLEST_STACK * max(sizes.values())}


def _blocks(modules: nn.ModuleList, name: str) -> list[str]:
    """Names of the blocks of a list, also of one whose items are lists themselves; none if an item is a bare layer."""
    found = []
    for number, item in enumerate(modules):
        inner = f"{name}.{number}"
        if isinstance(item, nn.ModuleList):
            found += _blocks(item, inner)
        # PEFT puts a bare layer into a module with children.
        elif any(True for _ in getattr(item, "base_layer", item).children()) and any(True for _ in item.parameters()):
            found.append(inner)
        else:
            return []
    return found


def _embedding_prefixes(model: nn.Module, stacks: dict[str, list[str]]) -> tuple[str, ...]:
    """What the names of embeddings outside the layers begin with."""
    embeddings = [name for name, module in model.named_modules() if isinstance(module, nn.Embedding)]
    # PEFT puts its own matrices beside the embedding that it wraps.
    prefixes = [f"{name.removesuffix('.base_layer')}." for name in embeddings]
    if hasattr(model, "peft_config"):
        prefixes.append("prompt_encoder.")
    for stack in stacks:
        owner, _, own_name = stack.rpartition(".")
        children = list(model.get_submodule(owner).named_children())
        behind = children[[name for name, _ in children].index(own_name) + 1 :]
        found = False
        for name, module in behind:
            found = found or isinstance(module, nn.Embedding)
            # BART's `layernorm_embedding`, which no structure tells from a final norm.
            if found or "embed" in name:
                prefixes.append(f"{owner}.{name}.".removeprefix("."))
    return tuple(prefixes)


def _number(group: str) -> int:
    return int(group.rpartition(".")[2]) if group.startswith("layer.") else -1
