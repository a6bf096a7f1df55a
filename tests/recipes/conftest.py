import importlib.util
import json
import os
import random
from pathlib import Path

import pytest
import torch
from programs import run_program
from transformers import BertConfig, BertModel

from hf_ext import build_word_tokenizer

RECIPES = Path(__file__).parents[2] / "recipes"
GOOD = ["good", "great", "fine", "lovely", "superb"]
BAD = ["bad", "awful", "poor", "dull", "weak"]
FILLER = ["the", "film", "was", "a", "very", "plot", "actor", "scene", "and", "of"]


def load_recipe(name):
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Notes each run that begins, and that the one before has ended.
TRACKED = """
import runpy, sys
import wandb
plain = wandb.init
def init(*args, **kwargs):
    assert wandb.run is None, "the run before goes on"
    run = plain(*args, **kwargs)
    print("BEGUN", run.name, run.group, run.id)
    return run
wandb.init = init
runpy.run_path(sys.argv[1])["main"](sys.argv[2:])
assert wandb.run is None
"""


def tracked_runs(recipe, flags, folder):
    """Name and group of the offline runs of Weights & Biases that a recipe makes, which all differ, in a process."""
    (folder / "tracked.py").write_text(TRACKED)
    offline = {"WANDB_MODE": "offline", "WANDB_DIR": str(folder), "WANDB_SILENT": "true"}
    given = [recipe, *flags, "--report_to", "wandb"]
    done = run_program(folder / "tracked.py", given, folder, {**os.environ, **offline})
    assert done.returncode == 0, done.stderr[-2000:]
    begun = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("BEGUN")]
    assert len({run for *_, run in begun}) == len(begun)
    return [(name, group) for name, group, _ in begun]


@pytest.fixture(scope="session")
def run_classification():
    return load_recipe("run_classification").main


@pytest.fixture(scope="session")
def run_evaluation():
    return load_recipe("run_evaluation").main


@pytest.fixture(scope="session")
def run_export():
    return load_recipe("run_export").main


@pytest.fixture(scope="session")
def run_lr_finder():
    return load_recipe("run_lr_finder").main


def make_rows(count, seed, kind="string"):
    """Sentences whose sentiment words decide the label."""
    generator = random.Random(seed)
    rows = []
    for index in range(count):
        positive = index % 2
        words = generator.choices(FILLER, k=generator.randint(2, 8)) + generator.choices((BAD, GOOD)[positive], k=2)
        generator.shuffle(words)
        label = {
            "string": ("negative", "positive")[positive],
            "integer": positive,
            "multi": [("bad", "good")[positive], *(["long"] if len(words) > 7 else [])],
            "number": float(positive) + len(words) / 10,
        }[kind]
        rows.append({"text": " ".join(words), "label": label})
    return rows


@pytest.fixture
def write_data(tmp_path):
    """Write train.json and test.json; returns the flags that name them."""

    def write(kind="string", train=160, test=40):
        for seed, (name, count) in enumerate((("train", train), ("test", test))):
            (tmp_path / f"{name}.json").write_text(json.dumps(make_rows(count, seed, kind)))
        return ["--train_file", str(tmp_path / "train.json"), "--test_file", str(tmp_path / "test.json")]

    return write


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """The directory of a small random BERT with a tokenizer."""
    path = tmp_path_factory.mktemp("tiny_bert")
    tokenizer = build_word_tokenizer([" ".join(GOOD + BAD + FILLER)], model_max_length=32)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)
