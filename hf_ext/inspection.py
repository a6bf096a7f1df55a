"""A model and its gradients as tables: what there is, where, and what flows."""

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import nn

from hf_ext.evaluation.tables import aligned
from hf_ext.layers import layer_groups


@dataclass(frozen=True)
class GradientFacts:
    """
    The gradient of one parameter.

    Args:
        name (`str`): Of the parameter.
        shape (`tuple[int, ...]`): Its shape.
        norm (`float`): L2 norm of the gradient; NaN or infinite if a value is.
        largest (`float`): Its largest absolute value.
        zeros (`float`): Share of the values that are exactly 0; rows that a sparse gradient leaves out are.
        nonfinite (`int`): Values that are NaN or infinite.
    """

    name: str
    shape: tuple[int, ...]
    norm: float
    largest: float
    zeros: float
    nonfinite: int


def gradient_facts(model: nn.Module) -> list[GradientFacts]:
    """
    The gradients that a model holds now: after `backward()` and before `zero_grad()`.

    Args:
        model (`torch.nn.Module`): Any model.

    Returns:
        `list[GradientFacts]`: A trainable parameter each that has a gradient, in the order of the model.
    """
    facts = []
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        values = gradient_values(parameter.grad).detach().float()
        if not values.numel():
            facts.append(GradientFacts(name, tuple(parameter.shape), 0.0, 0.0, 1.0, 0))
            continue
        zeros = 1 - int(values.count_nonzero()) / parameter.numel()
        nonfinite = int((~torch.isfinite(values)).sum())
        norm, largest = values.norm().item(), values.abs().max().item()
        facts.append(GradientFacts(name, tuple(parameter.shape), norm, largest, zeros, nonfinite))
    return facts


def gradient_table(model: nn.Module) -> str:
    """
    A line a parameter: shape, norm of the gradient, its largest value, share of zeros, values that are not finite.

    Args:
        model (`torch.nn.Module`): With gradients; from a callback's `on_pre_optimizer_step`, or after `backward()`.

    Returns:
        `str`: Without a final newline. Parameters without a gradient are counted in the last line.
    """
    facts = gradient_facts(model)
    rows = [("parameter", "shape", "norm", "largest", "zeros", "not finite")]
    rows += [
        (
            fact.name,
            "x".join(map(str, fact.shape)) or "1",
            f"{fact.norm:.3g}",
            f"{fact.largest:.3g}",
            f"{100 * fact.zeros:.1f} %",
            str(fact.nonfinite),
        )
        for fact in facts
    ]
    without = sum(parameter.grad is None for parameter in model.parameters())
    return aligned(rows) + f"\n{without} parameters have no gradient." if without else aligned(rows)


def gradient_norms(model: nn.Module, groups: dict[str, list[str]] | None = None) -> dict[str, float]:
    """
    L2 norm of the gradient of each layer group.

    Args:
        model (`torch.nn.Module`): With gradients.
        groups (`dict[str, list[str]]`, *optional*): Group -> names of parameters; by default [`layer_groups`].

    Returns:
        `dict[str, float]`: Groups without a gradient are left out.
    """
    parameters = dict(model.named_parameters())
    norms = {}
    for group, names in (layer_groups(model) if groups is None else groups).items():
        values = [gradient_values(parameters[name].grad) for name in names if parameters[name].grad is not None]
        if values:
            norms[group] = nn.utils.get_total_norm(values).item()
    return norms


def gradient_values(grad: torch.Tensor) -> torch.Tensor:
    """A gradient's values; of a sparse one those of its rows, repeated rows added up."""
    return grad.coalesce().values() if grad.is_sparse else grad


def model_summary(model: nn.Module) -> str:
    """
    A line a layer group: parameters, how many of them are trained, megabytes, number formats and devices; then totals.

    Args:
        model (`torch.nn.Module`): Any model that [`layer_groups`] knows, or else one group.

    Returns:
        `str`: Without a final newline.
    """
    parameters = dict(model.named_parameters())
    rows = [("group", "tensors", "parameters", "trained", "MB", "format", "device")]
    groups = {**layer_groups(model), "all": list(parameters)}
    for group, names in groups.items():
        own = [parameters[name] for name in names]
        rows.append(
            (
                group,
                str(len(own)),
                f"{sum(value.numel() for value in own):,}",
                f"{sum(value.numel() for value in own if value.requires_grad):,}",
                f"{sum(value.numel() * value.element_size() for value in own) / 1e6:.2f}",
                ", ".join(sorted({str(value.dtype).removeprefix("torch.") for value in own})),
                ", ".join(sorted({str(value.device) for value in own})),
            )
        )
    return aligned(rows)


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """All parameters, and those that are trained."""
    sizes = [(value.numel(), value.requires_grad) for value in model.parameters()]
    return {"parameters": sum(size for size, _ in sizes), "trainable_parameters": sum(size for size, on in sizes if on)}


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of a model's parameters and buffers, with their names: whether two models are the same."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def is_dead(norms: list[float]) -> bool:
    """Whether a group's gradient was nothing at all, each time."""
    return bool(norms) and all(norm == 0 for norm in norms)


def is_exploding(norms: list[float], factor: float) -> bool:
    """Whether the last of a group's gradient norms is more than `factor` times the median of those before."""
    before = sorted(norm for norm in norms[:-1] if math.isfinite(norm))
    return bool(before) and norms[-1] > factor * before[len(before) // 2] > 0
