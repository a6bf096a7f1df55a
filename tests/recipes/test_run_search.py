"""run_search.py from files to the best configuration, which run_classification.py takes."""

import json
import signal
from pathlib import Path

import pytest
from programs import run_program
from starting import begin_script, exit_code_of

from hf_ext import UsageError

from .conftest import load_recipe, make_rows, tracked_runs

ROOT = Path(__file__).parents[2]
INTERRUPTED = Path(__file__).with_name("interrupted_search.py")
CNN = ["--model_type", "textcnn", "--embed_size", "8", "--num_filters", "4", "--disable_tqdm", "true"]
CNN += ["--num_train_epochs", "2", "--use_cpu", "true", "--report_to", "none", "--mixed_precision", "no"]
SPACE = {"learning_rates": [1e-3, 3e-2], "batch_sizes": [8, 16], "dropout_rates": [0.1]}


@pytest.fixture(scope="module")
def main():
    return load_recipe("run_search").main


@pytest.fixture
def flags(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(make_rows(80, 0)))
    (tmp_path / "test.json").write_text(json.dumps(make_rows(20, 1)))
    (tmp_path / "space.json").write_text(json.dumps(SPACE))
    files = ["--train_file", str(tmp_path / "train.json"), "--test_file", str(tmp_path / "test.json")]
    return [*CNN, *files, "--search_space", str(tmp_path / "space.json"), "--output_dir", str(tmp_path / "out")]


def read(path):
    return json.loads(Path(path).read_text())


def results_of(flags):
    return read(Path(flags[-1]) / "search_results.json")


def in_a_process(argv, trial=None, step=0):
    """The recipe in a process that has imported everything already; its exit code."""
    return begin_script(INTERRUPTED, ARGV=[str(flag) for flag in argv], TRIAL=trial, STEP=step)


def ended(process):
    return exit_code_of(process)


def values(results):
    return {json.dumps(trial["parameters"]): trial["value"] for trial in results["trials"]}


# ---- From files to the best configuration ----


def test_the_best_configuration_trains_the_same_bit_for_bit(main, run_classification, flags, tmp_path, capsys):
    flags = [*flags[:-2], "--load_best_model_at_end", "true", "--metric_for_best_model", "accuracy", *flags[-2:]]
    main([*flags[:-2], "--search_metric", "loss", *flags[-2:]])
    results = results_of(flags)
    assert len(values(results)) == 4 and results["finished"]
    best = results["best"]
    assert best["value"] == min(trial["value"] for trial in results["trials"])
    out = tmp_path / "out"
    left = {path.name for path in out.iterdir()}
    assert {"study.db", "run.json", "training.log", "report.html", "best_config.json", "preflight.json"} <= left
    assert not list(out.rglob("checkpoint-*")) and "search_trials" not in left
    assert "Trial 4 of 4" in capsys.readouterr().out
    run_classification([str(out / "best_config.json")])
    found = read(out / "best" / "eval_results.json")
    assert found["eval_loss"] == best["value"]
    assert found["eval_accuracy"] == best["metrics"]["seed 42"]["accuracy"]
    assert read(out / "run.json")["results"]["best"] == best


def test_test_rows_are_not_looked_at(main, flags, tmp_path):
    (tmp_path / "test.json").write_text("{ broken")
    main([*flags[:-2], "--num_trials", "1", *flags[-2:]])
    assert results_of(flags)["best"] is not None


def test_the_best_is_tested_in_the_end(main, flags, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(SystemExit) as ended:
        main([*flags[:-2], "--num_trials", "1", "--evaluate_best", "true", *flags[-2:]])
    assert ended.value.code == 0
    best = tmp_path / "out" / "best"
    assert read(best / "eval_results.json")["eval_accuracy"] == results_of(flags)["best"]["value"]
    assert len((best / "predictions_test.jsonl").read_text().splitlines()) == 20


def test_a_section_of_the_settings(main, flags, tmp_path):
    settings = {"search": {**SPACE, "search_method": "random", "num_trials": 2, "search_seeds": [1, 2]}}
    (tmp_path / "args.json").write_text(json.dumps(settings))
    kept = [flag for flag in flags if flag not in ("--search_space", str(tmp_path / "space.json"))]
    main([str(tmp_path / "args.json"), *kept])
    results = results_of(flags)
    assert results["method"] == "random" and len(results["trials"]) == 2
    assert list(results["trials"][0]["values"]) == ["seed 1", "seed 2"]
    assert read(tmp_path / "out" / "best_config.json")["training"]["seed"] == 1


def test_folds_and_pruning(main, flags):
    more = ["--search_folds", "2", "--pruner", "hyperband", "--search_method", "tpe", "--num_trials", "2"]
    main([*flags[:-2], *more, *flags[-2:]])
    results = results_of(flags)
    assert list(results["best"]["values"]) == ["fold 1, seed 42", "fold 2, seed 42"]
    assert list(results["best"]["evaluation_losses"]) == ["1", "2"]


def test_a_training_that_diverges_is_a_failed_trial(main, flags, tmp_path):
    (tmp_path / "space.json").write_text('{"learning_rate": [1e-3, 1e30], "max_grad_norm": [0]}')
    main(flags)
    failed = {trial["parameters"]["learning_rate"]: trial for trial in results_of(flags)["trials"]}
    assert failed[1e30]["state"] == "failed" and "training has diverged" in failed[1e30]["reason"]
    assert failed[1e-3]["state"] == "complete"


def test_settings_that_fail_in_the_training_alone_are_recorded(main, flags, tmp_path):
    (tmp_path / "space.json").write_text('{"curriculum": [null, "length"], "num_epochs": [1, 2]}')
    main(flags)
    states = {tuple(trial["parameters"].values()): trial for trial in results_of(flags)["trials"]}
    assert [key for key, trial in states.items() if trial["state"] == "failed"] == [("length", 1.0)]
    assert "a single one would never see most of them" in states["length", 1.0]["reason"]


# ---- Killed, continued, shared ----


def test_a_search_that_was_killed_goes_on(main, flags, tmp_path):
    whole = [*flags[:-1], str(tmp_path / "whole")]
    main(whole)
    assert ended(in_a_process(flags, "002", 5)) == -signal.SIGKILL
    main(flags)
    results = results_of(flags)
    assert values(results) == values(results_of(whole))
    assert sorted(trial["attempts"] for trial in results["trials"]) == [1, 1, 1, 2]
    assert not (tmp_path / "out" / "search_trials").exists()
    before = results["trials"]
    main(flags)
    assert results_of(flags)["trials"] == before


def test_two_processes_share_a_study(flags, tmp_path):
    storage = ["--storage", str(tmp_path / "shared.log")]
    processes = []
    for name in ("one", "two"):
        processes.append(in_a_process([*flags[:-2], *storage, "--output_dir", str(tmp_path / name)]))
    assert [ended(process) for process in processes] == [0, 0]
    logs = [(tmp_path / name / "training.log").read_text() for name in ("one", "two")]
    done = [{line.split("trial ")[1].split(":")[0] for line in log.splitlines() if " of 4: " in line} for log in logs]
    assert sorted(done[0] | done[1]) == [f"{number} of 4" for number in (1, 2, 3, 4)]
    assert not done[0] & done[1]
    last = max((read(tmp_path / name / "search_results.json") for name in ("one", "two")), key=lambda r: r["finished"])
    assert last["finished"] and len(values(last)) == 4


# ---- Bad input ----


@pytest.fixture
def attempt(main, flags, tmp_path):
    """Run with further flags; returns the message, after seeing that nothing was written."""

    def attempt(*more, space=None):
        if space is not None:
            (tmp_path / "space.json").write_text(json.dumps(space))
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UsageError) as error:
            main([*flags, *more])
        assert sorted(tmp_path.rglob("*")) == before
        return str(error.value)

    return attempt


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--search_metric", "acuracy"], ["search_metric is 'acuracy'", "Did you mean 'accuracy'?"]),
        (["--search_method", "bayes"], ["search_method", "grid, random, tpe"]),
        (["--num_trials", "0"], ["num_trials is 0"]),
        (["--num_trials", "9"], ["the grid has 4 combinations"]),
        (["--timeout_hours", "0"], ["timeout_hours is 0.0"]),
        (["--search_seeds", "1", "1"], ["different seeds"]),
        (["--search_folds", "1"], ["search_folds is 1"]),
        (["--search_folds", "90"], ["only 80 rows"]),
        (["--pruner", "median", "--eval_strategy", "no"], ["pruner=median", "eval_strategy is no"]),
        (["--do_predict", "false"], ["do_predict=false"]),
        (["--resume_from_checkpoint", "true"], ["goes on by itself"]),
        (["--search_space", "none.json"], ["There is no configuration file none.json"]),
        (["--validation_size", "0"], ["validation"]),
        (["--early_stopping_patience", "1", "--early_stopping_metric", "f2"], ["early_stopping_metric is 'f2'"]),
    ],
    ids=str,
)
def test_bad_input(attempt, more, named):
    message = attempt(*more)
    assert all(name in message for name in named), message


def test_a_bad_space_stops_it_before_anything_is_written(attempt):
    message = attempt(space={"lerning_rate": [1]})
    assert "space.json" in message and "Did you mean 'learning_rate'" in message
    assert "num_train_epochs=-1.0" in attempt(space={"num_train_epochs": [1, -1]})


def test_what_no_trial_can_do_stops_it_before_anything_is_written(attempt):
    """Neither choice of learning rate changes that unfreezing would never come to an end."""
    message = attempt("--unfreezing", "epochs", "--unfreezing_interval", "50")
    assert "unfreezing" in message and "would never be trained" in message


def test_several_processes_of_one_training_are_refused(attempt, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "a trial is trained by one" in attempt()


def test_another_search_in_the_folder(main, flags, tmp_path):
    main([*flags[:-2], "--num_trials", "1", *flags[-2:]])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    with pytest.raises(UsageError, match=r"of another search: training.weight_decay \(0.0 then, 0.3 now\)"):
        main([*flags, "--weight_decay", "0.3"])
    with pytest.raises(UsageError, match="holds another run"):
        main([*flags, "--study_name", "another"])
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    main([*flags[:-2], "--num_trials", "1", "--weight_decay", "0.3", "--overwrite", "true", *flags[-2:]])
    assert results_of(flags)["settings"]["training"]["weight_decay"] == 0.3


def test_dry_run_writes_nothing(main, flags, tmp_path, capsys):
    main([*flags, "--dry_run", "true"])
    shown = capsys.readouterr().out
    assert "4 trials (grid)" in shown and "compared by accuracy on validation" in shown
    assert not (tmp_path / "out").exists()


def test_help_has_the_group():
    shown = run_program(ROOT / "recipes/run_search.py", ["--help"]).stdout
    assert "\nsearch:\n" in shown and "--search_space" in shown


def test_one_group_of_weights_and_biases(flags, tmp_path):
    (tmp_path / "space.json").write_text(json.dumps({"learning_rates": [1e-3, 3e-2]}))
    own = ["--study_name", "mine", "--search_seeds", "1", "2"]
    begun = tracked_runs(ROOT / "recipes" / "run_search.py", [*own, *flags], tmp_path)
    assert begun == [(f"mine-trial-{trial}", "mine") for trial in (1, 1, 2, 2)]
