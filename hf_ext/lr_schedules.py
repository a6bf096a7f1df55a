"""Learning-rate schedules that transformers does not have, as `lr_scheduler_type` and as schedulers of any loop."""

import math
from enum import Enum
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import SchedulerType
from transformers.utils import ExplicitEnum

from hf_ext.schedules import cyclical_triangular, slanted_triangular

ExtendedSchedulerType = Enum(
    "ExtendedSchedulerType",
    {member.name: member.value for member in SchedulerType}
    | {"SLANTED_TRIANGULAR": "slanted_triangular", "CYCLICAL_TRIANGULAR": "cyclical_triangular"},
    type=ExplicitEnum,
    module=__name__,
)
ExtendedSchedulerType.__doc__ = "`transformers.SchedulerType` with `slanted_triangular` and `cyclical_triangular`."


def get_slanted_triangular_schedule(
    optimizer: Optimizer, num_training_steps: int, cut_frac: float = 0.1, ratio: float = 32.0
) -> LambdaLR:
    """
    A scheduler that rises for a tenth of the steps and falls for the rest (Howard & Ruder 2018, equation 3).

    Every parameter group follows the same factor, so groups keep the ratio of their rates.

    Args:
        optimizer ([`torch.optim.Optimizer`]): Each group's `lr` is its highest rate.
        num_training_steps (`int`): Optimizer steps of the whole training.
        cut_frac (`float`, *optional*, defaults to 0.1): Share of the steps in which the rate rises.
        ratio (`float`, *optional*, defaults to 32): The highest rate over the lowest.

    Raises:
        ValueError: If `cut_frac` is not between 0 and 1, or `ratio` is below 1.
    """
    if not 0 < cut_frac < 1:
        raise ValueError(f"cut_frac is {cut_frac}; it must be between 0 and 1 (Howard & Ruder: 0.1).")
    if not 1 <= ratio < math.inf:
        raise ValueError(f"ratio is {ratio}; it must be at least 1 (Howard & Ruder: 32).")
    return LambdaLR(
        optimizer, partial(slanted_triangular, total_steps=num_training_steps, cut_frac=cut_frac, ratio=ratio)
    )


def get_cyclical_triangular_schedule(
    optimizer: Optimizer, num_training_steps: int, num_cycles: int = 3, min_ratio: float = 0.25, decay: float = 1.0
) -> LambdaLR:
    """
    A scheduler that goes up and down in straight lines (Smith 2017, section 3).

    Every parameter group follows the same factor, so groups keep the ratio of their rates.

    Args:
        optimizer ([`torch.optim.Optimizer`]): Each group's `lr` is its highest rate.
        num_training_steps (`int`): Optimizer steps of the whole training; the last cycle ends with it.
        num_cycles (`int`, *optional*, defaults to 3): Cycles.
        min_ratio (`float`, *optional*, defaults to 0.25): The lowest rate over the highest.
        decay (`float`, *optional*, defaults to 1.0): The height of a cycle over that of the one before; 0.5 is Smith's
            `triangular2`.

    Raises:
        ValueError: If `num_cycles` is below 1, or `min_ratio` or `decay` lies outside [0, 1].
    """
    if not 1 <= num_cycles < math.inf or num_cycles != int(num_cycles):
        raise ValueError(f"num_cycles is {num_cycles}; it must be a whole number of at least 1.")
    for name, value in (("min_ratio", min_ratio), ("decay", decay)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; it must be in [0, 1].")
    factor = partial(
        cyclical_triangular,
        total_steps=num_training_steps,
        num_cycles=int(num_cycles),
        min_ratio=min_ratio,
        decay=decay,
    )
    return LambdaLR(optimizer, factor)


OWN_SCHEDULES = {
    "slanted_triangular": get_slanted_triangular_schedule,
    "cyclical_triangular": get_cyclical_triangular_schedule,
}
