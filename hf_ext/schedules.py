"""Pure functions of training progress: learning-rate factors and when what begins."""

import math
from bisect import bisect_right
from collections.abc import Sequence

UNITS = ("epochs", "steps", "fraction")
PACINGS = ("linear", "root", "log", "exp", "step")
INTERPOLATIONS = ("linear", "cosine")


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


def competence(moment: float, total: float, initial: float = 0.3, final: float = 1.0, pacing: str = "linear") -> float:
    r"""
    The share of the rows, from the easiest on, that a curriculum draws from.

    With $u = \min(1, t / T)$, $c_0$ = `initial` and $c_1$ = `final`:

    - `"linear"`: $c_0 + u (c_1 - c_0)$, what Platanios et al. (2019) call competence with p = 1.
    - `"root"`: $\sqrt{u (c_1^2 - c_0^2) + c_0^2}$, their p = 2 for any $c_1$: what is new gets a share of the training
      that does not shrink as there is more of it.
    - `"log"`: $c_0 + (c_1 - c_0) \max(0, 1 + 0.1 \ln(u + e^{-10}))$, early most of the rows.
    - `"exp"`: $c_0 + (c_1 - c_0) (e^{10 u} - 1) / (e^{10} - 1)$, most of the rows late.
    - `"step"`: $c_0$ before $T$, then $c_1$.

    Wu, Dyer & Neyshabur (2021) compare such functions, for images.

    Args:
        moment (`float`): What has been trained, $t$, in any unit.
        total (`float`): When `final` is reached, $T$, in the same unit; above 0.
        initial (`float`, *optional*, defaults to 0.3): Share at the start, in (0, 1].
        final (`float`, *optional*, defaults to 1.0): Share from `total` on, at least `initial`.
        pacing (`str`, *optional*, defaults to `"linear"`): One of `"linear"`, `"root"`, `"log"`, `"exp"`, `"step"`.

    Returns:
        `float`: From `initial` to `final`, never less than at an earlier moment.
    """
    u = moment / total
    if u >= 1:
        return float(final)
    if pacing == "root":
        share = math.sqrt(u * (final**2 - initial**2) + initial**2)
    else:
        progress = {
            "linear": lambda: u,
            "log": lambda: 1 + 0.1 * math.log(u + math.exp(-10)),
            "exp": lambda: math.expm1(10 * u) / math.expm1(10),
            "step": lambda: 0.0,
        }[pacing]()
        share = initial + (final - initial) * progress
    # Rounding, and the logarithm's last bit, must not carry it over its ends.
    return float(min(max(share, initial), final))


def interpolate(progress: float, begin: float, end: float, shape: str = "linear") -> float:
    r"""
    A number on its way from one value to another, such as a temperature or a loss's weight.

    With $u$ = `progress`: `"linear"` is $begin + u (end - begin)$, `"cosine"` is
    $end + (begin - end) (1 + \cos \pi u) / 2$, slow at both ends.

    Args:
        progress (`float`): Share of the training that is done; below 0 counts as 0, above 1 as 1.
        begin (`float`): Value at 0.
        end (`float`): Value at 1.
        shape (`str`, *optional*, defaults to `"linear"`): `"linear"` or `"cosine"`.

    Returns:
        `float`: Between `begin` and `end`.
    """
    u = min(max(progress, 0.0), 1.0)
    share = {"linear": lambda: u, "cosine": lambda: (1 - math.cos(math.pi * u)) / 2}[shape]()
    # Exact at both ends.
    return begin * (1 - share) + end * share
