"""Adapters: what is trained, what is saved, and that nothing is random after loading."""

import json
import re
import subprocess
import sys
from functools import partial

import pytest
import torch
from peft import (
    AutoPeftModelForSequenceClassification,
    IA3Config,
    LoHaConfig,
    LoraConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors import safe_open
from transformers import (
    AutoModelForSequenceClassification,
    BartConfig,
    BartModel,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
)

from hf_ext import (
    ConfigurationError,
    DataError,
    ModelArguments,
    PeftArguments,
    TextCNNConfig,
    TextCNNForSequenceClassification,
    add_adapter,
    build_word_tokenizer,
    load_classifier,
    load_config,
    merge_adapter,
    model_summary,
    task_of_config,
)
from hf_ext.models.adapter_files import adapter_saved
from hf_ext.models.adapters import head_modules
from hf_ext.models.building import load_with_new_parameters

# As the recipes load models on a CPU; other kernels differ in the last digits.
EAGER = {"attn_implementation": "eager"}
NAMES = {0: "bad", 1: "fair", 2: "good"}
WORDS = ["a", "good", "film", "of", "bad", "taste"]
IDS = torch.tensor([[2, 3, 4, 5], [4, 3, 2, 6], [5, 5, 2, 3]])
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
BART = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
BART |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 32}
DISTILBERT = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
# Architecture -> an encoder without a head, and what is new when a classifier is made of it.
ENCODERS = {
    "bert": (lambda: BertModel(BertConfig(vocab_size=20, **BERT)), ["classifier"]),
    "bert without a pooler": (
        lambda: BertForMaskedLM(BertConfig(vocab_size=20, **BERT)),
        ["classifier", "bert.pooler.dense"],
    ),
    "distilbert": (
        lambda: DistilBertModel(DistilBertConfig(vocab_size=20, **DISTILBERT)),
        ["pre_classifier", "classifier"],
    ),
    "roberta": (lambda: RobertaModel(RobertaConfig(vocab_size=20, **BERT)), ["classifier"]),
    "bart": (lambda: BartModel(BartConfig(vocab_size=20, **BART)), ["classification_head"]),
    "electra": (lambda: ElectraModel(ElectraConfig(vocab_size=20, embedding_size=8, **BERT)), ["classifier"]),
    "deberta-v2": (
        lambda: DebertaV2Model(DebertaV2Config(vocab_size=20, **BERT)),
        ["pooler", "classifier"],
    ),
}
LOADING = """
import sys
import torch
from peft import AutoPeftModelForSequenceClassification
from safetensors.torch import save_file
torch.manual_seed(int(sys.argv[3]))
model = AutoPeftModelForSequenceClassification.from_pretrained(
    sys.argv[1], num_labels=3, attn_implementation="eager"
).eval()
save_file({"logits": model(input_ids=torch.tensor(eval(sys.argv[4]))).logits}, sys.argv[2])
assert not any(name.startswith("hf_ext") for name in sys.modules)
"""


@pytest.fixture
def encoder(tmp_path):
    """The folder of an encoder with a tokenizer."""

    def save(name="bert"):
        torch.manual_seed(0)
        folder = tmp_path / "base"
        ENCODERS[name][0]().save_pretrained(folder)
        build_word_tokenizer(WORDS).save_pretrained(folder)
        return folder

    return save


def classifier(folder):
    """A classifier of an encoder, and the parameters that are new."""
    torch.manual_seed(1)
    args = ModelArguments(model_name_or_path=str(folder))
    task = task_of_config(BertConfig(id2label=NAMES))
    model, _, new = load_with_new_parameters(args, task, True)
    return model, new


def train(adapted, steps=3):
    """A few steps; the names of the parameters that moved."""
    before = {name: value.detach().clone() for name, value in adapted.named_parameters()}
    optimizer = torch.optim.Adam([value for value in adapted.parameters() if value.requires_grad], lr=0.05)
    adapted.train()
    for _ in range(steps):
        adapted(input_ids=IDS, attention_mask=torch.ones_like(IDS), labels=torch.tensor([0, 1, 2])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.eval()
    return {name for name, value in adapted.named_parameters() if not torch.equal(value, before[name])}


def logits_of(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


def save(adapted, folder):
    with adapter_saved(adapted, folder, True):
        adapted.save_pretrained(folder)
    build_word_tokenizer(WORDS).save_pretrained(folder)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_whole_head_is_trained_saved_and_the_same_when_loaded(encoder, tmp_path, name):
    model, new = classifier(encoder(name))
    heads = ENCODERS[name][1]
    assert head_modules(model, new) == heads
    adapted = add_adapter(model, LoraConfig(r=4), new)
    moved = train(adapted)
    for head in heads:
        assert any(f"{head}.modules_to_save" in parameter for parameter in moved), f"{head} was not trained"
    assert any("lora_B" in parameter for parameter in moved)
    assert all("lora_" in parameter or "modules_to_save" in parameter for parameter in moved)
    save(adapted, tmp_path / "adapter")
    expected = logits_of(adapted)
    # What is random when a classifier is made, is another number under another seed.
    torch.manual_seed(99)
    loaded, _ = load_classifier(ModelArguments(model_name_or_path=str(tmp_path / "adapter")), merge=False)
    assert torch.equal(logits_of(loaded), expected)
    assert loaded.config.id2label == NAMES
    torch.manual_seed(98)
    plain = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=3, **EAGER)
    assert torch.equal(logits_of(plain), expected)


def test_peft_alone_loses_a_pooler(encoder, tmp_path):
    """What the head rule is for: without it the pooler of DeBERTa-v2 is another one after loading."""
    model, _ = classifier(encoder("deberta-v2"))
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", target_modules=["query_proj"]))
    save(adapted, tmp_path / "adapter")
    expected = logits_of(adapted)
    torch.manual_seed(99)
    other = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=3, **EAGER)
    assert not torch.allclose(logits_of(other), expected, atol=1e-3)
    with pytest.raises(DataError, match=r"pooler\.dense\.bias.*would be random"):
        load_classifier(ModelArguments(model_name_or_path=str(tmp_path / "adapter")))


def test_in_a_fresh_process_without_hf_ext(encoder, tmp_path):
    model, new = classifier(encoder("bert without a pooler"))
    adapted = add_adapter(model, LoraConfig(r=4), new)
    train(adapted)
    save(adapted, tmp_path / "adapter")
    words = [sys.executable, "-c", LOADING, str(tmp_path / "adapter"), str(tmp_path / "out"), "7", str(IDS.tolist())]
    subprocess.run(words, check=True, capture_output=True, cwd=tmp_path)
    with safe_open(tmp_path / "out", "pt") as file:
        assert torch.equal(file.get_tensor("logits"), adapted(input_ids=IDS).logits)


def test_only_the_adapter_is_saved(encoder, tmp_path):
    base = encoder()
    adapted = add_adapter(classifier(base)[0], LoraConfig(r=2))
    save(adapted, tmp_path / "adapter")
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert names == {
        *("adapter_config.json", "adapter_model.safetensors", "classifier_config.json"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", "pt") as file:
        sizes = {name: file.get_tensor(name).numel() for name in file.keys()}  # noqa: SIM118
    assert all("lora_" in name or "classifier" in name for name in sizes)
    # Two matrices of 2 x 16 at query and value of two layers, and the classifier.
    assert sum(sizes.values()) == 2 * 2 * 2 * (2 * 16) + 3 * 16 + 3
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        base
    )


def test_the_counts_are_those_of_peft(encoder):
    adapted = add_adapter(classifier(encoder())[0], LoraConfig(r=2))
    trained, every = adapted.get_nb_trainable_parameters()
    last = model_summary(adapted).splitlines()[-1].split()
    assert (last[2], last[3]) == (f"{every:,}", f"{trained:,}")
    assert trained == 2 * 2 * 2 * (2 * 16) + 3 * 16 + 3


METHODS = {
    "IA3": partial(IA3Config, target_modules=["key", "value"], feedforward_modules=[]),
    "LOHA": partial(LoHaConfig, r=4, target_modules=["query"]),
    "PREFIX_TUNING": partial(PrefixTuningConfig, num_virtual_tokens=3),
    "PROMPT_TUNING": partial(PromptTuningConfig, num_virtual_tokens=3),
}


@pytest.mark.parametrize("method", METHODS)
def test_other_methods(encoder, tmp_path, method):
    adapted = add_adapter(classifier(encoder())[0], METHODS[method]())
    moved = train(adapted)
    assert any("classifier" in name for name in moved)
    assert any("classifier" not in name for name in moved)
    assert not any(".base_layer." in name or "original_module" in name for name in moved)
    expected = logits_of(adapted)
    save(adapted, tmp_path / "adapter")
    torch.manual_seed(99)
    loaded, _ = load_classifier(ModelArguments(model_name_or_path=str(tmp_path / "adapter")), merge=False)
    assert torch.equal(logits_of(loaded), expected)


@pytest.mark.parametrize("config", [partial(LoraConfig, r=4, use_dora=True), METHODS["IA3"], METHODS["LOHA"]])
def test_merged(encoder, tmp_path, config):
    base = encoder()
    untouched = logits_of(classifier(base)[0])
    adapted = add_adapter(classifier(base)[0], config())
    train(adapted, steps=10)
    expected = logits_of(adapted)
    assert not torch.allclose(expected, untouched, atol=0.05)
    merged = merge_adapter(adapted)
    torch.testing.assert_close(logits_of(merged), expected, rtol=1e-5, atol=1e-5)
    assert all(value.requires_grad for value in merged.parameters())
    merged.save_pretrained(tmp_path / "merged")
    assert {path.name for path in (tmp_path / "merged").iterdir()} == {"config.json", "model.safetensors"}
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged", **EAGER)
    assert torch.equal(logits_of(plain), logits_of(merged))
    assert plain.config.id2label == NAMES


@pytest.mark.parametrize(
    "config, message",
    [
        (partial(LoraConfig, target_modules=["query", "valeu"]), r"'valeu' matches no module.*Did you mean 'value'\?"),
        (partial(LoraConfig, target_modules=["q_proj"]), r"q_proj.*linear modules: dense \(7\).*query \(2\)"),
        (partial(LoraConfig, target_modules=r".*\.q_proj"), "matches no module.*all-linear"),
        (partial(LoraConfig, target_modules="*"), "no regular expression"),
        (partial(LoraConfig, target_modules=[]), "empty list"),
        # The head is trained whole already.
        (partial(LoraConfig, target_modules=["classifier"]), "'classifier' matches no module of the base model"),
        (
            partial(LoraConfig, target_modules=["LayerNorm"]),
            "LORA does not fit BertForSequenceClassification.*LayerNorm",
        ),
        (partial(LoraConfig, modules_to_save=["poller"]), r"modules_to_save: 'poller'.*Did you mean 'pooler'\?"),
        (partial(LoraConfig, init_lora_weights="eva"), "init_lora_weights is 'eva'.*beforehand"),
        (partial(LoraConfig, task_type="CAUSAL_LM"), "task_type is CAUSAL_LM; a classifier's is SEQ_CLS"),
        (partial(PrefixTuningConfig, num_virtual_tokens=3, token_dim=7), "PREFIX_TUNING does not fit"),
    ],
)
def test_refused(encoder, config, message):
    model, new = classifier(encoder())
    with pytest.raises(ConfigurationError, match=f"(?s){message}"):
        add_adapter(model, config(), new)


def test_no_second_adapter(encoder):
    adapted = add_adapter(classifier(encoder())[0], LoraConfig())
    with pytest.raises(ConfigurationError, match="has an adapter already"):
        add_adapter(adapted, LoraConfig())


def test_a_method_that_fails_in_use_is_refused_at_once(encoder):
    """DistilBERT takes no prefix, which PEFT says in the first step."""
    model, new = classifier(encoder("distilbert"))
    config = PrefixTuningConfig(num_virtual_tokens=3, token_dim=16, num_attention_heads=2, num_layers=2)
    with pytest.raises(ConfigurationError, match=r"PREFIX_TUNING does not fit DistilBert.*past key values"):
        add_adapter(model, config, new)


def test_a_textcnn_is_refused():
    """Its convolutions are one matrix product of their weights, which an adapter around them would not change."""
    model = TextCNNForSequenceClassification(TextCNNConfig(vocab_size=20, embed_size=8, num_filters=4))
    with pytest.raises(ConfigurationError, match=r"LORA on a TextCNN.*would do nothing"):
        add_adapter(model, LoraConfig(target_modules=["convolutions.0"]))


def test_trying_out_leaves_random_numbers_and_mode_alone(encoder):
    base, drawn = encoder(), []
    for wrap in (add_adapter, get_peft_model):
        model, _ = classifier(base)
        torch.manual_seed(5)
        wrapped = wrap(model.train(), LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"]))
        assert wrapped.training
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)


# ---- Loading ----


def test_a_base_model_that_is_gone(encoder, tmp_path):
    base = encoder()
    save(add_adapter(classifier(base)[0], LoraConfig()), tmp_path / "adapter")
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match=f"adapter of the model {re.escape(str(base))}, which is not there"):
        load_config(ModelArguments(model_name_or_path=str(tmp_path / "adapter")))


def test_a_base_model_of_another_shape(encoder, tmp_path):
    base = encoder()
    save(add_adapter(classifier(base)[0], LoraConfig()), tmp_path / "adapter")
    BertModel(BertConfig(vocab_size=20, **{**BERT, "hidden_size": 8})).save_pretrained(base)
    with pytest.raises(ConfigurationError, match="does not fit its base model"):
        load_classifier(ModelArguments(model_name_or_path=str(tmp_path / "adapter")))


def test_an_adapter_of_another_tool(encoder, tmp_path):
    """It does not say how many classes there are."""
    folder = tmp_path / "adapter"
    adapted = add_adapter(classifier(encoder())[0], LoraConfig())
    save(adapted, folder)
    (folder / "classifier_config.json").unlink()
    with pytest.raises(ConfigurationError, match=r"does not fit its base model.*--num_labels"):
        load_classifier(ModelArguments(model_name_or_path=str(folder)))
    loaded, _ = load_classifier(ModelArguments(model_name_or_path=str(folder), num_labels=3), merge=False)
    assert torch.equal(logits_of(loaded), logits_of(adapted))


def test_a_damaged_file(encoder, tmp_path):
    save(add_adapter(classifier(encoder())[0], LoraConfig()), tmp_path / "adapter")
    (tmp_path / "adapter" / "classifier_config.json").write_text("{")
    with pytest.raises(DataError, match=r"classifier_config\.json is no JSON"):
        load_config(ModelArguments(model_name_or_path=str(tmp_path / "adapter")))


# ---- Arguments ----


@pytest.mark.parametrize(
    "given, message",
    [
        ({"lora_r": 4}, "lora_r would have no effect: pass --peft lora as well"),
        ({"lora_r": 4, "peft_config": {"peft_type": "IA3"}}, "lora_r would have no effect: write it in peft_config"),
        ({"peft": "lora", "peft_config": {"peft_type": "IA3"}}, "two adapters"),
        ({"peft_merge": True}, "peft_merge=true would have no effect"),
        ({"peft": "lora", "lora_r": 0}, "lora_r is 0; it must be at least 1"),
        ({"peft": "lora", "lora_dropout": 1.0}, r"lora_dropout is 1.0; it must be in \[0, 1\)"),
        ({"peft_config": {"r": 4}}, "has no peft_type.*Valid: .*LORA"),
        ({"peft_config": {"peft_type": "lorra"}}, r"'lorra'.*Did you mean 'LORA'\?"),
        ({"peft_config": {"peft_type": "LORA", "lora_alfa": 4}}, r"'lora_alfa'.*Did you mean 'lora_alpha'\?"),
        ({"peft_config": {"peft_type": "ADALORA", "total_step": 10}}, "ADALORA: it moves its ranks by a call"),
        ({"peft_config": {"peft_type": "POLY"}}, "POLY: it needs the number of a task"),
        (
            {"peft_config": {"peft_type": "IA3", "target_modules": ["key"], "feedforward_modules": ["value"]}},
            "IA3 does not take these values: .feedforward_modules. should be a subset",
        ),
        ({"peft_config": "nowhere.json"}, r"no configuration file nowhere\.json"),
        (
            {"peft_config": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3}, "peft_merge": True},
            "PREFIX_TUNING cannot be merged.*stands in front of the text",
        ),
    ],
)
def test_arguments_are_checked(given, message):
    with pytest.raises(ConfigurationError, match=message):
        PeftArguments(**given)


def test_the_configuration_of_flags():
    config = PeftArguments(peft="lora", lora_r=4, lora_target_modules="query, key", use_dora=True).config()
    assert (config.r, config.lora_alpha, config.target_modules, config.use_dora) == (4, 8, {"query", "key"}, True)
    assert PeftArguments(peft="lora", lora_target_modules=r".*\.(query|key)").config().target_modules == (
        r".*\.(query|key)"
    )
    assert PeftArguments(peft="lora", lora_target_modules="all-linear").config().target_modules == "all-linear"
    assert not PeftArguments().wanted


def test_a_saved_adapter_config_serves_again(encoder, tmp_path):
    save(add_adapter(classifier(encoder())[0], LoraConfig(r=3)), tmp_path / "adapter")
    config = PeftArguments(peft_config=str(tmp_path / "adapter" / "adapter_config.json")).config()
    assert (config.r, config.inference_mode, config.base_model_name_or_path) == (3, False, None)
