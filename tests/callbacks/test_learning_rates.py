"""Discriminative learning rates: each parameter moves as far as its rate says, and no silent slips."""

import json
import math
import re
from dataclasses import asdict

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerState,
    TrainingArguments,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    set_seed,
)

from hf_ext import (
    ConfigurationError,
    DiscriminativeLearningRateCallback,
    ExtendedTrainer,
    ExtendedTrainingArguments,
    LearningRateArguments,
    SparseAdamW,
    TextCNNConfig,
    TextCNNForSequenceClassification,
    layer_groups,
)
from hf_ext.callbacks.base import ExtensionCallback, require_unchanged
from hf_ext.callbacks.learning_rates import layerwise_scales
from hf_ext.layers import match_parameters

RATE = 0.1
VOCABULARY = 40
GROUPS = ["embeddings", "layer.0", "layer.1", "head"]
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
Rates = DiscriminativeLearningRateCallback


def bert():
    set_seed(0)
    # In double precision a movement is exact enough to be compared as a ratio.
    return BertForSequenceClassification(BertConfig(**SMALL)).double()


def textcnn(vocabulary=VOCABULARY):
    set_seed(0)
    config = TextCNNConfig(vocab_size=vocabulary, embed_size=4, num_filters=2, dropout_prob=0.0)
    return TextCNNForSequenceClassification(config).double()


def lora(**settings):
    model = bert()
    set_seed(1)
    values = {"task_type": "SEQ_CLS", "r": 2, "target_modules": ["query", "value"], "init_lora_weights": False}
    return get_peft_model(model, LoraConfig(**values | settings)).double()


def rows(vocabulary=VOCABULARY, number=16):
    generator = torch.Generator().manual_seed(0)
    return [
        {"input_ids": torch.randint(1, vocabulary, (6,), generator=generator).tolist(), "labels": index % 2}
        for index in range(number)
    ]


def trainer_of(folder, callback=None, model=None, cls=ExtendedTrainer, vocabulary=VOCABULARY, **arguments):
    settings = {
        "max_steps": 1,
        "per_device_train_batch_size": 8,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        **arguments,
    }
    return cls(
        model=model or bert(),
        args=ExtendedTrainingArguments(str(folder), **settings),
        train_dataset=rows(vocabulary),
        callbacks=[callback] if callback else [],
    )


def movements(trainer):
    """How far each parameter moves in training."""
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    return {name: value.detach() - before[name] for name, value in trainer.model.named_parameters()}


def assert_scaled(scaled, plain, scales):
    """`scaled` is `plain` times each parameter's scale, and nothing stood still that did not have to."""
    assert scaled.keys() == plain.keys() == scales.keys()
    for name, movement in plain.items():
        torch.testing.assert_close(
            scaled[name], movement * scales[name], rtol=1e-6, atol=1e-14, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert sum(movement.abs().max() > 1e-9 for movement in plain.values()) > len(plain) * 0.6


def by_group(model, scales):
    """Group -> scale, as parameter -> scale."""
    return {name: scales[group] for group, names in layer_groups(model).items() for name in names}


def logged_rates(trainer):
    (log,) = [log for log in trainer.state.log_history if "loss" in log]
    return {key.removeprefix("learning_rate/"): log[key] for key in log if key.startswith("learning_rate/")}


# ---- Exact effect ----

LAYERWISE = {"embeddings": 2.6**-3, "layer.0": 2.6**-2, "layer.1": 2.6**-1, "head": 1.0}
GROUP_CASES = {
    "layerwise": ({"layerwise_lr_decay": 2.6}, LAYERWISE),
    "layerwise without decay": ({"layerwise_lr_decay": 1}, dict.fromkeys(GROUPS, 1.0)),
    "a rate for the head": ({"head_learning_rate": 0.03}, {**dict.fromkeys(GROUPS, 1.0), "head": 0.3}),
    "layerwise below a rate for the head": (
        {"layerwise_lr_decay": 2.6, "head_learning_rate": 0.5},
        {**LAYERWISE, "head": 5.0},
    ),
    "groups by name": (
        {"scales": {"embeddings": 0.25, "head": 2}},
        {"embeddings": 0.25, "layer.0": 1.0, "layer.1": 1.0, "head": 2.0},
    ),
    "groups by regular expression": (
        {"scales": {r"layer\.[0-1]": 0.5}},
        {"embeddings": 1.0, "layer.0": 0.5, "layer.1": 0.5, "head": 1.0},
    ),
    "the later pattern wins": (
        {"scales": {"layer.*": 0.5, "layer.1": 0.125}},
        {"embeddings": 1.0, "layer.0": 0.5, "layer.1": 0.125, "head": 1.0},
    ),
    "the later pattern wins, the other way round": (
        {"scales": {"layer.1": 0.125, "layer.*": 0.5}},
        {"embeddings": 1.0, "layer.0": 0.5, "layer.1": 0.5, "head": 1.0},
    ),
    "scales win over the rest": (
        {"layerwise_lr_decay": 2.6, "head_learning_rate": 0.5, "scales": {"head": 3.0, "layer.0": 0.0}},
        {**LAYERWISE, "head": 3.0, "layer.0": 0.0},
    ),
    "nothing moves": ({"scales": {".*": 0}}, dict.fromkeys(GROUPS, 0.0)),
}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("settings", "scales"), GROUP_CASES.values(), ids=GROUP_CASES)
def test_each_parameter_moves_its_scale_times_as_far(tmp_path, settings, scales, weight_decay):
    plain = movements(trainer_of(tmp_path, weight_decay=weight_decay))
    trainer = trainer_of(tmp_path, Rates(**settings), weight_decay=weight_decay)
    scaled = movements(trainer)
    assert_scaled(scaled, plain, by_group(bert(), scales))
    assert logged_rates(trainer) == pytest.approx({group: scale * RATE for group, scale in scales.items()})


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_pattern_for_parts_of_groups(tmp_path, weight_decay):
    settings = {"layerwise_lr_decay": 2, "scales": {"attention": 0.5, "classifier.bias": 0, "query.weight": 3}}
    scales = by_group(bert(), {"embeddings": 0.125, "layer.0": 0.25, "layer.1": 0.5, "head": 1.0})
    for name in scales:
        if ".attention." in name:
            scales[name] = 0.5
        if name.endswith("query.weight"):
            scales[name] = 3.0
    scales["classifier.bias"] = 0.0
    plain = movements(trainer_of(tmp_path, weight_decay=weight_decay))
    trainer = trainer_of(tmp_path, Rates(**settings), weight_decay=weight_decay)
    assert_scaled(movements(trainer), plain, scales)
    # Each part under its own name; of layer 1 the attention has the rate of the layer.
    assert logged_rates(trainer) == pytest.approx(
        {
            "embeddings": 0.0125,
            "layer.0": 0.025,
            "layer.0_x0.5": 0.05,
            "layer.0_x3": 0.3,
            "layer.1": 0.05,
            "layer.1_x3": 0.3,
            "head": 0.1,
            "head_x0": 0.0,
        }
    )


def test_a_later_group_wins_over_an_earlier_part_of_it(tmp_path):
    trainer = trainer_of(tmp_path, Rates(scales={"attention": 0.5, "layer.1": 2}))
    trainer.train()
    assert logged_rates(trainer) == pytest.approx(
        {"embeddings": 0.1, "layer.0": 0.1, "layer.0_x0.5": 0.05, "layer.1": 0.2, "head": 0.1}
    )


@pytest.mark.parametrize("alias", ["base_model", "transformer"])
def test_the_base_model_has_a_name_here_too(tmp_path, alias):
    """The patterns are those of `match_parameters`."""
    model = bert()
    meant = match_parameters(model, [alias])
    assert 0 < len(meant) < len(list(model.parameters()))
    plain = movements(trainer_of(tmp_path))
    scaled = movements(trainer_of(tmp_path, Rates(scales={alias: 0.5})))
    assert_scaled(scaled, plain, {name: 0.5 if name in meant else 1.0 for name in plain})


def test_the_rates_that_are_logged_are_those_of_the_step(tmp_path):
    trainer = trainer_of(tmp_path, Rates(layerwise_lr_decay=2), lr_scheduler_type="linear", max_steps=4)
    used = []
    optimizer = trainer.create_optimizer()
    optimizer.register_step_pre_hook(
        lambda *_: used.append({g["layer_group"]: g["lr"] for g in optimizer.param_groups})
    )
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logs) == len(used) == 4
    for step, (log, rates) in enumerate(zip(logs, used, strict=True)):
        assert {group: log[f"learning_rate/{group}"] for group in GROUPS} == rates
        assert log["learning_rate"] == max(rates.values()) == pytest.approx(RATE * (1 - step / 4))
        assert rates["embeddings"] == pytest.approx(log["learning_rate"] / 8)


def decayed(name):
    """The usual kinds: weights decay, biases and norms do not."""
    return not name.endswith("bias") and "LayerNorm" not in name


def test_weight_decay_stays_by_kind_of_parameter(tmp_path):
    callback = Rates(layerwise_lr_decay=2.6, scales={"query": 0.5})
    trainer = trainer_of(tmp_path, callback, weight_decay=0.07)
    optimizer = trainer.create_optimizer()
    decay_of = {parameter: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    named = dict(trainer.model.named_parameters())
    assert {name: decay_of[parameter] for name, parameter in named.items()} == {
        name: 0.07 if decayed(name) else 0.0 for name in named
    }


def test_every_parameter_is_in_the_optimizer_once(tmp_path):
    optimizer = trainer_of(tmp_path, Rates(scales={"attention": 0.5, "bias": 2, "head": 0})).create_optimizer()
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(held) == len({id(parameter) for parameter in held}) == len(list(bert().parameters()))
    # A rate that is no plain float cannot be read back from a checkpoint.
    assert {type(group["lr"]) for group in optimizer.param_groups} == {float}


@pytest.mark.parametrize("decay", [1.0, 1.2, 2.6])
def test_layerwise_scales_divide_from_group_to_group(decay):
    groups = ["embeddings", *(f"layer.{number}" for number in range(12)), "head"]
    scales = layerwise_scales(groups, decay)
    assert list(scales) == groups
    rate = 1.0
    for group in reversed(groups):
        assert scales[group] == pytest.approx(rate)
        rate /= decay


# ---- Other models ----


def test_lora_adapters_move_by_their_layer_and_the_base_not_at_all(tmp_path):
    plain = movements(trainer_of(tmp_path, model=lora()))
    trainer = trainer_of(tmp_path, Rates(layerwise_lr_decay=2, head_learning_rate=0.4), model=lora())
    scaled = movements(trainer)
    # Two layers, two modules, two matrices; and the classifier.
    assert sum(bool(movement.abs().max() > 0) for movement in plain.values()) == 2 * 2 * 2 + 2
    scales = by_group(lora(), {"embeddings": 0.125, "layer.0": 0.25, "layer.1": 0.5, "head": 4.0})
    for name, movement in plain.items():
        torch.testing.assert_close(scaled[name], movement * scales[name], rtol=1e-6, atol=1e-14)
    # Of the embeddings PEFT trains nothing, so there is nothing to log.
    assert logged_rates(trainer) == pytest.approx({"layer.0": 0.025, "layer.1": 0.05, "head": 0.4})


def test_a_pattern_for_the_adapters_of_one_kind(tmp_path):
    """LoRA+: the matrices B learn faster than the matrices A (Hayou et al. 2024)."""
    plain = movements(trainer_of(tmp_path, model=lora()))
    scaled = movements(trainer_of(tmp_path, Rates(scales={"lora_B": 16}), model=lora()))
    assert any("lora_B" in name and movement.abs().max() > 0 for name, movement in plain.items())
    for name, movement in plain.items():
        torch.testing.assert_close(scaled[name], movement * (16 if "lora_B" in name else 1), rtol=1e-6, atol=1e-14)


def test_parameters_that_are_frozen_before_stay_frozen(tmp_path):
    model = bert()
    for parameter in model.bert.embeddings.parameters():
        parameter.requires_grad_(False)
    moved = movements(trainer_of(tmp_path, Rates(layerwise_lr_decay=2), model=model))
    still = {name for name, movement in moved.items() if not movement.abs().max() > 0}
    assert {name for name in moved if "embeddings" in name} <= still
    assert len(still) < len(moved) / 2


@pytest.mark.parametrize("optim", ["sgd", "adamw_torch", "adamw_torch_fused"])
@pytest.mark.parametrize("vocabulary", [VOCABULARY, 3000])
def test_the_textcnn_also_with_sparse_embeddings(tmp_path, optim, vocabulary):
    def trainer(callback=None):
        return trainer_of(tmp_path, callback, textcnn(vocabulary), vocabulary=vocabulary, optim=optim)

    plain = movements(trainer())
    scaled_trainer = trainer(Rates(layerwise_lr_decay=2.6, scales={"head": 0.5}))
    scaled = movements(scaled_trainer)
    sparse = vocabulary >= 2048 and optim.startswith("adamw")
    inner = getattr(scaled_trainer.optimizer, "optimizer", scaled_trainer.optimizer)
    assert isinstance(inner, SparseAdamW) == sparse
    scales = by_group(textcnn(), {"embeddings": 2.6**-2, "layer.0": 2.6**-1, "head": 0.5})
    assert_scaled(scaled, plain, scales)
    assert logged_rates(scaled_trainer) == pytest.approx(
        {"embeddings": RATE / 2.6**2, "layer.0": RATE / 2.6, "head": RATE / 2}
    )


def test_the_classifier_of_xlm_roberta_is_its_head(tmp_path):
    """Its classifier is registered before everything else."""
    set_seed(0)
    model = XLMRobertaForSequenceClassification(XLMRobertaConfig(**SMALL, pad_token_id=0))
    trainer = trainer_of(tmp_path, Rates(layerwise_lr_decay=2, head_learning_rate=0.3), model=model)
    rates = {
        parameter: group["lr"] for group in trainer.create_optimizer().param_groups for parameter in group["params"]
    }
    assert [rates[parameter] for parameter in model.classifier.parameters()] == pytest.approx([0.3] * 4)
    assert [rates[parameter] for parameter in model.roberta.embeddings.parameters()] == pytest.approx([RATE / 8] * 5)


# ---- What is refused ----


@pytest.mark.parametrize("settings", [{}, {"scales": {}}])
def test_asking_for_nothing_is_refused(settings):
    with pytest.raises(ConfigurationError, match="Pass layerwise_lr_decay, head_learning_rate or scales"):
        Rates(**settings)


@pytest.mark.parametrize(("factor", "divisor"), [(0.5, "2"), (0.9, "1.11111"), (0.95, "1.05263"), (1 / 2.6, "2.6")])
def test_a_decay_that_is_meant_as_a_factor_gets_its_divisor_in_the_message(factor, divisor):
    with pytest.raises(ConfigurationError, match=rf"layerwise_lr_decay is {factor}; .* divisor of {divisor}\.$"):
        Rates(layerwise_lr_decay=factor)


@pytest.mark.parametrize("decay", [0, -1, -0.5, math.inf, math.nan])
def test_a_decay_that_is_no_divisor_is_refused(decay):
    with pytest.raises(
        ConfigurationError, match=rf"layerwise_lr_decay is {decay}; it divides the rate, .* at least 1\.$"
    ):
        Rates(layerwise_lr_decay=decay)


@pytest.mark.parametrize("rate", [0, -1e-3, math.inf, math.nan])
def test_a_rate_of_the_head_that_is_no_rate_is_refused(rate):
    with pytest.raises(ConfigurationError, match=f"head_learning_rate is {rate}; it must be above 0"):
        Rates(head_learning_rate=rate)


@pytest.mark.parametrize("scale", [-1, -1e-9, math.inf, math.nan, "0.1", None, True, [1]])
def test_a_scale_that_is_no_number_of_at_least_zero_is_refused(scale):
    with pytest.raises(ConfigurationError, match=re.escape(f"scales gives 'head' {scale!r}; it must be a number")):
        Rates(scales={"embeddings": 0.5, "head": scale})


@pytest.mark.parametrize("pattern", ["layer.2", "embedding", "pooling", "layer[0-1]"])
def test_a_pattern_that_matches_nothing_lists_what_there_is(tmp_path, pattern):
    trainer = trainer_of(tmp_path, Rates(scales={"head": 0.5, pattern: 0.5}))
    with pytest.raises(ConfigurationError, match=re.escape(f"attern {pattern!r} matches no parameter")) as caught:
        trainer.train()
    message = str(caught.value)
    assert ", ".join(GROUPS) in message
    assert all(part in message for part in ("bert.embeddings", "bert.encoder", "bert.pooler", "classifier.weight"))
    assert trainer.state.global_step == 0


def test_a_pattern_that_is_no_regular_expression_is_the_users_error(tmp_path):
    with pytest.raises(ConfigurationError, match=re.escape("'layer.(0' is no regular expression")):
        trainer_of(tmp_path, Rates(scales={"layer.(0": 0.5})).train()


def test_a_model_without_a_head_gets_no_rate_for_it(tmp_path):
    class Bare(nn.Module):
        base_model_prefix = "encoder"

        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(2, 1)

        def forward(self, input_ids, labels=None):
            return {"loss": self.encoder(input_ids[:, :2].float()).mean()}

    with pytest.raises(ConfigurationError, match=r"head_learning_rate: no head is trained, only layer\.0"):
        trainer_of(tmp_path, Rates(head_learning_rate=0.1), Bare()).train()


def test_a_rate_for_the_head_beside_a_rate_of_zero_is_refused_readably(tmp_path):
    """The head's rate is a multiple of `learning_rate`, and zero has none."""
    with pytest.raises(ConfigurationError, match="learning_rate"):
        trainer_of(tmp_path, Rates(head_learning_rate=0.1), learning_rate=0.0).train()


def test_a_pattern_for_what_is_not_trained_is_refused(tmp_path):
    """Under LoRA the embeddings are frozen: a rate for them would do nothing."""
    with pytest.raises(ConfigurationError, match="embeddings"):
        trainer_of(tmp_path, Rates(scales={"embeddings": 0.5}), lora()).train()


def test_a_plain_trainer_raises_instead_of_training_without_the_rates(tmp_path):
    trainer = trainer_of(tmp_path, Rates(layerwise_lr_decay=2), cls=Trainer)
    with pytest.raises(
        RuntimeError, match=r"DiscriminativeLearningRateCallback answers learning_rate_scales.*ExtendedTrainer"
    ):
        trainer.train()
    assert trainer.state.global_step == 0


def test_an_optimizer_of_the_users_own_raises_instead_of_training_without_the_rates(tmp_path):
    """Its groups are made, so that nobody asks for the rates."""
    model = bert()
    trainer = trainer_of(tmp_path, Rates(layerwise_lr_decay=2), model)
    trainer.optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    with pytest.raises((ValueError, RuntimeError), match="optimizer"):
        trainer.train()


def test_two_callbacks_with_rates_are_one_too_many(tmp_path):
    class MoreRates(Rates):
        pass

    trainer = trainer_of(tmp_path, Rates(layerwise_lr_decay=2))
    trainer.add_callback(MoreRates(layerwise_lr_decay=3))
    with pytest.raises(ValueError, match="both answer learning_rate_scales"):
        trainer.train()


def test_two_callbacks_of_one_class_are_one_too_many(tmp_path):
    trainer = trainer_of(tmp_path, Rates(layerwise_lr_decay=2))
    trainer.add_callback(Rates(scales={"head": 0.5}))
    with pytest.raises(ValueError, match="both answer learning_rate_scales"):
        trainer.train()


def test_scales_of_another_technique_must_name_every_group(tmp_path):
    class Wrong(ExtensionCallback):
        def learning_rate_scales(self, groups, args):
            return {"embeddings": 0.1, "head": 1.0, "tail": 2.0}

    with pytest.raises(ValueError, match=r"Missing: layer\.0, layer\.1\W+unknown: tail\."):
        trainer_of(tmp_path, Wrong()).train()


# ---- Resuming ----


def interrupted(folder, callback, **arguments):
    trainer_of(folder, callback, max_steps=2, save_strategy="steps", save_steps=1, **arguments).train()
    return str(folder / "checkpoint-1")


@pytest.mark.parametrize("optim", ["sgd", "adamw_torch_fused"])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, optim):
    settings = {"layerwise_lr_decay": 2.6, "scales": {"query": 0.3}}
    whole = trainer_of(tmp_path, Rates(**settings), max_steps=3, save_strategy="steps", save_steps=1, optim=optim)
    whole.train()
    resumed = trainer_of(tmp_path, Rates(**settings), max_steps=3, optim=optim)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    for name, value in whole.model.named_parameters():
        assert torch.equal(resumed.model.get_parameter(name), value), name


CHANGES = {
    "another decay": ({"layerwise_lr_decay": 2}, {"layerwise_lr_decay": 2.6}, "0.05", "0.0384"),
    "another rate of the head": ({"head_learning_rate": 0.2}, {"head_learning_rate": 0.3}, "0.2", "0.3"),
    # These also make other groups, which torch would refuse without a word of why.
    "a part of a group more": (
        {"layerwise_lr_decay": 2},
        {"layerwise_lr_decay": 2, "scales": {"query": 0.3}},
        "layer.0: 0.025",
        "query.weight: 0.03",
    ),
    "other parts": ({"scales": {"query": 0.3}}, {"scales": {"dense": 0.3}}, "query.weight: 0.03", "dense.weight: 0.03"),
    "other parts of the same size": (
        {"scales": {"query": 0.3}}, {"scales": {"key": 0.3}}, "query.weight: 0.03", "key.weight: 0.03",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("then", "now", "shown_then", "shown_now"), CHANGES.values(), ids=CHANGES)
def test_resuming_with_other_rates_is_refused_with_both(tmp_path, then, now, shown_then, shown_now):
    checkpoint = interrupted(tmp_path, Rates(**then))
    trainer = trainer_of(tmp_path, Rates(**now), max_steps=2)
    with pytest.raises(ConfigurationError, match="checkpoint of step 1 was made with another") as caught:
        trainer.train(resume_from_checkpoint=checkpoint)
    message = str(caught.value)
    before, after = re.search(r"then: (.*)\n +now: (.*)\n", message).groups()
    assert shown_then in before
    assert shown_now in after
    assert "start anew" in message


def test_resuming_a_run_that_had_one_rate_is_refused(tmp_path):
    checkpoint = interrupted(tmp_path, None)
    trainer = trainer_of(tmp_path, Rates(layerwise_lr_decay=2), max_steps=2)
    with pytest.raises(ConfigurationError, match="then: none"):
        trainer.train(resume_from_checkpoint=checkpoint)


def test_resuming_without_the_callback_is_refused(tmp_path):
    checkpoint = interrupted(tmp_path, Rates(layerwise_lr_decay=2))
    with pytest.raises(ConfigurationError, match="now:  none"):
        trainer_of(tmp_path, None, max_steps=2).train(resume_from_checkpoint=checkpoint)


def test_a_run_may_be_resumed_twice(tmp_path):
    settings = {"layerwise_lr_decay": 2, "scales": {"query": 0.3}}
    arguments = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1}
    trainer_of(tmp_path, Rates(**settings), **arguments).train()
    for step in (1, 2):
        trainer = trainer_of(tmp_path, Rates(**settings), **arguments)
        trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert trainer.state.global_step == 4


# ---- What the checkpoint keeps ----


def test_unchanged_settings_pass_and_are_kept():
    state = TrainerState()
    require_unchanged(state, "hf_ext.thing", {"a": 1})
    state.global_step = 5
    require_unchanged(state, "hf_ext.thing", json.loads(json.dumps({"a": 1})))
    assert state.stateful_callbacks["hf_ext.thing"] == {"a": 1}


def test_changed_settings_raise_and_are_not_kept():
    state = TrainerState(global_step=5)
    state.stateful_callbacks["hf_ext.thing"] = {"a": 1}
    with pytest.raises(
        ConfigurationError, match=r"step 5 was made with another thing\.\n +then: a: 1\n +now: +a: 2, b: 3\n"
    ):
        require_unchanged(state, "hf_ext.thing", {"a": 2, "b": 3})
    assert state.stateful_callbacks["hf_ext.thing"] == {"a": 1}


def test_a_training_that_begins_takes_any_settings():
    state = TrainerState(global_step=0)
    state.stateful_callbacks["hf_ext.thing"] = {"a": 1}
    require_unchanged(state, "hf_ext.thing", {"a": 2})
    assert state.stateful_callbacks["hf_ext.thing"] == {"a": 2}


# ---- Arguments ----


def test_no_arguments_make_no_callback():
    assert LearningRateArguments().callbacks() == []
    assert LearningRateArguments(learning_rate_scales={}).callbacks() == []


def test_the_arguments_make_the_callback():
    arguments = LearningRateArguments(2.6, 1e-3, {"embeddings": 0})
    (callback,) = LearningRateArguments(**json.loads(json.dumps(asdict(arguments)))).callbacks()
    assert type(callback) is Rates
    assert callback.layerwise_lr_decay == 2.6
    assert callback.head_learning_rate == 1e-3
    assert callback.scales == {"embeddings": 0}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"layerwise_lr_decay": 0.9}, "layerwise_lr_decay is 0.9"),
        ({"head_learning_rate": -1.0}, "head_learning_rate is -1.0"),
        ({"learning_rate_scales": {"head": "fast"}}, "gives 'head' 'fast'"),
    ],
)
def test_bad_arguments_are_refused_when_they_are_read(values, named):
    with pytest.raises(ConfigurationError, match=named):
        LearningRateArguments(**values)


def test_the_rates_hold_for_the_plain_training_arguments_too(tmp_path):
    args = TrainingArguments(str(tmp_path), learning_rate=RATE, use_cpu=True)
    trainer = ExtendedTrainer(model=bert(), args=args, callbacks=[Rates(layerwise_lr_decay=2)])
    rates = {group["layer_group"]: group["lr"] for group in trainer.create_optimizer().param_groups}
    assert rates == pytest.approx({"embeddings": RATE / 8, "layer.0": RATE / 4, "layer.1": RATE / 2, "head": RATE})
