"""A model's ordered layer groups, and freezing by name pattern."""

import re

from torch import nn

from hf_ext.models.freezing import freeze_parameters, match_parameters, unfreeze_parameters

__all__ = ["freeze_parameters", "layer_groups", "match_parameters", "unfreeze_parameters"]


def layer_groups(model: nn.Module) -> dict[str, list[str]]:
    """
    The parameters of a model in ordered groups: embeddings, layer 0 .. n, head.

    Found by structure. The layers are the items of the longest `ModuleList` (for models without one of at least two
    alike items, such as the TextCNN, everything between embeddings and head is one layer). What the model registers
    before them is the embeddings; what it registers after them is the head.

    Args:
        model (`torch.nn.Module`): Any model; parameters shared by several modules are counted at their first name.

    Returns:
        `dict[str, list[str]]`: `"embeddings"`, `"layer.0"` .. `"layer.n"`, `"head"` (those that have parameters), each
        with its parameters' names. Every parameter is in exactly one group.
    """
    names = [name for name, _ in model.named_parameters()]
    stack = _layer_stack(model)
    embeddings = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    groups: dict[str, list[str]] = {}
    seen_layers = False
    for name in names:
        inside = re.match(rf"{re.escape(stack)}\.(\d+)\.", name) if stack else None
        if inside:
            seen_layers = True
            group = f"layer.{inside.group(1)}"
        elif stack is None:
            # No stack of layers: the encoder is what shares the base model's prefix.
            base = getattr(model, "base_model_prefix", "") + "."
            group = "embeddings" if name in embeddings else "layer.0" if name.startswith(base) else "head"
        else:
            group = "head" if seen_layers and name not in embeddings else "embeddings"
        groups.setdefault(group, []).append(name)
    order = sorted(
        groups, key=lambda group: (group == "head", group != "embeddings", int(group.partition(".")[2] or 0))
    )
    return {group: groups[group] for group in order}


def _layer_stack(model: nn.Module) -> str | None:
    """Name of the `ModuleList` with the most parameters whose items are all of one class and hold several modules."""
    candidates = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) > 0
        and len({type(item) for item in module}) == 1
        and any(True for _ in module[0].children())
    }
    return max(candidates, key=candidates.get) if candidates else None
