"""The settings of Weights & Biases, and trackers that fail or hang."""

import logging
import os
import time

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.integrations import INTEGRATION_TO_CALLBACK

from hf_ext import (
    ConfigurationError,
    ExtendedTrainer,
    RecipeTrainingArguments,
    TextCNNConfig,
    TextCNNForSequenceClassification,
    TrackingArguments,
    has_wandb_login,
)
from hf_ext.defaults import complete_training_values
from hf_ext.tracking import with_wandb

GUIDE = {"wandb_project": "p", "wandb_entity": "e", "wandb_tags": ["a", "b"], "wandb_notes": "n"}


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Without a login, and without what an earlier test has set."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    before = dict(os.environ)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    yield
    for name in [name for name in os.environ if name.startswith("WANDB_") and name not in before]:
        del os.environ[name]


@pytest.fixture
def arguments(tmp_path):
    return lambda **more: TrainingArguments(str(tmp_path / "out"), use_cpu=True, disable_tqdm=True, **more)


# ---- Settings ----


@pytest.mark.parametrize(
    ("given", "report_to"),
    [
        (GUIDE, ["wandb"]),
        ({**GUIDE, "report_to": "none"}, "none"),
        ({**GUIDE, "report_to": ["tensorboard"]}, ["tensorboard", "wandb"]),
        ({**GUIDE, "report_to": "wandb"}, "wandb"),
        ({**GUIDE, "report_to": "tensorboard,trackio"}, ["tensorboard", "trackio", "wandb"]),
        ({**GUIDE, "wandb_mode": "disabled"}, None),
        ({"wandb_project": None, "run_name": "r"}, None),
    ],
)
def test_the_section_is_enough(given, report_to):
    assert with_wandb(dict(given)).get("report_to") == report_to
    assert complete_training_values(dict(given)).get("report_to") == report_to


def test_one_flag_names_several_trackers(tmp_path):
    named = RecipeTrainingArguments(str(tmp_path / "out"), report_to="tensorboard,trackio", use_cpu=True)
    assert named.report_to == ["tensorboard", "trackio"]


def test_settings_reach_the_client(arguments):
    (note,) = TrackingArguments(**GUIDE).set_up(arguments(report_to="wandb"))
    found = {name: os.environ[f"WANDB_{name}"] for name in ("PROJECT", "ENTITY", "TAGS", "NOTES", "MODE")}
    assert found == {"PROJECT": "p", "ENTITY": "e", "TAGS": "a,b", "NOTES": "n", "MODE": "offline"}
    assert os.environ["WANDB_DIR"].endswith("/out") and "has no login here" in note


def test_with_a_login_a_run_is_online(arguments, monkeypatch, tmp_path):
    assert not has_wandb_login()
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password key\n")
    assert has_wandb_login()
    assert TrackingArguments().set_up(arguments(report_to="wandb")) == []
    assert "WANDB_MODE" not in os.environ
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
    assert not has_wandb_login()
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert has_wandb_login()


def test_offline_by_one_line(arguments):
    assert TrackingArguments(wandb_mode="offline").set_up(arguments(report_to="wandb")) == []
    assert os.environ["WANDB_MODE"] == "offline"


def test_without_the_package(arguments, monkeypatch):
    monkeypatch.setattr("hf_ext.tracking.find_spec", lambda name: None)
    assert with_wandb(dict(GUIDE)) == GUIDE
    (note,) = TrackingArguments(**GUIDE).set_up(arguments())
    assert note.startswith("Nothing is tracked") and "pip install 'hf_ext[wandb]'" in note
    assert TrackingArguments().set_up(arguments()) == []
    with pytest.raises(ConfigurationError, match="pip install"):
        TrackingArguments().set_up(arguments(report_to="wandb"))


def test_a_timeout_must_be_positive():
    with pytest.raises(ConfigurationError, match="tracker_timeout is 0"):
        TrackingArguments(tracker_timeout=0)


# ---- Trackers that fail ----


class Tracker(TrainerCallback):
    """Notes what it hears, until it fails."""

    heard: list
    fails_at = 2

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.heard.append(state.global_step)
        if state.global_step == self.fails_at:
            self.fail()

    def on_train_end(self, args, state, control, **kwargs):
        self.heard.append("end")


class Failing(Tracker):
    def fail(self):
        raise ConnectionError("the server is away")


class Hanging(Tracker):
    def fail(self):
        time.sleep(600)


class Working(Tracker):
    fails_at = -1


@pytest.fixture
def train(tmp_path, monkeypatch):
    def train(kind, timeout=60.0):
        kind.heard = []
        monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "wandb", kind)
        monkeypatch.setattr("transformers.integrations.integration_utils.INTEGRATION_TO_CALLBACK", {"wandb": kind})
        set_seed(0)
        model = TextCNNForSequenceClassification(TextCNNConfig(vocab_size=20, embed_size=4, num_filters=2))
        rows = [{"input_ids": torch.arange(1, 6), "labels": index % 2} for index in range(8)]
        args = TrainingArguments(
            str(tmp_path),
            use_cpu=True,
            disable_tqdm=True,
            report_to="wandb",
            logging_steps=1,
            per_device_train_batch_size=2,
            num_train_epochs=1,
            save_strategy="no",
        )
        trainer = ExtendedTrainer(model, args, train_dataset=rows, tracker_timeout=timeout)
        assert any(isinstance(callback, kind) for callback in trainer.callback_handler.callbacks)
        trainer.train()
        return kind.heard, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    return train


def test_a_tracker_that_works_hears_everything(train):
    heard, losses = train(Working)
    assert heard == [1, 2, 3, 4, 4, "end"] and len(losses) == 4


@pytest.mark.parametrize(
    ("kind", "timeout", "reason"),
    [(Failing, 60.0, "ConnectionError: the server is away"), (Hanging, 3.0, "it has not answered for 3 seconds")],
)
def test_a_tracker_that_fails_or_hangs_does_not_end_the_run(train, caplog, kind, timeout, reason):
    with caplog.at_level(logging.WARNING, "hf_ext"):
        heard, losses = train(kind, timeout)
    assert heard == [1, 2] and len(losses) == 4
    said = [record.getMessage() for record in caplog.records if "is left out from here on" in record.getMessage()]
    assert said == [f"The tracker {kind.__name__} is left out from here on: {reason}. The training goes on."]
