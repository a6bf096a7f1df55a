import itertools
import json

import optuna
import pytest

from hf_ext import (
    ALL_SETTINGS,
    SEARCH_SETTINGS,
    TRAINING_SETTINGS,
    ConfigurationError,
    given_values,
    read_search_space,
)
from hf_ext.experiments.search_space import Choices, Range


def read(given, transformer=False):
    return read_search_space(given, transformer)


def error_of(given):
    with pytest.raises(ConfigurationError) as caught:
        read(given)
    return str(caught.value)


def settings(space, **parameters):
    return space.settings(parameters)


# ---- What is understood ----


def test_the_guides_grid():
    space = read(
        {"learning_rates": [1e-5, 2e-5, 3e-5, 5e-5], "batch_sizes": [16, 32, 64], "dropout_rates": [0.1, 0.3, 0.5]}
    )
    expected = itertools.product([1e-5, 2e-5, 3e-5, 5e-5], [16, 32, 64], [0.1, 0.3, 0.5])
    assert [tuple(point.values()) for point in space.grid()] == list(expected)
    assert settings(space, **space.grid()[-1]) == {
        "find_learning_rate": False,
        "learning_rate": 5e-5,
        "per_device_train_batch_size": 64,
        "per_device_eval_batch_size": 64,
        "dropout_prob": 0.5,
    }
    transformer = read({"dropout_rates": [0.1]}, transformer=True)
    assert settings(transformer, hidden_dropout_prob=0.1) == {"hidden_dropout_prob": 0.1}


def test_files_of_both_kinds(tmp_path):
    yaml = tmp_path / "space.yaml"
    yaml.write_text("learning_rates: [3e-4, 1e-3]\nweight_decay: {low: 1e-4, high: 1e-1, log: true}\n")
    space = read(str(yaml))
    assert space.parameters[0].values() == [3e-4, 1e-3]
    assert space.parameters[1] == Range("weight_decay", 1e-4, 1e-1, None, True)
    for content in ({"num_epochs": [1, 2]}, {"search": {"num_epochs": [1, 2]}, "training": {"seed": 3}}):
        (tmp_path / "space.json").write_text(json.dumps(content))
        assert read(str(tmp_path / "space.json")).grid() == [{"num_epochs": 1.0}, {"num_epochs": 2.0}]


def test_lists_words_and_nothing_are_choices():
    space = read(
        {
            "filter_sizes": [[2, 3], [3, 4, 5]],
            "optimizer": ["adamw", "sgd"],
            "curriculum": [None, "length"],
            "lr_scheduler_type": ["linear", "slanted_triangular"],
            "learning_rate": ["auto", 1e-3],
            "augmentation_enabled": [True, False],
        }
    )
    first, last = space.grid()[0], space.grid()[-1]
    assert first["filter_sizes"] == "[2, 3]" and settings(space, **first)["filter_sizes"] == [2, 3]
    assert settings(space, **first)["optim"] == "adamw_torch_fused" and settings(space, **last)["optim"] == "sgd"
    assert settings(space, **first)["curriculum"] is None and settings(space, **last)["curriculum"] == "length"
    assert settings(space, **first)["find_learning_rate"] is True and "learning_rate" not in settings(space, **first)
    assert settings(space, **last)["learning_rate"] == 1e-3 and settings(space, **last)["find_learning_rate"] is False
    assert settings(space, **first)["augmentation_enabled"] is True


def test_true_and_one_are_two_choices():
    (parameter,) = read({"early_stopping_patience": [1, None, 2]}).parameters
    assert parameter.values() == [1, None, 2]
    parameter = Choices("x", {"true": {}, "1": {}})
    assert len(parameter.values()) == 2


def test_a_range_with_a_step_has_round_values():
    (parameter,) = read({"dropout_prob": {"low": 0.1, "high": 0.55, "step": 0.1}}).parameters
    assert parameter.values() == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert parameter.applied(0.1 + 2 * 0.1) == {"dropout_prob": 0.3}
    (parameter,) = read({"num_filters": {"low": 2, "high": 6}}).parameters
    assert parameter.values() == [2, 3, 4, 5, 6]
    assert all(isinstance(value, int) for value in parameter.values())


def test_what_is_drawn_is_in_the_range():
    space = read(
        {
            "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
            "num_filters": {"low": 4, "high": 64, "log": True},
            "dropout_prob": {"low": 0.1, "high": 0.5, "step": 0.2},
            "embed_size": {"low": 8, "high": 32, "step": 8},
            "variant": ["rand"],
        }
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [space.draw(study.ask()) for _ in range(60)]
    assert all(1e-5 <= point["learning_rate"] <= 1e-3 for point in drawn)
    # Even on the logarithmic scale: about half lie below the geometric mean, a tenth would below the arithmetic one.
    assert 15 < sum(point["learning_rate"] < 1e-4 for point in drawn) < 45
    assert {type(point["num_filters"]) for point in drawn} == {int}
    assert {space.settings(point)["dropout_prob"] for point in drawn} == {0.1, 0.3, 0.5}
    assert {point["embed_size"] for point in drawn} == {8, 16, 24, 32}


def test_the_command_line_and_a_section(tmp_path):
    kinds = SEARCH_SETTINGS.values()
    text = '{"learning_rate": [1e-4, "3e-4"]}'
    for given, expected in ((text, json.loads(text)), ("space.json", "space.json")):
        assert given_values(kinds, ["--search_space", given], "A test.")["search_space"] == expected
    path = tmp_path / "args.yaml"
    path.write_text("search:\n  learning_rates: [3e-4]\n  weight_decay: {low: 0.1, high: 0.2}\n  num_trials: 3\n")
    values = given_values(kinds, [str(path)], "A test.")
    assert values == {
        "search_space": {"learning_rates": [3e-4], "weight_decay": {"low": 0.1, "high": 0.2}},
        "num_trials": 3,
    }
    path.write_text("search: {search_space: {seed: [1]}, learning_rates: [1e-3]}")
    with pytest.raises(ConfigurationError, match="has search_space and, beside it, learning_rates"):
        given_values(kinds, [str(path)], "A test.")
    # Other recipes leave the section to this one.
    path.write_text("search: {learning_rates: [1e-3]}\nlearning_rate: 0.5")
    others = {"others": ALL_SETTINGS.values()}
    values = given_values(TRAINING_SETTINGS.values(), [str(path)], "A test.", **others)
    assert values == {"learning_rate": 0.5, "find_learning_rate": False}


# ---- What is not ----


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (None, ["nothing to search", "--search_space FILE"]),
        ({}, ["empty"]),
        ({"lerning_rates": [1]}, ["'lerning_rates'", "does not exist", "Did you mean 'learning_rate"]),
        ({"evaluation_strategy": ["no"]}, ["evaluation_strategy", "use eval_strategy"]),
        ({"learning_rate": ["fast"]}, ["learning_rate is 'fast'", "a number"]),
        ({"batch_sizes": [16, 16.5]}, ["batch_size is 16.5", "a whole number"]),
        ({"variant": ["rand", "random"]}, ["variant is 'random'", "non-static"]),
        ({"filter_sizes": [3, 4]}, ["filter_sizes is 3", "a list"]),
        ({"learning_rate": 1e-3}, ["learning_rate is 0.001", "a list of choices", '"low"']),
        ({"learning_rate": []}, ["learning_rate is an empty list"]),
        ({"learning_rate": [1e-3, 0.001]}, ["the choice 0.001 twice"]),
        ({"learning_rate": [1e-3], "learning_rates": [1e-4]}, ["learning_rate and learning_rates both set"]),
        ({"batch_size": [8], "per_device_train_batch_size": [8]}, ["both set per_device_train_batch_size"]),
        ({"learning_rate": {"low": 1e-3}}, ["a range without high"]),
        ({"learning_rate": {"low": 1e-3, "high": 1e-4}}, ["low must be below high"]),
        ({"learning_rate": {"low": 0, "high": 1, "log": True}}, ["low is 0", "above 0"]),
        ({"learning_rate": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}, ["both log and step"]),
        ({"learning_rate": {"low": 0.1, "high": 1, "step": 2}}, ["step is 2", "at most 0.9"]),
        ({"learning_rate": {"low": 0.1, "high": 1, "log": "yes"}}, ["log is 'yes'", "true or false"]),
        ({"learning_rate": {"low": 0.1, "hihg": 1}}, ["'hihg'", "Did you mean 'high'?"]),
        ({"variant": {"low": 0, "high": 1}}, ["variant"]),
        ({"num_filters": {"low": 1.5, "high": 4}}, ["num_filters is 1.5", "a whole number"]),
        ({"seed": [1, 2]}, ["the luckiest seed", "--search_seeds"]),
        ({"train_file": ["a.json"]}, ["train_file has to be the same for all trials"]),
        ({"validation_size": [0.1, 0.2]}, ["validation_size has to be the same"]),
        ({"output_dir": ["a"]}, ["output_dir has to be the same"]),
        ({"dry_run": [True]}, ["dry_run has to be the same"]),
    ],
    ids=str,
)
def test_refused(given, parts):
    message = error_of(given)
    assert all(part in message for part in parts), message


def test_a_file_is_named(tmp_path):
    (tmp_path / "space.json").write_text('{"lerning_rate": [1]}')
    assert "space.json" in error_of(str(tmp_path / "space.json"))
    assert "There is no configuration file" in error_of(str(tmp_path / "other.json"))


def test_a_grid_has_an_end():
    space = read({"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "num_epochs": [1]})
    with pytest.raises(ConfigurationError, match="learning_rate has a range without a step"):
        space.grid()
    space = read({"num_filters": {"low": 1, "high": 1000}, "embed_size": {"low": 1, "high": 1000}})
    with pytest.raises(ConfigurationError, match="1,000,000 combinations"):
        space.grid()
