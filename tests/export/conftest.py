import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from hf_ext import TextCNNConfig, TextCNNForSequenceClassification, build_word_tokenizer, export_onnx, export_torch

WORDS = ["good", "great", "fine", "lovely", "bad", "awful", "poor", "dull", "the", "film", "was", "very", "plot", "of"]
LABELS = {"problem_type": "single_label_classification", "id2label": {0: "no", 1: "yes", 2: "maybe"}}


@pytest.fixture(scope="session")
def words():
    return build_word_tokenizer([" ".join(WORDS)], model_max_length=20)


def texts_of(count, seed=0):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(1, 15))) for _ in range(count)]


def bert(words, **kwargs):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=24, initializer_range=0.5, **{**LABELS, **kwargs},
    )  # fmt: skip
    return BertForSequenceClassification._from_config(config, attn_implementation="eager").eval()


def cnn(words, **kwargs):
    torch.manual_seed(0)
    config = TextCNNConfig(vocab_size=len(words), embed_size=8, num_filters=4, **{**LABELS, **kwargs})
    model = TextCNNForSequenceClassification(config).eval()
    torch.nn.init.normal_(model.classifier.weight)
    return model


@pytest.fixture(scope="session")
def make_texts():
    return texts_of


@pytest.fixture(scope="session")
def make_bert():
    return bert


@pytest.fixture(scope="session")
def make_cnn():
    return cnn


@pytest.fixture(scope="session")
def exported(words, tmp_path_factory):
    """Model and its folders of ONNX and torch.export, by kind."""
    made = {}
    for kind, make in (("bert", bert), ("cnn", cnn)):
        model, folder = make(words), tmp_path_factory.mktemp(kind)
        export_onnx(model, words, folder / "onnx")
        export_torch(model, words, folder / "torch_export")
        made[kind] = (model, folder)
    return made
