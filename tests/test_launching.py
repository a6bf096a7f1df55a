"""Recipes for one process, and machines that have other files."""

import importlib.util
from pathlib import Path

import pytest

from hf_ext import ConfigurationError

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
