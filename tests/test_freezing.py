import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from hf_ext import TextCNNConfig, TextCNNForSequenceClassification
from hf_ext.layers import freeze_parameters, layer_groups, match_parameters, unfreeze_parameters

SIZES = {"vocab_size": 20, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}


def bert(layers=3):
    return BertForSequenceClassification(BertConfig(**SIZES, num_hidden_layers=layers))


def roberta():
    return RobertaForSequenceClassification(RobertaConfig(**SIZES, num_hidden_layers=2, max_position_embeddings=16))


def distilbert():
    config = DistilBertConfig(vocab_size=20, dim=8, n_layers=2, n_heads=2, hidden_dim=8)
    return DistilBertForSequenceClassification(config)


def gpt2():
    return GPT2ForSequenceClassification(GPT2Config(vocab_size=20, n_positions=16, n_embd=8, n_layer=2, n_head=2))


def textcnn(variant="rand"):
    return TextCNNForSequenceClassification(
        TextCNNConfig(vocab_size=20, embed_size=4, num_filters=2, variant=variant, dropout_prob=0.0)
    )


def frozen(model):
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def names_of(model, *parts):
    return {name for name, _ in model.named_parameters() if any(part in f".{name}." for part in parts)}


# ---- Freezing by pattern ----


@pytest.mark.parametrize(
    ("patterns", "parts"),
    [
        (["embeddings"], [".embeddings."]),
        (["classifier"], [".classifier."]),
        (["bert"], [".bert."]),
        (["layer.1"], [".layer.1."]),
        ([r"layer\.[0-1]\.attention"], [".layer.0.attention.", ".layer.1.attention."]),
        (["embeddings", "layer.10"], [".embeddings.", ".layer.10."]),
        (["pooler|classifier"], [".pooler.", ".classifier."]),
        (["bias"], [".bias."]),
        ([r"bert\.encoder\.layer\.2\.output\.dense\.weight"], [".bert.encoder.layer.2.output.dense.weight."]),
    ],
)
def test_patterns_match_whole_segments(patterns, parts):
    model = bert(layers=11)
    expected = names_of(model, *parts)
    assert 0 < len(expected) < len(list(model.parameters()))
    returned = freeze_parameters(model, patterns)
    assert set(returned) == frozen(model) == expected
    # In the model's order, each once.
    assert returned == [name for name, _ in model.named_parameters() if name in expected]
    assert set(match_parameters(model, patterns)) == expected


def test_unfreezing_reverses_freezing():
    model = bert()
    freeze_parameters(model, ["bert"])
    returned = unfreeze_parameters(model, ["layer.2", "pooler"])
    assert set(returned) == names_of(model, ".layer.2.", ".pooler.")
    assert frozen(model) == names_of(model, ".bert.") - set(returned)
    unfreeze_parameters(model, ["bert"])
    assert frozen(model) == set()


def test_frozen_parameters_do_not_move():
    torch.manual_seed(0)
    model = bert()
    ids, labels = torch.randint(1, 20, (4, 6)), torch.tensor([0, 1, 0, 1])
    model(input_ids=ids, labels=labels).loss.backward()
    # A gradient from before must not move them either.
    names = freeze_parameters(model, ["embeddings", "layer.0"])
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    torch.optim.AdamW(model.parameters(), lr=0.1).step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == set(before) - set(names)


def test_patterns_that_match_nothing_list_what_there_is():
    model = bert()
    with pytest.raises(ValueError, match="'decoder' matches no parameter") as caught:
        freeze_parameters(model, ["embeddings", "decoder"])
    message = str(caught.value)
    assert "bert.embeddings, bert.encoder, bert.pooler, classifier.bias, classifier.weight" in message
    assert frozen(model) == set()
    # A part of a segment is no match.
    for pattern in ("layer.01", "embedding", "lassifier"):
        with pytest.raises(ValueError, match="matches no parameter"):
            unfreeze_parameters(model, [pattern])


def test_a_string_is_no_list():
    with pytest.raises(TypeError, match=r"patterns is the string 'bert'; pass a list: \['bert'\]"):
        freeze_parameters(bert(), "bert")


def test_methods_of_the_textcnn():
    model = textcnn()
    assert set(model.freeze_parameters(["encoder"])) == frozen(model) == names_of(model, ".encoder.")
    assert model.unfreeze_parameters(["embeddings"]) == ["encoder.embeddings.word_embeddings.weight"]
    assert frozen(model) == names_of(model, ".convolutions.")
    with pytest.raises(ValueError, match=r"encoder\.convolutions, encoder\.embeddings"):
        model.freeze_parameters(["decoder"])
    # The training guide's name for the base model.
    assert set(model.freeze_parameters(["transformer"])) == names_of(model, ".encoder.")


# ---- Layer groups ----


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (bert, ["embeddings", "layer.0", "layer.1", "layer.2", "head"]),
        (lambda: bert(12), ["embeddings", *[f"layer.{i}" for i in range(12)], "head"]),
        (lambda: bert(1), ["embeddings", "layer.0", "head"]),
        (roberta, ["embeddings", "layer.0", "layer.1", "head"]),
        (distilbert, ["embeddings", "layer.0", "layer.1", "head"]),
        (gpt2, ["embeddings", "layer.0", "layer.1", "head"]),
        (textcnn, ["embeddings", "layer.0", "head"]),
        (lambda: textcnn("multichannel"), ["embeddings", "layer.0", "head"]),
        (lambda: textcnn("static"), ["layer.0", "head"]),
    ],
    ids=["bert", "bert-12", "bert-1", "roberta", "distilbert", "gpt2", "textcnn", "multichannel", "static"],
)
def test_every_parameter_is_in_one_group_and_groups_are_ordered(build, expected):
    model = build()
    groups = layer_groups(model)
    assert list(groups) == expected
    names = [name for group in groups.values() for name in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        (bert, ([".embeddings."], [".layer.1."], [".pooler.", ".classifier."])),
        (roberta, ([".embeddings."], [".layer.1."], [".classifier."])),
        (distilbert, ([".embeddings."], [".layer.1."], [".pre_classifier.", ".classifier."])),
        (gpt2, ([".wte.", ".wpe."], [".h.1."], [".ln_f.", ".score."])),
    ],
)
def test_what_the_groups_hold(build, parts):
    model = build()
    groups = layer_groups(model)
    for group, expected in zip(("embeddings", "layer.1", "head"), parts, strict=True):
        assert set(groups[group]) == names_of(model, *expected)


def test_groups_of_the_textcnn():
    model = textcnn()
    groups = layer_groups(model)
    assert groups["embeddings"] == ["encoder.embeddings.word_embeddings.weight"]
    assert set(groups["layer.0"]) == names_of(model, ".convolutions.")
    assert set(groups["head"]) == {"classifier.weight", "classifier.bias"}


def test_embeddings_that_are_registered_behind_the_layers():
    config = DebertaV2Config(**SIZES, num_hidden_layers=2, relative_attention=True, position_buckets=4)
    groups = layer_groups(DebertaV2ForSequenceClassification(config))
    assert list(groups) == ["embeddings", "layer.0", "layer.1", "head"]
    assert "deberta.encoder.rel_embeddings.weight" in groups["embeddings"]
