"""Runs that are made once: a JSON file each."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


def once(path: Path, settings: dict[str, Any], run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """
    The result that a file holds, or a new one.

    Args:
        path (`Path`): The file; it appears once the run is done.
        settings (`dict[str, Any]`): What the run depends on. A file of other settings is replaced.
        run (`Callable`): Makes the result.

    Returns:
        `dict[str, Any]`: The result and its `settings`.
    """
    settings = json.loads(json.dumps(settings))
    if path.is_file():
        found = json.loads(path.read_text())
        if found["settings"] == settings:
            return found
    result = {**run(), "settings": settings}
    write_json(path, result)
    print(f"{path.parent.name}/{path.stem}: done", flush=True)
    return result


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All results of a part, by name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def run_recipe(name: str, settings: dict[str, Any], file: Path, log: Path) -> None:
    """A recipe with a file of settings, in a process of its own; `log` gets what it prints."""
    write_json(file, settings)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        done = subprocess.run([sys.executable, ROOT / "recipes" / name, file], stdout=output, stderr=output)
    if done.returncode:
        raise SystemExit(f"{name} failed: see {log}")


def predicted_labels(folder: Path) -> list[str]:
    """The names of the classes that a recipe predicted for the test rows, in their order."""
    lines = (folder / "predictions_test.jsonl").read_text(encoding="utf-8").splitlines()
    return [str(json.loads(line)["prediction"]) for line in lines]


def shown_set(settings: dict[str, Any]) -> str:
    """The set of a result, as a table names it: a toy says that it is one."""
    limit = settings["max_rows"]
    return settings["set"] + ("" if limit is None else f" (toy: at most {limit} rows of each file)")


def spread(values: list[float], digits: str) -> str:
    """Median and range, each in a format such as `.1f`."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{digits}} ({low:{digits}} to {high:{digits}})"


def mean_and_sd(values: list[float]) -> str:
    sd = f" ({statistics.stdev(values):.2f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{sd}"
