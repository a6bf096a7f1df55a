"""Gradual unfreezing: what is trained when, what is refused, and that the model is as before afterwards."""

import json
import math
import re
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from runs import Case, Witness, launch, train
from torch import nn
from torch.utils.data import IterableDataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    set_seed,
)

from hf_ext import (
    ConfigurationError,
    DiscriminativeLearningRateCallback,
    ExtendedTrainer,
    GradualUnfreezingCallback,
    TextCNNConfig,
    TextCNNForSequenceClassification,
    UnfreezingArguments,
    freeze_parameters,
    layer_groups,
)
from hf_ext.evaluation.figures import COLOURS, draw_schedule

GROUPS = ["embeddings", "layer.0", "layer.1", "head"]
TOP_DOWN = GROUPS[::-1]
SMALL = {
    "vocab_size": 40,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
}
ROWS = 32
BATCH = 8
STEPS_PER_EPOCH = 4
Unfreezing = GradualUnfreezingCallback
both_trainers = pytest.mark.parametrize("cls", [Trainer, ExtendedTrainer])


def bert(dropout=0.0, **changes):
    set_seed(0)
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return BertForSequenceClassification(BertConfig(**SMALL | rates | changes))


def textcnn():
    set_seed(0)
    return TextCNNForSequenceClassification(TextCNNConfig(vocab_size=40, embed_size=4, num_filters=2))


def lora(**settings):
    model = bert()
    set_seed(1)
    values = {"task_type": "SEQ_CLS", "r": 2, "target_modules": ["query", "value"], "init_lora_weights": False}
    return get_peft_model(model, LoraConfig(**values | settings))


def rows():
    generator = torch.Generator().manual_seed(0)
    return [
        {"input_ids": torch.randint(1, 40, (6,), generator=generator).tolist(), "labels": index % 2}
        for index in range(ROWS)
    ]


def trainer_of(folder, *callbacks, cls=ExtendedTrainer, model=None, data=None, **arguments):
    settings = {
        "num_train_epochs": 4,
        "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": BATCH,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        **arguments,
    }
    trainer = cls(
        model=model or bert(),
        args=TrainingArguments(str(folder), **settings),
        train_dataset=rows() if data is None else data,
        eval_dataset=rows()[:BATCH],
        callbacks=list(callbacks),
    )
    trainer.witness = Witness()
    trainer.callback_handler.callbacks.insert(0, trainer.witness)
    return trainer


def first_steps(trainer):
    """Layer group -> the first step that moved any of its parameters, in the order of their beginning."""
    group_of = {name: group for group, names in layer_groups(trainer.model).items() for name in names}
    first = {}
    for step, moved in enumerate(trainer.witness.moved):
        for name in moved:
            first.setdefault(group_of[name], step)
    return dict(sorted(first.items(), key=lambda item: (item[1], TOP_DOWN.index(item[0]))))


def refused(trainer, match):
    """Training is refused with a message that matches, before anything moves; the message."""
    with pytest.raises(ConfigurationError, match=match) as caught:
        trainer.train()
    assert trainer.state.global_step == 0
    assert trainer.witness.moved == []
    return str(caught.value)


# ---- What is trained when ----

BEGINS = {
    "an epoch each": ({}, {}, [0, 4, 8, 12]),
    "half an epoch each": ({"interval": 0.5}, {}, [0, 2, 4, 6]),
    "a third of an epoch each": ({"interval": 1 / 3}, {}, [0, 2, 3, 4]),
    "epochs under accumulation": ({}, {"gradient_accumulation_steps": 3}, [0, 2, 4, 6]),
    "epochs that max_steps cuts": ({}, {"max_steps": 14}, [0, 4, 8, 12]),
    "epochs without the last batch": (
        {},
        {"per_device_train_batch_size": 7, "dataloader_drop_last": True},
        [0, 4, 8, 12],
    ),
    "epochs with the last batch": ({}, {"per_device_train_batch_size": 7}, [0, 5, 10, 15]),
    "steps": ({"unit": "steps", "interval": 3}, {}, [0, 3, 6, 9]),
    "one and a half steps": ({"unit": "steps", "interval": 1.5}, {}, [0, 2, 3, 5]),
    "several in one step": ({"unit": "steps", "interval": 0.5}, {}, [0, 1, 1, 2]),
    "a quarter of the training": ({"unit": "fraction", "interval": 0.25}, {}, [0, 4, 8, 12]),
    "a tenth of thirty steps": ({"unit": "fraction", "interval": 0.1}, {"max_steps": 30}, [0, 3, 6, 9]),
    "stages in epochs": (
        {"stages": {0: ["head"], 0.5: ["layer.1"], 2: ["layer.0"], 3.25: ["embeddings"]}},
        {},
        [0, 2, 8, 13],
    ),
    "stages out of order": (
        {"unit": "steps", "stages": {7: ["embeddings"], 0: ["head"], 5: ["layer.0"], 1: ["layer.1"]}},
        {},
        [0, 1, 5, 7],
    ),
    "moments as strings, as JSON has them": (
        {"unit": "fraction", "stages": {"0": ["head"], "0.5": ["layer.1"], "0.75": ["layer.0"], "0.9": ["embeddings"]}},
        {},
        [0, 8, 12, 15],
    ),
    "everything at once": ({"stages": {0: [".*"]}}, {}, [0, 0, 0, 0]),
    "groups by regular expression": (
        {"unit": "steps", "stages": {0: ["head", r"layer\.1"], 2: ["embeddings|layer.0"]}},
        {},
        [0, 0, 2, 2],
    ),
    "the base model by its name": ({"unit": "steps", "stages": {0: ["head"], 5: ["base_model"]}}, {}, [0, 5, 5, 5]),
    "what an earlier stage has is not taken back": (
        {"unit": "steps", "stages": {0: ["head"], 2: ["layer.1"], 4: ["layer.*"], 6: [".*"]}},
        {},
        [0, 2, 4, 6],
    ),
}


@both_trainers
@pytest.mark.parametrize(("settings", "arguments", "begins"), BEGINS.values(), ids=BEGINS)
def test_each_group_begins_at_its_step(tmp_path, cls, settings, arguments, begins):
    callback = Unfreezing(**settings)
    trainer = trainer_of(tmp_path, callback, cls=cls, **arguments)
    trainer.train()
    assert first_steps(trainer) == dict(zip(TOP_DOWN, begins, strict=True))
    assert sorted(callback.schedule.values()) == list(callback.schedule.values())


def test_a_group_that_has_begun_is_trained_in_every_step(tmp_path):
    trainer = trainer_of(tmp_path, Unfreezing("steps", 2), max_steps=10)
    trainer.train()
    groups = layer_groups(trainer.model)
    for step, moved in enumerate(trainer.witness.moved):
        trained = TOP_DOWN[: 1 + step // 2]
        assert set(moved) == {name for group in trained for name in groups[group]}


def test_parts_of_groups(tmp_path):
    stages = {0: ["classifier"], 2: ["pooler", "attention"], 5: ["layer.0"]}
    trainer = trainer_of(tmp_path, Unfreezing("steps", stages=stages), max_steps=8)
    trainer.train()
    first = {}
    for step, moved in enumerate(trainer.witness.moved):
        for name in moved:
            first.setdefault(name, step)
    expected = {}
    for name, _ in trainer.model.named_parameters():
        if name.startswith("classifier."):
            expected[name] = 0
        elif ".pooler." in name or ".attention." in name:
            expected[name] = 2
        elif ".layer.0." in name:
            expected[name] = 5
    assert first == expected


@both_trainers
def test_what_no_stage_names_stays_frozen_and_is_trainable_again_afterwards(tmp_path, cls):
    trainer = trainer_of(tmp_path, Unfreezing(stages={0: ["head"], 1: ["layer.1"]}), cls=cls, weight_decay=0.5)
    trainer.train()
    assert first_steps(trainer) == {"head": 0, "layer.1": 4}
    start = bert().state_dict()
    for group in ("embeddings", "layer.0"):
        for name in layer_groups(trainer.model)[group]:
            assert torch.equal(trainer.model.state_dict()[name], start[name])
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())


def test_a_frozen_parameter_has_no_gradient(tmp_path):
    class Gradients(TrainerCallback):
        seen = []

        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            self.seen.append({name for name, parameter in model.named_parameters() if parameter.grad is not None})

    gradients = Gradients()
    trainer = trainer_of(tmp_path, Unfreezing("steps", 1), gradients, max_steps=4, gradient_accumulation_steps=2)
    trainer.train()
    groups = layer_groups(trainer.model)
    assert gradients.seen == [{name for group in TOP_DOWN[: step + 1] for name in groups[group]} for step in range(4)]


def test_the_textcnn_of_three_groups(tmp_path):
    trainer = trainer_of(tmp_path, Unfreezing("steps", 2), model=textcnn(), max_steps=6)
    trainer.train()
    assert first_steps(trainer) == {"head": 0, "layer.0": 2, "embeddings": 4}


def test_xlm_roberta_begins_with_its_classifier(tmp_path):
    """Its classifier is registered before everything else."""
    set_seed(0)
    model = XLMRobertaForSequenceClassification(XLMRobertaConfig(**SMALL, pad_token_id=0))
    trainer = trainer_of(tmp_path, Unfreezing("steps", 2), model=model, max_steps=8)
    trainer.train()
    assert {name.split(".")[0] for name in trainer.witness.moved[0]} == {"classifier"}
    assert first_steps(trainer) == {"head": 0, "layer.1": 2, "layer.0": 4, "embeddings": 6}


def test_two_processes_count_their_own_epochs(tmp_path):
    case = Case(str(tmp_path), rows=ROWS, batch_size=BATCH // 2, epochs=4, callbacks=(Unfreezing,))
    report = train(case, world_size=2)
    assert report["steps"] == 16
    prefixes = [{".".join(name.split(".")[:4]) for name in moved} for moved in report["moved"]]
    first = [
        next(step for step, seen in enumerate(prefixes) if f"bert.encoder.layer.{layer}" in seen) for layer in (1, 0)
    ]
    assert first == [4, 8]
    assert "classifier.weight" in report["moved"][0]
    assert "bert.embeddings.word_embeddings.weight" not in report["moved"][11]
    assert "bert.embeddings.word_embeddings.weight" in report["moved"][12]


def test_discriminative_rates_and_unfreezing_together(tmp_path):
    rates = DiscriminativeLearningRateCallback(layerwise_lr_decay=2)
    trainer = trainer_of(tmp_path, Unfreezing("steps", 2), rates, max_steps=8)
    trainer.train()
    assert first_steps(trainer) == {"head": 0, "layer.1": 2, "layer.0": 4, "embeddings": 6}
    assert {group["layer_group"]: group["lr"] for group in trainer.optimizer.param_groups} == pytest.approx(
        {"embeddings": 1e-2 / 8, "layer.0": 1e-2 / 4, "layer.1": 1e-2 / 2, "head": 1e-2}
    )


# ---- Eval mode ----

DROPOUTS = {
    "bert.embeddings.dropout": "embeddings",
    "bert.encoder.layer.0.attention.output.dropout": "layer.0",
    "bert.encoder.layer.0.output.dropout": "layer.0",
    "bert.encoder.layer.1.attention.output.dropout": "layer.1",
    "bert.encoder.layer.1.output.dropout": "layer.1",
    # On top of the model, inside no group.
    "dropout": "head",
}


def watch_dropouts(trainer):
    """(step, whether the model itself is in training mode, dropout) -> its mode when it was called."""
    seen = {}

    def hook(module, inputs, output, name):
        seen[trainer.state.global_step, trainer.model.training, name] = module.training

    for name in DROPOUTS:
        trainer.model.get_submodule(name).register_forward_hook(partial(hook, name=name))
    return seen


@both_trainers
@pytest.mark.parametrize("frozen_eval_mode", [True, False])
def test_dropout_of_frozen_modules_is_off_when_asked(tmp_path, cls, frozen_eval_mode):
    callback = Unfreezing("steps", 2, frozen_eval_mode=frozen_eval_mode)
    trainer = trainer_of(
        tmp_path, callback, cls=cls, model=bert(dropout=0.5), max_steps=8, eval_strategy="steps", eval_steps=1
    )
    seen = watch_dropouts(trainer)
    trainer.train()
    for step in range(8):
        trained = TOP_DOWN[: 1 + step // 2]
        for name, group in DROPOUTS.items():
            assert seen[step, True, name] is (group in trained or not frozen_eval_mode), f"step {step}: {name}"
            # An evaluation after the step before, at which all is off.
            assert step == 0 or seen[step, False, name] is False
    assert len(seen) == 6 * (8 + 8)


def modes(model):
    return {name: module.training for name, module in model.named_modules()}


@both_trainers
@pytest.mark.parametrize("frozen_eval_mode", [True, False])
@pytest.mark.parametrize("stages", [None, {0: ["head"], 1: ["layer.1"]}], ids=["all", "two"])
def test_modes_and_methods_are_as_after_a_training_without_it(tmp_path, cls, frozen_eval_mode, stages):
    plain = trainer_of(tmp_path, cls=cls, max_steps=8)
    plain.train()
    callback = Unfreezing("steps", None if stages else 1, stages, frozen_eval_mode)
    trainer = trainer_of(tmp_path, callback, cls=cls, max_steps=8)
    trainer.train()
    assert modes(trainer.model) == modes(plain.model)
    assert not [name for name, module in trainer.model.named_modules() if "train" in vars(module)]
    trainer.model.eval()
    assert set(modes(trainer.model).values()) == {False}
    trainer.model.train()
    assert set(modes(trainer.model).values()) == {True}


@pytest.mark.parametrize("frozen_eval_mode", [True, False])
@pytest.mark.parametrize("part", ["bert.embeddings.LayerNorm", "bert.pooler", "dropout"])
def test_a_train_method_that_the_user_replaced_stays(tmp_path, part, frozen_eval_mode):
    """The usual way to keep a norm in eval mode for good."""
    model = bert()
    module = model.get_submodule(part)

    def stay(mode=True):
        return module

    module.train = stay
    callback = Unfreezing("steps", 1, frozen_eval_mode=frozen_eval_mode)
    trainer_of(tmp_path, callback, model=model, max_steps=5).train()
    assert vars(module).get("train") is stay


def test_norms_of_frozen_modules_keep_their_averages(tmp_path):
    class Normed(nn.Module):
        base_model_prefix = "encoder"

        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
            self.classifier = nn.Linear(4, 2)

        def forward(self, input_ids, labels=None):
            logits = self.classifier(self.encoder(input_ids / 40))
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    for frozen_eval_mode in (True, False):
        callback = Unfreezing(stages={0: ["head"]}, frozen_eval_mode=frozen_eval_mode)
        trainer = trainer_of(tmp_path, callback, model=Normed(), max_steps=3)
        trainer.train()
        assert bool((trainer.model.encoder[1].running_mean == 0).all()) is frozen_eval_mode


# ---- Around the training ----


@both_trainers
def test_a_second_training_begins_anew(tmp_path, cls):
    callback = Unfreezing("steps", 2)
    trainer = trainer_of(tmp_path, callback, cls=cls, max_steps=8)
    trainer.train()
    first = list(trainer.witness.moved)
    trainer.witness.moved.clear()
    trainer.train()
    assert [set(moved) for moved in trainer.witness.moved] == [set(moved) for moved in first]
    assert callback.schedule == {"head": 0, "layer.1": 2, "layer.0": 4, "embeddings": 6}
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())


@both_trainers
def test_one_callback_in_two_trainers(tmp_path, cls):
    """As a loop over folds uses it."""
    callback = Unfreezing("steps", 2)
    for steps in (8, 7):
        trainer = trainer_of(tmp_path, callback, cls=cls, max_steps=steps)
        trainer.train()
        assert first_steps(trainer) == {"head": 0, "layer.1": 2, "layer.0": 4, "embeddings": 6}


class StopAt(TrainerCallback):
    def __init__(self, step, error=None):
        self.step, self.error = step, error

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            if self.error is not None:
                raise self.error
            control.should_training_stop = True


@both_trainers
def test_a_training_that_ends_early_leaves_everything_trainable(tmp_path, cls):
    callback = Unfreezing("steps", 2, frozen_eval_mode=True)
    trainer = trainer_of(tmp_path, callback, StopAt(3), cls=cls, max_steps=8)
    trainer.train()
    assert trainer.state.global_step == 3
    assert first_steps(trainer) == {"head": 0, "layer.1": 2}
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())
    assert not [name for name, module in trainer.model.named_modules() if "train" in vars(module)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_training_leaves_everything_trainable(tmp_path, error):
    """In a notebook the model goes on to the next Trainer."""
    callback = Unfreezing("steps", 2, frozen_eval_mode=True)
    trainer = trainer_of(tmp_path, callback, StopAt(1, error()), max_steps=8)
    with pytest.raises(error):
        trainer.train()
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())
    assert not [name for name, module in trainer.model.named_modules() if "train" in vars(module)]
    again = trainer_of(tmp_path, Unfreezing("steps", 2), model=trainer.model, max_steps=8)
    again.train()
    assert first_steps(again) == {"head": 0, "layer.1": 2, "layer.0": 4, "embeddings": 6}


@both_trainers
def test_the_best_model_comes_back_whole(tmp_path, cls):
    scores = [0.1, 0.2, 0.9, 0.3, 0.2, 0.1, 0.1, 0.1]
    states = {}

    class Keep(TrainerCallback):
        def on_save(self, args, state, control, model=None, **kwargs):
            states[state.global_step] = {name: value.clone() for name, value in model.state_dict().items()}

    trainer = trainer_of(
        tmp_path,
        Unfreezing("steps", 2, frozen_eval_mode=True),
        Keep(),
        cls=cls,
        max_steps=8,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="score",
    )
    trainer.compute_metrics = lambda _: {"score": scores[trainer.state.global_step - 1]}
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-3")
    assert all(torch.equal(value, states[3][name]) for name, value in trainer.model.state_dict().items())
    assert not torch.equal(states[3]["classifier.weight"], states[8]["classifier.weight"])
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())
    assert first_steps(trainer) == {"head": 0, "layer.1": 2, "layer.0": 4, "embeddings": 6}


def test_the_saved_model_is_an_ordinary_one(tmp_path):
    trainer = trainer_of(tmp_path, Unfreezing(stages={0: ["head"]}), max_steps=2)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    loaded = BertForSequenceClassification.from_pretrained(tmp_path / "model")
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in trainer.model.state_dict().items())


# ---- The log ----


def depths(history):
    return {entry["step"]: entry["unfreezing/depth"] for entry in history if "unfreezing/depth" in entry}


def test_every_training_log_says_how_deep_it_goes(tmp_path):
    trainer = trainer_of(tmp_path, Unfreezing("steps", 2), max_steps=8)
    trainer.train()
    assert depths(trainer.state.log_history) == {step: 1 + (step - 1) // 2 for step in range(1, 9)}
    model, groups = trainer.model, layer_groups(trainer.model)
    sizes = [sum(model.get_parameter(name).numel() for name in groups[group]) for group in TOP_DOWN]
    logged = [log["unfreezing/trainable_parameters"] for log in trainer.state.log_history if "loss" in log]
    assert logged == [sum(sizes[: 1 + step // 2]) for step in range(8)]
    assert logged[-1] == model.num_parameters()


@pytest.mark.parametrize("resumed_at", [None, 1, 2, 3, 6])
def test_a_plain_trainers_history_says_it_once_a_stage(tmp_path, resumed_at):
    arguments = {"cls": Trainer, "max_steps": 8, "save_strategy": "steps", "save_steps": 1}
    trainer = trainer_of(tmp_path, Unfreezing("steps", 2), **arguments)
    trainer.train()
    if resumed_at is not None:
        trainer = trainer_of(tmp_path, Unfreezing("steps", 2), **arguments)
        trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{resumed_at}"))
    entries = [entry for entry in trainer.state.log_history if "unfreezing/depth" in entry]
    assert [(entry["step"], entry["unfreezing/depth"]) for entry in entries] == [(0, 1), (2, 2), (4, 3), (6, 4)]
    assert entries[-1]["unfreezing/trainable_parameters"] == trainer.model.num_parameters()


def test_a_plain_trainers_history_under_accumulation(tmp_path):
    trainer = trainer_of(
        tmp_path, Unfreezing("steps", 1), cls=Trainer, max_steps=6, gradient_accumulation_steps=2, logging_steps=100
    )
    trainer.train()
    entries = [entry["step"] for entry in trainer.state.log_history if "unfreezing/depth" in entry]
    assert entries == [0, 1, 2, 3]


# ---- PEFT ----


@both_trainers
def test_lora_adapters_unfreeze_by_their_layer_and_the_base_never_moves(tmp_path, cls):
    trainer = trainer_of(tmp_path, Unfreezing("steps", 2), cls=cls, model=lora(), max_steps=6)
    trainable = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    assert first_steps(trainer) == {"head": 0, "layer.1": 2, "layer.0": 4}
    assert set().union(*trainer.witness.moved) == trainable
    for name, value in trainer.model.named_parameters():
        assert name in trainable or torch.equal(value, before[name])
    assert {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad} == trainable


def test_lora_on_the_word_embeddings_comes_last(tmp_path):
    model = lora(target_modules=["query", "word_embeddings"])
    trainer = trainer_of(tmp_path, Unfreezing("steps", 2), model=model, max_steps=8)
    trainer.train()
    assert first_steps(trainer) == {"head": 0, "layer.1": 2, "layer.0": 4, "embeddings": 6}


def test_stages_under_lora(tmp_path):
    stages = {0: ["head"], 3: ["lora_B"], 5: ["lora_A"]}
    trainer = trainer_of(tmp_path, Unfreezing("steps", stages=stages), model=lora(), max_steps=7)
    trainer.train()
    kinds = [
        {next((kind for kind in ("lora_A", "lora_B") if kind in name), "head") for name in moved}
        for moved in trainer.witness.moved
    ]
    assert kinds == [{"head"}] * 3 + [{"head", "lora_B"}] * 2 + [{"head", "lora_A", "lora_B"}] * 2


def test_a_stage_under_lora_that_only_names_frozen_weights_is_refused(tmp_path):
    stages = {0: ["head"], 1: ["embeddings"]}
    message = refused(
        trainer_of(tmp_path, Unfreezing(stages=stages), model=lora()), "'embeddings' matches no parameter"
    )
    assert "layer.0, layer.1, head" in message


# ---- Pictures ----


def test_the_plot_is_a_picture_with_its_words(tmp_path):
    callback = Unfreezing("steps", 2)
    trainer_of(tmp_path, callback, max_steps=8).train()
    words = callback.plot(tmp_path / "unfreezing.png")
    assert words == (
        "What is trained when, of 8 steps: head from step 0; layer.1 from step 2; layer.0 from step 4; "
        "embeddings from step 6."
    )
    with Image.open(tmp_path / "unfreezing.png") as image:
        assert image.format == "PNG"
        assert image.width > image.height > 100
        image.load()


def test_the_plot_names_the_stages_by_their_patterns(tmp_path):
    callback = Unfreezing("steps", stages={0: ["head"], 3: ["layer.*", "bert.embeddings"]})
    trainer_of(tmp_path, callback, cls=Trainer, max_steps=4).train()
    assert callback.plot(str(tmp_path / "a.png")).endswith("head from step 0; layer.* + bert.embeddings from step 3.")


def bars(path):
    """Of each bar from top to bottom, the share that is blue and whether that is its right end."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    blue, grey = (
        (np.abs(pixels - [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).sum(axis=2) < 12)
        for colour in (COLOURS[0], "#dfe4ea")
    )
    inside = (blue | grey).sum(axis=1) > pixels.shape[1] * 0.3
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(int)))
    found = []
    for top, bottom in edges.reshape(-1, 2):
        row = (top + bottom) // 2
        columns = np.flatnonzero(blue[row] | grey[row])
        trained = np.flatnonzero(blue[row])
        found.append((len(trained) / len(columns), trained[-1] == columns[-1]))
    return found


@pytest.mark.parametrize(
    ("begins", "total"),
    [
        ({"head": 0}, 1),
        ({"head": 0, "layer.1": 25, "layer.0": 50, "embeddings": 75}, 100),
        ({"head": 0, "rest": 1}, 3),
        ({"head": 0} | {f"layer.{number}": 10 * number + 10 for number in range(24)}, 1000),
    ],
    ids=["one", "four", "two", "many"],
)
def test_the_bars_are_as_long_as_each_group_is_trained(tmp_path, begins, total):
    draw_schedule(tmp_path / "a.png", begins, total)
    found = bars(tmp_path / "a.png")
    assert [share for share, _ in found] == pytest.approx([1 - begin / total for begin in begins.values()], abs=0.01)
    assert all(ends_right for _, ends_right in found)


@pytest.mark.parametrize("title", ["$x_1$ \\frac{", r"layer\.[0-5]|embeddings", "%s {} &<>", "a" * 500, "_"])
def test_any_pattern_can_be_a_title(tmp_path, title):
    draw_schedule(tmp_path / "a.png", {"head": 0, title: 5}, 10)
    assert [share for share, _ in bars(tmp_path / "a.png")] == pytest.approx([1, 0.5], abs=0.01)


def test_equal_schedules_are_equal_files(tmp_path):
    for name in ("a.png", "b.png"):
        draw_schedule(tmp_path / name, {"head": 0, "layer.0": 5}, 10)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


# ---- Refused when it is made ----


@pytest.mark.parametrize("unit", ["minutes", "epoch", "", None, 1])
def test_an_unknown_unit_is_refused_with_those_there_are(unit):
    with pytest.raises(
        ConfigurationError, match=re.escape(f"unit is {unit!r}; it must be one of epochs, steps, fraction")
    ):
        Unfreezing(unit, 1)


@pytest.mark.parametrize("interval", [0, -1, math.inf, math.nan])
def test_an_interval_is_above_zero(interval):
    with pytest.raises(ConfigurationError, match=f"interval is {interval}; it must be above 0"):
        Unfreezing("steps", interval)


@pytest.mark.parametrize("unit", ["steps", "fraction"])
def test_only_epochs_have_an_interval_of_their_own(unit):
    with pytest.raises(ConfigurationError, match=rf"unit={unit} needs an interval \(or stages\)"):
        Unfreezing(unit)
    assert Unfreezing().interval == 1


def test_interval_and_stages_are_one_too_many():
    with pytest.raises(ConfigurationError, match="interval and stages are both given; leave one out"):
        Unfreezing("steps", 1, {0: ["head"]})


@pytest.mark.parametrize("stages", [{}, {1: ["head"]}, {"0.5": ["head"], 2: ["layer.1"]}])
def test_a_stage_begins_at_zero(stages):
    with pytest.raises(ConfigurationError, match=r"no stage begins at 0.*\{0: \['head'\]\}"):
        Unfreezing(stages=stages)


@pytest.mark.parametrize("moment", [-1, "-0.5", "soon", "", None, math.nan, math.inf, (1,)])
def test_a_moment_is_a_number_of_at_least_zero(moment):
    with pytest.raises(ConfigurationError, match=re.escape(f"a stage begins at {moment!r}; it must be a number")):
        Unfreezing(stages={0: ["head"], moment: ["layer.1"]})


@pytest.mark.parametrize("patterns", ["head", [], None, [1], [["head"]], "", 5])
def test_what_a_stage_trains_is_a_list_of_patterns(patterns):
    with pytest.raises(ConfigurationError, match=re.escape(f"stage 0 is {patterns!r}; it must be a list")):
        Unfreezing(stages={0: patterns})


@pytest.mark.parametrize("other", [1.0, "1", "1.0", "1e0"])
def test_two_stages_at_one_moment_are_refused(other):
    stages = {0: ["head"], 1: ["layer.1"], other: ["layer.0"]}
    if len(stages) == 2:
        stages = {0: ["head"], "1": ["layer.1"], other: ["layer.0"]}
    with pytest.raises(ConfigurationError, match="two stages begin at 1; make them one"):
        Unfreezing(stages=stages)


def test_the_callers_stages_are_left_alone():
    stages = {"2": ["layer.1"], "0": ["head"]}
    callback = Unfreezing(stages=stages)
    assert stages == {"2": ["layer.1"], "0": ["head"]}
    assert callback.stages == {0: ["head"], 2: ["layer.1"]}


# ---- Refused when training begins ----


@both_trainers
@pytest.mark.parametrize("pattern", ["layer.2", "embedding", "transformers", "layer[0-1]"])
def test_a_pattern_that_matches_nothing_lists_what_there_is(tmp_path, cls, pattern):
    trainer = trainer_of(tmp_path, Unfreezing(stages={0: ["head"], 1.5: ["layer.1", pattern]}), cls=cls)
    message = refused(trainer, re.escape(f"attern {pattern!r} matches no parameter"))
    assert "stage 1.5" in message
    assert ", ".join(GROUPS) in message
    assert "bert.embeddings, bert.encoder, bert.pooler, classifier.bias, classifier.weight" in message


def test_a_pattern_that_is_no_regular_expression_is_the_users_error(tmp_path):
    refused(
        trainer_of(tmp_path, Unfreezing(stages={0: ["head", "layer.(0"]})), r"'layer\.\(0' is no regular expression"
    )


@both_trainers
def test_stages_that_never_train_the_head_are_refused(tmp_path, cls):
    trainer = trainer_of(tmp_path, Unfreezing(stages={0: ["layer.1"], 1: ["layer.0", "embeddings"]}), cls=cls)
    message = refused(trainer, "no stage unfreezes the head")
    assert "classifier.weight" in message
    assert "add 'head'" in message


def test_a_head_of_which_only_the_pooler_is_trained_is_refused(tmp_path):
    """The classifier is what has random weights."""
    message = refused(trainer_of(tmp_path, Unfreezing(stages={0: ["pooler"], 1: ["layer.1"]})), "head")
    assert "classifier.weight" in message


def test_a_stage_that_adds_nothing_is_refused(tmp_path):
    stages = {0: ["head", "layer.1"], 1: ["classifier", "layer.1.attention"], 2: ["layer.0"]}
    message = refused(trainer_of(tmp_path, Unfreezing(stages=stages)), r"stage 1 \(classifier, layer\.1\.attention\)")
    assert "an earlier stage" in message


LATE = {
    "epochs": ({}, {"num_train_epochs": 2}, 8, ["layer.0", "embeddings"], ["head from step 0", "layer.1 from step 4"]),
    "steps": ({"unit": "steps", "interval": 5}, {"max_steps": 15}, 15, ["embeddings"], ["embeddings from step 15"]),
    "fraction": ({"unit": "fraction", "interval": 0.5}, {}, 16, ["layer.0", "embeddings"], ["layer.0 from step 16"]),
    "stages": (
        {"stages": {0: ["head"], 3.99: ["layer.0"]}},
        {},
        16,
        ["layer.0"],
        ["layer.0 from step 16"],
    ),
}


@both_trainers
@pytest.mark.parametrize(("settings", "arguments", "steps", "late", "shown"), LATE.values(), ids=LATE)
def test_unfreezing_longer_than_the_training_is_refused(tmp_path, cls, settings, arguments, steps, late, shown):
    trainer = trainer_of(tmp_path, Unfreezing(**settings), cls=cls, **arguments)
    message = refused(trainer, rf"training ends after {steps} steps, so {', '.join(late)} would never be trained")
    assert all(text in message for text in shown)


def test_the_last_step_may_be_the_first_of_a_group(tmp_path):
    trainer = trainer_of(tmp_path, Unfreezing("steps", 5), max_steps=16)
    trainer.train()
    assert first_steps(trainer)["embeddings"] == 15


@both_trainers
def test_parameters_that_are_frozen_before_are_named(tmp_path, cls):
    model = bert()
    frozen = freeze_parameters(model, ["embeddings"])
    message = refused(
        trainer_of(tmp_path, Unfreezing(), cls=cls, model=model),
        "5 parameters are not in the optimizer, because they were frozen before",
    )
    assert all(name in message for name in frozen)


def test_of_many_frozen_parameters_some_are_named_and_the_rest_counted(tmp_path):
    model = bert()
    frozen = freeze_parameters(model, ["base_model"])
    message = refused(
        trainer_of(tmp_path, Unfreezing(), model=model), f"{len(frozen)} parameters are not in the optimizer"
    )
    assert f"and {len(frozen) - 5} more" in message
    assert sum(name in message for name in frozen) == 5


def test_what_no_stage_names_may_be_frozen_before_and_stays_so(tmp_path):
    model = bert()
    freeze_parameters(model, ["embeddings", "layer.0"])
    trainer = trainer_of(tmp_path, Unfreezing("steps", stages={0: ["head"], 2: ["layer.1"]}), model=model, max_steps=4)
    trainer.train()
    assert first_steps(trainer) == {"head": 0, "layer.1": 2}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for group in ("embeddings", "layer.0") for name in layer_groups(model)[group]}


def test_an_optimizer_of_other_parameters_is_refused(tmp_path):
    trainer = trainer_of(tmp_path, Unfreezing())
    trainer.optimizer = torch.optim.SGD(bert().parameters(), lr=0.1)
    assert "one process and with DDP" in refused(trainer, "optimizer holds none of the model's own parameters")


def test_an_optimizer_without_the_lower_layers_is_refused(tmp_path):
    model = bert()
    trainer = trainer_of(tmp_path, Unfreezing(), model=model)
    trainer.optimizer = torch.optim.SGD([*model.bert.pooler.parameters(), *model.classifier.parameters()], lr=0.1)
    message = refused(trainer, "optimizer")
    assert "bert.embeddings.word_embeddings.weight" in message or "more" in message


def test_data_without_a_length_has_no_epochs(tmp_path):
    class Stream(IterableDataset):
        def __iter__(self):
            yield from rows() * 4

    message = refused(trainer_of(tmp_path, Unfreezing(), data=Stream(), max_steps=8), "no epochs")
    assert "unit='steps'" in message
    trainer = trainer_of(tmp_path, Unfreezing("fraction", 0.25), data=Stream(), max_steps=8)
    trainer.train()
    assert first_steps(trainer) == {"head": 0, "layer.1": 2, "layer.0": 4, "embeddings": 6}


def test_a_model_without_a_head_is_refused(tmp_path):
    class Bare(nn.Module):
        base_model_prefix = "encoder"

        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(6, 1)

        def forward(self, input_ids, labels=None):
            return {"loss": self.encoder(input_ids.float()).mean()}

    refused(trainer_of(tmp_path, Unfreezing(), model=Bare()), r"no parameter of the head is trainable, only layer\.0")


@pytest.mark.parametrize("trainer", ["extended", "plain"])
def test_ddp_that_waits_for_every_gradient_is_refused(tmp_path, trainer):
    case = Case(
        str(tmp_path),
        trainer=trainer,
        callbacks=(partial(Unfreezing, "steps", 1),),
        arguments={"ddp_find_unused_parameters": False},
    )
    for report in launch(case, world_size=2):
        assert report["error"].startswith("ConfigurationError: ")
        assert "ddp_find_unused_parameters=False" in report["error"]
        assert re.search("Pass ddp_find_unused_parameters=True|Set it to True", report["error"])


def test_one_process_is_refused_as_well(tmp_path):
    trainer = trainer_of(tmp_path, Unfreezing("steps", 2), max_steps=8, ddp_find_unused_parameters=False)
    with pytest.raises(ConfigurationError, match="on several processes DDP would wait"):
        trainer.train()


# ---- Resuming ----

SAVED = {"max_steps": 8, "save_strategy": "steps", "save_steps": 1}


def shown(caught):
    """The schedules of then and now in a message."""
    lines = re.search(r"then: (.*)\n +now: +(.*)\n", str(caught.value)).groups()
    return [dict(item.split(": ") for item in line.split(", ")) for line in lines]


@both_trainers
@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, cls, step):
    whole = trainer_of(tmp_path, Unfreezing("steps", 2), cls=cls, **SAVED)
    whole.train()
    resumed = trainer_of(tmp_path, Unfreezing("steps", 2), cls=cls, **SAVED)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert resumed.witness.moved == whole.witness.moved[step:]
    assert resumed.witness.digests == whole.witness.digests[step:]


@both_trainers
def test_resuming_with_another_schedule_is_refused_with_both(tmp_path, cls):
    trainer_of(tmp_path, Unfreezing("steps", 2), cls=cls, **SAVED).train()
    resumed = trainer_of(tmp_path, Unfreezing("steps", 1), cls=cls, **SAVED)
    with pytest.raises(ConfigurationError, match="checkpoint of step 3 was made with another") as caught:
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert shown(caught) == [
        {"head": "0", "layer.1": "2", "layer.0": "4", "embeddings": "6"},
        {"head": "0", "layer.1": "1", "layer.0": "2", "embeddings": "3"},
    ]
    assert "allow_change=True" in str(caught.value)
    assert resumed.witness.moved == []


def test_both_schedules_are_shown_in_their_order(tmp_path):
    """Otherwise the eye has to search for what differs."""
    trainer_of(tmp_path, Unfreezing("steps", 2), **SAVED).train()
    resumed = trainer_of(tmp_path, Unfreezing("steps", 1), **SAVED)
    with pytest.raises(ConfigurationError) as caught:
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert [list(schedule) for schedule in shown(caught)] == [TOP_DOWN, TOP_DOWN]


@both_trainers
def test_an_allowed_change_follows_the_new_schedule(tmp_path, cls):
    trainer_of(tmp_path, Unfreezing("steps", 2), cls=cls, **SAVED).train()
    callback = Unfreezing("steps", stages={0: ["head"], 3: ["layer.1"], 6: ["layer.0"]}, allow_change=True)
    resumed = trainer_of(tmp_path, callback, cls=cls, **SAVED)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    # Steps from 2 on.
    assert first_steps(resumed) == {"head": 0, "layer.1": 1, "layer.0": 4}
    # The next one has to keep to it.
    again = trainer_of(tmp_path, Unfreezing("steps", 2), cls=cls, **SAVED)
    with pytest.raises(ConfigurationError, match="checkpoint of step 7 was made with another") as caught:
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))
    assert shown(caught)[0] == {"head": "0", "layer.1": "3", "layer.0": "6"}


@both_trainers
def test_resuming_a_run_that_trained_everything_is_refused(tmp_path, cls):
    trainer_of(tmp_path, cls=cls, **SAVED).train()
    resumed = trainer_of(tmp_path, Unfreezing("steps", 2), cls=cls, **SAVED)
    with pytest.raises(ConfigurationError, match="then: none"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    allowed = trainer_of(tmp_path, Unfreezing("steps", 2, allow_change=True), cls=cls, **SAVED)
    allowed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert first_steps(allowed) == {"head": 0, "layer.1": 0, "layer.0": 1, "embeddings": 3}


@both_trainers
def test_another_length_of_training_is_another_schedule_only_in_fractions(tmp_path, cls):
    trainer_of(tmp_path, Unfreezing("fraction", 0.25), cls=cls, **SAVED).train()
    longer = {**SAVED, "max_steps": 12}
    with pytest.raises(ConfigurationError, match="another unfreezing"):
        trainer_of(tmp_path, Unfreezing("fraction", 0.25), cls=cls, **longer).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-3")
        )
    resumed = trainer_of(tmp_path, Unfreezing("steps", 2), cls=cls, **longer)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert first_steps(resumed) == {"head": 0, "layer.1": 0, "layer.0": 1, "embeddings": 3}


def test_restored_callback_states_do_no_harm(tmp_path):
    """The Trainer makes callbacks anew from what the checkpoint names; the schedule is none of them."""
    arguments = {**SAVED, "restore_callback_states_from_checkpoint": True}
    whole = trainer_of(tmp_path, Unfreezing("steps", 2), **arguments)
    whole.train()
    resumed = trainer_of(tmp_path, Unfreezing("steps", 2), **arguments)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.witness.digests == whole.witness.digests[3:]


# ---- Arguments ----


def test_no_arguments_make_no_callback():
    assert UnfreezingArguments().callbacks() == []


@pytest.mark.parametrize("allow_change", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        {"unfreezing": "epochs"},
        {"unfreezing": "steps", "unfreezing_interval": 10},
        {"unfreezing": "fraction", "unfreezing_interval": 0.1, "unfreezing_eval_mode": True},
        {"unfreezing": "epochs", "unfreezing_stages": {0: ["head"], 1: ["layer.1"]}},
        {"unfreezing": "steps", "unfreezing_stages": {"0": ["head"], "100": ["base_model"]}},
    ],
)
def test_the_arguments_make_the_callback_also_after_json(values, allow_change):
    arguments = UnfreezingArguments(**values)
    again = UnfreezingArguments(**json.loads(json.dumps(asdict(arguments))))
    assert again == arguments
    (callback,) = again.callbacks(allow_change)
    assert type(callback) is Unfreezing
    assert callback.unit == values["unfreezing"]
    assert callback.interval == values.get("unfreezing_interval", 1)
    stages = values.get("unfreezing_stages")
    assert callback.stages == (stages and {float(moment): patterns for moment, patterns in stages.items()})
    assert callback.frozen_eval_mode is values.get("unfreezing_eval_mode", False)
    assert callback.allow_change is allow_change


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"unfreezing_interval": 2.0}, "unfreezing_interval would have no effect: pass --unfreezing"),
        ({"unfreezing_stages": {"0": ["head"]}}, "unfreezing_stages would have no effect"),
        ({"unfreezing_eval_mode": True}, "unfreezing_eval_mode would have no effect"),
        ({"unfreezing_interval": 2.0, "unfreezing_eval_mode": True}, "unfreezing_interval, unfreezing_eval_mode"),
        ({"unfreezing": "steps"}, "unit=steps needs an interval"),
        ({"unfreezing": "minutes", "unfreezing_interval": 1.0}, "unit is 'minutes'"),
        ({"unfreezing": "epochs", "unfreezing_interval": 0.0}, "interval is 0.0; it must be above 0"),
        ({"unfreezing": "epochs", "unfreezing_stages": {"1": ["head"]}}, "no stage begins at 0"),
        ({"unfreezing": "epochs", "unfreezing_stages": {"0": "head"}}, "must be a list"),
        (
            {"unfreezing": "steps", "unfreezing_interval": 1.0, "unfreezing_stages": {"0": ["head"]}},
            "interval and stages are both given",
        ),
    ],
)
def test_bad_arguments_are_refused_when_they_are_read(values, named):
    with pytest.raises(ConfigurationError, match=named):
        UnfreezingArguments(**values)


def test_two_stages_at_one_moment_are_refused_in_the_arguments_too():
    """Read as strings, 1 and "1" must not silently become one."""
    stages = {0: ["head"], 1: ["layer.1"], "1": ["layer.0"]}
    with pytest.raises(ConfigurationError, match="two stages begin at 1"):
        UnfreezingArguments(unfreezing="epochs", unfreezing_stages=stages)
