import re

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, set_seed

from hf_ext.errors import ConfigurationError
from hf_ext.models.configuration_textcnn import TextCNNConfig
from hf_ext.models.modeling_textcnn import TextCNNForSequenceClassification
from hf_ext.models.teacher_embeddings import hidden_means, principal_components, teacher_word_vectors
from hf_ext.models.word_tokenizer import build_word_tokenizer

WORDS = [f"word{index}" for index in range(30)]
# Some are several of the teacher's tokens.
COMPOUND = ["word1,word2", "word3!", "word4,word5,word6"]
SETTINGS = {"precision": "float32", "progress": False}


def raises(*words):
    return pytest.raises(ConfigurationError, match="(?s)" + ".*".join(re.escape(str(word)) for word in words))


@pytest.fixture(scope="module")
def tokenizer():
    return build_word_tokenizer([" ".join(WORDS) + " , !"])


@pytest.fixture(scope="module")
def model():
    set_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    return BertForSequenceClassification(config).train()


def alone(model, tokenizer, words):
    """One word at a time, without padding."""
    body = model.bert.eval()
    with torch.no_grad():
        states = [body(tokenizer(word, return_tensors="pt").input_ids.long()).last_hidden_state for word in words]
    model.train()
    return np.array([state[0].mean(dim=0).numpy() for state in states])


def test_a_words_vector_does_not_depend_on_the_others(model, tokenizer):
    words = WORDS + COMPOUND
    means, known = hidden_means(model, tokenizer, words, **SETTINGS)
    np.testing.assert_allclose(means, alone(model, tokenizer, words), atol=1e-5)
    assert known.all()
    assert model.training and model.dtype == torch.float32
    backwards, _ = hidden_means(model.bert, tokenizer, words[::-1], **SETTINGS)
    np.testing.assert_allclose(backwards[::-1], means, atol=1e-5)


def test_special_tokens_are_left_out(model):
    from tokenizers import processors

    framed = build_word_tokenizer([" ".join(WORDS) + " , !"])
    ids = framed.get_vocab()
    framed.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<unk> $A <sep>", special_tokens=[("<unk>", ids["<unk>"]), ("<sep>", ids["<sep>"])]
    )
    for padding_side in ("right", "left"):
        framed.padding_side = padding_side
        means, _ = hidden_means(model, framed, COMPOUND, **SETTINGS)
        for word, mean in zip(COMPOUND, means, strict=True):
            with torch.no_grad():
                states = model.bert.eval()(framed(word, return_tensors="pt").input_ids.long()).last_hidden_state
            # Positions differ when the padding is on the left.
            if padding_side == "right":
                np.testing.assert_allclose(mean, states[0, 1:-1].mean(dim=0).numpy(), atol=1e-5)
    model.train()


def test_components_are_those_of_numpy():
    values = np.random.default_rng(0).normal(size=(50, 8)) * np.arange(1, 9) + 5
    found = principal_components(values, 3)
    centred = values - values.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    # The sign of a component is a convention: its largest entry is positive.
    signs = np.sign(axes[np.arange(3), np.abs(axes[:3]).argmax(axis=1)])
    np.testing.assert_allclose(found, centred @ (axes[:3] * signs[:, None]).T, atol=1e-9)


def test_vectors_are_scaled_components(model, tokenizer):
    vocabulary = ["<pad>", "<unk>", "<sep>", *WORDS, *COMPOUND]
    vectors = teacher_word_vectors(model, tokenizer, vocabulary, 5, **SETTINGS)
    assert vectors.shape == (36, 5) and vectors.dtype == torch.float32
    assert not vectors[0].any()
    np.testing.assert_allclose(vectors[1:3], np.tile(vectors[3:].mean(dim=0), (2, 1)), atol=1e-6)
    # Uniform in +-0.25.
    assert vectors[3:].numpy().std() == pytest.approx(0.25 / 3**0.5, rel=1e-5)
    wanted = principal_components(alone(model, tokenizer, WORDS + COMPOUND), 5)
    np.testing.assert_allclose(vectors[3:] / vectors[3:].std(), wanted / wanted.std(ddof=1), atol=1e-3)
    again = teacher_word_vectors(model, tokenizer, vocabulary, 5, **SETTINGS)
    assert torch.equal(again, vectors)
    wide = teacher_word_vectors(model, tokenizer, vocabulary, 5, scale=2.0, **SETTINGS)
    np.testing.assert_allclose(wide, vectors * (2.0 / (0.25 / 3**0.5)), rtol=1e-4, atol=1e-6)


def test_the_teachers_own_vocabulary_goes_by_its_ids(model, tokenizer):
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    vectors = teacher_word_vectors(model, tokenizer, vocabulary, 4, **SETTINGS)
    wanted = principal_components(alone(model, tokenizer, vocabulary[3:]), 4)
    np.testing.assert_allclose(vectors[3:] / vectors[3:].std(), wanted / wanted.std(ddof=1), atol=1e-3)


def test_pieces_of_other_vocabularies_are_taken_as_words(model, tokenizer):
    plain, _ = hidden_means(model, tokenizer, ["word1", "word2", "#"], **SETTINGS)
    marked, _ = hidden_means(model, tokenizer, ["##word1", "\u0120word2", "#"], **SETTINGS)
    np.testing.assert_allclose(marked, plain, atol=1e-5)


def test_words_without_any_token_are_like_unknown_ones(model, tokenizer):
    vectors = teacher_word_vectors(model, tokenizer, ["<unk>", *WORDS, " "], 4, **SETTINGS)
    assert torch.equal(vectors[-1], vectors[0])


def test_bad_input(model, tokenizer):
    with raises("17 wide", "1 to 16"):
        teacher_word_vectors(model, tokenizer, WORDS, 17, **SETTINGS)
    with raises("5 wide", "1 to 3", "3 words"):
        teacher_word_vectors(model, tokenizer, WORDS[:3], 5, **SETTINGS)
    with raises("scale is 0"):
        teacher_word_vectors(model, tokenizer, WORDS, 4, scale=0, **SETTINGS)
    with raises("too few"):
        teacher_word_vectors(model, tokenizer, [*WORDS[:3], " ", "  "], 4, **SETTINGS)
    cnn = TextCNNForSequenceClassification(TextCNNConfig(vocab_size=len(tokenizer), embed_size=8, num_labels=3))
    with raises("TextCNNModel", "need a transformer"):
        teacher_word_vectors(cnn, tokenizer, WORDS, 4, **SETTINGS)
