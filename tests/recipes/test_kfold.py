"""Cross-validation by the recipe: what it leaves, that nothing leaks into a fold, and how it goes on."""

import itertools
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error
from sklearn.model_selection import StratifiedKFold
from starting import begin_script, exit_code_of, own_port

from hf_ext import (
    KFOLD_SETTINGS,
    OwnFolds,
    RunRecord,
    UsageError,
    build_classifier,
    complete_kfold_values,
    load_text_data,
    parse_arguments,
    plan_folds,
    train_here,
)
from hf_ext.experiments.cross_validation import fold_data
from hf_ext.experiments.fold_workers import share_of_machine

from .conftest import load_recipe, make_rows, tracked_runs

RECIPE = Path(__file__).parents[2] / "recipes" / "run_kfold.py"
INTERRUPTED = Path(__file__).with_name("interrupted_kfold.py")
CNN = ["--model_type", "textcnn", "--embed_size", "8", "--num_filters", "4", "--learning_rate", "1e-2"]
FAST = ["--num_train_epochs", "2", "--per_device_train_batch_size", "8", "--report_to", "none", "--preflight", "off"]
FAST += ["--use_cpu", "true", "--mixed_precision", "no"]
BEST = ["--load_best_model_at_end", "true", "--metric_for_best_model", "accuracy"]


@pytest.fixture(scope="module")
def main():
    return load_recipe("run_kfold").main


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A file of 60 rows."""
    path = tmp_path_factory.mktemp("rows") / "train.json"
    path.write_text(json.dumps(make_rows(60, 0)))
    return path


@pytest.fixture(scope="module")
def whole(main, rows, tmp_path_factory):
    """The flags of a run of ten folds, and the folder in which it came to its end."""
    flags = [*CNN, *FAST, *BEST, "--train_file", str(rows), "--num_folds", "10"]
    folder = tmp_path_factory.mktemp("whole") / "out"
    main([*flags, "--output_dir", str(folder)])
    return flags, folder


def read(path):
    return json.loads(path.read_text())


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def files_in(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".log"}


def fold_folders(folder):
    return sorted(path for path in (folder / "fold_runs").iterdir() if path.name.startswith("seed"))


def assert_same_folds(one, other):
    """Bit for bit, but for the time that it took."""
    folders = [fold_folders(folder) for folder in (one, other)]
    assert [path.name for path in folders[0]] == [path.name for path in folders[1]]
    for first, second in zip(*folders, strict=True):
        assert (first / "probabilities.npy").read_bytes() == (second / "probabilities.npy").read_bytes(), first.name
        facts = [read(path / "fold.json") for path in (first, second)]
        for found in facts:
            del found["seconds"], found["train_seconds"]
        assert facts[0] == facts[1]
    predicted = [folder / "predictions_out_of_fold.jsonl" for folder in (one, other)]
    assert predicted[0].read_bytes() == predicted[1].read_bytes()
    results = [read(folder / "kfold_results.json") for folder in (one, other)]
    for found in results:
        for fold in found["folds"]:
            del fold["seconds"], fold["train_seconds"]
    assert results[0] == results[1]


def begin(argv, fold=None, step=0, environment=None):
    """The recipe in a process of its own."""
    return begin_script(
        INTERRUPTED, ARGV=[str(flag) for flag in argv], FOLD=fold, STEP=step, ENVIRONMENT=environment or {}
    )


def planned(argv, **changes):
    """The cross-validation that a command line describes, without training anything."""
    parsed = parse_arguments(KFOLD_SETTINGS.values(), argv, "A test.", complete=complete_kfold_values)
    settings = dict(zip(KFOLD_SETTINGS, parsed, strict=True))
    numbers, group = settings["curriculum"].number_columns(), settings["kfold"].group_column
    data = load_text_data(settings["data"], settings["model"], ("train",), None, numbers, group)
    return plan_folds(settings, data, RunRecord([], settings).facts["arguments"])


# ---- What a run leaves ----


def test_every_row_is_predicted_by_a_model_that_did_not_see_it(whole, rows):
    _, folder = whole
    given = read(rows)
    predicted = lines(folder / "predictions_out_of_fold.jsonl")
    assert [row["index"] for row in predicted] == list(range(60))
    assert [(row["text"], row["label"]) for row in predicted] == [(row["text"], row["label"]) for row in given]
    labels = [row["label"] for row in given]
    # Rows with equal texts would be dealt as groups.
    assert len({row["text"] for row in given}) == 60
    dealt = StratifiedKFold(10, shuffle=True, random_state=42).split(labels, labels)
    for index, (_, test) in enumerate(dealt):
        own = lines(folder / "fold_runs" / f"seed42_repeat0_fold{index}" / "predictions.jsonl")
        assert [row["text"] for row in own] == [given[row]["text"] for row in test]
        assert [row["probabilities"] for row in own] == [predicted[row]["probabilities"] for row in test]


def test_results_of_folds_and_over_all(whole):
    _, folder = whole
    results = read(folder / "kfold_results.json")
    assert results["metric"] == "accuracy" and len(results["folds"]) == 10
    for index, fold in enumerate(results["folds"]):
        assert (fold["seed"], fold["repeat"], fold["fold"]) == (42, 0, index)
        assert fold["train_rows"] == 54 and fold["test_rows"] == 6 and fold["validation_rows"] == 5
        own = lines(folder / "fold_runs" / f"seed42_repeat0_fold{index}" / "predictions.jsonl")
        labels, answers = [row["label"] for row in own], [row["prediction"] for row in own]
        assert fold["metrics"]["accuracy"] == pytest.approx(accuracy_score(labels, answers))
        assert fold["metrics"]["f1_macro"] == pytest.approx(f1_score(labels, answers, average="macro"))
        assert fold["seconds"] > fold["train_seconds"] > 0
    for name in ("accuracy", "loss", "f1_macro"):
        values = [fold["metrics"][name] for fold in results["folds"]]
        interval = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert results["mean"][name] == pytest.approx(statistics.mean(values))
        assert results["std"][name] == pytest.approx(statistics.stdev(values))
        assert results["ci95"][name] == pytest.approx([interval.low, interval.high])
    pooled = lines(folder / "predictions_out_of_fold.jsonl")
    right = accuracy_score([row["label"] for row in pooled], [row["prediction"] for row in pooled])
    assert results["pooled"]["metrics"]["accuracy"] == pytest.approx(right)
    low, high = results["pooled"]["ci95"]["accuracy"]
    assert low <= right <= high and results["pooled"]["rows"] == 60


def test_no_model_stays_and_the_report_is_whole(whole):
    _, folder = whole
    left = {path.name for path in folder.rglob("*")}
    assert not [name for name in left if name.startswith("checkpoint-") or name.endswith((".safetensors", ".bin"))]
    assert left >= {"run.json", "training.log", "kfold.png", "report.html", "kfold_results.json"}
    report = (folder / "report.html").read_text()
    assert "Accuracy of each of 10 folds" in report and "data:image/png;base64," in report
    results = json.loads((folder / "kfold_results.json").read_text())
    for fold in results["folds"]:
        name = f"{fold['fold']} of seed {fold['seed']}, repeat {fold['repeat']}"
        shown = re.search(rf'<th scope="row">{name}</th>(.*?)</tr>', report)[1]
        assert f">{fold['metrics']['accuracy']:.4f}<" in shown and f">{fold['test_rows']:,}<" in shown
    low, high = results["ci95"]["accuracy"]
    assert (
        f"{low:.4f} to {high:.4f}" in report and f'<td class="number">{results["std"]["accuracy"]:.4f}</td>' in report
    )
    record = read(folder / "run.json")
    assert record["arguments"]["kfold"]["num_folds"] == 10 and record["folds"]["mean"]["accuracy"] > 0
    log = (folder / "training.log").read_text()
    assert "seed42_repeat0_fold9 is finished" in log
    assert "eval_accuracy" in (folder / "fold_runs" / "seed42_repeat0_fold3" / "training.log").read_text()


@pytest.mark.parametrize("kind", ["multi", "number"])
def test_other_kinds_of_labels(main, tmp_path, kind):
    (tmp_path / "train.json").write_text(json.dumps(make_rows(60, 0, kind)))
    flags = ["--train_file", str(tmp_path / "train.json"), "--num_folds", "3", "--output_dir", str(tmp_path / "out")]
    main([*CNN, *FAST, *flags])
    results = read(tmp_path / "out" / "kfold_results.json")
    pooled = lines(tmp_path / "out" / "predictions_out_of_fold.jsonl")
    labels, answers = [row["label"] for row in pooled], [row["prediction"] for row in pooled]
    if kind == "number":
        assert results["metric"] == "spearman"
        assert results["pooled"]["metrics"]["mae"] == pytest.approx(mean_absolute_error(labels, answers), abs=1e-6)
    else:
        assert results["metric"] == "f1_micro"
        flags = [[[name in row for name in ("bad", "good", "long")] for row in found] for found in (labels, answers)]
        right = f1_score(*flags, average="micro", zero_division=0)
        assert results["pooled"]["metrics"]["f1_micro"] == pytest.approx(right)


def test_seeds_repeats_and_kept_models(main, rows, tmp_path):
    flags = ["--train_file", str(rows), "--num_folds", "2", "--num_repeats", "2", "--fold_seeds", "1", "5"]
    main([*CNN, *FAST, *flags, "--save_fold_models", "true", "--output_dir", str(tmp_path / "out")])
    results = read(tmp_path / "out" / "kfold_results.json")
    names = [(fold["seed"], fold["repeat"], fold["fold"]) for fold in results["folds"]]
    assert names == [(seed, repeat, fold) for seed in (1, 5) for repeat in (0, 1) for fold in (0, 1)]
    assert len({fold["training_seed"] for fold in results["folds"]}) == 8
    # Those of the first dealing.
    pooled = lines(tmp_path / "out" / "predictions_out_of_fold.jsonl")
    own = [
        lines(tmp_path / "out" / "fold_runs" / f"seed1_repeat0_fold{index}" / "predictions.jsonl") for index in (0, 1)
    ]
    by_text = {row["text"]: row["probabilities"] for row in own[0] + own[1]}
    assert [row["probabilities"] for row in pooled] == [by_text[row["text"]] for row in pooled]
    # The word list of a fold has words of its training texts only.
    for index in (0, 1):
        folder = tmp_path / "out" / "fold_runs" / f"seed1_repeat0_fold{index}"
        assert (folder / "model.safetensors").is_file() and not list(folder.glob("checkpoint-*"))


# ---- Nothing of a fold's rows reaches its training ----


def test_words_and_copies_are_of_the_training_rows_only(tmp_path):
    given = make_rows(60, 0)
    for index, row in enumerate(given):
        row["text"] += f" word{chr(97 + index // 26)}{chr(97 + index % 26)}"
    (tmp_path / "train.json").write_text(json.dumps(given))
    argv = [*CNN, *FAST, "--train_file", str(tmp_path / "train.json"), "--num_folds", "4", "--output_dir", "out"]
    run = planned([*argv, "--augmentation_enabled", "true", "--augmentation_factor", "2"])
    for number, fold in enumerate(run.folds):
        data = fold_data(run, number)
        texts = {split: set(part["text"]) for split, part in data.splits.items()}
        assert texts["test"] == {given[row]["text"] for row in fold.test}
        assert len(set.union(*texts.values())) == sum(map(len, texts.values())) == 60
        built = build_classifier(run.settings, data)
        known = {word for word in built.tokenizer.get_vocab() if word.startswith("word")}
        assert known == {text.split()[-1] for text in texts["train"]}
        assert built.data.splits["validation"]["text"] == data.splits["validation"]["text"]
        copies = built.data.splits["train"]
        assert len(copies) > 100 and not texts["test"] & set(copies["text"])


def test_groups_are_on_one_side_of_each_split(tmp_path):
    generator = random.Random(0)
    given = [{**row, "author": f"author {generator.randrange(20)}"} for row in make_rows(80, 0)]
    (tmp_path / "train.json").write_text(json.dumps(given))
    author = {row["text"]: row["author"] for row in given}
    argv = [*CNN, *FAST, "--train_file", str(tmp_path / "train.json"), "--num_folds", "4", "--output_dir", "out"]
    run = planned([*argv, "--group_column", "author"])
    for number in range(4):
        data = fold_data(run, number)
        of_split = [{author[text] for text in part["text"]} for part in data.splits.values()]
        assert len(data.splits) == 3 and all(of_split)
        assert len(set.union(*of_split)) == sum(map(len, of_split))
        assert "group" not in data.splits["train"].column_names


def test_copies_in_the_file_are_trained_on_only(main, tmp_path):
    given = []
    for source, row in enumerate(make_rows(40, 0)):
        given.append({**row, "source_idx": source, "is_augmented": False})
        given.append({**row, "text": row["text"] + " indeed", "source_idx": source, "is_augmented": True})
    (tmp_path / "train.json").write_text(json.dumps(given))
    argv = [*CNN, *FAST, "--train_file", str(tmp_path / "train.json"), "--num_folds", "4"]
    argv += ["--output_dir", str(tmp_path / "out")]
    run = planned(argv)
    for number in range(4):
        splits = fold_data(run, number).splits
        assert not any(splits["test"]["is_augmented"]) and not any(splits["validation"]["is_augmented"])
        tested = set(splits["test"]["source_idx"]) | set(splits["validation"]["source_idx"])
        assert not tested & set(splits["train"]["source_idx"]) and any(splits["train"]["is_augmented"])
    main(argv)
    pooled = lines(tmp_path / "out" / "predictions_out_of_fold.jsonl")
    assert [row["text"] for row in pooled] == [row["text"] for row in given if not row["is_augmented"]]
    assert "40 augmented copies are trained on only" in " ".join(read(tmp_path / "out" / "run.json")["notes"])


# ---- Going on ----


def test_a_run_that_was_killed_redoes_only_the_fold_it_was_in(main, whole, tmp_path, capsys):
    flags, folder = whole
    flags = [*flags, "--output_dir", str(tmp_path / "out")]
    assert exit_code_of(begin(flags, "seed42_repeat0_fold6", 3)) == -signal.SIGKILL
    done = [tmp_path / "out" / "fold_runs" / f"seed42_repeat0_fold{index}" for index in range(6)]
    assert fold_folders(tmp_path / "out")[:6] == done
    assert not (tmp_path / "out" / "fold_runs" / "seed42_repeat0_fold6").exists()
    before = {path: path.stat().st_mtime_ns for path in done}
    with pytest.raises(UsageError, match=r"holds another run .*--resume_from_checkpoint true"):
        main(flags)
    main([*flags, "--resume_from_checkpoint", "true"])
    assert {path: path.stat().st_mtime_ns for path in done} == before
    assert_same_folds(tmp_path / "out", folder)
    assert not list((tmp_path / "out" / "fold_runs").glob("*.part*"))


def test_going_on_with_something_else_is_refused(main, whole, rows, tmp_path):
    flags, folder = whole
    flags = [*flags, "--output_dir", str(folder), "--resume_from_checkpoint", "true"]
    before = files_in(folder)
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(read(rows)[:-1]))
    for more, message in (
        (("--learning_rate", "2e-2"), r"training.learning_rate \(0.01 then, 0.02 now\)"),
        (("--num_filters", "5", "--fold_seeds", "1"), r"textcnn.num_filters \(4 then, 5 now\), kfold.fold_seeds"),
        (("--validation_size", "0.2"), r"data.validation_size \(0.1 then, 0.2 now\)"),
        (("--num_folds", "9"), r"kfold.num_folds \(10 then, 9 now\)"),
        (("--train_file", changed), "begun with other rows"),
        (("--resume_from_checkpoint", "somewhere"), "a cross-validation goes on in its output_dir"),
    ):
        with pytest.raises(UsageError, match=message):
            main([*flags, *map(str, more)])
        assert files_in(folder) == before
    with pytest.raises(UsageError, match="holds no cross-validation"):
        main([*flags, "--output_dir", str(tmp_path / "nothing")])
    assert not (tmp_path / "nothing").exists()


def test_going_on_elsewhere_and_otherwise_shown_changes_nothing(main, whole, rows, tmp_path):
    flags, folder = whole
    copy = tmp_path / "copy.json"
    copy.write_text(rows.read_text())
    results = (folder / "kfold_results.json").read_bytes()
    more = ["--train_file", str(copy), "--logging_steps", "3", "--run_name", "again", "--num_workers", "2"]
    main([*flags, *more, "--output_dir", str(folder), "--resume_from_checkpoint", "true"])
    assert (folder / "kfold_results.json").read_bytes() == results


def test_another_run_is_replaced_as_a_whole(main, rows, tmp_path):
    flags = [*CNN, *FAST, "--train_file", str(rows), "--output_dir", str(tmp_path / "out")]
    main([*flags, "--num_folds", "3"])
    main([*flags, "--num_folds", "2", "--overwrite"])
    assert len(fold_folders(tmp_path / "out")) == 2


def test_memory_stays_flat(rows, tmp_path):
    argv = [
        *CNN,
        *FAST,
        "--train_file",
        str(rows),
        "--num_folds",
        "25",
        "--num_repeats",
        "2",
        "--num_train_epochs",
        "1",
    ]
    run = planned([*argv, "--output_dir", str(tmp_path / "out"), "--disable_tqdm", "true"])
    (tmp_path / "out" / "fold_runs").mkdir(parents=True)
    sizes = []

    class Watched(OwnFolds):
        def take(self):
            # Without the pages of files, which come and go.
            status = Path("/proc/self/status").read_text()
            sizes.append(int(re.search(r"RssAnon:\s+(\d+) kB", status).group(1)) / 1024)
            return super().take()

    train_here(run, Watched(range(50)))
    assert len(fold_folders(tmp_path / "out")) == 50
    # The first folds import what they need.
    assert sizes[-1] - sizes[10] < 15, sizes


# ---- Several processes ----


def test_two_workers_do_what_one_does(main, whole, tmp_path):
    flags, folder = whole
    main([*flags, "--num_workers", "2", "--output_dir", str(tmp_path / "out")])
    assert_same_folds(tmp_path / "out", folder)


def start(argv, **environment):
    """The recipe as a program."""
    return subprocess.Popen(
        [sys.executable, str(RECIPE), *argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
        # A shell that runs the tests in the background lets its programs ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(what, process=None, seconds=600):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        assert process is None or process.poll() is None, process.stderr.read()
        time.sleep(0.1)


def workers_of(process):
    (server,) = (child for child in psutil.Process(process.pid).children() if "forkserver" in " ".join(child.cmdline()))
    return server.children()


def training_now(folder):
    """Folders of folds in which a training has begun."""
    return [path for path in (folder / "fold_runs").glob("*.part*") if (path / "training.log").is_file()]


SLOW = ["--num_train_epochs", "400"]


def test_a_worker_that_dies_is_reported_and_none_stays(rows, tmp_path):
    folder = tmp_path / "out"
    flags = [*CNN, *FAST, *SLOW, "--train_file", str(rows), "--num_folds", "3", "--output_dir", str(folder)]
    process = start([*flags, "--num_workers", "2"])
    wait_for(lambda: len(training_now(folder)) == 2, process)
    first, second = workers_of(process)
    first.kill()
    _, said = process.communicate(timeout=600)
    assert process.returncode == 2
    assert "was ended by SIGKILL while it trained seed42_repeat0_fold" in said and "The last lines of its log" in said
    assert "--resume_from_checkpoint true goes on" in said
    wait_for(lambda: not second.is_running(), seconds=60)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_who_started_them(rows, tmp_path, how):
    folder = tmp_path / "out"
    flags = [*CNN, *FAST, *SLOW, "--train_file", str(rows), "--num_folds", "3", "--output_dir", str(folder)]
    flags += ["--dataloader_num_workers", "1", "--dataloader_persistent_workers", "true"]
    process = start([*flags, "--num_workers", "2"])
    wait_for(lambda: len(training_now(folder)) == 2, process)
    workers = workers_of(process)
    assert len(workers) == 2
    wait_for(lambda: all(worker.children() for worker in workers), process)
    # What loads data is forked from the worker, not from another server.
    loaders = [loader for worker in workers for loader in worker.children()]
    for loader in loaders:
        # One that loads for an evaluation may have ended.
        with suppress(psutil.NoSuchProcess):
            assert not loader.children()
    process.send_signal(how)
    assert process.wait(600) == (130 if how == signal.SIGINT else -signal.SIGKILL)
    wait_for(lambda: not any(each.is_running() for each in [*workers, *loaders]), seconds=60)


def test_workers_share_the_machine():
    assert [share_of_machine(number, 3, 8, []) for number in range(3)] == [{"OMP_NUM_THREADS": "2"}] * 3
    assert share_of_machine(1, 4, 2, []) == {"OMP_NUM_THREADS": "1"}
    devices = [share_of_machine(number, 3, 8, ["2", "5"])["CUDA_VISIBLE_DEVICES"] for number in range(3)]
    assert devices == ["2", "5", "2"]


def claims(storage):
    """Begin, end and outcome of each claim of each fold, from what Optuna wrote down."""
    from hf_ext import open_storage

    opened = open_storage(str(storage))
    (study,) = opened.get_all_studies()
    found = {}
    for trial in opened.get_all_trials(study._study_id):
        found.setdefault(trial.user_attrs["fold"], []).append(
            (trial.datetime_start, trial.datetime_complete, trial.state.name)
        )
    return found


@pytest.mark.parametrize("name", ["folds.log", "folds.db"])
def test_machines_share_folds_and_succeed_a_dead_one(main, whole, tmp_path, name):
    flags, expected = whole
    folder, storage = tmp_path / "out", tmp_path / name
    flags = [*flags, "--output_dir", str(folder), "--storage", str(storage), "--worker_timeout", "6"]
    dying = begin(flags)
    wait_for((folder / "fold_runs" / "plan.json").is_file)
    living = begin(flags)
    wait_for(lambda: any(path.name.endswith(f"-{dying.pid}") for path in training_now(folder)))
    os.kill(dying.pid, signal.SIGKILL)
    assert exit_code_of(dying) == -signal.SIGKILL and exit_code_of(living) == 0
    assert_same_folds(folder, expected)
    found = claims(storage)
    assert set(found) == {-1, *range(10)}
    for number, of_fold in found.items():
        assert [state for *_, state in of_fold].count("COMPLETE") == 1, (number, of_fold)
        held = sorted(of_fold)
        # No fold was in two hands at once.
        for (_, ended, state), (begun, *_) in itertools.pairwise(held):
            assert state == "FAIL" and ended <= begun
    # Whoever comes later finds all done, unless it is another cross-validation.
    main(flags)
    with pytest.raises(UsageError, match=r"training.learning_rate \(0.01 then, 0.02 now\)"):
        main([*flags, "--learning_rate", "2e-2"])
    assert claims(storage) == found


def test_two_processes_train_each_fold_together(rows, tmp_path):
    flags = [*CNN, *FAST, *BEST, "--train_file", str(rows), "--num_folds", "2", "--output_dir", str(tmp_path / "out")]
    processes = []
    with own_port() as port:
        for rank in ("0", "1"):
            launched = {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"}
            launched |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            processes.append(begin(flags, environment=launched))
        assert [exit_code_of(process) for process in processes] == [0, 0]
    pooled = lines(tmp_path / "out" / "predictions_out_of_fold.jsonl")
    assert [row["text"] for row in pooled] == [row["text"] for row in read(rows)]
    assert len(fold_folders(tmp_path / "out")) == 2


# ---- Trackers ----


def test_a_tracked_run_for_each_fold(main, rows, tmp_path):
    flags = [*CNN, *FAST, "--train_file", str(rows), "--num_folds", "2", "--output_dir", str(tmp_path / "out")]
    main([*flags, "--report_to", "tensorboard"])
    events = list((tmp_path / "out").rglob("events.out.tfevents.*"))
    assert {path.parents[2].name for path in events} == {"seed42_repeat0_fold0", "seed42_repeat0_fold1"}


def test_one_group_of_weights_and_biases(rows, tmp_path):
    flags = [*CNN, *FAST, "--train_file", str(rows), "--num_folds", "2", "--output_dir", str(tmp_path / "out")]
    begun = tracked_runs(RECIPE, [*flags, "--run_name", "mine"], tmp_path)
    assert begun == [("mine-seed42_repeat0_fold0", "mine"), ("mine-seed42_repeat0_fold1", "mine")]


# ---- Bad input ----


@pytest.fixture
def attempt(main, tmp_path):
    """Run on some rows; returns the message, after seeing that nothing was written."""

    def attempt(content, *flags):
        (tmp_path / "train.json").write_text(json.dumps(content))
        before = sorted(tmp_path.rglob("*"))
        given = ["--train_file", str(tmp_path / "train.json"), "--output_dir", str(tmp_path / "out")]
        with pytest.raises(UsageError) as error:
            main([*CNN, *FAST, *given, *flags])
        assert sorted(tmp_path.rglob("*")) == before
        return str(error.value)

    return attempt


def test_more_folds_than_the_rarest_class_has_rows(attempt):
    rows = make_rows(40, 0) + [{"text": f"so so {index}", "label": "neutral"} for index in range(3)]
    message = attempt(rows, "--num_folds", "4")
    assert "num_folds is 4, but the class 'neutral' has only 3 rows (rows 41, 42, 43)" in message
    assert "Take at most 3 folds" in message


def test_groups_that_cannot_be_dealt(attempt):
    rows = [{**row, "author": "Ann" if index < 20 else index} for index, row in enumerate(make_rows(40, 0))]
    message = attempt(rows, "--num_folds", "5", "--group_column", "author")
    assert 'author "Ann") has 20 of 40 rows' in message and "Take at most 2 folds" in message
    rows = [{**row, "author": row["label"] + str(index % 3)} for index, row in enumerate(make_rows(40, 0))]
    message = attempt(rows, "--num_folds", "5", "--group_column", "author")
    assert "are in only 3 groups" in message or "rows, which have to be in one fold" in message
    message = attempt(rows, "--group_column", "autor")
    assert "no column 'autor', which group_column names. Did you mean 'author'?" in message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--num_folds", "1"), "num_folds is 1; it must be at least 2"),
        (("--fold_seeds", "3", "3"), "fold_seeds is [3, 3]; it must be one or more different seeds"),
        (("--num_workers", "0"), "num_workers is 0; it must be at least 1"),
        (("--group_similarity", "2"), "group_similarity is 2"),
        (("--test_file", "x.json"), "test_file=x.json: in a cross-validation each model is tested on its fold"),
        (("--validation_file", "x.json"), "validation_file=x.json: in a cross-validation"),
        (("--test_size", "0.1"), "test_size=0.1: in a cross-validation"),
        (("--do_train", "false"), "do_train=false would leave a part out"),
        (("--push_to_hub", "true"), "push_to_hub: a cross-validation is no model"),
        (("--worker_timeout", "60"), "worker_timeout=60 has an effect only with --storage"),
        (("--storage", "x.log", "--worker_timeout", "1"), "worker_timeout is 1; it must be at least 2 seconds"),
        (("--storage", "x.log", "--overwrite"), "overwrite with storage=x.log: each machine that joins would remove"),
        (("--storage", "nowhere://x"), "storage=nowhere://x cannot be used: Can't load plugin"),
        (("--metric_for_best_model", "acuracy", "--load_best_model_at_end", "true"), "Did you mean 'accuracy'?"),
        (("--early_stopping_patience", "2", "--validation_size", "0"), "Early stopping needs evaluations"),
        (("--num_fold", "3"), "Did you mean 'num_folds'?"),
    ],
)
def test_settings(attempt, flags, message):
    assert message in attempt(make_rows(40, 0), *flags)


def test_launched_processes_do_not_start_workers(attempt, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = attempt(make_rows(40, 0), "--num_workers", "2")
    assert "2 processes were launched to train each fold together" in message


def test_too_few_rows_to_validate_on(attempt):
    message = attempt(make_rows(4, 0), "--num_folds", "2")
    assert "seed42_repeat0_fold0: the 2 rows outside of the fold are too few to hold out" in message
    assert "--validation_size 0" in message


def test_a_training_that_diverges_names_its_fold(main, rows, tmp_path):
    flags = [*CNN, *FAST, "--train_file", str(rows), "--num_folds", "2", "--output_dir", str(tmp_path / "out")]
    with pytest.raises(UsageError, match=r"seed42_repeat0_fold0: .* not finite"):
        main([*flags, "--learning_rate", "1e30", "--max_grad_norm", "0"])


def test_a_dry_run_writes_nothing(main, rows, tmp_path, capsys):
    main([*CNN, *FAST, "--train_file", str(rows), "--output_dir", str(tmp_path / "out"), "--dry_run"])
    assert "5 folds of 12 to 12 rows, dealt with the seed 42" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
