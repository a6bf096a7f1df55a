"""The optimizer's groups where layers have learning rates of their own."""

from collections.abc import Collection

from torch import nn

from hf_ext.layers import layer_groups


def trainable_groups(model: nn.Module) -> dict[str, list[str]]:
    """The layer groups that have trainable parameters, with the names of these; see [`layer_groups`]."""
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    groups = {group: [n for n in names if n in trainable] for group, names in layer_groups(model).items()}
    return {group: names for group, names in groups.items() if names}


def scaled_groups(
    model: nn.Module, scales: dict[str, float], decayed: Collection[str], learning_rate: float, weight_decay: float
) -> list[dict]:
    """
    A group for each learning rate and weight decay.

    Args:
        model (`torch.nn.Module`): Whose trainable parameters.
        scales (`dict[str, float]`): Layer group, or a parameter's name, -> multiplier of the learning rate.
        decayed (`Collection[str]`): Names of the parameters that decay.
        learning_rate (`float`): What the multipliers are of.
        weight_decay (`float`): Of those that decay.

    Returns:
        `list[dict]`: As an optimizer takes them; `layer_group` is the name that each is logged under.

    Raises:
        ValueError: If a layer group has no multiplier, or a multiplier no group or parameter.
    """
    groups, parameters = trainable_groups(model), dict(model.named_parameters())
    missing = sorted(set(groups) - set(scales))
    unknown = sorted(set(scales) - set(groups) - {name for names in groups.values() for name in names})
    if missing or unknown:
        raise ValueError(
            f"learning_rate_scales must name every layer group of the model: {', '.join(groups)}; it may name "
            f"parameters too. Missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}."
        )
    scaled: dict[tuple, dict] = {}
    for group, names in groups.items():
        for name in sorted(names, key=lambda name: (name in scales, name not in decayed)):
            scale = scales.get(name, scales[group])
            key = (group, scale, name in decayed)
            if key not in scaled:
                scaled[key] = {
                    "params": [],
                    "weight_decay": weight_decay if name in decayed else 0.0,
                    "lr": float(learning_rate * scale),
                    # A part of a group with a rate of its own is logged under a name of its own.
                    "layer_group": group if scale == scales[group] else f"{group}_x{scale:g}",
                }
            scaled[key]["params"].append(parameters[name])
    return list(scaled.values())
