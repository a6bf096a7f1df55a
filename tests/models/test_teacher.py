import re
import time

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel, set_seed
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_ext.errors import ConfigurationError, DataError
from hf_ext.models.configuration_textcnn import TextCNNConfig
from hf_ext.models.modeling_textcnn import TextCNNForSequenceClassification
from hf_ext.models.teacher import Teacher, average_logits
from hf_ext.models.word_tokenizer import build_word_tokenizer

TEXTS = ["a good film", "a bad film that is too long", "", "it is a film"]
PAIRS = [("a good film", "it is good"), ("a bad film", "long")]
NAMES = ["negative", "neutral", "positive"]
SINGLE, MULTI, VALUE = "single_label_classification", "multi_label_classification", "regression"


def raises(error, *words):
    return pytest.raises(error, match="(?s)" + ".*".join(re.escape(str(word)) for word in words))


def config(names=NAMES, problem_type=SINGLE, **settings):
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    return BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        problem_type=problem_type,
        **labels,
        **settings,
    )


def bert(seed=0, scale=20.0, **settings):
    set_seed(seed)
    model = BertForSequenceClassification(config(**settings))
    with torch.no_grad():
        model.classifier.weight *= scale
    return model


@pytest.fixture(scope="module")
def tokenizer():
    return build_word_tokenizer(TEXTS)


def expected(model, tokenizer, texts):
    """One text at a time, so without padding."""
    model.eval()
    answers = []
    for text in texts:
        ids = tokenizer(*([text] if isinstance(text, str) else text), return_tensors="pt").input_ids.long()
        with torch.no_grad():
            answers.append(model(input_ids=ids).logits[0].numpy())
    return np.array(answers)


def load(model, tokenizer, student=None, **settings):
    return Teacher.load(model, tokenizer, student_config=student or config(), **settings)


def ask(teacher, texts):
    return teacher.logits(teacher.collate(texts))


@pytest.mark.parametrize("texts", [TEXTS[:2], PAIRS], ids=["texts", "pairs"])
def test_logits_are_the_models(tokenizer, texts):
    model = bert().train()
    logits = ask(load(model, tokenizer), texts)
    np.testing.assert_allclose(logits.numpy(), expected(model, tokenizer, texts), atol=1e-5)
    assert logits.dtype == torch.float32
    assert not logits.is_inference()
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_it_stays_in_evaluation_mode(tokenizer):
    model = bert()
    teacher = load(model, tokenizer)
    first = ask(teacher, TEXTS[:2])
    model.train()
    assert torch.equal(ask(teacher, TEXTS[:2]), first)


def test_long_texts_are_cut(tokenizer):
    teacher = load(bert(), tokenizer, max_length=5)
    assert teacher.collate(["film " * 50])[0]["input_ids"].shape == (1, 5)
    whole = load(bert(), tokenizer)
    assert whole.collate(["film " * 50])[0]["input_ids"].shape == (1, 32)
    assert whole.fingerprint != teacher.fingerprint
    with raises(ConfigurationError, "teacher_max_length is 33", "32"):
        load(bert(), tokenizer, max_length=33)


def test_classes_are_matched_by_name(tokenizer):
    model = bert(names=["positive", "negative", "neutral"])
    logits = ask(load(model, tokenizer), TEXTS[:2])
    np.testing.assert_allclose(logits.numpy(), expected(model, tokenizer, TEXTS[:2])[:, [1, 2, 0]], atol=1e-5)
    with raises(ConfigurationError, "Only the teacher has 'neutral'", "only the student has 'mixed'"):
        load(model, tokenizer, config(names=["negative", "positive", "mixed"]))
    with raises(ConfigurationError, "multi_label_classification", "single_label_classification"):
        load(bert(problem_type=MULTI), tokenizer)


def test_an_ensemble_averages_probabilities(tokenizer, tmp_path):
    one, other = bert(1), bert(2, names=NAMES[::-1])
    # Its tokenizer has other ids for the same words.
    second = build_word_tokenizer([*TEXTS, "long long long is is is is"])
    answers = [expected(one, tokenizer, TEXTS[:2]), expected(other, second, TEXTS[:2])[:, ::-1]]
    other.save_pretrained(tmp_path)
    second.save_pretrained(tmp_path)
    teacher = load([one, tmp_path], [tokenizer, None])
    logits = ask(teacher, TEXTS[:2]).numpy()
    np.testing.assert_allclose(np.exp(logits), np.mean([softmax(a, axis=1) for a in answers], axis=0), atol=1e-5)
    with raises(ConfigurationError, "3 models", "2 in teacher_tokenizer"):
        load([one, one, one], [tokenizer, tokenizer])
    with raises(ConfigurationError, "hidden states"):
        teacher.logits(teacher.collate(TEXTS), output_hidden_states=True)


def test_averages_of_several_labels_and_of_values():
    answers = [torch.tensor([[-90.0, 2.0, 40.0]]), torch.tensor([[-95.0, -1.0, 60.0]])]
    mean = np.mean([expit(answer.double().numpy()) for answer in answers], axis=0)
    logits = average_logits(answers, MULTI).double().numpy()
    np.testing.assert_allclose(expit(logits), mean, rtol=1e-5)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(average_logits(answers, VALUE), [[-92.5, 0.5, 50.0]])


def test_regression(tokenizer):
    model = bert(names=["score"], problem_type=None)
    teacher = load(model, tokenizer, config(names=["value"], problem_type=VALUE))
    np.testing.assert_allclose(ask(teacher, TEXTS[:2]).numpy(), expected(model, tokenizer, TEXTS[:2]), atol=1e-5)


def test_bfloat16_runs_on_a_copy(tokenizer):
    model = bert()
    teacher = load(model, tokenizer)
    exact, fingerprint = ask(teacher, TEXTS), teacher.fingerprint
    rounded = ask(teacher.to("cpu", torch.bfloat16), TEXTS)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.1
    assert model.dtype == torch.float32
    assert torch.equal(ask(teacher.to("cpu", torch.float32), TEXTS), exact)
    assert load(model, tokenizer).to("cpu", torch.bfloat16).fingerprint == fingerprint


def test_the_fingerprint_is_of_the_contents(tokenizer, tmp_path):
    model = bert()
    fingerprint = load(model, tokenizer).fingerprint
    for folder in ("one", "two"):
        model.save_pretrained(tmp_path / folder)
        tokenizer.save_pretrained(tmp_path / folder)
        assert load(tmp_path / folder, None).fingerprint == fingerprint
    # Calls leave their padding and truncation in a tokenizer.
    tokenizer(TEXTS, padding="max_length", truncation=True, max_length=9)
    assert load(model, tokenizer).fingerprint == fingerprint
    assert load(str(tmp_path / "one"), build_word_tokenizer(["other words"])).fingerprint != fingerprint
    with torch.no_grad():
        model.classifier.bias[0] += 1e-3
    assert load(model, tokenizer).fingerprint != fingerprint


def test_the_fingerprint_is_quick(tokenizer):
    set_seed(0)
    model = BertForSequenceClassification(config(hidden_act="gelu")).requires_grad_(False)
    model.bert.embeddings.word_embeddings = torch.nn.Embedding(700_000, 32)
    begin = time.process_time()
    assert load(model, tokenizer).fingerprint
    assert time.process_time() - begin < 1.0


def test_hidden_states(tokenizer):
    teacher = load(bert(), tokenizer)
    logits, states = teacher.logits(teacher.collate(TEXTS), output_hidden_states=True)
    assert logits.shape == (4, 3)
    assert [tuple(state.shape) for state in states] == [(4, 7, 16)] * 3
    assert not states[-1].is_inference()


def test_a_textcnn_can_teach(tokenizer):
    set_seed(0)
    settings = {name: getattr(config(), name) for name in ("id2label", "label2id", "problem_type")}
    model = TextCNNForSequenceClassification(TextCNNConfig(vocab_size=len(tokenizer), embed_size=8, **settings))
    logits = ask(load(model, tokenizer), TEXTS)
    np.testing.assert_allclose(logits.numpy(), expected(model, tokenizer, TEXTS), atol=1e-5)
    assert ask(load(model, tokenizer), [""]).shape == (1, 3)


# ---- Bad input ----


def test_folders_that_are_no_teacher(tokenizer, tmp_path):
    with raises(ConfigurationError, "no config.json"):
        load(tmp_path, tokenizer)
    config().save_pretrained(tmp_path)
    with raises(ConfigurationError, tmp_path, "no weights"):
        load(tmp_path, tokenizer)
    body = BertModel(config())
    body.save_pretrained(tmp_path / "body")
    with raises(ConfigurationError, "classifier", "no trained head", "Fine-tune it first"):
        load(tmp_path / "body", tokenizer)
    with raises(ConfigurationError, "BertModel", "no trained head"):
        load(body, tokenizer)
    with raises(ConfigurationError, "sequence classifier"):
        ask(load(BertForMaskedLM(config()), tokenizer), TEXTS)
    with raises(ConfigurationError, "teacher_model is a int"):
        load(3, tokenizer)
    with raises(ConfigurationError, "empty list"):
        load([], tokenizer)


def test_tokenizers_that_do_not_fit(tokenizer, tmp_path):
    with raises(ConfigurationError, "teacher_tokenizer="):
        load(bert(), None)
    with raises(ConfigurationError, "another model's"):
        load(bert(), build_word_tokenizer([" ".join(f"word{index}" for index in range(60))]))
    bert().save_pretrained(tmp_path)
    with raises(ConfigurationError, tmp_path):
        load(tmp_path, None)


def test_answers_that_are_not_finite(tokenizer):
    model = bert()
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[tokenizer.get_vocab()["bad"]] = float("nan")
    with raises(DataError, "nan", "a bad film that is too long"):
        ask(load(model, tokenizer), TEXTS)


class Probabilities(BertForSequenceClassification):
    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        logits = super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs).logits
        single = self.config.problem_type == SINGLE
        return SequenceClassifierOutput(logits=logits.softmax(dim=-1) if single else logits.sigmoid())


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_answers_that_are_probabilities(tokenizer, problem_type, dtype):
    set_seed(0)
    settings = config(problem_type=problem_type)
    teacher = load(Probabilities(settings), tokenizer, settings).to("cpu", dtype)
    with raises(ConfigurationError, "probabilities already", "must return logits"):
        # Also in small batches.
        for _ in range(4):
            ask(teacher, TEXTS[:2])


def test_single_rows_that_look_like_probabilities_are_logits(tokenizer):
    model = bert(scale=0.0, names=["no", "yes"])
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([0.25, 0.75]))
    teacher = load(model, tokenizer, config(names=["no", "yes"]))
    assert ask(teacher, TEXTS[:3]).shape == (3, 2)
