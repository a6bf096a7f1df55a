"""A Trainer that was launched with others: that they are joined, and that one of them speaks."""

import os

from torch.distributed import distributed_c10d
from transformers import PrinterCallback, Trainer

from hf_ext.errors import ConfigurationError


def join_processes(trainer: Trainer) -> None:
    """
    See that the processes of a launch train one model, and make up for what the library leaves out.

    Args:
        trainer ([`~transformers.Trainer`]): Just made.

    Raises:
        RuntimeError: If each process would train a model of its own.
        ConfigurationError: If the launcher asks for FSDP where there is none.
    """
    launched, args = int(os.environ.get("WORLD_SIZE", "1")), trainer.args
    if args.world_size != launched:
        raise RuntimeError(
            f"{launched} processes were launched, but each sees a world of {args.world_size}: they would train "
            "separate models and overwrite each other's files. On machines without an accelerator pass "
            "TrainingArguments(use_cpu=True) (--use_cpu), which joins them through gloo."
        )
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and not trainer.is_fsdp_enabled:
        raise ConfigurationError(
            f"The launcher asks for FSDP, which the device {args.device} does not do: each process would hold the "
            "whole model. Launch with another configuration (configs/accelerate/cpu_2proc.yaml)."
        )
    if not trainer.is_world_process_zero():
        # It would say the same on every machine.
        trainer.remove_callback(PrinterCallback)
    if launched > 1 and args.use_cpu:
        # The library hands it on for GPUs only; without it gloo waits for half an hour.
        distributed_c10d._set_pg_timeout(args.ddp_timeout_delta)


def refuse_sharding(trainer: Trainer) -> None:
    """
    For techniques that freeze parameters for a time.

    Args:
        trainer ([`~transformers.Trainer`]): Before training.

    Raises:
        ConfigurationError: Under FSDP and DeepSpeed.
    """
    kind = "FSDP" if trainer.is_fsdp_enabled else "DeepSpeed" if trainer.is_deepspeed_enabled else None
    if kind is not None:
        raise ConfigurationError(
            f"Layers that are frozen for a time do not go with {kind}, which makes its plan of the parameters once. "
            "Train with DDP (configs/accelerate/multi_gpu.yaml), or without the technique."
        )
