"""What watches a training: gradients by layer group, dead and exploding ones, hints from the curves."""

import logging

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed

from hf_ext import (
    ConfigurationError,
    ExtendedTrainer,
    GradientMonitorCallback,
    MonitorArguments,
    TextCNNConfig,
    TextCNNForSequenceClassification,
    TrainingHintsCallback,
    layer_groups,
    training_hints,
)

BERT = {"vocab_size": 3000, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}


def rows(count=12):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 3000, (count, 5), generator=generator)
    return [
        {"input_ids": line, "attention_mask": torch.ones(5, dtype=torch.long), "labels": i % 2}
        for i, line in enumerate(ids)
    ]


@pytest.fixture
def train(tmp_path):
    def train(*callbacks, kind=ExtendedTrainer, model="bert", **settings):
        set_seed(0)
        if model == "bert":
            made = BertForSequenceClassification(BertConfig(**BERT))
        else:
            made = TextCNNForSequenceClassification(TextCNNConfig(vocab_size=3000, embed_size=8, num_filters=2))
        arguments = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "logging_steps": 1, "save_strategy": "no"}
        args = TrainingArguments(str(tmp_path), use_cpu=True, disable_tqdm=True, **{**arguments, **settings})
        trainer = kind(made, args, train_dataset=rows(), eval_dataset=rows(), callbacks=list(callbacks))
        trainer.train()
        return [entry for entry in trainer.state.log_history if "loss" in entry]

    return train


class Recorder(GradientMonitorCallback):
    """Beside what it logs, the norms by a loop over the parameters."""

    def __init__(self):
        super().__init__()
        self.by_hand = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        super().on_pre_optimizer_step(args, state, control, model=model, **kwargs)
        parameters = dict(model.named_parameters())
        norms = {}
        for group, names in layer_groups(model).items():
            squares = 0.0
            for name in names:
                if parameters[name].grad is not None:
                    squares += float((parameters[name].grad.to_dense().double() ** 2).sum())
            norms[group] = squares**0.5
        self.by_hand.append(norms)


@pytest.mark.parametrize("model", ["bert", "textcnn"])
def test_the_norm_of_each_group_is_logged(train, model):
    recorder = Recorder()
    logs = train(recorder, model=model)
    assert len(logs) == 6
    for log, expected in zip(logs, recorder.by_hand, strict=True):
        found = {name.removeprefix("grad_norm/"): norm for name, norm in log.items() if name.startswith("grad_norm/")}
        assert found == pytest.approx(expected, rel=1e-5)
        # Clipped to 1 in all.
        assert sum(norm**2 for norm in found.values()) ** 0.5 == pytest.approx(min(1.0, log["grad_norm"]), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "logged"),
    [
        ({"logging_steps": 2}, [2, 4, 6]),
        ({"logging_steps": 4, "logging_first_step": True}, [1, 4]),
        ({"logging_strategy": "epoch"}, [3, 6]),
        ({"logging_strategy": "no"}, []),
    ],
)
def test_norms_are_taken_in_the_steps_that_are_logged(train, settings, logged):
    monitor = GradientMonitorCallback()
    logs = train(monitor, **settings)
    with_norms = [log["step"] for log in logs if "grad_norm/head" in log]
    assert with_norms == logged and len(monitor._seen["head"]) == len(logged)


def test_warnings_work_on_a_plain_trainer(train, caplog):
    class Cut(GradientMonitorCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            for parameter in model.bert.encoder.layer[1].parameters():
                parameter.grad.zero_()
            super().on_pre_optimizer_step(args, state, control, model=model, **kwargs)

    monitor = Cut()
    with caplog.at_level(logging.WARNING, "hf_ext"):
        logs = train(monitor, kind=Trainer)
    assert not any(name.startswith("grad_norm/") for log in logs for name in log)
    assert len(monitor.warnings) == 1
    assert "No gradient reaches layer.1: its norm was 0 in 3 logs, until step 3" in caplog.text


def test_an_exploding_group_is_said_once(train):
    class Leap(GradientMonitorCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            if state.global_step in (4, 5):
                model.classifier.weight.grad.mul_(1e5)
            super().on_pre_optimizer_step(args, state, control, model=model, **kwargs)

    monitor = Leap()
    train(monitor)
    assert len(monitor.warnings) == 1
    assert monitor.warnings[0].startswith("The gradient of head explodes: its norm in step 5 is")


def test_the_table_of_the_first_step(train, capsys):
    train(GradientMonitorCallback(norms=False, table=True))
    shown = capsys.readouterr().out
    assert shown.count("classifier.weight") == 1 and "not finite" in shown


@pytest.mark.parametrize(
    ("settings", "word"), [({"patience": 0}, "patience is 0"), ({"exploding_factor": 1}, "above 1")]
)
def test_what_a_monitor_refuses(settings, word):
    with pytest.raises(ConfigurationError, match=word):
        GradientMonitorCallback(**settings)


def test_arguments_make_the_callbacks():
    kinds = [type(callback) for callback in MonitorArguments().callbacks()]
    assert kinds == [GradientMonitorCallback, TrainingHintsCallback]
    assert MonitorArguments(monitor_gradients=False, training_hints=False).callbacks() == []
    assert MonitorArguments(monitor_gradients=False, gradient_table=True).callbacks()[0].table


# ---- Hints ----


def history(trained, evaluated, **more):
    entries = []
    for step, (loss, eval_loss) in enumerate(zip(trained, evaluated, strict=True), start=1):
        entries += [{"step": step, "loss": loss, **more}, {"step": step, "eval_loss": eval_loss}]
    return entries


def test_overfitting():
    hints = training_hints(history([0.9, 0.6, 0.4, 0.3], [0.70, 0.71, 0.75, 0.80]))
    assert list(hints) == ["Overfitting"]
    assert "decreases (0.9000 to 0.3000) but the validation loss increases (0.7000 to 0.8000)" in hints["Overfitting"]
    assert "early stopping" in hints["Overfitting"]


@pytest.mark.parametrize(
    ("trained", "evaluated"),
    [
        ([0.9, 0.6, 0.4, 0.3], [0.70, 0.69, 0.75, 0.80]),  # not in each
        ([0.9, 0.6, 0.4], [0.70, 0.71, 0.75]),  # too few
        ([0.9, 0.9, 1.0, 1.1], [0.70, 0.71, 0.75, 0.80]),  # training does not fall: no overfitting
        ([0.9, 0.6, 0.4, 0.3], [0.9, 0.7, 0.6, 0.5]),
    ],
)
def test_no_overfitting(trained, evaluated):
    assert "Overfitting" not in training_hints(history(trained, evaluated))


def test_a_plateau():
    assert list(training_hints(history([0.693, 0.692, 0.694, 0.693], [0.693] * 4))) == ["Plateau"]
    assert training_hints(history([0.693, 0.692, 0.694, 0.60], [0.693] * 4)) == {}
    assert training_hints(history([0.693] * 4, [0.693, 0.690, 0.685, 0.680])) == {}


def test_a_loader_that_is_too_slow():
    slow = history([0.9, 0.6, 0.4], [0.9, 0.6, 0.4], **{"performance/data_loading_share": 0.3})
    assert "30 % of the time or more" in training_hints(slow)["Loader-bound"]
    assert "dataloader_num_workers" in training_hints(slow)["Loader-bound"]
    slow[2]["performance/data_loading_share"] = 0.1
    assert training_hints(slow) == {}


def test_each_hint_is_logged_once(train, caplog):
    hints = TrainingHintsCallback()
    with caplog.at_level(logging.WARNING, "hf_ext"):
        train(hints, learning_rate=1e-12, eval_strategy="steps", eval_steps=1)
    assert len(hints.hints) == 1 and hints.hints[0].startswith("Plateau")
    assert caplog.text.count("Plateau (step") == 1


def test_norms_of_the_steps_that_are_logged_by_the_epoch(train):
    # Two whole epochs and a half one.
    recorder = Recorder()
    logs = train(recorder, logging_strategy="epoch", num_train_epochs=2.5)
    of_step = {log["step"]: log for log in logs if "grad_norm/head" in log}
    last = max(of_step)
    assert len(of_step) == 3 and last == len(recorder.by_hand)
    for step, log in of_step.items():
        assert log["grad_norm/head"] == pytest.approx(recorder.by_hand[step - 1]["head"], rel=1e-5)
