"""What a recipe sees of the processes that it was launched with."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from hf_ext.errors import ConfigurationError, DataError

# Of which a launcher that joins its processes sets one: torch's, or one of MPI's.
JOINED = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


def check_joined() -> None:
    """
    See that a launch of several processes has not started this one by itself. accelerate 1.15 does so on a CPU, on one
    machine or on each of several, unless its configuration says `distributed_type: MULTI_GPU` beside `use_cpu: true`.

    Raises:
        ConfigurationError: If it did: the run would be one of a single process, or one on each machine.
    """
    alone = not any(name in os.environ for name in JOINED)
    # Its launcher of one process names the address only if it was asked for more.
    if alone and "ACCELERATE_USE_CPU" in os.environ and "MASTER_ADDR" in os.environ:
        raise ConfigurationError(
            "accelerate launch was asked for several processes or machines, and has started this one by itself, as it "
            "does on a CPU. Pass --config_file configs/accelerate/cpu_2proc.yaml, whose first lines say how, also for "
            "two machines. If one process is meant, pass --num_processes 1 --num_machines 1 and unset MASTER_ADDR."
        )


def require_alone(work: str) -> None:
    """
    See that this process is the only one of its launch.

    Args:
        work (`str`): What is done, such as `"A comparison"`.

    Raises:
        ConfigurationError: If there are others, which would do the same and write the same files.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched > 1:
        raise ConfigurationError(
            f"{work} is work for one process, and {launched} were launched. Start the recipe with python, without "
            "accelerate launch."
        )


def wait_for_everyone() -> None:
    """
    Wait until all processes of the launch have come here. accelerate 1.15's function of this name gives each the GPU of
    its number to wait with, also those on a CPU: on a machine with a GPU the second one has none.
    """
    state = PartialState()
    if state.num_processes > 1 and state.device.type == "cpu":
        torch.distributed.barrier()
    else:
        state.wait_for_everyone()


@contextmanager
def local_main_process_first() -> Iterator[None]:
    """Inside a `with` block the first process of each machine is done before the others begin."""
    main = PartialState().is_local_main_process
    if not main:
        wait_for_everyone()
    yield
    if main:
        wait_for_everyone()


def check_same_data(fingerprint: dict[str, str]) -> None:
    """
    See that all processes of a run have read the same rows; machines may have files of their own.

    Args:
        fingerprint (`dict[str, str]`): Name of the rows -> SHA-256, as [`TextData.fingerprint`] gives it.

    Raises:
        DataError: On all processes, with those that have other rows than the first.
    """
    if PartialState().num_processes == 1:
        return
    first, *others = gather_object([fingerprint])
    for rank, own in enumerate(others, start=1):
        names = [name for name in first if own.get(name) != first[name]]
        if names:
            raise DataError(
                f"Process {rank} has read other rows than process 0: {', '.join(names)}. All machines must have the "
                "same files, at the paths that are named."
            )


def check_same_checkpoint(checkpoint: Path | str | None) -> None:
    """
    See that all processes of a run go on from the same checkpoint; machines may have disks of their own.

    Args:
        checkpoint (`Path` or `str`, *optional*): Where this process goes on, if it has found one.

    Raises:
        ConfigurationError: On all processes, with what each has found.
    """
    if PartialState().num_processes == 1:
        return
    names = gather_object(["none" if checkpoint is None else Path(checkpoint).name])
    if len(set(names)) > 1:
        found = ", ".join(f"process {rank} {name}" for rank, name in enumerate(names))
        raise ConfigurationError(
            f"The processes would go on from different checkpoints: {found}. Each machine needs all files of one, "
            "also those that the others wrote (rng_state_<process>.pth): copy them together."
        )


def check_shared(folder: Path) -> None:
    """
    See that all processes find what the first one has written. All of them have to call this, when it has.

    Args:
        folder (`Path`): The `output_dir`; it holds `run.json` by now.

    Raises:
        ConfigurationError: On all processes, if a machine has a disk of its own.
    """
    if PartialState().num_processes == 1:
        return
    wait_for_everyone()
    found = gather_object([(folder / "run.json").is_file()])
    if not all(found):
        raise ConfigurationError(
            f"output_dir {folder}: process {found.index(False)} does not find there what process 0 writes, and this "
            "run reads its models back from it. Name a folder that all machines share, or pass --save_on_each_node "
            "true."
        )
