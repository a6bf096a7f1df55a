"""One run at a time in an output folder."""

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from hf_ext.errors import ConfigurationError

logger = logging.getLogger(__name__)

LOCK = ".run.lock"
# While another process only looks whether a folder is free.
ATTEMPTS, PAUSE_S = 10, 0.05
# What file systems say that cannot lock.
CANNOT_LOCK = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)
_held: dict[Path, tuple[TextIO, ExitStack]] = {}


def check_free(folder: Path) -> None:
    """
    See that no run is writing to a folder. Nothing is written.

    Args:
        folder (`Path`): It may not exist yet.

    Raises:
        ConfigurationError: If one is, with its process, its machine and when it began.
    """
    path = folder / LOCK
    if path.resolve() in _held or not path.is_file():
        return
    with open(path, encoding="utf-8") as file:
        # Shared: the other processes of a launch look at the same time.
        if not _lock(file, fcntl.LOCK_SH):
            raise ConfigurationError(_held_by(folder, file))


def lock_folder(folder: Path) -> ExitStack:
    """
    Keep other runs out of a folder until this process ends, in whatever way, or leaves [`own_folders`].

    Args:
        folder (`Path`): It is made if it is not there.

    Returns:
        `contextlib.ExitStack`: What else is to be ended with it.

    Raises:
        ConfigurationError: As [`check_free`].
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / LOCK).resolve()
    if path in _held:
        return _held[path][1]
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (it stays open)
        if not _locked_soon(file):
            message = _held_by(folder, file)
            file.close()
            raise ConfigurationError(message)
        if _is_there(file, path):
            break
        # It was removed by the run that had it, after it was opened here.
        file.close()
    file.truncate(0)
    json.dump({"pid": os.getpid(), "host": socket.gethostname(), "started": _now()}, file)
    file.flush()
    _held[path] = file, ExitStack()
    return _held[path][1]


@contextmanager
def own_folders() -> Iterator[None]:
    """What is locked inside a `with` block, or a function that this decorates, is free afterwards."""
    before = set(_held)
    try:
        yield
    finally:
        for path in set(_held) - before:
            file, others = _held.pop(path)
            others.close()
            path.unlink(missing_ok=True)
            file.close()


# ---- Inside ----


def _lock(file: TextIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in CANNOT_LOCK:
            raise
        logger.warning("The file system of %s has no locks: see that no other run writes there.", file.name)
    return True


def _locked_soon(file: TextIO) -> bool:
    for _ in range(ATTEMPTS):
        if _lock(file, fcntl.LOCK_EX):
            return True
        time.sleep(PAUSE_S)
    return False


def _is_there(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _held_by(folder: Path, file: TextIO) -> str:
    file.seek(0)
    try:
        run = json.loads(file.read())
        who = f"process {run['pid']} on {run['host']}, which began at {run['started']}"
    except (ValueError, KeyError):
        who = "a process that begins just now"
    return (
        f"Another run is writing to output_dir {folder}: {who}. Wait until it has ended, end it, or choose another "
        "output_dir. Nothing there was touched."
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _release_in_child() -> None:
    # The lock is the parent's. One that the child kept open would outlive it.
    for file, _ in _held.values():
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_release_in_child)
