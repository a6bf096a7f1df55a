"""Which number format to train in on this machine."""

import torch
from transformers import TrainingArguments

from hf_ext.errors import ConfigurationError


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 matrices in hardware; without that bf16 is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))


def resolve_mixed_precision(requested: str, use_cpu: bool) -> str:
    """
    The format to train in.

    Args:
        requested (`str`): `"auto"`, `"no"`, `"bf16"` or `"fp16"`.
        use_cpu (`bool`): Whether the run is on the processor. fp16 needs a GPU, so there it means `"auto"`.

    Returns:
        `str`: `"no"`, `"bf16"` or `"fp16"`.
    """
    if requested != "auto" and not (requested == "fp16" and use_cpu):
        return requested
    supported = cpu_has_bf16() if use_cpu else torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bf16" if supported else "no"


def check_precision(training_args: TrainingArguments) -> None:
    """
    See that the number format is one that this device trains in.

    Raises:
        ConfigurationError: If it is fp16 on a CPU, where the library would train in float32 without a word.
    """
    if training_args.fp16 and training_args.device.type == "cpu":
        raise ConfigurationError(
            "fp16=True needs a GPU; this run is on a CPU. Pass bf16=True where the processor multiplies bfloat16 in "
            "hardware, or neither. (The recipes choose by themselves: mixed_precision=auto.)"
        )
