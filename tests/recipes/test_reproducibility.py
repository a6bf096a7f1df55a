"""Runs that repeat another from its run.json, and runs that meet in one folder."""

import fcntl
import json
import os
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from hf_ext import (
    ALL_SETTINGS,
    DISTILLATION_SETTINGS,
    KFOLD_SETTINGS,
    MULTITASK_SETTINGS,
    SEARCH_SETTINGS,
    TRAINING_SETTINGS,
    RunRecord,
    check_output_dir,
    complete_distillation_values,
    complete_kfold_values,
    complete_multitask_values,
    complete_search_values,
    complete_training_values,
    open_output_dir,
    own_folders,
    parse_arguments,
    weights_digest,
)
from hf_ext.repeated_run import differences, repeated_settings
from hf_ext.run_lock import LOCK, check_free, lock_folder

CNN = ["--model_type", "textcnn", "--embed_size", "16", "--num_filters", "8", "--learning_rate", "1e-2"]
FAST = ["--num_train_epochs", "3", "--per_device_train_batch_size", "8", "--disable_tqdm", "true"]


@pytest.fixture
def output_dir(tmp_path):
    return tmp_path / "out"


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture
def first(run_classification, write_data, output_dir):
    """A run with what it has to find for itself, and its record."""
    flags = ["--learning_rate", "auto", "--lr_finder_num_iter", "30", "--class_weights", "balanced", "--bf16", "true"]
    own = [*CNN[:-2], *FAST, *flags, "--augmentation_enabled", "true", "--early_stopping_patience", "2"]
    run_classification([*own, *write_data(), "--output_dir", str(output_dir), "--overwrite", "--save_steps", "30"])
    return json.loads((output_dir / "run.json").read_text())


def test_run_json_repeats_a_run_beside_it(run_classification, first, output_dir, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in output_dir.rglob("*") if path.is_file()}
    capsys.readouterr()
    run_classification([str(output_dir / "run.json")])
    shown = capsys.readouterr().out
    assert f"This repeats {output_dir / 'run.json'}" in shown
    assert f"It is written to {tmp_path / 'out_repeat'}." in shown
    assert "DATA" not in shown
    assert "settings" not in shown.split("It is written")[0].replace("Data, model, settings, versions", "")
    assert same(weights_of(output_dir), weights_of(tmp_path / "out_repeat"))
    record = json.loads((tmp_path / "out_repeat/run.json").read_text())
    assert record["arguments"]["training"]["learning_rate"] == first["arguments"]["training"]["learning_rate"]
    assert record["arguments"]["training"]["bf16"] is True
    assert not set(record["repeats"]["differences"]) - {"code"}
    assert not (tmp_path / "out_repeat/lr_finder.json").exists()
    assert before == {path: path.stat().st_mtime_ns for path in output_dir.rglob("*") if path.is_file()}
    # A second repeat is not made over the first.
    with pytest.raises(ValueError, match=r"out_repeat holds another run \(run.json\)"):
        run_classification([str(output_dir / "run.json")])


def test_other_rows_versions_and_settings_are_said(run_classification, first, output_dir, tmp_path, capsys):
    record = {**first, "versions": {**first["versions"], "torch": "1.0.0"}}
    (output_dir / "run.json").write_text(json.dumps(record))
    rows = json.loads((tmp_path / "train.json").read_text())
    rows[0]["text"] += " again"
    (tmp_path / "train.json").write_text(json.dumps(rows))
    capsys.readouterr()
    flags = ["--num_train_epochs", "1", "--seed", "7", "--bf16", "false", "--output_dir", str(tmp_path / "other")]
    run_classification([str(output_dir / "run.json"), *flags])
    shown = capsys.readouterr().out
    said = shown.split("It is written")[0]
    assert "DATA (the results are not those of the same rows)" in said
    assert "the training rows are others" in said
    assert 'torch: "1.0.0" then' in said
    assert "training.num_train_epochs: 3.0 then, 1.0 now" in said
    assert "training.seed: 42 then, 7 now" in said
    assert "the weights that the training begins with are others" in said
    assert f"Note: The data is not that of {output_dir / 'run.json'}: the training rows are others" in shown
    now = json.loads((tmp_path / "other/run.json").read_text())
    assert now["repeats"]["differences"]["data"]
    assert now["arguments"]["training"]["bf16"] is False


TASKS = {"mood": {"train_file": "a.json", "weight": 0.5}, "topic": {"train_file": "b.csv", "validation_size": 0.0}}
TEACHER = ["--teacher_name_or_path", "somewhere", "--train_file", "a.json"]


@pytest.mark.parametrize(
    ("kinds", "complete", "flags"),
    [
        (TRAINING_SETTINGS, complete_training_values, ["--model_name_or_path", "somewhere", "--train_file", "a.json"]),
        (
            TRAINING_SETTINGS,
            complete_training_values,
            [*CNN, "--train_file", "a.json", "--eval_strategy", "no", "--save_strategy", "no", "--warmup_steps", "0.1"],
        ),
        (
            TRAINING_SETTINGS,
            complete_training_values,
            [*CNN, "--train_file", "a.json", "--lr_scheduler_type", "slanted_triangular", "--report_to", "tensorboard"],
        ),
        (
            TRAINING_SETTINGS,
            complete_training_values,
            [*CNN, "--train_file", "a.json", "--validation_file", "b.json", "--streaming", "true", "--max_steps", "9"],
        ),
        (
            TRAINING_SETTINGS,
            complete_training_values,
            ["--model_name_or_path", "somewhere", "--train_file", "a.json", "--peft", "lora", "--lora_r", "4"],
        ),
        (DISTILLATION_SETTINGS, complete_distillation_values, [*CNN, *TEACHER, "--temperature", "3"]),
        (MULTITASK_SETTINGS, complete_multitask_values, [*CNN, "--tasks", json.dumps(TASKS), "--max_seq_length", "9"]),
        (
            KFOLD_SETTINGS,
            complete_kfold_values,
            [*CNN[:-2], "--learning_rate", "auto", "--train_file", "a.json", "--num_folds", "3"],
        ),
        (
            SEARCH_SETTINGS,
            complete_search_values,
            [*CNN, "--train_file", "a.json", "--search_space", '{"learning_rate": [1e-4, 1e-3]}'],
        ),
    ],
)
def test_every_recorded_value_comes_back(tmp_path, kinds, complete, flags):
    path = tmp_path / "out" / "run.json"
    path.parent.mkdir()
    records = []
    for words in ([*flags, "--output_dir", str(tmp_path / "out"), "--overwrite"], [str(path)]):
        parsed = parse_arguments(kinds.values(), words, "", complete=complete, others=ALL_SETTINGS.values())
        records.append(RunRecord(words, dict(zip(kinds, parsed, strict=True))))
        if len(records) == 1:
            records[0].write(path.parent)
    assert not set(differences(json.loads(path.read_text()), records[1].facts, path)) - {"code"}
    arguments = [record.facts["arguments"] for record in records]
    changed = {
        f"{section}.{name}"
        for section, values in arguments[0].items()
        for name, value in values.items()
        if arguments[1][section][name] != value
    }
    assert changed - {"run.mixed_precision"} == {"training.output_dir", "run.overwrite"}
    assert arguments[1]["training"]["output_dir"] == str(tmp_path / "out_repeat")


def test_what_is_published_or_continued_is_not_repeated(tmp_path):
    record = {
        "command": ["run_classification.py"],
        "versions": {},
        "arguments": {
            "model": {"model_type": "textcnn"},
            "training": {"output_dir": "elsewhere/first", "push_to_hub": True, "resume_from_checkpoint": "true"},
            "run": {"overwrite": True, "mixed_precision": "auto"},
        },
    }
    settings = repeated_settings(record, tmp_path / "run.json")
    assert settings["training"] == {"output_dir": "elsewhere/first_repeat"}
    assert settings["run"] == {"mixed_precision": "no"}


def test_a_record_of_no_training_is_refused(tmp_path, run_classification):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"command": ["run_comparison.py"], "arguments": {"comparison": {}}, "versions": {}}))
    with pytest.raises(ValueError, match=r"run.json records run_comparison.py, which trains nothing"):
        run_classification([str(path)])


def test_the_record_of_another_recipe_is_refused(tmp_path, run_classification, write_data, first):
    record = {**first, "command": ["run_kfold.py", "args.json"]}
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"records a run of run_kfold.py, which .* cannot repeat"):
        run_classification([str(tmp_path / "run.json")])


def test_a_digest_tells_models_apart():
    model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    other.load_state_dict(model.state_dict())
    assert weights_digest(model) == weights_digest(other)
    other.bias.data[1] += 1e-6
    assert weights_digest(model) != weights_digest(other)


def test_full_determinism(run_classification, write_data, output_dir, tmp_path):
    flags = [*CNN, *FAST, *write_data(), "--full_determinism", "true"]
    try:
        run_classification([*flags, "--output_dir", str(output_dir)])
        assert torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)
        run_classification([str(output_dir / "run.json")])
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert same(weights_of(output_dir), weights_of(tmp_path / "out_repeat"))


# ---- Ends before the end ----


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(
    run_classification, write_data, output_dir, tmp_path, capsys
):
    flags = [*CNN, *FAST, *write_data()]
    run_classification([*flags, "--output_dir", str(tmp_path / "whole")])
    run_classification([*flags, "--output_dir", str(output_dir), "--save_steps", "500"])
    for path in output_dir.glob("checkpoint-*"):
        (path / "optimizer.pt").write_bytes((path / "optimizer.pt").read_bytes()[:100])
    (output_dir / "model.safetensors").write_bytes(b"half of it")
    capsys.readouterr()
    run_classification([*flags, "--output_dir", str(output_dir), "--resume_from_checkpoint", "true"])
    assert "checkpoint-54 is left out: optimizer.pt is cut off" in capsys.readouterr().err
    assert same(weights_of(output_dir), weights_of(tmp_path / "whole"))


def test_there_has_to_be_something_to_resume(run_classification, write_data, output_dir):
    flags = [*CNN, *FAST, *write_data(), "--output_dir", str(output_dir), "--resume_from_checkpoint"]
    with pytest.raises(ValueError, match=r"holds no run and no whole checkpoint-<step> folder"):
        run_classification([*flags, "true"])
    with pytest.raises(ValueError, match=r"There is no checkpoint nowhere to resume from"):
        run_classification([*flags, "nowhere"])
    assert not output_dir.exists()


# ---- Two runs, one folder ----


def fork(work):
    """A process that does something, says so, and waits."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            work()
            os.write(writing, b"done")
            time.sleep(600)
        finally:
            os._exit(1)
    os.close(writing)
    said = os.read(reading, 10)
    os.close(reading)
    assert said == b"done"
    return process


def end(process):
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


@pytest.mark.parametrize("more", [[], ["--overwrite"], ["--resume_from_checkpoint", "true"]])
def test_the_second_run_in_a_folder_is_refused(run_classification, write_data, output_dir, more):
    flags = [*CNN, *FAST, *write_data(), "--output_dir", str(output_dir), *more]
    other = fork(lambda: lock_folder(output_dir))
    try:
        before = {path.name: path.read_bytes() for path in output_dir.iterdir()}
        with pytest.raises(ValueError, match=rf"Another run is writing to output_dir .*: process {other} on ") as met:
            run_classification(flags)
        assert os.uname().nodename in str(met.value)
        assert "began at 20" in str(met.value)
        assert before == {path.name: path.read_bytes() for path in output_dir.iterdir()}
    finally:
        end(other)
    if more == ["--overwrite"]:
        # A kill leaves the folder free.
        run_classification(flags)
        assert not (output_dir / LOCK).exists()


def test_a_run_that_begins_between_the_look_and_the_lock_is_met(tmp_path):
    path = check_output_dir(str(tmp_path / "out"), overwrite=False)
    other = fork(lambda: lock_folder(path))
    try:
        with own_folders(), pytest.raises(ValueError, match=f"process {other} on "):
            open_output_dir(path, overwrite=True)
    finally:
        end(other)
    # It left a run meanwhile.
    (path / "run.json").write_text("{}")
    with own_folders(), pytest.raises(ValueError, match=r"holds another run \(run.json\)"):
        open_output_dir(path, overwrite=False)
    assert not (path / "training.log").exists()


def test_a_child_does_not_keep_the_lock_of_a_process_that_is_gone(tmp_path):
    def lock_and_leave_a_child():
        lock_folder(tmp_path)
        path = tmp_path / "child"
        if os.fork() == 0:
            # Here it has given up what it inherited.
            path.with_suffix(".part").write_text(str(os.getpid()))
            path.with_suffix(".part").rename(path)
            time.sleep(600)
        while not path.is_file():
            time.sleep(0.01)

    end(fork(lock_and_leave_a_child))
    child = int((tmp_path / "child").read_text())
    try:
        check_free(tmp_path)
        with own_folders():
            lock_folder(tmp_path)
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    finally:
        os.kill(child, signal.SIGKILL)


def test_processes_of_one_launch_may_look_at_the_same_time(tmp_path):
    (tmp_path / LOCK).write_text("{}")

    def look():
        fcntl.flock(open(tmp_path / LOCK), fcntl.LOCK_SH)  # noqa: SIM115 (until the process ends)

    other = fork(look)
    try:
        check_free(tmp_path)
    finally:
        end(other)
