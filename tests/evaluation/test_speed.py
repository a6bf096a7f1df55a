import json
import struct
import time

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertTokenizer

from hf_ext import TextCNNConfig, TextCNNForSequenceClassification
from hf_ext.errors import ConfigurationError
from hf_ext.evaluation import speed
from hf_ext.evaluation.speed import compare_speed, model_cost
from hf_ext.models.word_tokenizer import build_word_tokenizer

TEXTS = [f"text {i} has {'many ' * (i % 9)}words" for i in range(300)]
SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def words():
    return build_word_tokenizer(TEXTS)


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch):
    monkeypatch.setattr(speed, "MIN_ROUND_SECONDS", 0.02)


def cnn(words, **kwargs):
    return TextCNNForSequenceClassification(
        TextCNNConfig(vocab_size=len(words), embed_size=8, num_filters=4, num_labels=2, **kwargs)
    )


def bert(vocab_size, kind=BertForSequenceClassification):
    return kind(BertConfig(vocab_size=vocab_size, **SHAPE))


# ---- Size ----


@pytest.mark.parametrize(
    "build",
    [
        lambda words: bert(len(words)),
        lambda words: bert(len(words)).to(torch.bfloat16),
        # The embedding is also the output layer.
        lambda words: bert(len(words), BertForMaskedLM),
        # The fixed channel is a buffer, not a parameter.
        lambda words: cnn(words, variant="multichannel"),
    ],
    ids=["bert", "bf16", "tied", "buffer"],
)
def test_megabytes_are_those_of_the_saved_file(build, words, tmp_path):
    model = build(words)
    model.save_pretrained(tmp_path)
    file = (tmp_path / "model.safetensors").read_bytes()
    header = struct.unpack("<Q", file[:8])[0]
    cost = model_cost(model)
    assert cost["megabytes"] * 1e6 == pytest.approx(len(file) - 8 - header)
    tensors = json.loads(file[8 : 8 + header])
    assert cost["parameters"] == sum(
        torch.Size(facts["shape"]).numel()
        for name, facts in tensors.items()
        if name != "__metadata__" and "static_embeddings" not in name
    )


def test_frozen_parameters_count(words):
    model = cnn(words)
    before = model_cost(model)
    model.requires_grad_(False)
    assert model_cost(model) == before


# ---- Speed ----


class Witness:
    """A tokenizer that notes what it is given."""

    def __init__(self, tokenizer):
        self.tokenizer, self.calls = tokenizer, []

    def __call__(self, *columns, **kwargs):
        assert kwargs["max_length"] == 12 and torch.is_inference_mode_enabled()
        self.calls.append(columns)
        return self.tokenizer(*columns, **kwargs)


class Slow(TextCNNForSequenceClassification):
    """As a CNN, and a while."""

    def forward(self, input_ids, attention_mask=None):
        assert not self.training
        # Long beside what other processes on the machine may take.
        time.sleep(0.04)
        return super().forward(input_ids, attention_mask)


def test_the_slower_model_is_found_to_be_slower(words):
    models = {"slow": (Slow(cnn(words).config), words), "fast": (cnn(words), words)}
    found = compare_speed(models, TEXTS, max_length=12, batch_size=100, rounds=3, latency_texts=20)
    slow, fast = found["slow"], found["fast"]
    assert 300 / slow["texts_per_second"] > 3 * 0.04
    assert fast["texts_per_second"] > slow["texts_per_second"]
    assert (slow["speed_up"], slow["speed_up_range"]) == (1.0, (1.0, 1.0))
    assert fast["speed_up_range"][0] <= fast["speed_up"] <= fast["speed_up_range"][1]
    assert fast["speed_up"] > 1
    assert 40 <= slow["p50_ms"] <= slow["p95_ms"] and fast["p50_ms"] < slow["p50_ms"]
    for result in found.values():
        low, high = result["texts_per_second_range"]
        assert low <= result["texts_per_second"] <= high
        assert [result[name] for name in ("texts", "rounds", "latency_texts", "batch_size")] == [300, 3, 20, 100]
        assert result["threads"] == torch.get_num_threads() and result["device"] == "cpu"
    json.dumps(found)


def test_a_function_from_texts_to_logits_beside_a_model(words):
    given = []

    def logits(texts):
        given.append(texts)
        time.sleep(0.04)
        return np.zeros((len(texts), 2))

    models = {"fast": lambda texts: np.zeros((len(texts), 2)), "function": logits, "model": (cnn(words), words)}
    found = compare_speed(models, TEXTS, max_length=12, batch_size=150, rounds=3, latency_texts=10)
    assert [TEXTS[:150], TEXTS[150:]] in [given[place : place + 2] for place in range(len(given))]
    assert found["function"]["p50_ms"] >= 40 and found["function"]["speed_up"] < 1
    assert 300 / found["function"]["texts_per_second"] > 2 * 0.04
    assert "max_length" not in found["function"] and found["model"]["max_length"] == 12
    alone = compare_speed({"function": logits}, TEXTS[:5], rounds=1, latency_texts=2)
    assert alone["function"]["texts"] == 5
    with pytest.raises(ConfigurationError, match="max_length is missing"):
        compare_speed(models, TEXTS)


def test_every_model_gets_the_same_raw_texts_in_plain_batches(words):
    witnesses = {name: Witness(words) for name in ("a", "b")}
    compare_speed(
        {name: (cnn(words), witness) for name, witness in witnesses.items()},
        TEXTS,
        max_length=12,
        batch_size=128,
        rounds=2,
        latency_texts=10,
    )
    for witness in witnesses.values():
        given = [column for (column,) in witness.calls]
        full = [index for index, column in enumerate(given) if column == TEXTS[:128]]
        assert len(full) >= 2
        assert all(given[index + 1] == TEXTS[128:256] and given[index + 2] == TEXTS[256:] for index in full)
    singles = [[c for (c,) in witness.calls if len(c) == 1] for witness in witnesses.values()]
    assert singles[0] == singles[1]


def test_pairs_of_texts(words):
    witness = Witness(words)
    pairs = [(text, f"and {text}") for text in TEXTS[:40]]
    found = compare_speed({"a": (cnn(words), witness)}, pairs, max_length=12, rounds=1, latency_texts=4)
    assert found["a"]["texts"] == 40
    assert ([a for a, _ in pairs[:32]], [b for _, b in pairs[:32]]) in witness.calls


def test_a_tokenizer_that_says_more_than_the_model_takes(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "text", "words"]))
    tokenizer = BertTokenizer.from_pretrained(tmp_path)
    assert "token_type_ids" in tokenizer("text")
    models = {"bert": (bert(7), tokenizer), "cnn": (cnn(tokenizer), tokenizer)}
    assert set(compare_speed(models, TEXTS[:20], max_length=8, rounds=1, latency_texts=2)) == set(models)


def test_empty_texts(words):
    found = compare_speed({"a": (cnn(words), words)}, ["", "text", ""], max_length=12, rounds=1, latency_texts=3)
    assert found["a"]["latency_texts"] == 3


def test_as_many_texts_as_there_is_time_for(words):
    texts, model = TEXTS * 4, Slow(cnn(words).config)
    little = compare_speed({"a": (model, words)}, texts, max_length=12, rounds=5, latency_texts=99, seconds=0.01)["a"]
    assert (little["texts"], little["rounds"], little["latency_texts"]) == (256, 3, 40)
    more = compare_speed({"a": (model, words)}, texts, max_length=12, rounds=4, latency_texts=50, seconds=3000)["a"]
    assert (more["texts"], more["rounds"], more["latency_texts"]) == (1200, 4, 50)


def test_modes_and_random_state_are_as_before(words):
    model = cnn(words, dropout_prob=0.5)
    model.train()
    model.encoder.eval()
    before = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    compare_speed({"a": (model, words)}, TEXTS[:10], max_length=12, rounds=1, latency_texts=2)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None and not parameter.is_inference() for parameter in model.parameters())

    def broken(*columns, **kwargs):
        raise RuntimeError("no words")

    with pytest.raises(RuntimeError, match="no words"):
        compare_speed({"a": (model, broken)}, TEXTS[:10], max_length=12)
    assert [module.training for module in model.modules()] == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": []}, "number of texts is 0"),
        ({"models": {}}, "models is 0"),
        ({"rounds": 0}, "rounds is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"latency_texts": 0}, "latency_texts is 0"),
        ({"max_length": 0}, "max_length is 0"),
        ({"seconds": float("nan")}, "seconds is nan"),
    ],
)
def test_nothing_to_measure(change, message, words):
    arguments = {"models": {"a": (cnn(words), words)}, "texts": TEXTS, "max_length": 12, **change}
    with pytest.raises(ConfigurationError, match=message):
        compare_speed(**arguments)
