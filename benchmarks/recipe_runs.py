"""A recipe in a process of its own, with one file of settings and one log."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent


def as_a_command(recipe: Path, words: Sequence[str], log: Path) -> int:
    """The exit code of `python recipe words`; what it says is written to `log`."""
    with log.open("w") as output:
        return subprocess.run([sys.executable, recipe, *words], stdout=output, stderr=output).returncode


# smoke.py forks the process from one that has everything imported.
carry_out = as_a_command


def run_recipe(name: str, settings: dict, file: Path, log: Path, more: Sequence[str] = ()) -> None:
    """
    Run recipes/`name` to its end.

    Args:
        name (`str`): The recipe's file.
        settings (`dict`): Written as JSON to `file`, which the recipe reads.
        file, log (`Path`): Where the settings and what the recipe says are written.
        more (`Sequence[str]`, *optional*): Flags after the file, which win over it.

    Raises:
        SystemExit: If it fails; the message names the log.
    """
    for path in (file, log):
        path.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=2))
    if carry_out(ROOT / "recipes" / name, [str(file), *map(str, more)], log):
        raise SystemExit(f"{name} failed: see {log}")
