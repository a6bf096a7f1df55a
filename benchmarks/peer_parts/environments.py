"""A virtual environment for each peer, with pinned versions, and programs that run in it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ARMS = Path(__file__).parent / "arms"


class NotInstalledError(Exception):
    """A peer cannot be installed; the message is pip's."""


def environment(folder: Path, requirements: str) -> Path:
    """
    Make an environment, unless it is there with the same requirements.

    Args:
        folder (`Path`): Where it is, or will be; `<folder>.log` gets pip's output.
        requirements (`str`): What to install, in the form of a requirements file.

    Returns:
        `Path`: Its Python.

    Raises:
        NotInstalledError: If pip could not install it. Nothing of it is left, and the next call tries again.
    """
    python, installed = folder / "bin" / "python", folder / "requirements.txt"
    if installed.is_file() and installed.read_text() == requirements:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"Making the environment {folder}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    wanted, log = folder / "wanted.txt", folder.with_suffix(".log")
    wanted.write_text(requirements)
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "-r", wanted]
    with log.open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT)
    if done.returncode:
        shutil.rmtree(folder)
        raise NotInstalledError(reason(log.read_text()))
    # Last: an environment without it is not whole.
    wanted.rename(installed)
    return python


def peer_python(work_dir: Path, name: str) -> Path:
    """The Python of a peer's environment, whose requirements stand in `arms/<name>.txt`."""
    return environment(work_dir / "environments" / name, (ARMS / f"{name}.txt").read_text())


@contextmanager
def note_missing(folder: Path, peer: str) -> Iterator[None]:
    """Inside a `with` block a peer that cannot be installed is noted in a folder, for [`print_missing`]."""
    note = folder / f"{peer}.not_installed"
    note.unlink(missing_ok=True)
    try:
        yield
    except NotInstalledError as error:
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(str(error))
        print(f"{peer} is not installed, and is left out: {error}", flush=True)


def print_missing(folder: Path) -> None:
    """Say under a table's title what is not installed, and why."""
    for note in sorted(folder.glob("*.not_installed")):
        print(f"Not installed: {note.stem}: {note.read_text()}\n")


def reason(output: str) -> str:
    """The line of pip's output that says why it failed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip said nothing"])[0]


def arm_environment() -> dict[str, str]:
    """Offline, without a display, and without the paths of this project."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "Agg"}


def run_arm(python: Path | str, arm: str, settings: dict[str, Any], log: Path) -> dict[str, Any]:
    """
    Run `arms/<arm>.py` in an environment.

    Args:
        python (`Path` or `str`): The environment's Python.
        arm (`str`): Which program.
        settings (`dict[str, Any]`): What it is told.
        log (`Path`): Gets what it prints.

    Returns:
        `dict[str, Any]`: What it found.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "settings.json", Path(folder) / "found.json"
        given.write_text(json.dumps(settings))
        with log.open("w") as output:
            done = subprocess.run(
                [python, ARMS / f"{arm}.py", given, found],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=arm_environment(),
                cwd=folder,
            )
        if done.returncode:
            raise SystemExit(f"{arm} failed: see {log}")
        return json.loads(found.read_text())
