"""Pure functions of training progress: learning-rate factors and when what begins."""

import math
from bisect import bisect_right
from collections.abc import Sequence

UNITS = ("epochs", "steps", "fraction")


def slanted_triangular(step: int, total_steps: int, cut_frac: float = 0.1, ratio: float = 32.0) -> float:
    r"""
    The slanted triangular factor of the learning rate: a short steep rise, a long fall.

    Howard & Ruder (2018), equation 3, with $cut = \lfloor T \cdot cut\_frac \rfloor$ (at least 1):
    $p = t / cut$ while $t < cut$, then $1 - (t - cut) / (T - cut)$; the factor is $(1 + p (ratio - 1)) / ratio$.

    Args:
        step (`int`): Optimizer steps done, $t$.
        total_steps (`int`): Optimizer steps of the whole training, $T$.
        cut_frac (`float`, *optional*, defaults to 0.1): Share of the steps in which the rate rises.
        ratio (`float`, *optional*, defaults to 32): The highest rate over the lowest.

    Returns:
        `float`: Between `1 / ratio` and 1.
    """
    # 100 * 0.29 is a little less than 29.
    cut = max(1, math.floor(round(total_steps * cut_frac, 6)))
    p = step / cut if step < cut else max(0.0, 1 - (step - cut) / max(1, total_steps - cut))
    return (1 + p * (ratio - 1)) / ratio


def cyclical_triangular(
    step: int, total_steps: int, num_cycles: int = 3, min_ratio: float = 0.25, decay: float = 1.0
) -> float:
    """
    The triangular cyclical factor of the learning rate: up and down in straight lines, `num_cycles` times.

    Smith (2017), section 3: `min_ratio` is his base rate over his maximal rate (he takes a third or a quarter), half a
    cycle is his step size. `decay=0.5` is his `triangular2`, which halves the height of each next cycle.

    Args:
        step (`int`): Optimizer steps done.
        total_steps (`int`): Optimizer steps of the whole training; the last cycle ends with it.
        num_cycles (`int`, *optional*, defaults to 3): Cycles.
        min_ratio (`float`, *optional*, defaults to 0.25): The lowest rate over the highest.
        decay (`float`, *optional*, defaults to 1.0): The height of a cycle over that of the one before.

    Returns:
        `float`: Between `min_ratio` and 1.
    """
    half = total_steps / (2 * num_cycles)
    cycle = min(int(step / (2 * half)), num_cycles - 1)
    height = max(0.0, 1 - abs(step / half - 2 * cycle - 1))
    return min_ratio + (1 - min_ratio) * height * decay**cycle


def to_step(moment: float, unit: str, steps_per_epoch: int, max_steps: int) -> int:
    """
    The optimizer step before which a moment of training falls.

    Args:
        moment (`float`): In `unit`.
        unit (`str`): `"epochs"`, `"steps"` or `"fraction"` (of the whole training).
        steps_per_epoch (`int`): Optimizer steps of an epoch.
        max_steps (`int`): Optimizer steps of the whole training.

    Returns:
        `int`: The number of steps done when the moment has come.
    """
    steps = moment * {"epochs": steps_per_epoch, "steps": 1, "fraction": max_steps}[unit]
    # 0.1 * 30 is a little more than 3.
    return math.ceil(round(steps, 6))


def stages_begun(step: int, begins: Sequence[int]) -> int:
    """
    How many stages have begun.

    Args:
        step (`int`): Optimizer steps done.
        begins (`Sequence[int]`): The step before which each stage begins, in ascending order.

    Returns:
        `int`: From 0 to `len(begins)`.
    """
    return bisect_right(begins, step)
