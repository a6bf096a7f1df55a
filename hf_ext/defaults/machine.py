"""What a machine can do: the device, and the number format that was asked for."""

import os
from typing import Any

import torch

from hf_ext.errors import ConfigurationError
from hf_ext.precision import resolve_mixed_precision


def set_machine(values: dict[str, Any]) -> None:
    """
    Set `use_cpu`, and `mixed_precision` with its flags `fp16` and `bf16`, to what the machine can do.

    Args:
        values (`dict[str, Any]`): Field names -> given values; changed in place.

    Raises:
        ConfigurationError: If the precision is given twice.
    """
    values.setdefault("use_cpu", not torch.accelerator.is_available())
    flags = [name for name in ("fp16", "bf16") if values.get(name)]
    requested = values.get("mixed_precision", flags[0] if flags else None)
    if len(flags) > 1 or (flags and requested != flags[0]):
        raise ConfigurationError(
            f"The precision is given twice: {', '.join(flags)}, mixed_precision={values.get('mixed_precision')}."
        )
    if requested is None:
        launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        requested = launcher if launcher in ("fp16", "bf16") else "auto"
    values["mixed_precision"] = requested
    used = resolve_mixed_precision(requested, values["use_cpu"])
    if values.get(used) is False and requested == "auto":
        used = "no"
    values.update(fp16=used == "fp16", bf16=used == "bf16")
