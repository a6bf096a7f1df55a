"""What kept scores of training runs depend on."""

import copy

import pytest

from hf_ext import TRAINING_SETTINGS
from hf_ext.preparation import scores_fingerprint
from hf_ext.run_record import plain_arguments


@pytest.fixture
def arguments(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    needed = {"model": {"model_name_or_path": str(tmp_path / "model")}, "training": {"output_dir": str(tmp_path)}}
    return plain_arguments({name: kind(**needed.get(name, {})) for name, kind in TRAINING_SETTINGS.items()})


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [("training", "learning_rate", 1.0), ("peft", "peft", "lora"), ("loss", "focal_gamma", 2.0)],
)
def test_what_the_trainings_depend_on(arguments, section, name, value):
    changed = copy.deepcopy(arguments)
    changed[section][name] = value
    assert scores_fingerprint(changed) != scores_fingerprint(arguments)


def test_a_model_that_was_trained_again(arguments, tmp_path):
    before = scores_fingerprint(arguments)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"others!!")
    assert scores_fingerprint(arguments) != before


def test_where_and_what_is_reported_does_not_matter(arguments):
    before = scores_fingerprint(arguments)
    arguments["training"] |= {"output_dir": "elsewhere", "logging_steps": 7, "report_to": ["wandb"]}
    assert scores_fingerprint(arguments) == before
