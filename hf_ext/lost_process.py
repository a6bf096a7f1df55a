"""When another process of a run on several dies: what the others say, and how the run goes on."""

import os
from collections.abc import Mapping
from pathlib import Path

# What gloo, NCCL and the store that joins the processes say when there is nobody at the other end any more.
SIGNS = (
    "connection closed by peer",
    "connection reset by peer",
    "connection was likely closed",
    "broken pipe",
    "timed out waiting",
    "application timeout caused pair closure",
    "remote process exited",
    "nccl communicator was aborted",
    "watchdog caught collective operation timeout",
    "socket closed",
)


class LostProcessError(RuntimeError):
    """Another process of this run is gone; the message says in which step, and how to go on."""


def is_lost_process(error: BaseException) -> bool:
    """
    Whether an error comes from another process that is gone.

    Args:
        error (`BaseException`): What a collective operation of `torch.distributed` raised.
    """
    if isinstance(error, LostProcessError):
        return True
    words = str(error).lower()
    return (
        int(os.environ.get("WORLD_SIZE", "1")) > 1
        and isinstance(error, RuntimeError)
        and any(sign in words for sign in SIGNS)
    )


def lost_process(
    error: BaseException, where: str = "", checkpoint: Path | None = None, left_out: Mapping[Path, str] | None = None
) -> LostProcessError:
    """
    What to raise in place of the error of a collective operation.

    Args:
        error (`BaseException`): For which [`is_lost_process`] holds.
        where (`str`, *optional*): Where in the training it happened, such as `"in step 12"`.
        checkpoint (`Path`, *optional*): What the training can go on from.
        left_out (`Mapping[Path, str]`, *optional*): Later checkpoints that it cannot go on from -> why.

    Returns:
        [`LostProcessError`]
    """
    rank, world_size = os.environ.get("RANK", "0"), int(os.environ.get("WORLD_SIZE", "1"))
    # Who it was of several only the launcher knows: those that wait for each other are as silent as the one that died.
    who = f"process {1 - int(rank)}" if world_size == 2 else "another process"
    how = "If it has saved a checkpoint, the same command with --resume_from_checkpoint true goes on from it."
    if checkpoint is not None:
        how = f"Go on from {checkpoint} with the same command and --resume_from_checkpoint true."
    elif left_out:
        path, reason = next(iter(left_out.items()))
        how = (
            f"{path} is not whole on this machine: {reason}. If another machine has it, copy it here, and go on with "
            "--resume_from_checkpoint true; else begin again."
        )
    elif where:
        how = "Nothing was saved to go on from: begin again."
    return LostProcessError(
        f"Process {rank} of {world_size} (counted from 0) has lost {who}{f' {where}' if where else ''}: it has ended, "
        "or its machine cannot be reached. What it said last, and the launcher's report, which names it, tell why. "
        f"{how} "
        f"({str(error).splitlines()[0][:200]})"
    )
