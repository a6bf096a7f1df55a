import re

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from hf_ext.arguments import ModelArguments
from hf_ext.data.labels import Task
from hf_ext.errors import ConfigurationError
from hf_ext.models.building import TextCNNArguments, build_textcnn, load_config, load_pretrained, load_tokenizer
from hf_ext.models.word_tokenizer import build_word_tokenizer

TEXTS = ["a good film", "a bad film", "it is a film"]
TASK = Task("single_label_classification", ["bad", "good"])


def raises(*words):
    return pytest.raises(ConfigurationError, match="(?s)" + ".*".join(re.escape(str(word)) for word in words))


@pytest.fixture(scope="module")
def tokenizer():
    return build_word_tokenizer(TEXTS)


@pytest.fixture(scope="module")
def bert(tmp_path_factory, tokenizer):
    """A saved BERT of two layers, with its tokenizer and a head of two classes."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    folder = tmp_path_factory.mktemp("bert")
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def load(name, task=TASK, use_cpu=True, **settings):
    return load_pretrained(ModelArguments(model_name_or_path=name, **settings), task, use_cpu)


def logits_of(model, tokenizer):
    encoded = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**encoded).logits


# ---- Pretrained models ----


def test_a_pretrained_model(bert, tokenizer):
    reference = BertForSequenceClassification.from_pretrained(bert)
    model, loaded, *_ = load(bert)
    assert type(model) is BertForSequenceClassification
    assert loaded.get_vocab() == tokenizer.get_vocab()
    torch.testing.assert_close(logits_of(model, loaded), logits_of(reference, tokenizer), atol=1e-6, rtol=0)
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert model.config.label2id == {"bad": 0, "good": 1}
    assert model.config.problem_type == "single_label_classification"
    assert model.config.pad_token_id == 0
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_half_precision_weights_are_trained_in_float32(bert, tokenizer, tmp_path):
    BertForSequenceClassification.from_pretrained(bert, dtype=torch.bfloat16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in load(str(tmp_path))[0].parameters()} == {torch.float32}


def test_the_attention_kernel(bert):
    assert load(bert)[0].config._attn_implementation == "eager"
    assert load(bert, attn_implementation="sdpa")[0].config._attn_implementation == "sdpa"
    assert load(bert, use_cpu=False)[0].config._attn_implementation == "sdpa"


def test_the_tasks_decide_the_head(bert):
    task = Task("multi_label_classification", ["x", "y"])
    config = load(bert, task)[0].config
    assert (config.num_labels, config.problem_type) == (2, "multi_label_classification")
    task = Task("regression", ["value"])
    model = load(bert, task, ignore_mismatched_sizes=True)[0]
    assert model.classifier.out_features == 1 and model.config.problem_type == "regression"


def test_a_head_of_another_size(bert):
    task = Task("single_label_classification", ["a", "b", "c"])
    with raises(bert, "another number of classes than the data's 3", "--ignore_mismatched_sizes"):
        load(bert, task)
    model, tokenizer, *_ = load(bert, task, ignore_mismatched_sizes=True)
    assert logits_of(model, tokenizer).shape == (3, 3)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    # Only the head is new.
    saved = BertForSequenceClassification.from_pretrained(bert).bert.state_dict()
    for name, value in model.bert.state_dict().items():
        assert torch.equal(value, saved[name]), name


def test_sizes_are_compared_not_set(bert):
    load(bert, hidden_size=16, num_attention_heads=2, num_hidden_layers=2)
    with raises("hidden_size is 768", bert, "has 16", "eave it out"):
        load(bert, hidden_size=768)
    with raises("num_attention_heads is 4", "has 2"):
        load(bert, num_attention_heads=4)
    for layers in (0, 3):
        with raises(f"num_layers is {layers}", "has 2 layers"):
            load(bert, num_hidden_layers=layers)


def test_the_first_layers_only(bert):
    model = load(bert, num_hidden_layers=1)[0]
    saved = BertForSequenceClassification.from_pretrained(bert).bert.encoder.layer[0].state_dict()
    assert len(model.bert.encoder.layer) == 1 and model.config.num_hidden_layers == 1
    for name, value in model.bert.encoder.layer[0].state_dict().items():
        assert torch.equal(value, saved[name]), name


def test_dropouts_are_overridden(bert):
    model = load(bert, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.4)[0]
    dropouts = {name: module.p for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}
    attention = {p for name, p in dropouts.items() if ".attention.self" in name}
    assert attention == {0.4}
    assert {p for name, p in dropouts.items() if ".attention.self" not in name} == {0.3}
    assert load(bert, hidden_dropout_prob=0.0)[0].bert.embeddings.dropout.p == 0.0


def test_dropouts_that_a_model_does_not_have(tmp_path, tokenizer):
    config = DistilBertConfig(vocab_size=len(tokenizer), dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    DistilBertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with raises("hidden_dropout_prob is given, but a distilbert model has no such setting", "dropout", "seq_classif_"):
        load(str(tmp_path), hidden_dropout_prob=0.1)
    assert load(str(tmp_path), num_hidden_layers=1, hidden_size=16)[0].config.n_layers == 1


def test_a_tokenizer_without_padding_pads_with_its_end(bert, tmp_path):
    words = Tokenizer(models.WordLevel({"<end>": 0, "film": 1, "<unk>": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", unk_token="<unk>").save_pretrained(tmp_path)
    model, tokenizer, *_ = load(bert, tokenizer_name=str(tmp_path))
    assert tokenizer.pad_token == "<end>" and model.config.pad_token_id == 0
    assert tokenizer(["film", "film film"], padding=True)["attention_mask"] == [[1, 0], [1, 1]]


# ---- What cannot be loaded ----


@pytest.mark.parametrize("name", ["best_model.pth", "weights.pt", "pytorch_model.bin", "last.ckpt"])
def test_single_files_of_weights(name, tmp_path):
    for path in (name, str(tmp_path / name)):
        with raises(path, "is a single file of weights", "config.json, model.safetensors and the tokenizer"):
            load(path)


def test_folders_without_a_model(bert, tmp_path):
    with raises(tmp_path, "has no config.json"):
        load(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with raises(tmp_path, "has no weights", "model.safetensors"):
        load(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text("{")
    with raises(tmp_path, "could not be loaded"):
        load_config(ModelArguments(model_name_or_path=str(tmp_path)))


def test_names_that_do_not_exist(tmp_path):
    with raises(f"{tmp_path / 'missing'}: there is no directory of that name. Pass the directory"):
        load(str(tmp_path / "missing"))
    with raises("./missing: there is no directory of that name"):
        load("./missing")
    with raises("nobody/no-such-model could not be loaded", "There is no folder nobody/no-such-model on this machine"):
        load("nobody/no-such-model")
    with raises("The tokenizer of nobody/no-such-model could not be loaded"):
        load_tokenizer("nobody/no-such-model", ModelArguments(model_type="textcnn"))


# ---- The TextCNN ----


def cnn(texts=TEXTS, task=TASK, tokenizer_name=None, max_length=16, **settings):
    model_args = ModelArguments(model_type="textcnn", tokenizer_name=tokenizer_name)
    return build_textcnn(model_args, TextCNNArguments(**settings), task, texts, max_length)


def test_a_textcnn_from_arguments():
    settings = {"embed_size": 8, "num_filters": 5, "filter_sizes": [2, 3], "dropout_prob": 0.25, "max_norm": 3.0}
    model, tokenizer, notes = cnn(**settings)
    assert tokenizer.get_vocab() == build_word_tokenizer(TEXTS).get_vocab()
    assert tokenizer.model_max_length == 16
    assert {name: getattr(model.config, name) for name in settings} == settings
    assert (model.config.vocab_size, model.config.variant, model.config.pad_token_id) == (len(tokenizer), "rand", 0)
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert logits_of(model, tokenizer).shape == (3, 2)
    assert len(notes) == 1 and f"{len(tokenizer):,}" in notes[0]


def test_word_lists_of_pairs_and_their_bounds():
    pairs = [("one two", "three"), ("one", "two two")]
    _, tokenizer, _ = cnn(pairs)
    assert set(tokenizer.get_vocab()) == {"<pad>", "<unk>", "<sep>", "one", "two", "three"}
    model, tokenizer, _ = cnn(pairs, vocab_size=4)
    assert set(tokenizer.get_vocab()) == {"<pad>", "<unk>", "<sep>", "two"}
    assert model.config.vocab_size == 4
    assert set(cnn(pairs, min_word_frequency=2)[1].get_vocab()) == {"<pad>", "<unk>", "<sep>", "one", "two"}


def test_a_textcnn_with_a_given_tokenizer(bert, tokenizer):
    model, loaded, notes = cnn(["other words"], tokenizer_name=bert)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert model.config.vocab_size == len(tokenizer) and notes == []


@pytest.mark.parametrize("variant", ["static", "non-static", "multichannel"])
def test_a_textcnn_with_word_vectors(tmp_path, variant):
    path = tmp_path / "vectors.txt"
    path.write_text("film 1 2 3\ngood 4 5 6\nelsewhere 7 8 9\n")
    model, tokenizer, notes = cnn(variant=variant, word_vectors=str(path))
    assert model.config.embed_size == 3
    embeddings = model.encoder.embeddings
    tables = [embeddings.word_embeddings.weight] if variant != "static" else []
    tables += [embeddings.static_embeddings] if variant != "non-static" else []
    for table in tables:
        ids = tokenizer.convert_tokens_to_ids(["film", "good", "<pad>"])
        np.testing.assert_array_equal(table[ids].detach(), [[1, 2, 3], [4, 5, 6], [0, 0, 0]])
    assert any("2 of" in note and "3 dimensions from vectors.txt" in note for note in notes)


def test_textcnn_settings_that_do_not_work(tmp_path):
    with raises("word_vectors: there is no file"):
        cnn(variant="static", word_vectors=str(tmp_path / "missing.txt"))
    (tmp_path / "vectors.txt").write_text("nothing 1 2\n")
    with raises("a vector for none of the"):
        cnn(variant="static", word_vectors=str(tmp_path / "vectors.txt"))
    with raises("num_filters is 0"):
        cnn(num_filters=0)
    with raises("variant=multichannel needs --word_vectors"):
        TextCNNArguments(variant="multichannel")
    with raises("no effect with variant=rand"):
        TextCNNArguments(word_vectors="vectors.txt")
