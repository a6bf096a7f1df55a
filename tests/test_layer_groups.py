"""The layer groups of the architectures that people fine-tune, against tables and against the real forward pass."""

import re
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise

import pytest
import torch
from peft import LoraConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from torch import nn
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    FunnelConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
    T5Config,
    XLMRobertaConfig,
    XLNetConfig,
)

from hf_ext import TextCNNConfig, TextCNNForSequenceClassification
from hf_ext.layers import freeze_parameters, layer_groups, match_parameters, unfreeze_parameters

SMALL = {
    "vocab_size": 40,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "max_position_embeddings": 32,
}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BART = {f"{part}_attention_heads": 2 for part in ("encoder", "decoder")} | {
    "d_model": 8, "encoder_layers": 2, "decoder_layers": 3, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
}  # fmt: skip


@dataclass(frozen=True)
class Expected:
    """What a model's parameters begin with, group by group."""

    build: object
    layers: list[str]
    embeddings: list[str]
    head: list[str]


def model_of(config):
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config)


def row(config, layers, embeddings, head):
    return Expected(cache(partial(model_of, config)), layers, embeddings, head)


def items(stack, number=3):
    return [f"{stack}.{index}" for index in range(number)]


ARCHITECTURES = {
    "bert": row(BertConfig(**SMALL), items("bert.encoder.layer"), ["bert.embeddings"], ["bert.pooler", "classifier"]),
    "distilbert": row(
        DistilBertConfig(vocab_size=40, dim=8, n_layers=3, n_heads=2, hidden_dim=16, max_position_embeddings=32),
        items("distilbert.transformer.layer"),
        ["distilbert.embeddings"],
        ["pre_classifier", "classifier"],
    ),
    "roberta": row(RobertaConfig(**SMALL), items("roberta.encoder.layer"), ["roberta.embeddings"], ["classifier"]),
    "deberta-v2": row(
        DebertaV2Config(
            **SMALL,
            relative_attention=True,
            position_buckets=4,
            norm_rel_ebd="layer_norm",
            conv_kernel_size=3,
            pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
        ),
        items("deberta.encoder.layer"),
        ["deberta.embeddings", "deberta.encoder.rel_embeddings", "deberta.encoder.LayerNorm", "deberta.encoder.conv"],
        ["pooler", "classifier"],
    ),
    "electra": row(
        ElectraConfig(**SMALL, embedding_size=4),
        items("electra.encoder.layer"),
        ["electra.embeddings", "electra.embeddings_project"],
        ["classifier"],
    ),
    # All layers of ALBERT share one set of weights.
    "albert": row(
        AlbertConfig(**SMALL, embedding_size=4),
        items("albert.encoder.albert_layer_groups", 1),
        ["albert.embeddings", "albert.encoder.embedding_hidden_mapping_in"],
        ["albert.pooler", "classifier"],
    ),
    "albert with three sets of weights": row(
        AlbertConfig(**SMALL, embedding_size=4, num_hidden_groups=3, inner_group_num=2),
        items("albert.encoder.albert_layer_groups"),
        ["albert.embeddings", "albert.encoder.embedding_hidden_mapping_in"],
        ["albert.pooler", "classifier"],
    ),
    # Both register their classifier before the base model.
    "xlm-roberta": row(
        XLMRobertaConfig(**SMALL), items("roberta.encoder.layer"), ["roberta.embeddings"], ["classifier"]
    ),
    "camembert": row(CamembertConfig(**SMALL), items("roberta.encoder.layer"), ["roberta.embeddings"], ["classifier"]),
    "mpnet": row(
        MPNetConfig(**SMALL),
        items("mpnet.encoder.layer"),
        ["mpnet.embeddings", "mpnet.encoder.relative_attention_bias"],
        ["classifier"],
    ),
    "modernbert": row(
        ModernBertConfig(**SMALL, **IDS, cls_token_id=1, sep_token_id=2, global_attn_every_n_layers=2),
        items("model.layers"),
        ["model.embeddings"],
        ["model.final_norm", "head", "classifier"],
    ),
    "gpt2": row(
        GPT2Config(vocab_size=40, n_positions=32, n_embd=8, n_layer=3, n_head=2, **IDS),
        items("transformer.h"),
        ["transformer.wte", "transformer.wpe"],
        ["transformer.ln_f", "score"],
    ),
    "llama": row(
        LlamaConfig(**SMALL, num_key_value_heads=1, **IDS),
        items("model.layers"),
        ["model.embed_tokens"],
        ["model.norm", "score"],
    ),
    # Encoder and decoder share their embeddings, which are counted once.
    "bart": row(
        BartConfig(vocab_size=40, max_position_embeddings=32, **BART, **IDS, decoder_start_token_id=2),
        items("model.encoder.layers", 2) + items("model.decoder.layers"),
        [
            "model.shared",
            "model.encoder.embed_positions",
            "model.encoder.layernorm_embedding",
            "model.decoder.embed_positions",
            "model.decoder.layernorm_embedding",
        ],
        ["classification_head"],
    ),
    "t5": row(
        T5Config(
            vocab_size=40,
            d_model=8,
            d_kv=4,
            d_ff=16,
            num_layers=2,
            num_decoder_layers=3,
            num_heads=2,
            pad_token_id=0,
            eos_token_id=2,
            decoder_start_token_id=0,
        ),
        items("transformer.encoder.block", 2) + items("transformer.decoder.block"),
        ["transformer.shared"],
        ["transformer.decoder.final_layer_norm", "classification_head"],
    ),
    "funnel": row(
        FunnelConfig(
            vocab_size=40,
            d_model=8,
            d_head=4,
            n_head=2,
            d_inner=16,
            block_sizes=[1, 2],
            num_decoder_layers=1,
            pad_token_id=0,
            cls_token_id=1,
            sep_token_id=2,
        ),
        ["funnel.encoder.blocks.0.0", "funnel.encoder.blocks.1.0", "funnel.encoder.blocks.1.1"],
        ["funnel.embeddings"],
        ["classifier"],
    ),
    "xlnet": row(
        XLNetConfig(vocab_size=40, d_model=8, n_layer=3, n_head=2, d_inner=16, **IDS),
        items("transformer.layer"),
        ["transformer.mask_emb", "transformer.word_embedding"],
        ["sequence_summary", "logits_proj"],
    ),
}
# What follows a stack that is not the last belongs to that stack's last layer.
BEHIND_THE_ENCODER = {"t5": "transformer.encoder.final_layer_norm"}
# Embeddings by what they are, though not by when they run: a convolution beside the first layer, a decoder's positions.
RUNS_ELSEWHERE = {"deberta-v2": "deberta.encoder.conv", "bart": "model.decoder."}
architectures = pytest.mark.parametrize("name", ARCHITECTURES)


def bert(**changes):
    return model_of(BertConfig(**SMALL | changes))


def textcnn(variant="rand"):
    torch.manual_seed(0)
    config = TextCNNConfig(vocab_size=20, embed_size=4, num_filters=2, filter_sizes=[2, 3], variant=variant)
    return TextCNNForSequenceClassification(config)


def adapted(model, config=LoraConfig, **settings):
    return get_peft_model(model, config(**settings))


def lora(model=None, **settings):
    values = {"task_type": "SEQ_CLS", "r": 2, "target_modules": ["query", "value"], **settings}
    return adapted(model or bert(), **values)


PEFT_BERT = "base_model.model.bert"
CONVOLUTIONS = ["encoder.convolutions"]
OTHERS = {
    "textcnn": Expected(textcnn, CONVOLUTIONS, ["encoder.embeddings"], ["classifier"]),
    "textcnn, static": Expected(partial(textcnn, "static"), CONVOLUTIONS, [], ["classifier"]),
    "textcnn, non-static": Expected(
        partial(textcnn, "non-static"), CONVOLUTIONS, ["encoder.embeddings"], ["classifier"]
    ),
    "textcnn, multichannel": Expected(
        partial(textcnn, "multichannel"), CONVOLUTIONS, ["encoder.embeddings"], ["classifier"]
    ),
    "bert without a classifier": Expected(
        lambda: AutoModel.from_config(BertConfig(**SMALL)), items("encoder.layer"), ["embeddings"], ["pooler"]
    ),
    "bert of one layer": Expected(
        partial(bert, num_hidden_layers=1), ["bert.encoder.layer.0"], ["bert.embeddings"], ["bert.pooler", "classifier"]
    ),
    "lora": Expected(
        lora,
        items(f"{PEFT_BERT}.encoder.layer"),
        [f"{PEFT_BERT}.embeddings"],
        [f"{PEFT_BERT}.pooler", "base_model.model.classifier"],
    ),
    "lora on the word embeddings": Expected(
        partial(lora, target_modules=["query", "word_embeddings"]),
        items(f"{PEFT_BERT}.encoder.layer"),
        [f"{PEFT_BERT}.embeddings"],
        [f"{PEFT_BERT}.pooler", "base_model.model.classifier"],
    ),
    "lora with a saved pooler and classifier": Expected(
        partial(lora, task_type=None, modules_to_save=["pooler", "classifier"]),
        items(f"{PEFT_BERT}.encoder.layer"),
        [f"{PEFT_BERT}.embeddings"],
        [f"{PEFT_BERT}.pooler", "base_model.model.classifier"],
    ),
    "lora with saved word embeddings": Expected(
        partial(lora, modules_to_save=["word_embeddings"]),
        items(f"{PEFT_BERT}.encoder.layer"),
        [f"{PEFT_BERT}.embeddings"],
        [f"{PEFT_BERT}.pooler", "base_model.model.classifier"],
    ),
    "lora on the textcnn": Expected(
        lambda: lora(textcnn(), target_modules=["convolutions.0", "convolutions.1"]),
        ["base_model.model.encoder.convolutions"],
        ["base_model.model.encoder.embeddings"],
        ["base_model.model.classifier"],
    ),
    "lora on the textcnn's embeddings": Expected(
        lambda: lora(textcnn(), target_modules=["word_embeddings"]),
        ["base_model.model.encoder.convolutions"],
        ["base_model.model.encoder.embeddings"],
        ["base_model.model.classifier"],
    ),
    "prompt tuning": Expected(
        lambda: adapted(bert(), PromptTuningConfig, task_type="SEQ_CLS", num_virtual_tokens=2),
        items("base_model.bert.encoder.layer"),
        ["base_model.bert.embeddings", "prompt_encoder"],
        ["base_model.bert.pooler", "base_model.classifier"],
    ),
    # Its prompt comes out of a small network.
    "p-tuning": Expected(
        lambda: adapted(bert(), PromptEncoderConfig, task_type="SEQ_CLS", num_virtual_tokens=2, encoder_hidden_size=4),
        items("base_model.bert.encoder.layer"),
        ["base_model.bert.embeddings", "prompt_encoder"],
        ["base_model.bert.pooler", "base_model.classifier"],
    ),
}
ALL = ARCHITECTURES | OTHERS


def under(model, prefixes):
    """Names of parameters that lie under any of the prefixes."""
    return {name for name, _ in model.named_parameters() if f"{name}.".startswith(tuple(f"{p}." for p in prefixes))}


# ---- Against tables ----


def test_the_architectures_are_all_here():
    assert len(ARCHITECTURES) == 17
    assert len(OTHERS) == 14
    assert len({type(expected.build()) for expected in ARCHITECTURES.values()}) == 16


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_is_in_exactly_one_group(name):
    model = ALL[name].build()
    grouped = [parameter for members in layer_groups(model).values() for parameter in members]
    named = [parameter for parameter, _ in model.named_parameters()]
    assert sorted(grouped) == sorted(named)
    assert len(set(grouped)) == len(grouped) > 0


@pytest.mark.parametrize("name", ALL)
def test_the_groups_are_embeddings_layers_and_head_in_this_order(name):
    expected = ALL[name]
    layers = [f"layer.{number}" for number in range(len(expected.layers))]
    assert list(layer_groups(expected.build())) == [*(["embeddings"] if expected.embeddings else []), *layers, "head"]


@pytest.mark.parametrize("name", ALL)
def test_the_groups_hold_what_the_table_says(name):
    expected, model = ALL[name], ALL[name].build()
    groups = layer_groups(model)
    assert set(groups.get("embeddings", [])) == under(model, expected.embeddings)
    assert set(groups["head"]) == under(model, expected.head)
    behind = under(model, [BEHIND_THE_ENCODER[name]]) if name in BEHIND_THE_ENCODER else set()
    for number, prefix in enumerate(expected.layers):
        inside = under(model, [prefix])
        assert inside
        assert set(groups[f"layer.{number}"]) - behind == inside


@pytest.mark.parametrize("name", ALL)
def test_the_names_in_a_group_come_in_the_models_order(name):
    model = ALL[name].build()
    position = {parameter: index for index, (parameter, _) in enumerate(model.named_parameters())}
    for members in layer_groups(model).values():
        assert members == sorted(members, key=position.__getitem__)


def test_tied_parameters_are_counted_at_their_first_name():
    model = ARCHITECTURES["t5"].build()
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    grouped = {name for members in layer_groups(model).values() for name in members}
    assert tied - grouped == {"transformer.encoder.embed_tokens.weight", "transformer.decoder.embed_tokens.weight"}
    assert "transformer.shared.weight" in layer_groups(model)["embeddings"]


def test_no_weights_are_read():
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(BertConfig(num_hidden_layers=12))
    groups = layer_groups(model)
    assert list(groups) == ["embeddings", *items("layer", 12), "head"]
    assert {len(groups[layer]) for layer in items("layer", 12)} == {16}


def test_a_compiled_model_has_the_same_groups():
    model = bert()
    compiled = torch.compile(model, backend="eager")
    stripped = {
        group: [name.removeprefix("_orig_mod.") for name in names] for group, names in layer_groups(compiled).items()
    }
    assert stripped == layer_groups(model)


def test_a_model_of_plain_torch_modules():
    block = partial(nn.TransformerEncoderLayer, d_model=8, nhead=2, dim_feedforward=8)
    model = nn.Sequential()
    model.add_module("words", nn.Embedding(20, 8))
    model.add_module("body", nn.TransformerEncoder(block(), num_layers=3, enable_nested_tensor=False))
    model.add_module("top", nn.Linear(8, 2))
    groups = layer_groups(model)
    assert list(groups) == ["embeddings", "layer.0", "layer.1", "layer.2", "head"]
    assert groups["embeddings"] == ["words.weight"]
    assert groups["head"] == ["top.weight", "top.bias"]
    assert all(name.startswith("body.layers.1.") for name in groups["layer.1"])


# ---- Against the forward pass ----


def first_calls(model):
    """Module that owns parameters -> the place of its first call in a real forward pass."""
    calls, handles = [], []
    for name, module in model.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            handles.append(module.register_forward_pre_hook(lambda module, _, name=name: calls.append(name)))
    ids = torch.tensor([[5, 7, 9, 11, 6, 8, 10, 2], [4, 3, 5, 9, 12, 13, 14, 2]])
    model.eval()
    with torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    for handle in handles:
        handle.remove()
    return {name: calls.index(name) for name in calls}


def spans_of_groups(model, name):
    """Places of the first and the last first call of a group's modules, group by group."""
    calls = first_calls(model)
    owners = {}
    for parameter_name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(parameter, []).append(parameter_name.rpartition(".")[0])
    spans = {}
    for group, names in layer_groups(model).items():
        elsewhere = RUNS_ELSEWHERE.get(name, "(none)") if group == "embeddings" else "(none)"
        # A module that hands its weight to another one is not called itself.
        called = [
            [calls[owner] for owner in owners[model.get_parameter(parameter)] if owner in calls]
            for parameter in names
            if not parameter.startswith(elsewhere)
        ]
        places = [min(places) for places in called if places]
        spans[group] = (min(places), max(places))
    return spans


@architectures
def test_the_forward_pass_goes_from_the_first_group_to_the_last(name):
    spans = list(spans_of_groups(ARCHITECTURES[name].build(), name).items())
    for (before, (_, last)), (after, (first, _)) in pairwise(spans):
        assert last < first, f"{after} begins before {before} has ended"


@pytest.mark.parametrize("name", ["bert without a classifier", "lora", "lora on the word embeddings"])
def test_so_it_does_in_other_models(name):
    spans = list(spans_of_groups(OTHERS[name].build(), name).values())
    assert all(last < first for (_, last), (first, _) in pairwise(spans))


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta", "modernbert", "gpt2", "llama", "bart"])
def test_the_backward_pass_stops_above_the_frozen_groups(name):
    """What gradual unfreezing saves: nothing is kept for the backward pass of what lies below the trained groups."""
    model = model_of(ARCHITECTURES[name].build().config)
    groups = layer_groups(model)
    group_of = {parameter.rpartition(".")[0]: group for group, names in groups.items() for parameter in names}
    differentiated = set()
    for owner, group in group_of.items():
        model.get_submodule(owner).register_forward_hook(
            lambda module, inputs, output, group=group: differentiated.add(group) if output.requires_grad else None
        )
    for trained in range(1, len(groups) + 1):
        freeze_parameters(model, [".*"])
        unfreeze_parameters(model, list(groups)[-trained:])
        differentiated.clear()
        model(input_ids=torch.tensor([[5, 7, 9, 2]]))
        assert differentiated == set(list(groups)[-trained:])


# ---- Freezing by group ----


def frozen(model):
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


@pytest.mark.parametrize(
    ("patterns", "groups"),
    [
        (["head"], ["head"]),
        (["layer.1"], ["layer.1"]),
        (["layer\\.[0-1]"], ["layer.0", "layer.1"]),
        (["layer.*"], ["layer.0", "layer.1", "layer.2"]),
        (["embeddings|layer.0"], ["embeddings", "layer.0"]),
        (["head", "layer.2"], ["layer.2", "head"]),
        ([".*"], ["embeddings", "layer.0", "layer.1", "layer.2", "head"]),
    ],
)
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "funnel", "modernbert", "xlnet"])
def test_groups_are_frozen_by_name_and_by_regular_expression(name, patterns, groups):
    model = model_of(ARCHITECTURES[name].build().config)
    members = layer_groups(model)
    expected = {parameter for group in groups for parameter in members[group]}
    assert set(freeze_parameters(model, patterns)) == frozen(model) == expected
    assert set(unfreeze_parameters(model, patterns)) == expected
    assert frozen(model) == set()


def test_a_group_comes_before_a_part_of_a_name():
    # In T5 every block has a `layer.0` and a `layer.1` of its own.
    model = model_of(ARCHITECTURES["t5"].build().config)
    assert set(match_parameters(model, ["layer.0"])) == under(model, ["transformer.encoder.block.0"])
    # `head` is a module of ModernBERT, but also the group, which holds more.
    model = ARCHITECTURES["modernbert"].build()
    assert set(match_parameters(model, ["head"])) == under(model, ["model.final_norm", "head", "classifier"])


def test_the_eleventh_layer_is_not_the_first():
    model = bert(num_hidden_layers=11)
    assert set(match_parameters(model, ["layer.1"])) == under(model, ["bert.encoder.layer.1"])
    assert set(match_parameters(model, ["layer.10"])) == under(model, ["bert.encoder.layer.10"])


@pytest.mark.parametrize("alias", ["base_model", "transformer"])
@pytest.mark.parametrize(
    "name",
    ["bert", "roberta", "xlm-roberta", "llama", "textcnn", "lora", "lora on the word embeddings", "prompt tuning"],
)
def test_the_base_model_is_everything_but_the_head(name, alias):
    model = ALL[name].build()
    everything = {parameter for parameter, _ in model.named_parameters()}
    assert set(match_parameters(model, [alias])) == everything - under(model, ALL[name].head)


@pytest.mark.parametrize(
    ("name", "pattern", "listed"),
    [
        ("bert", "layer.3", "embeddings, layer.0, layer.1, layer.2, head"),
        ("distilbert", "pooler", "embeddings, layer.0, layer.1, layer.2, head"),
        ("bart", "layer.5", "embeddings, layer.0, layer.1, layer.2, layer.3, layer.4, head"),
        ("albert", "layer.1", "embeddings, layer.0, head"),
        ("textcnn, static", "embeddings", "layer.0, head"),
    ],
)
def test_a_pattern_that_matches_nothing_lists_the_groups_and_modules(name, pattern, listed):
    model = ALL[name].build()
    with pytest.raises(ValueError, match=re.escape(f"{pattern!r} matches no parameter")) as caught:
        match_parameters(model, ["head", pattern])
    message = str(caught.value)
    assert f": {listed}." in message
    modules = {".".join(parameter.split(".")[:2]) for parameter, _ in model.named_parameters()}
    assert all(module in message for module in modules)


@pytest.mark.parametrize("pattern", ["layer.(0", "[0-", "*", "(?P<x", "head)"])
@pytest.mark.parametrize("change", [freeze_parameters, unfreeze_parameters, match_parameters])
def test_what_is_no_regular_expression_says_so_and_changes_nothing(change, pattern):
    model = textcnn()
    with pytest.raises(ValueError, match=re.escape(f"{pattern!r} is no regular expression")):
        change(model, ["head", pattern])
    assert frozen(model) == set()


@pytest.mark.parametrize("change", [unfreeze_parameters, match_parameters])
def test_one_string_is_not_taken_for_a_list_of_letters(change):
    with pytest.raises(TypeError, match=r"pass a list: \['head'\]"):
        change(textcnn(), "head")


def test_no_patterns_freeze_nothing():
    model = textcnn()
    assert freeze_parameters(model, []) == []
    assert frozen(model) == set()


def test_an_iterator_of_patterns_is_taken_whole():
    model = bert()
    names = freeze_parameters(model, (f"layer.{number}" for number in range(2)))
    assert set(names) == under(model, items("bert.encoder.layer", 2))
