"""Runs of the recipe that are killed at random moments: the benchmark of it, in small."""

import json
import runpy
from pathlib import Path

from safetensors.torch import load_file, save_file
from starting import exit_code_of, process_context

KILLS = Path(__file__).parents[2] / "benchmarks" / "kills.py"


def kill_some(folder: str) -> None:
    # Its processes are forked from one that has trained nothing.
    found = runpy.run_path(str(KILLS))["measure"](Path(folder), kills=3, seed=1, rows=64, show_progress=False)
    (Path(folder) / "found.json").write_text(json.dumps(found))


def test_three_kills_leave_no_trace(tmp_path):
    process = process_context("runs").Process(target=kill_some, args=(str(tmp_path),))
    process.start()
    assert exit_code_of(process) == 0, (tmp_path / "runs.log").read_text()[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert sum(found["moments"].values()) == 3
    assert found["differ"] == []
    # It would have been seen.
    path = tmp_path / "killed" / "model.safetensors"
    weights = load_file(path)
    next(iter(weights.values())).view(-1)[0] += 1e-6
    save_file(weights, path, {"format": "pt"})
    assert runpy.run_path(str(KILLS))["differences"](tmp_path / "whole", tmp_path / "killed") == ["weights"]
