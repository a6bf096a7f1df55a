"""What the flags of a run's health do in the recipes, and that each does something."""

import json

import pytest

from hf_ext import ConfigurationError, NonFiniteError
from hf_ext.defaults import complete_kfold_values, complete_search_values, complete_training_values

from .conftest import load_recipe

CNN = ["--model_type", "textcnn", "--embed_size", "8", "--num_filters", "4", "--use_cpu", "true"]
SHORT = ["--num_train_epochs", "2", "--per_device_train_batch_size", "16", "--preflight", "off", "--report_to", "none"]
DIVERGING = ["--learning_rate", "1e30", "--max_grad_norm", "0", "--mixed_precision", "no"]
SKIP = ["--nonfinite", "skip", "--nonfinite_budget", "2"]


def history(folder):
    return [
        entry for entry in json.loads((folder / "trainer_state.json").read_text())["log_history"] if "loss" in entry
    ]


def test_the_budget_of_skipped_steps_reaches_the_training(run_classification, write_data, tmp_path):
    flags = [*CNN, *SHORT, *DIVERGING, *write_data(), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(NonFiniteError, match="more than nonfinite_budget=2 times"):
        run_classification([*flags, *SKIP])
    assert len(list((tmp_path / "out").glob("nonfinite_step_*.json"))) == 3
    with pytest.raises(NonFiniteError, match="In step 2 the loss is not finite among the rows"):
        run_classification([*flags, "--overwrite", "true"])


def test_several_tasks_are_watched_too(write_data, tmp_path):
    train, test = (write_data()[place] for place in (1, 3))
    tasks = {name: {"train_file": train, "test_file": test} for name in ("a", "b")}
    flags = ["--tasks", json.dumps(tasks), *CNN, *SHORT, *DIVERGING, *SKIP, "--output_dir", str(tmp_path / "tasks")]
    with pytest.raises(NonFiniteError, match="more than nonfinite_budget=2 times"):
        load_recipe("run_multitask").main(flags)


def test_a_roll_back_reaches_the_training(run_classification, write_data, tmp_path):
    own = ["--nonfinite", "roll_back", "--save_strategy", "steps", "--save_steps", "1"]
    flags = [*CNN, *SHORT, *DIVERGING, *write_data(), *own, "--output_dir", str(tmp_path / "out")]
    # After one step at such a rate no rate helps.
    with pytest.raises(NonFiniteError, match="checkpoint-1, whose model fails at once too"):
        run_classification(flags)


def test_the_monitors_can_be_left_out(run_classification, write_data, tmp_path, capsys):
    flags = [*CNN, *SHORT, *write_data(), "--logging_steps", "1"]
    run_classification([*flags, "--gradient_table", "true", "--output_dir", str(tmp_path / "with")])
    assert "not finite" in capsys.readouterr().out
    run_classification([*flags, "--monitor_gradients", "false", "--output_dir", str(tmp_path / "without")])
    assert "grad_norm/head" in history(tmp_path / "with")[0]
    assert not any(name.startswith("grad_norm/") for name in history(tmp_path / "without")[0])
    for name in ("performance/examples_per_second", "performance/padding_share", "trainable_parameters"):
        assert name in history(tmp_path / "without")[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--nonfinite_budget", "3"], "nonfinite_budget=3 has no effect with nonfinite=raise"),
        (
            ["--nonfinite", "skip", "--roll_back_factor", "0.1"],
            "roll_back_factor=0.1 has no effect with",
        ),
        (["--nonfinite", "skip", "--nonfinite_budget", "0"], "nonfinite_budget is 0; it must be a whole number"),
        (["--nonfinite", "roll_back", "--roll_back_factor", "2"], "roll_back_factor is 2.0; it must lie between"),
        (["--nonfinite", "roll_back", "--save_strategy", "no"], "save_strategy is no: set it to steps"),
        (["--nonfinite", "rollback"], "roll_back"),
    ],
)
def test_what_has_no_effect_is_refused(run_classification, write_data, tmp_path, flags, message):
    with pytest.raises(ConfigurationError, match=message):
        run_classification([*CNN, *SHORT, *write_data(), *flags, "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("complete", [complete_kfold_values, complete_search_values])
def test_folds_and_trials_roll_back_only_to_what_they_save(complete):
    with pytest.raises(ConfigurationError, match="save none without load_best_model_at_end"):
        complete({"nonfinite": "roll_back"})
    assert complete({"nonfinite": "roll_back", "load_best_model_at_end": True})
    assert complete_training_values({"nonfinite": "roll_back"})
