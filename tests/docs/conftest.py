import json
import os
import re
import shlex
from pathlib import Path

import datasets
import pytest

from ..hub_fixtures import hub
from ..recipes.conftest import load_recipe, make_rows, tiny_bert

__all__ = ["hub", "tiny_bert"]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return list(found)


def commands(text: str) -> list[list[str]]:
    """The words of each command that calls a recipe, from the recipe's name on."""
    lines = (shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines())
    return [words[at:] for words in lines for at in range(len(words)) if words[at].startswith("recipes/")]


def call(words: list[str], *more: str) -> None:
    """A command in this process; `more` wins over what it says."""
    files = [str(ROOT / word) if word.startswith("configs/") else word for word in words[1:]]
    load_recipe(Path(words[0]).stem).main([*files, *more])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to be in, with train.json and test.json."""
    for seed, (name, count) in enumerate((("train", 60), ("test", 24))):
        (tmp_path / f"{name}.json").write_text(json.dumps(make_rows(count, seed, "integer")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", tmp_path / "cache")
    # What a section `wandb` sets.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return tmp_path
