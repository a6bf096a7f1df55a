"""Pure functions of multi-task losses: how much each task's loss counts."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real

from hf_ext.errors import ConfigurationError

WEIGHTINGS = ("fixed", "uncertainty", "dwa")
# What Liu et al. (2019) take.
DWA_TEMPERATURE = 2.0


def normalized_weights(weights: Mapping[str, float] | None, tasks: Sequence[str]) -> dict[str, float]:
    """
    The tasks' loss weights, scaled to a mean of 1: the learning rate means the same whatever the weights add up to.

    Args:
        weights (`Mapping[str, float]`, *optional*): Task -> weight of at least 0; by default all are equal.
        tasks (`Sequence[str]`): The tasks.

    Returns:
        `dict[str, float]`: In the order of `tasks`.

    Raises:
        ConfigurationError: If a task has no weight, a weight has no task, or a weight is negative or not finite; if
            all of them are 0.
    """
    if weights is None:
        return dict.fromkeys(tasks, 1.0)
    if not isinstance(weights, Mapping):
        raise ConfigurationError(f"loss_weights is {weights!r}; it must be a mapping of tasks to numbers.")
    check_same_tasks("loss_weights", weights, tasks)
    for task, weight in weights.items():
        if not isinstance(weight, Real) or isinstance(weight, bool) or not 0 <= weight < math.inf:
            raise ConfigurationError(
                f"loss_weights gives the task {task!r} {weight!r}; a weight must be a finite number of at least 0."
            )
    total = float(sum(weights.values()))
    if total == 0:
        raise ConfigurationError(
            f"loss_weights are all 0 ({', '.join(tasks)}), so nothing would be trained. Give a task a weight above 0."
        )
    return {task: weights[task] * len(tasks) / total for task in tasks}


def dynamic_weight_average(
    before: Sequence[float], last: Sequence[float], temperature: float = DWA_TEMPERATURE
) -> list[float]:
    r"""
    Weights by how fast the tasks' losses fall: the slower, the more.

    Liu, Johns & Davison (2019), "End-to-End Multi-Task Learning with Attention", equation 7:
    $\lambda_k = K \exp(w_k / T) / \sum_i \exp(w_i / T)$ with $w_k = L_k(t-1) / L_k(t-2)$.

    Args:
        before (`Sequence[float]`): Each task's mean loss in the epoch before the last.
        last (`Sequence[float]`): Each task's mean loss in the last epoch.
        temperature (`float`, *optional*, defaults to 2.0): The greater, the more even the weights.

    Returns:
        `list[float]`: Weights with a mean of 1.
    """
    # A loss of 0 cannot fall any further: its ratio is that of a loss that stays as it is.
    rates = [new / old if old > 0 else 1.0 for old, new in zip(before, last, strict=True)]
    largest = max(rates)
    powers = [math.exp((rate - largest) / temperature) for rate in rates]
    return [len(powers) * power / sum(powers) for power in powers]


def uncertainty_weighted(loss, log_variance, regression: bool):
    r"""
    A loss weighed by a learned variance of its task's noise.

    Kendall, Gal & Cipolla (2018), "Multi-Task Learning Using Uncertainty to Weigh Losses", equations 7 and 10, with
    $s = \log \sigma^2$: $L e^{-s} + s / 2$ for classification, $L e^{-s} / 2 + s / 2$ for regression.

    Args:
        loss (`torch.Tensor`): The task's mean loss.
        log_variance (`torch.Tensor`): $s$, a scalar.
        regression (`bool`): Whether the loss is a squared error.

    Returns:
        `torch.Tensor`: A scalar, which is negative where loss and variance are small.
    """
    return loss * (-log_variance).exp() * (0.5 if regression else 1.0) + log_variance / 2


def check_same_tasks(argument: str, given: Mapping[str, object], tasks: Sequence[str]) -> None:
    """
    See that a mapping by tasks has an entry for each task and no other.

    Raises:
        ConfigurationError: With the names that differ.
    """
    missing, unknown = [task for task in tasks if task not in given], [task for task in given if task not in tasks]
    if missing or unknown:
        found = [f"no entry for {', '.join(map(repr, missing))}"] if missing else []
        found += [f"an entry for {', '.join(map(repr, unknown))}, which is no task"] if unknown else []
        raise ConfigurationError(
            f"{argument} has {' and '.join(found)}. The tasks are those of models: {', '.join(tasks)}."
        )
