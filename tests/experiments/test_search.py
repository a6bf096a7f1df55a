"""A search whose trainings are replaced by a formula, so that every value is known beforehand."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from sklearn.model_selection import StratifiedKFold

from hf_ext import ConfigurationError, DataError, Search, SearchArguments, TextData, read_search_space, training_parts
from hf_ext.data.labels import Task
from hf_ext.experiments.search_objective import failure_reason
from hf_ext.experiments.search_results import best_configuration, search_results, trials_table, write_search
from hf_ext.problem_types import SINGLE_LABEL
from hf_ext.run_record import RunRecord

GRID = {"learning_rates": [1e-4, 1e-3, 1e-2], "dropout_rates": [0.1, 0.5]}


def make_data(rows=20):
    texts = {"text": [f"text {number}" for number in range(rows)], "label": [number % 2 for number in range(rows)]}
    split = Dataset.from_dict(texts)
    task = Task(SINGLE_LABEL, ["no", "yes"])
    names = ("train", "validation")
    file_rows = {name: list(range(1, rows + 1)) for name in names}
    return TextData(DatasetDict(dict.fromkeys(names, split)), task, [], dict.fromkeys(names, "rows.json"), file_rows)


def formula(settings, data, folder, callbacks):
    rate, dropout, seed = (
        settings["training"].learning_rate,
        settings["textcnn"].dropout_prob,
        settings["training"].seed,
    )
    return {"accuracy": 1 - (math.log10(rate) + 3) ** 2 / 10 - dropout / 10 + seed / 1000, "loss": dropout}


@pytest.fixture
def make(tmp_path):
    def make(space=None, train_once=formula, data=None, values=None, metric="accuracy", **arguments):
        # A journal is faster than SQLite.
        arguments = {"storage": str(tmp_path / "study.log"), **arguments}
        arguments = SearchArguments(search_space=GRID if space is None else space, **arguments)
        values = {"model_type": "textcnn", "use_cpu": True, "seed": 0, **(values or {})}
        return Search(
            arguments,
            read_search_space(arguments.search_space, transformer=False),
            values,
            tmp_path / "out",
            metric,
            training_parts(data or make_data(), arguments.search_seeds or [0], arguments.search_folds, 42),
            train_once,
        )

    return make


def run(search):
    queue = search.open()
    search.run(queue, show_progress=False)
    return queue, search_results(search, queue)


def error_of(function, *args):
    with pytest.raises(ConfigurationError) as caught:
        function(*args)
    return str(caught.value)


# ---- Methods ----


def test_the_grid_is_complete_and_its_best_is_found(make):
    _, results = run(make())
    expected = {
        (rate, dropout): 1 - (math.log10(rate) + 3) ** 2 / 10 - dropout / 10
        for rate in GRID["learning_rates"]
        for dropout in GRID["dropout_rates"]
    }
    found = {tuple(trial["parameters"].values()): trial["value"] for trial in results["trials"]}
    assert found == pytest.approx(expected)
    assert len(results["trials"]) == 6
    assert results["best"]["parameters"] == {"learning_rate": 1e-3, "dropout_prob": 0.1}
    assert results["finished"] and results["metric"] == "accuracy" and results["method"] == "grid"


def test_less_of_a_loss_is_better(make):
    search = make(metric="loss")
    _, results = run(search)
    assert not results["greater_is_better"]
    assert results["best"]["parameters"]["dropout_prob"] == 0.1
    assert trials_table(results).splitlines()[1].split()[1] == "0.1000"


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_as_many_trials_as_asked_and_the_same_again(make, tmp_path, method):
    space = {"learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}, "dropout_prob": {"low": 0, "high": 0.9}}
    arguments = {"space": space, "search_method": method, "num_trials": 12}
    _, first = run(make(**arguments, study_name="first"))
    _, again = run(make(**arguments, study_name="again"))
    _, other = run(make(**arguments, study_name="other", sampler_seed=1))
    points = [[trial["parameters"] for trial in results["trials"]] for results in (first, again, other)]
    assert len(points[0]) == len({json.dumps(point) for point in points[0]}) == 12
    assert points[0] == points[1] != points[2]


def test_tpe_learns(make):
    space = {"learning_rate": {"low": 1e-6, "high": 1, "log": True}}
    values = {}
    for method in ("random", "tpe"):
        _, results = run(make(space=space, search_method=method, num_trials=30, study_name=method))
        values[method] = np.mean([trial["value"] for trial in results["trials"][15:]])
    assert values["tpe"] > values["random"] + 0.05


def test_a_part_of_a_grid_and_then_the_rest(make):
    _, part = run(make(num_trials=2))
    queue, whole = run(make())
    assert [trial["parameters"] for trial in whole["trials"][:2]] == [trial["parameters"] for trial in part["trials"]]
    assert len({json.dumps(trial["parameters"]) for trial in whole["trials"]}) == 6
    assert len(queue.study.trials) == 6
    message = error_of(make(num_trials=3).open)
    assert "was planned for 6 trials; num_trials is 3 now" in message
    assert "the grid has 6 combinations" in error_of(lambda: make(num_trials=7))


def test_equal_parameters_are_trained_once(make):
    seen = []

    def counting(settings, *rest):
        seen.append(settings["training"].learning_rate)
        return formula(settings, *rest)

    space = {"learning_rate": [1e-3, 1e-2]}
    _, results = run(make(space=space, train_once=counting, search_method="random", num_trials=8))
    assert sorted(seen) == [1e-3, 1e-2]
    assert [trial["state"] for trial in results["trials"]] == ["complete"] * 8
    assert {trial["parameters"]["learning_rate"]: trial["value"] for trial in results["trials"]} == pytest.approx(
        {1e-3: 0.95, 1e-2: 0.85}
    )


def test_when_the_time_is_over_no_further_trial_begins(make):
    search = make(timeout_hours=1e-9)
    queue = search.open()
    search.run(queue, show_progress=False)
    assert queue.trials() == {}
    _, results = run(make())
    assert results["finished"]


# ---- What a trial is worth ----


def test_the_mean_over_seeds(make):
    _, results = run(make(search_seeds=[1, 2, 6]))
    best = results["best"]
    assert best["values"] == pytest.approx({"seed 1": 0.991, "seed 2": 0.992, "seed 6": 0.996})
    assert best["value"] == pytest.approx(0.993)
    assert results["seeds"] == [1, 2, 6]


def test_folds_are_scikit_learns():
    data = make_data(30)
    parts = training_parts(data, [7, 8], 3, split_seed=5)
    assert [(part.name, part.seed) for part in parts[:3]] == [
        ("fold 1, seed 7", 7),
        ("fold 1, seed 8", 8),
        ("fold 2, seed 7", 7),
    ]
    labels = data.splits["train"]["label"][:]
    expected = list(StratifiedKFold(3, shuffle=True, random_state=5).split(labels, labels))
    for part, (train, held) in zip(parts[::2], expected, strict=True):
        assert part.data.texts("train") == [f"text {number}" for number in train]
        assert part.data.texts("validation") == [f"text {number}" for number in held]
        assert part.data.file_rows["validation"] == [number + 1 for number in held]


def test_copies_are_not_validated_on():
    data = make_data(20)
    train = data.splits["train"].add_column("source_idx", [number // 2 for number in range(20)])
    train = train.add_column("is_augmented", [bool(number % 2) for number in range(20)]).remove_columns("label")
    data.splits["train"] = train.add_column("label", [number // 2 % 2 for number in range(20)])
    for part in training_parts(data, [0], 5, 0):
        held = part.data.splits["validation"]
        assert not any(held["is_augmented"])
        assert not set(held["source_idx"]) & set(part.data.splits["train"]["source_idx"])


def test_folds_are_averaged(make):
    def fold_value(settings, data, folder, callbacks):
        return {"accuracy": float(len(data.splits["validation"]))}

    _, results = run(make(train_once=fold_value, data=make_data(20), search_folds=3))
    assert results["best"]["value"] == pytest.approx(20 / 3)
    assert list(results["best"]["values"]) == ["fold 1, seed 0", "fold 2, seed 0", "fold 3, seed 0"]


def test_only_the_first_training_of_a_trial_is_pruned(make):
    given = []

    def noting(settings, data, folder, callbacks):
        given.append([type(callback).__name__ for callback in callbacks])
        return formula(settings, data, folder, callbacks)

    run(make(space={"learning_rate": [1e-3]}, train_once=noting, search_seeds=[1, 2], pruner="median"))
    assert given == [["PruningCallback"], []]


# ---- Failures ----


def failing(error_at):
    def train(settings, *rest):
        error = error_at.get(settings["training"].learning_rate)
        if isinstance(error, BaseException):
            raise error
        return error() if error is not None else formula(settings, *rest)

    return train


def out_of_memory():
    return torch.empty(2**50)


def test_failed_trials_are_recorded_and_skipped(make):
    errors = {1e-4: out_of_memory, 1e-2: ValueError("a technique says no")}
    _, results = run(make(train_once=failing(errors)))
    reasons = {trial["parameters"]["learning_rate"]: trial["reason"] for trial in results["trials"]}
    assert reasons[1e-4].startswith("out of memory: ")
    assert reasons[1e-2] == "ValueError: a technique says no"
    assert reasons[1e-3] is None
    states = [trial["state"] for trial in results["trials"]]
    assert sorted(states) == ["complete"] * 2 + ["failed"] * 4
    assert all(trial["value"] is None for trial in results["trials"] if trial["state"] == "failed")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"), "out of memory: CUDA out"),
        (RuntimeError("[enforce fail] not enough memory: you tried to allocate"), "out of memory"),
        (MemoryError(), "out of memory: MemoryError"),
        (DataError("row 3"), "row 3"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (TypeError("x"), None),
        (KeyError("x"), None),
    ],
    ids=str,
)
def test_which_errors_are_a_trials_own(error, reason):
    found = failure_reason(error)
    assert found is None if reason is None else found.startswith(reason)


def test_a_metric_that_is_not_finite_is_a_failure(make):
    _, results = run(make(train_once=lambda *given: {"accuracy": math.nan}))
    assert {trial["state"] for trial in results["trials"]} == {"failed"}
    assert "accuracy is nan after training (seed 0)" in results["trials"][0]["reason"]


def test_if_all_fail_so_does_the_search(make):
    search = make(train_once=failing(dict.fromkeys(GRID["learning_rates"], ValueError("no such thing"))))
    queue = search.open()
    search.run(queue, show_progress=False)
    message = error_of(write_search, search, queue, RunRecord([], {}), [])
    assert "None of the 6 trials" in message and "6 times: ValueError: no such thing" in message
    assert json.loads((search.output_dir / "search_results.json").read_text())["best"] is None
    assert not (search.output_dir / "best_config.json").exists()


def test_an_error_of_the_program_ends_the_search_and_is_not_met_again(make):
    search = make(train_once=failing({1e-2: TypeError("a bug")}))
    queue = search.open()
    runs = 0
    while True:
        try:
            search.run(queue, show_progress=False)
            break
        except TypeError:
            runs += 1
    assert runs == 2
    results = search_results(search, queue)
    assert [trial["reason"] for trial in results["trials"] if trial["state"] == "failed"] == ["TypeError: a bug"] * 2


def test_an_interrupted_trial_is_run_again(make):
    search = make(train_once=failing({1e-2: KeyboardInterrupt()}))
    with pytest.raises(KeyboardInterrupt):
        run(search)
    _, results = run(make())
    assert [trial["state"] for trial in results["trials"]] == ["complete"] * 6
    assert sum(trial["attempts"] for trial in results["trials"]) == 7


# ---- Another search ----


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"space": {**GRID, "dropout_rates": [0.1, 0.4]}}, ["search_space.dropout_prob.choices", "0.5", "0.4"]),
        ({"space": {"learning_rates": GRID["learning_rates"]}}, ["search_space.dropout_prob", "not there now"]),
        ({"metric": "loss"}, ["search_metric (accuracy then, loss now)"]),
        ({"search_method": "random"}, ["search_method (grid then, random now)"]),
        ({"pruner": "median"}, ["pruner (none then, median now)"]),
        ({"search_seeds": [1]}, ["seeds ([0] then, [1] now)"]),
        ({"sampler_seed": 1}, ["sampler_seed (42 then, 1 now)"]),
        ({"values": {"num_train_epochs": 9.0}}, ["training.num_train_epochs (3.0 then, 9.0 now)"]),
        ({"values": {"embed_size": 7}}, ["textcnn.embed_size (null then, 7 now)"]),
        ({"values": {"focal_gamma": 2.0}}, ["loss.focal_gamma (0.0 then, 2.0 now)"]),
        ({"values": {"nonfinite": "skip"}}, ["health.nonfinite (raise then, skip now)"]),
        ({"data": make_data(22)}, ["the rows of train and validation"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_study_of_another_search_is_refused(make, changes, named):
    make().open()
    message = error_of(make(**changes).open)
    assert "is of another search" in message and "--study_name" in message
    assert all(name in message for name in named), message
    assert make(**changes, study_name="another").open() is not None


def test_what_changes_no_value_is_not_compared(make):
    make().open()
    make(values={"logging_steps": 3, "report_to": "none", "run_name": "x", "name": "y"}, timeout_hours=3.0).open()


# ---- Values that no trial can have ----


@pytest.mark.parametrize(
    ("space", "named"),
    [
        ({"learning_rate": [1e-3, 0]}, ["learning_rate=0.0", "must be above 0"]),
        ({"learning_rate": {"low": 0.0, "high": 0.1, "step": 0.05}}, ["learning_rate=0.0"]),
        ({"num_epochs": [3, -1]}, ["num_epochs=-1.0"]),
        ({"layerwise_lr_decay": [1.3, -2]}, ["layerwise_lr_decay=-2"]),
        ({"variant": ["rand", "static"]}, ["variant=static", "needs --word_vectors"]),
        ({"hidden_dropout_prob": [0.1]}, ["hidden_dropout_prob=0.1", "no effect on the TextCNN"]),
        ({"optim": ["sgd", "adamw_bnb_8bit"]}, ["optim=adamw_bnb_8bit"]),
    ],
    ids=str,
)
def test_values_are_looked_at_before_anything_is_trained(make, space, named):
    message = error_of(make(space=space).check_values)
    assert "no setting that a trial can have" in message
    assert all(name in message for name in named), message


def test_a_value_that_needs_another_parameters_is_possible(make, tmp_path):
    """A curriculum_mode says nothing without a curriculum, which is another parameter's choice."""
    search = make(space={"curriculum": [None, "length"], "curriculum_mode": ["curriculum", "anti"]})
    search.check_values()
    _, results = run(search)
    assert sorted(trial["state"] for trial in results["trials"]) == ["complete"] * 3 + ["failed"]
    (failed,) = [trial for trial in results["trials"] if trial["state"] == "failed"]
    assert failed["parameters"] == {"curriculum": None, "curriculum_mode": "anti"}
    assert "curriculum_mode: no effect without a difficulty" in failed["reason"]


# ---- What is left ----


def test_the_best_configuration_is_what_was_given_with_the_best_values(make, tmp_path):
    values = {
        "train_file": "t.json",
        "weight_decay": 0.1,
        "curriculum": "length",
        "hub_token": "secret",
        "do_eval": True,
    }
    space = {"batch_size": [4, 8], "curriculum": [None, "rarity"], "filter_sizes": [[2, 3]]}
    search = make(space=space, values=values, search_seeds=[5, 6])
    parameters = {"batch_size": 8, "curriculum": None, "filter_sizes": "[2, 3]"}
    assert best_configuration(search, parameters) == {
        "model": {"model_type": "textcnn"},
        "textcnn": {"filter_sizes": [2, 3]},
        "data": {"train_file": "t.json"},
        "training": {
            "output_dir": str(tmp_path / "out" / "best"),
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 8,
            "weight_decay": 0.1,
            "seed": 5,
            "use_cpu": True,
        },
    }
    kept = best_configuration(search, {**parameters, "curriculum": "rarity"})
    assert kept["curriculum"] == {"curriculum": "rarity"}


def test_files_of_a_search(make, capsys):
    search = make(storage=None)
    queue = search.open()
    search.run(queue, show_progress=False)
    write_search(search, queue, RunRecord(["args.json"], {}), ["A note."])
    names = {path.name for path in Path(search.output_dir).iterdir()}
    pictures = {"search_history.png", "search_parallel.png", "search_importance.png"}
    assert names == {
        "study.db",
        "study.db.claim",
        "search_results.json",
        "best_config.json",
        "report.html",
        "run.json",
        *pictures,
    }
    assert all((search.output_dir / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    report = (search.output_dir / "report.html").read_text()
    assert report.count("data:image/png;base64,") == 3
    assert "Of 6 trials (6 complete), trial" in report and "A note." in report
    listed = report[report.index('<section id="table-1"') :].split("</section>")[0]
    assert listed.count('<td class="">complete</td>') == 6
    values = [float(value) for value in re.findall(r'</th><td class="number">([0-9.]+)</td>', listed)]
    assert len(values) == 6 and values == sorted(values, reverse=True) and values[0] == 0.99
    shown = capsys.readouterr().out
    assert "Trial 1 of 6: accuracy" in shown
    lines = shown[shown.index("trial  accuracy") :].splitlines()
    assert lines[0].split() == ["trial", "accuracy", "learning_rate", "dropout_prob", "seconds"]
    assert lines[1].split()[1:4] == ["0.9900", "0.001", "0.1"]


def test_a_password_is_written_nowhere(make):
    search = make(storage="postgresql://me:secret@host/db")
    assert "secret" not in error_of(search.open)
