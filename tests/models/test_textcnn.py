import copy
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForSequenceClassification

from hf_ext.models.configuration_textcnn import VARIANTS, TextCNNConfig
from hf_ext.models.modeling_textcnn import TextCNNForSequenceClassification
from hf_ext.models.word_tokenizer import build_word_tokenizer

VOCABULARY = 50


def build(seed=0, **settings):
    torch.manual_seed(seed)
    settings = {"vocab_size": VOCABULARY, "embed_size": 6, "num_filters": 4, "dropout_prob": 0.0, **settings}
    model = TextCNNForSequenceClassification(TextCNNConfig(**settings)).eval()
    with torch.no_grad():
        # The library starts biases at zero and the head near zero, which would hide mistakes.
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or name.startswith("classifier"):
                parameter.normal_()
    return model


def batch(*texts, length=None):
    """Token ids padded on the right by zeros, and their mask."""
    length = max([length or 0, *map(len, texts)])
    ids = torch.tensor([[*text, *[0] * (length - len(text))] for text in texts], dtype=torch.long)
    mask = torch.tensor([[1] * len(text) + [0] * (length - len(text)) for text in texts], dtype=torch.long)
    return ids.reshape(len(texts), length), mask.reshape(len(texts), length)


def reference_logits(model, texts):
    """The same network, a window at a time, without batches."""
    weights = {name: value.detach().double().numpy() for name, value in model.state_dict().items()}
    tables = [
        weights[name]
        for name in ("encoder.embeddings.word_embeddings.weight", "encoder.embeddings.static_embeddings")
        if name in weights
    ]
    sizes = model.config.filter_sizes
    margin = max(sizes) - 1
    rows = []
    for text in texts:
        features = []
        for i, size in enumerate(sizes):
            kernel = weights[f"encoder.convolutions.{i}.weight"]
            responses = []
            # A window begins somewhere from `margin` zeros before the text to its last token.
            for start in range(max(margin + len(text), 1)):
                total = weights[f"encoder.convolutions.{i}.bias"].copy()
                for table in tables:
                    for offset in range(size):
                        position = start + offset - margin
                        if 0 <= position < len(text):
                            total += kernel[:, :, offset] @ table[text[position]]
                responses.append(np.maximum(total, 0))
            features.append(np.max(responses, axis=0))
        rows.append(weights["classifier.weight"] @ np.concatenate(features) + weights["classifier.bias"])
    return np.array(rows)


TEXTS = [[5, 6, 7, 8, 9, 10, 11], [12], [], [13, 14], [49, 1, 2, 3], [7, 7, 7, 7, 7, 7]]


# ---- Forward ----


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("filter_sizes", [[3, 4, 5], [1], [2, 7], [5, 1]])
def test_forward_against_a_loop_over_windows(variant, filter_sizes):
    model = build(variant=variant, filter_sizes=filter_sizes)
    ids, mask = batch(*TEXTS)
    np.testing.assert_allclose(model(ids, mask).logits.detach().numpy(), reference_logits(model, TEXTS), atol=1e-5)


def test_without_a_mask_the_padding_id_decides():
    model = build(pad_token_id=0)
    ids, mask = batch(*TEXTS)
    assert torch.equal(model(ids).logits, model(ids, mask).logits)
    other = build(pad_token_id=49)
    texts = [[0, 3, 0], [4]]
    ids, mask = batch(*texts)
    ids[mask == 0] = 49
    np.testing.assert_allclose(other(ids).logits.detach().numpy(), reference_logits(other, texts), atol=1e-5)


@pytest.mark.parametrize("variant", ["rand", "multichannel"])
def test_logits_do_not_depend_on_the_padding(variant):
    model = build(variant=variant)
    narrow = model(*batch(*TEXTS)).logits
    torch.testing.assert_close(model(*batch(*TEXTS, length=40)).logits, narrow, atol=1e-6, rtol=0)
    for text, logits in zip(TEXTS, narrow, strict=True):
        torch.testing.assert_close(model(*batch(text)).logits[0], logits, atol=1e-6, rtol=0)
    # Nor on what stands in the padding.
    ids, mask = batch(*TEXTS, length=12)
    ids[mask == 0] = 33
    torch.testing.assert_close(model(ids, mask).logits, narrow, atol=1e-6, rtol=0)


def test_an_empty_batch_column():
    model = build()
    logits = model(*batch([], [])).logits
    np.testing.assert_allclose(logits.detach().numpy(), reference_logits(model, [[], []]), atol=1e-6)


def test_tuples():
    model = build()
    ids, mask = batch(*TEXTS)
    (logits,) = model(ids, mask, return_dict=False)
    loss, same = model(ids, mask, labels=torch.zeros(len(TEXTS), dtype=torch.long), return_dict=False)
    assert torch.equal(logits, same) and loss.shape == ()


def test_dropout_is_before_the_classifier_and_in_training_only():
    model = build(dropout_prob=0.5, num_filters=64)
    ids, mask = batch(*TEXTS)
    assert torch.equal(model(ids, mask).logits, model(ids, mask).logits)
    model.train()
    torch.manual_seed(3)
    logits = model(ids, mask).logits
    torch.manual_seed(3)
    features = F.dropout(model.encoder(ids, mask), 0.5)
    torch.testing.assert_close(logits, features @ model.classifier.weight.T + model.classifier.bias)
    assert not torch.equal(logits, model(ids, mask).logits)


# ---- Initialisation and channels ----


@pytest.mark.parametrize("variant", VARIANTS)
def test_random_vectors_are_uniform(variant):
    model = TextCNNForSequenceClassification(TextCNNConfig(vocab_size=2000, embed_size=50, variant=variant))
    embeddings = model.encoder.embeddings
    tables = [embeddings.word_embeddings.weight] if variant != "static" else []
    tables += [embeddings.static_embeddings] if variant in ("static", "multichannel") else []
    for table in tables:
        values = table.detach()
        assert 0.249 < values.abs().max() <= 0.25
        assert values.std().item() == pytest.approx(0.5 / 12**0.5, rel=0.01)
        assert abs(values.mean().item()) < 0.002
        # A quarter of a uniform distribution lies in each quarter of its range.
        shares = torch.histc(values, 4, -0.25, 0.25) / values.numel()
        torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.01, rtol=0)


def test_the_range_of_random_vectors_is_a_setting():
    model = TextCNNForSequenceClassification(TextCNNConfig(vocab_size=999, embedding_init_range=0.01))
    assert 0.0099 < model.encoder.embeddings.word_embeddings.weight.abs().max() <= 0.01


@pytest.mark.parametrize(
    ("variant", "trained", "fixed"),
    [("rand", True, False), ("static", False, True), ("non-static", True, False), ("multichannel", True, True)],
)
def test_channels_of_the_variants(variant, trained, fixed, tmp_path):
    model = build(variant=variant)
    vectors = torch.randn(VOCABULARY, 6)
    model.encoder.embeddings.set_word_vectors(vectors)
    named = {name for name, _ in model.named_parameters()}
    assert ("encoder.embeddings.word_embeddings.weight" in named) is trained
    assert (model.get_input_embeddings() is not None) is trained
    assert "encoder.embeddings.static_embeddings" not in named

    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    ids, mask = batch(*TEXTS)
    model.train()(ids, mask, labels=torch.tensor([0, 1, 0, 1, 0, 1])).loss.backward()
    optimizer.step()
    model.save_pretrained(tmp_path)
    for current in (model, TextCNNForSequenceClassification.from_pretrained(tmp_path)):
        embeddings = current.encoder.embeddings
        if fixed:
            assert torch.equal(embeddings.static_embeddings, vectors)
        if trained:
            moved = (embeddings.word_embeddings.weight != vectors).any(dim=1).nonzero().flatten().tolist()
            assert moved and set(moved) <= {token for text in TEXTS for token in text}
        assert set(current.state_dict()) == set(model.state_dict())


def test_input_embeddings_can_be_replaced():
    model = build()
    model.resize_token_embeddings(VOCABULARY + 3)
    assert model.config.vocab_size == VOCABULARY + 3
    assert model(torch.tensor([[VOCABULARY + 2]])).logits.isfinite().all()


# ---- The bound of the class vectors ----


def projected(weight, bound):
    """Each row shortened to the bound, by hand."""
    rows = [row * min(1.0, bound / max(np.linalg.norm(row), 1e-12)) for row in weight.detach().double().numpy()]
    return np.array(rows)


def test_max_norm_bounds_every_class_vector():
    model = build(max_norm=0.7, num_labels=3)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.randn(3, 12) * torch.tensor([[0.01], [1.0], [5.0]]))
    before = model.classifier.weight.detach().clone()
    expected = projected(before, 0.7)
    ids, mask = batch(*TEXTS)
    features = model.encoder(ids, mask).detach().double().numpy()
    logits = features @ expected.T + model.classifier.bias.detach().double().numpy()
    # Evaluation uses the bounded vectors and leaves the weights alone.
    np.testing.assert_allclose(model(ids, mask).logits.detach().numpy(), logits, atol=1e-5)
    assert torch.equal(model.classifier.weight, before)
    # Training shortens the weights themselves.
    np.testing.assert_allclose(model.train()(ids, mask).logits.detach().numpy(), logits, atol=1e-5)
    np.testing.assert_allclose(model.classifier.weight.detach().numpy(), expected, atol=1e-6)
    norms = model.classifier.weight.detach().norm(dim=1)
    assert norms.max() <= 0.7 + 1e-6
    assert torch.equal(model.classifier.weight[0], before[0])


def test_training_with_a_bound_is_training_with_a_projection_after_each_step():
    bounded, manual = build(max_norm=0.5), build()
    ids, mask = batch(*TEXTS)
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    with torch.no_grad():
        manual.classifier.weight.copy_(torch.from_numpy(projected(manual.classifier.weight, 0.5)))
    for model in (bounded, manual):
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        model.train()
        for _ in range(5):
            optimizer.zero_grad()
            model(ids, mask, labels=labels).loss.backward()
            optimizer.step()
            if model is manual:
                with torch.no_grad():
                    model.classifier.weight.copy_(torch.from_numpy(projected(model.classifier.weight, 0.5)))
        model.eval()
    torch.testing.assert_close(bounded(ids, mask).logits, manual(ids, mask).logits, atol=1e-4, rtol=0)


# ---- Losses ----


def test_losses_are_those_of_torch():
    ids, mask = batch(*TEXTS)
    single = build(num_labels=3, problem_type="single_label_classification")
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    output = single(ids, mask, labels=labels)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, labels))

    multi = build(num_labels=3, problem_type="multi_label_classification")
    labels = torch.tensor([[0, 1, 0], [1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1], [1, 1, 0]]).float()
    output = multi(ids, mask, labels=labels)
    torch.testing.assert_close(output.loss, F.binary_cross_entropy_with_logits(output.logits, labels))

    value = build(num_labels=1, problem_type="regression")
    labels = torch.tensor([0.5, -1.0, 2.0, 0.0, 3.5, 1.0])
    output = value(ids, mask, labels=labels)
    torch.testing.assert_close(output.loss, F.mse_loss(output.logits[:, 0], labels))
    one = value(ids[:1], mask[:1], labels=labels[:1])
    torch.testing.assert_close(one.loss, (one.logits[0, 0] - 0.5) ** 2)


def test_the_labels_decide_when_the_problem_is_not_named():
    ids, mask = batch(*TEXTS)
    labels = torch.tensor([0, 1, 1, 1, 1, 0])
    output = build(num_labels=2)(ids, mask, labels=labels)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, labels))
    labels = F.one_hot(labels).float()
    output = build(num_labels=2)(ids, mask, labels=labels)
    torch.testing.assert_close(output.loss, F.binary_cross_entropy_with_logits(output.logits, labels))
    output = build(num_labels=1)(ids, mask, labels=labels[:, 0])
    torch.testing.assert_close(output.loss, F.mse_loss(output.logits[:, 0], labels[:, 0]))


# ---- Saving and loading ----


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_auto_classes_load_what_was_saved(variant, tmp_path):
    labels = {"id2label": {0: "no", 1: "yes", 2: "maybe"}, "label2id": {"no": 0, "yes": 1, "maybe": 2}}
    model = build(variant=variant, max_norm=0.4, filter_sizes=(2, 3), problem_type="regression", **labels)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is TextCNNForSequenceClassification and not loaded.training
    ids, mask = batch(*TEXTS)
    assert torch.equal(loaded(ids, mask).logits, model(ids, mask).logits)
    config = AutoConfig.from_pretrained(tmp_path)
    for name in ("vocab_size", "embed_size", "num_filters", "filter_sizes", "dropout_prob", "variant", "max_norm"):
        assert getattr(config, name) == getattr(model.config, name)
    assert (config.num_labels, config.id2label, config.problem_type) == (3, labels["id2label"], "regression")
    assert config.hidden_size == 6


def test_other_places_load_it_without_this_package(tmp_path):
    model = build(variant="multichannel", max_norm=0.4)
    model.encoder.embeddings.set_word_vectors(torch.randn(VOCABULARY, 6))
    tokenizer = build_word_tokenizer(["a good film", "a bad film , it 's bad"])
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    texts = ["a good, bad film", "unheard-of", ""]
    program = """
        import sys

        sys.modules["hf_ext"] = None
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained("model")
        model = AutoModelForSequenceClassification.from_pretrained("model", trust_remote_code=True).eval()
        model.freeze_parameters(["encoder"])
        encoded = tokenizer(["a good, bad film", "unheard-of", ""], padding=True, return_tensors="pt")
        torch.save({**encoded, "logits": model(**encoded).logits.detach()}, "result.pt")
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment.update(HF_HOME=str(tmp_path / "home"), HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = torch.load(tmp_path / "result.pt")
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    assert torch.equal(result["input_ids"], encoded["input_ids"])
    torch.testing.assert_close(result["logits"], model(**encoded).logits.detach(), atol=1e-6, rtol=0)


def test_copies_are_independent():
    model = build()
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied.classifier.bias.add_(1)
    ids, mask = batch(*TEXTS)
    torch.testing.assert_close(copied(ids, mask).logits, model(ids, mask).logits + 1)


# ---- Settings ----


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"vocab_size": 0}, "vocab_size is 0; it must be at least 1"),
        ({"embed_size": 0}, "embed_size is 0"),
        ({"num_filters": -1}, "num_filters is -1"),
        ({"filter_sizes": []}, r"filter_sizes is \[\]"),
        ({"filter_sizes": [3, 0]}, r"filter_sizes is \[3, 0\]; give at least one width, each 1 or more"),
        ({"variant": "dynamic"}, "variant is 'dynamic'; valid are rand, static, non-static, multichannel"),
        ({"dropout_prob": 1.0}, r"dropout_prob is 1.0; it must be in \[0, 1\)"),
        ({"dropout_prob": -0.1}, "dropout_prob is -0.1"),
        ({"max_norm": 0}, "max_norm is 0; it must be positive"),
    ],
)
def test_settings_that_make_no_network(settings, words):
    with pytest.raises(ValueError, match=words):
        TextCNNConfig(**settings)
