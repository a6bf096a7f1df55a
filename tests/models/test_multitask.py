"""Several classifiers as one model: nothing twice, the same numbers everywhere."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    set_seed,
)

from hf_ext import TextCNNConfig, TextCNNForSequenceClassification, build_word_tokenizer, layer_groups
from hf_ext.errors import ConfigurationError
from hf_ext.models.multitask import MultiTaskModel
from hf_ext.models.sharing import check_classifiers, decide_sharing, encoder_of

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def bert(num_labels=2, **settings):
    return BertForSequenceClassification(BertConfig(vocab_size=50, num_labels=num_labels, **{**SMALL, **settings}))


def textcnn(num_labels=2, **settings):
    config = TextCNNConfig(vocab_size=50, embed_size=8, num_filters=4, num_labels=num_labels, **settings)
    return TextCNNForSequenceClassification(config)


MAKERS = {
    "bert": bert,
    "textcnn": textcnn,
    "textcnn, fixed vectors": lambda n: textcnn(n, variant="multichannel"),
    "roberta": lambda n: RobertaForSequenceClassification(RobertaConfig(vocab_size=50, num_labels=n, **SMALL)),
    "deberta": lambda n: DebertaV2ForSequenceClassification(
        DebertaV2Config(vocab_size=50, num_labels=n, relative_attention=True, pos_att_type=["p2c", "c2p"], **SMALL)
    ),
    "distilbert": lambda n: DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=50, num_labels=n, dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    ),
    "qwen": lambda n: Qwen2ForSequenceClassification(
        Qwen2Config(vocab_size=50, num_labels=n, num_key_value_heads=2, pad_token_id=0, **SMALL)
    ),
}
IDS = torch.randint(3, 50, (4, 7), generator=torch.Generator().manual_seed(0))


def logits_of(model, **inputs):
    with torch.no_grad():
        return model(input_ids=IDS, **inputs).logits


def of_task(number):
    return torch.full((4,), number)


@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
@pytest.mark.parametrize("name", MAKERS)
def test_saved_loaded_and_exported_it_says_the_same(tmp_path, name, share):
    set_seed(0)
    models = {"one": MAKERS[name](2), "two": MAKERS[name](3)}
    alone = {task: logits_of(model.eval()) for task, model in models.items()}
    weights = sum(value.numel() for model in models.values() for value in model.parameters())
    encoder = sum(value.numel() for value in encoder_of(models["one"]).parameters())
    model = MultiTaskModel.from_models(models, share_encoder=share).eval()
    assert sum(value.numel() for value in model.parameters()) == weights - (encoder if share else 0)
    # Joining changes no weight of the first; the others keep their heads.
    assert torch.equal(logits_of(model, task_id=of_task(0)), alone["one"])
    if not share:
        assert torch.equal(logits_of(model, task_id=of_task(1)), alone["two"])

    model.save_pretrained(tmp_path / "all")
    saved = load_file(tmp_path / "all" / "model.safetensors")
    # Buffers that are saved (TextCNN's fixed vectors) are once in it as well.
    assert saved.keys() == model.state_dict().keys()
    loaded = MultiTaskModel.from_pretrained(tmp_path / "all").eval()
    assert loaded.task_names == ["one", "two"]
    for number, task in enumerate(models):
        expected = logits_of(model, task_id=of_task(number))
        assert torch.equal(logits_of(loaded, task_id=of_task(number)), expected)
        loaded.task_model(task).save_pretrained(tmp_path / task)
        plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / task).eval()
        assert type(plain) is type(models[task])
        assert torch.equal(logits_of(plain), expected)


def test_layer_groups_are_those_of_the_encoder_and_all_heads():
    for name, layers in {"bert": 2, "textcnn": 1, "deberta": 2, "roberta": 2, "distilbert": 2, "qwen": 2}.items():
        alone = layer_groups(MAKERS[name](2))
        joined = MultiTaskModel.from_models({task: MAKERS[name](2) for task in ("one", "two")}, learn_weights=True)
        groups = layer_groups(joined)
        assert list(groups) == list(alone) == ["embeddings", *(f"layer.{n}" for n in range(layers)), "head"]
        for group in list(groups)[:-1]:
            assert len(groups[group]) == len(alone[group])
        heads = {name.split(".")[1] for name in groups["head"] if name.startswith("heads.")}
        assert heads == {"one", "two"} and groups["head"][-1].startswith("heads.")


def test_the_training_flag_reaches_the_tasks_models():
    model = MultiTaskModel.from_models({"one": textcnn(max_norm=0.1), "two": textcnn()})
    for mode in (True, False, True):
        model.train(mode)
        parts = [part for task in ("one", "two") for part in model.task_model(task).modules()]
        assert all(part.training is mode for part in [model, *parts])


def test_a_parameter_of_the_model_itself_is_a_part_of_its_head():
    models = {"one": bert(), "two": bert()}
    models["two"].scale = nn.Parameter(torch.ones(1))
    models["two"].register_buffer("offset", torch.zeros(1))
    model = MultiTaskModel.from_models(models)
    assert {"heads.two.scale", "heads.two.offset"} <= set(model.state_dict())
    model.to(torch.float64)
    assert model.task_model("two").offset.dtype is model.task_model("two").scale.dtype is torch.float64


def test_losses_are_the_tasks_models_own():
    set_seed(0)
    kinds = {"topic": "single_label_classification", "tags": "multi_label_classification", "score": "regression"}
    labels = {"topic": torch.tensor([0, 1, 2, 1]), "tags": torch.eye(4)[:, :3], "score": torch.rand(4)}
    models = {task: bert(1 if task == "score" else 3, problem_type=kind) for task, kind in kinds.items()}
    model = MultiTaskModel.from_models(models, learn_weights=True)
    nn.init.constant_(model.log_variances["tags"], 0.7)
    nn.init.constant_(model.log_variances["score"], -0.4)
    expected = {
        "topic": lambda loss: loss,
        "tags": lambda loss: loss * torch.tensor(-0.7).exp() + 0.35,
        "score": lambda loss: loss * torch.tensor(0.4).exp() / 2 - 0.2,
    }
    references = {
        "topic": nn.functional.cross_entropy,
        "tags": nn.functional.binary_cross_entropy_with_logits,
        "score": lambda logits, values: nn.functional.mse_loss(logits.squeeze(-1), values),
    }
    for number, task in enumerate(kinds):
        model.eval()
        plain = model(task_id=of_task(number), input_ids=IDS, labels=labels[task])
        torch.testing.assert_close(plain.loss, references[task](plain.logits, labels[task]))
        assert plain.task_loss is None
        model.train()
        set_seed(1)
        trained = model(task_id=of_task(number), input_ids=IDS, labels=labels[task])
        torch.testing.assert_close(trained.loss, expected[task](trained.task_loss))
        assert not trained.task_loss.requires_grad


# ---- Sharing ----


def test_equal_encoders_are_shared_whatever_their_heads():
    first, second = bert(2, classifier_dropout=0.1), bert(5, problem_type="multi_label_classification")
    second.bert.load_state_dict(first.bert.state_dict())
    assert decide_sharing({"one": first, "two": second}) == (True, [])
    assert decide_sharing({"one": textcnn(max_norm=3.0), "two": textcnn(3, dropout_prob=0.1)}, None, True)[0]


def test_dropped_weights_are_said():
    shared, (note,) = decide_sharing({"one": bert(), "two": bert()})
    assert shared and "the encoder of 'one'" in note and "'two' are dropped" in note


WORDS = build_word_tokenizer(["a b c d"])
OTHER_WORDS = build_word_tokenizer(["a b c x"])


@pytest.mark.parametrize(
    ("second", "tokenizers", "said"),
    [
        (lambda: textcnn(), None, "BertModel and TextCNNModel"),
        (lambda: bert(num_hidden_layers=1), None, "num_hidden_layers is 2 and 1"),
        (lambda: bert(hidden_dropout_prob=0.0), None, "hidden_dropout_prob is 0.1 and 0.0"),
        (lambda: bert().to(torch.float64), None, r"of torch.float32 and .* of torch.float64"),
        (lambda: bert(), {"one": WORDS, "two": OTHER_WORDS}, "vocabularies"),
    ],
    ids=["class", "config", "dropout", "dtype", "vocabulary"],
)
def test_different_encoders_are_not_shared_and_that_is_said(second, tokenizers, said):
    models = {"one": bert(), "two": second()}
    shared, (note,) = decide_sharing(models, tokenizers)
    assert not shared
    assert "Nothing is transferred" in note and "weights have next to no effect" in note
    with pytest.raises(ConfigurationError, match=said):
        decide_sharing(models, tokenizers, share_encoder=True)


def test_what_cannot_be_shared_or_kept_apart_is_refused():
    first, second = bert(), bert()
    second.bert = first.bert
    assert decide_sharing({"one": first, "two": second}) == (True, [])
    with pytest.raises(ConfigurationError, match="same encoder"):
        decide_sharing({"one": first, "two": second}, share_encoder=False)
    with pytest.raises(ConfigurationError, match="'sometimes'"):
        decide_sharing({"one": bert(), "two": bert()}, share_encoder="sometimes")
    assert decide_sharing({"one": bert()}) == (True, [])
    assert decide_sharing({"one": bert(), "two": bert()}, share_encoder=False)[0] is False


def test_tasks_never_share_a_head():
    model = bert()
    with pytest.raises(ConfigurationError, match="'one' and 'two' have the same BertForSequenceClassification"):
        check_classifiers({"one": model, "two": model})
    other = bert()
    other.classifier = model.classifier
    with pytest.raises(ConfigurationError, match="same Linear outside their encoder"):
        check_classifiers({"one": model, "two": other})
    other.classifier = nn.Linear(16, 2)
    other.classifier.weight = model.classifier.weight
    with pytest.raises(ConfigurationError, match="same Parameter"):
        check_classifiers({"one": model, "two": other})


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: BertForTokenClassification(BertConfig(vocab_size=50, **SMALL)), "BertForTokenClassification"),
        (lambda: bert().bert, "BertModel"),
        (lambda: nn.Linear(2, 2), "Linear"),
        (lambda: "bert-base-uncased", "str"),
    ],
    ids=["tokens", "no head", "module", "name"],
)
def test_only_sequence_classifiers(model, said):
    with pytest.raises(ConfigurationError, match=rf"'two' is a {said}, which is no sequence classifier"):
        check_classifiers({"one": bert(), "two": model()})


@pytest.mark.parametrize("name", ["", "a.b", "a b", "_a", "avg", "keys", "train", 3], ids=repr)
def test_names_that_cannot_be_used(name):
    with pytest.raises(ConfigurationError, match="A task is named"):
        MultiTaskModel.from_models({name: bert()})
