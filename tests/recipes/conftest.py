import importlib.util
import json
import random
from pathlib import Path

import pytest
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


@pytest.fixture(scope="session")
def run_classification():
    return load_recipe("run_classification").main


@pytest.fixture(scope="session")
def run_evaluation():
    return load_recipe("run_evaluation").main


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
    BertModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)
