"""Checkpoints on disk: which of them are whole, and how one appears, or goes, in one piece."""

import errno
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from transformers.trainer_callback import TrainerState

from hf_ext.errors import ConfigurationError, StorageError

STATE = "trainer_state.json"
# Beside the checkpoints: what is being written, or removed. Nothing in it counts.
PARTIAL = ".partial"
HEADER_BYTES = 8


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """The folders `checkpoint-<step>` of a run, whole or not, by step and from the first to the last."""
    found = {}
    for path in folder.glob("checkpoint-*") if folder.is_dir() else ():
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match and path.is_dir():
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def what_is_missing(checkpoint: Path) -> str | None:
    """
    Why a run cannot go on from a checkpoint.

    Files are looked at from their ends, so that one which was cut off while it was written is found; they are not read.

    Args:
        checkpoint (`Path`): A folder.

    Returns:
        `str`, or `None` if it is whole.
    """
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        TrainerState(**state)
    except FileNotFoundError:
        return f"{STATE} is missing"
    except (OSError, ValueError, TypeError):
        return f"{STATE} is cut off"
    if (checkpoint / "latest").is_file():
        # DeepSpeed's, which keeps all in a folder of its own.
        tag = (checkpoint / "latest").read_text(encoding="utf-8").strip()
        return None if (checkpoint / tag).is_dir() else f"{tag} is missing"
    names = {path.name for path in checkpoint.iterdir()}
    needed = {
        "weights": ("model.safetensors", "pytorch_model", "adapter_model", "model-"),
        "the optimizer": ("optimizer",),
        "the schedule": ("scheduler.pt",),
        "random states": ("rng_state",),
    }
    for what, prefixes in needed.items():
        if not any(name.startswith(prefixes) for name in names):
            return f"{what} are missing" if what.endswith("s") else f"{what} is missing"
    for path in sorted(checkpoint.rglob("*")):
        if path.suffix == ".json" and path.name.endswith(".index.json"):
            shards = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
            if not shards <= names:
                return f"{min(shards - names)} is missing"
        elif _is_cut_off(path):
            return f"{path.relative_to(checkpoint)} is cut off"
    written, processes = _random_states(checkpoint), saved_by(checkpoint)
    if written != processes:
        return f"the random states of {processes - written} of {processes} processes are missing"
    return None


def newest_whole_checkpoint(folder: Path, before: int | None = None) -> tuple[Path | None, dict[Path, str]]:
    """
    Where a run can go on.

    Args:
        folder (`Path`): The run's.
        before (`int`, *optional*): Only steps before this one count.

    Returns:
        `tuple`: The last whole checkpoint, or `None`; and the later ones that had to be left out, with the reason.
    """
    left_out = {}
    for step, path in reversed(checkpoints_in(folder).items()):
        if before is not None and step >= before:
            continue
        missing = what_is_missing(path)
        if missing is None:
            return path, left_out
        left_out[path] = missing
    return None, left_out


def saved_by(checkpoint: Path) -> int:
    """How many processes a checkpoint was saved by: each of several leaves its random states under its number."""
    found = (re.fullmatch(r"rng_state_(\d+)\.pth", path.name) for path in checkpoint.iterdir())
    numbers = [int(match[1]) for match in found if match]
    return max(2, max(numbers) + 1) if numbers else 1


def check_resumable(checkpoint: Path, world_size: int) -> None:
    """
    See that a run can go on from a checkpoint just as it would have.

    Args:
        checkpoint (`Path`): The folder.
        world_size (`int`): How many processes there are now.

    Raises:
        ConfigurationError: If it is not whole, or was saved by another number of processes.
    """
    if not checkpoint.is_dir():
        raise ConfigurationError(f"There is no checkpoint {checkpoint} to resume from.")
    missing = what_is_missing(checkpoint)
    if missing is not None:
        others = [str(path) for path in checkpoints_in(checkpoint.parent).values() if what_is_missing(path) is None]
        advice = f"Whole ones: {', '.join(others)}." if others else "There is no whole one beside it."
        raise ConfigurationError(f"A run cannot go on from {checkpoint}: {missing}. {advice}")
    before = saved_by(checkpoint)
    if before != world_size:
        raise ConfigurationError(
            f"{checkpoint} was saved by {_processes(before)}, but this run has {_processes(world_size)}: the batches, "
            f"their order and the random states would be others, and so would be the result. Launch {before} (with the "
            f"configuration file of then, or --num_processes {before}), or start anew in another output_dir."
        )


def discard(staged: Path) -> None:
    """Remove what was written of a checkpoint that does not become one."""
    shutil.rmtree(staged, ignore_errors=True)
    _remove_if_empty(staged.parent)


def put_in_place(staged: Path, final: Path) -> None:
    """Give a checkpoint that is written its name; one that had it goes."""
    old = None
    if final.exists():
        old = staged.with_name(f"{final.name}.old")
        os.rename(final, old)
    os.rename(staged, final)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
    _remove_if_empty(staged.parent)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint so that its name is gone first: what is left of it, if this is cut off, is no checkpoint."""
    going = path.parent / PARTIAL / path.name
    going.parent.mkdir(exist_ok=True)
    shutil.rmtree(going, ignore_errors=True)
    os.rename(path, going)
    shutil.rmtree(going, ignore_errors=True)
    _remove_if_empty(going.parent)


def rotate_checkpoints(folder: Path, limit: int | None, kept: set[Path]) -> None:
    """
    Remove the oldest checkpoints.

    Args:
        folder (`Path`): The run's.
        limit (`int`, *optional*): How many may stay; `None` for all.
        kept (`set[Path]`): Those that stay in any case.
    """
    if limit is None or limit <= 0:
        return
    found = checkpoints_in(folder)
    surplus = len(found) - max(limit, len(kept & set(found.values())))
    # One that was written later, at an earlier step, by a run that began again from there, is the newer one.
    oldest = sorted(found, key=lambda step: (found[step].stat().st_mtime_ns, step))
    for step in [step for step in oldest if found[step] not in kept][: max(surplus, 0)]:
        remove_checkpoint(found[step])


def clear_partial(folder: Path) -> list[str]:
    """Remove what was being written, or removed, when a run was cut off; the names of the checkpoints."""
    left = folder / PARTIAL
    names = sorted(path.name for path in left.iterdir()) if left.is_dir() else []
    shutil.rmtree(left, ignore_errors=True)
    return names


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """
    Say what to do when a disk is full, or a file cannot be written for another reason.

    Args:
        path (`Path`): What is being written.

    Raises:
        StorageError: In place of what the file system, safetensors or torch say.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = _storage_reason(error)
        if reason is None:
            raise
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        before, _ = newest_whole_checkpoint(path.parent)
        needed, free = _size(before or path), shutil.disk_usage(folder).free
        about = f" It takes about {_shown_size(needed)}; {_shown_size(free)} are free there." if needed else ""
        stays = f" What was written of it is removed; {before} stays." if before is not None else ""
        raise StorageError(
            f"{path} could not be written: {reason}.{about}{stays} Make room on the disk of {folder} (older "
            "checkpoints; --save_total_limit keeps fewer of them), or raise the quota, and go on with the same command "
            "and --resume_from_checkpoint true."
        ) from error


# ---- Inside ----


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _processes(count: int) -> str:
    return f"{count} process{'es' if count > 1 else ''}"


def _random_states(checkpoint: Path) -> int:
    return sum(1 for path in checkpoint.iterdir() if re.fullmatch(r"rng_state(_\d+)?\.pth", path.name))


def _is_cut_off(path: Path) -> bool:
    if path.suffix in (".pt", ".pth", ".bin") and path.name != "training_args.bin":
        return not zipfile.is_zipfile(path)
    if path.suffix != ".safetensors":
        return False
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = int.from_bytes(file.read(HEADER_BYTES), "little")
        if size < HEADER_BYTES + header:
            return True
        try:
            tensors = json.loads(file.read(header))
        except ValueError:
            return True
    ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
    return size != HEADER_BYTES + header + max(ends, default=0)


def _storage_reason(error: Exception) -> str | None:
    """What is wrong with the disk, if that is what an error is about."""
    if isinstance(error, OSError):
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
        return error.strerror if error.errno in full else None
    text = str(error)
    if isinstance(error, SafetensorError):
        found = re.search(r"I/?O ?[Ee]rror:? ?(.*?)(?: \(os error \d+\))?$", text)
        return (found[1] or text) if found else None
    # What torch.save says when a write fails.
    said = ("PytorchStreamWriter", "inline_container", "iostream error")
    return f"a write failed ({text.splitlines()[0]})" if any(word in text for word in said) else None


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else 0


def _shown_size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
