"""Recipes for one process, and processes that do not belong together."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hf_ext import ConfigurationError, check_joined

RECIPES = Path(__file__).parent.parent / "recipes"
ALONE = {
    "run_comparison": ["--predictions", "a.jsonl", "b.jsonl", "--output_dir", "out"],
    "run_preprocessing": ["--input_dir", "raw", "--output_dir", "out"],
    "push_to_hub": ["--model_dir", "model", "--hub_model_id", "me/model"],
    "run_export": ["--model_path", "model", "--texts_file", "texts.json"],
}


@pytest.mark.parametrize("recipe", ALONE)
def test_work_for_one_process_is_refused_to_two(recipe, monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location(recipe, RECIPES / f"{recipe}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match=r"is work for one process, and 2 were launched.*with python"):
        module.main(ALONE[recipe])
    assert list(tmp_path.iterdir()) == []


def test_processes_that_a_launcher_did_not_join_are_refused(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([{"text": f"text {n}", "label": n % 2} for n in range(40)]))
    asked_for_two = ["launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.accelerate_cli", *asked_for_two, "--dynamo_backend", "no"),
            *(RECIPES / "run_classification.py", "--model_type", "textcnn", "--train_file", "rows.json"),
            *("--output_dir", "out"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "run_classification.py: error: accelerate launch was asked for several processes" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


@pytest.mark.parametrize("joined", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"])
def test_processes_that_a_launcher_joined_go_on(joined, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    check_joined()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ConfigurationError, match=r"cpu_2proc\.yaml"):
        check_joined()
    monkeypatch.setenv(joined, "2")
    check_joined()
