"""Work that survives being killed: finished stages are kept, and the result appears all at once."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hf_ext.data.split_tables import SPLITS
from hf_ext.data.streaming import FORMATS
from hf_ext.errors import ConfigurationError

WORK = ".preprocessing"
REPORT, PAGE = "data_report.json", "data_report.html"
READY, PUBLISHING = "ready", "publishing"
# What the recipe writes, so what --overwrite may remove.
OUTPUTS = tuple(f"{split}.{ending}" for split in SPLITS for ending in ("json", "parquet"))


class Workspace:
    """
    The stages of one run, in `output_dir/.preprocessing/<fingerprint>`.

    A stage is a folder that gets its name once everything in it is on the disk: what has its name is whole. A run with
    the same fingerprint finds the stages that an earlier one finished.

    Args:
        output_dir (`Path`): Where the result will be.
        fingerprint (`str`): Of the input and the settings: equal ones make equal stages.
    """

    def __init__(self, output_dir: Path, fingerprint: str):
        self.output_dir, self.root = output_dir, output_dir / WORK
        self.folder = self.root / fingerprint[:16]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out; the operating system ends the lock with the process, however it ends."""
        lock = FileLock(self.root / "lock")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise ConfigurationError(
                f"output_dir {self.output_dir}: another run is writing to it. Wait for it."
            ) from None
        except OSError as error:
            raise ConfigurationError(f"output_dir {self.output_dir} cannot be written: {error.strerror}.") from None
        try:
            yield
        finally:
            lock.release()

    def finished(self, name: str) -> Path | None:
        """The folder of a stage, if an earlier call has finished it."""
        path = self.folder / name
        return path if path.is_dir() else None

    @contextmanager
    def stage(self, name: str) -> Iterator[Path]:
        """An empty folder to write a stage into, which gets its name when the block ends without an error."""
        unfinished = self.folder / f"{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        for path in unfinished.iterdir():
            _to_disk(path)
        _to_disk(unfinished)
        os.replace(unfinished, self.folder / name)
        _to_disk(self.folder)

    def discard(self) -> None:
        """Leave nothing of this run: its input cannot be used as it is."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if [path.name for path in self.root.iterdir()] == ["lock"]:
            self.remove()
            with suppress(OSError):
                # Only if it is empty: then it was made for this run, or may as well have been.
                self.output_dir.rmdir()

    def remove(self) -> None:
        """Remove all stages, also those of runs with other settings that were never finished."""
        shutil.rmtree(self.root, ignore_errors=True)


def check_output(workspace: Workspace, fingerprint: str, overwrite: bool) -> dict[str, Any] | None:
    """
    See whether the result is there already, and whether it may be written.

    Args:
        workspace ([`Workspace`]): Of this run.
        fingerprint (`str`): Of this run.
        overwrite (`bool`): Whether a result of another run may be replaced.

    Returns:
        `dict` or `None`: The report of an equal run whose files are all as it left them.

    Raises:
        ConfigurationError: If the folder holds splits of another run or of the user's own.
    """
    folder = workspace.output_dir
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"output_dir {folder} is a file; name a directory.")
    held = held_splits(folder)
    report = read_report(folder)
    if report is not None and report.get("fingerprint") == fingerprint:
        changed = [name for name, facts in report["files"].items() if not _is_same(folder / name, facts)]
        if not changed and set(held) <= set(report["files"]):
            return report
    foreign = [name for name in held if name not in OUTPUTS]
    if foreign:
        raise ConfigurationError(
            f"output_dir {folder} holds {', '.join(foreign)}, which this recipe does not write; beside new splits "
            "training could not tell which to read. Move it away, or choose another directory."
        )
    if held and not overwrite and not (workspace.folder / PUBLISHING).exists():
        raise ConfigurationError(
            f"output_dir {folder} holds {', '.join(held)} of another run, or changed since. Choose another directory, "
            "or replace them with --overwrite true."
        )
    return None


def publish(workspace: Workspace) -> None:
    """
    Move the files of the stage `ready` to their place.

    The old report goes first and the new one comes last: splits beside a `data_report.json` are whole and belong
    together. Whatever is killed in between, the next run with the same settings continues.
    """
    folder, ready = workspace.output_dir, workspace.folder / READY
    report = json.loads((ready / REPORT).read_text(encoding="utf-8"))
    (workspace.folder / PUBLISHING).touch()
    _to_disk(workspace.folder)
    (folder / REPORT).unlink(missing_ok=True)
    _to_disk(folder)
    for name in OUTPUTS:
        if name not in report["files"]:
            (folder / name).unlink(missing_ok=True)
    for name in report["files"]:
        if (ready / name).exists():
            os.replace(ready / name, folder / name)
    _to_disk(folder)
    os.replace(ready / REPORT, folder / REPORT)
    _to_disk(folder)


def is_ready(workspace: Workspace) -> bool:
    """Whether all files of the result wait in the stage `ready`, or were moved from there already."""
    ready = workspace.finished(READY)
    report = read_report(ready) if ready is not None else None
    return report is not None and all(
        (ready / name).exists() or _is_same(workspace.output_dir / name, facts)
        for name, facts in report["files"].items()
    )


def held_splits(folder: Path) -> list[str]:
    """Names of the files and folders in which training would look for a split."""
    names = [f"{split}{ending}{gz}" for split in SPLITS for ending in FORMATS for gz in ("", ".gz")]
    return [name for name in [*SPLITS, *names] if (folder / name).exists()]


def read_report(folder: Path) -> dict[str, Any] | None:
    """The report in a folder; `None` if there is none, or none of this recipe's."""
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and isinstance(report.get("files"), dict) else None


def facts_of(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


# ---- Inside ----


def _is_same(path: Path, facts: dict[str, Any]) -> bool:
    # The size first: it spares reading a file that was cut.
    return path.is_file() and path.stat().st_size == facts.get("bytes") and facts_of(path) == facts


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
