"""The commands as a user types them, in processes of their own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from programs import run_program
from safetensors.torch import load_file
from starting import own_port

ROOT = Path(__file__).parents[2]
ACCELERATE = Path(sys.executable).parent / "accelerate"


def start(*words, cwd):
    environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    words, pipe = [str(word) for word in words], subprocess.PIPE
    return subprocess.Popen(words, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True)


def command(*words, cwd):
    process = start(*words, cwd=cwd)
    said = process.communicate()
    return subprocess.CompletedProcess(words, process.returncode, *said)


@pytest.mark.long
def test_quickstart_reaches_its_accuracy(tmp_path):
    result = command(
        *(ACCELERATE, "launch", "--num_processes", "1", ROOT / "recipes/run_classification.py"),
        *(ROOT / "configs/quickstart.json", "--output_dir", tmp_path / "out"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    splits = {
        name: len((tmp_path / "out" / f"predictions_{name}.jsonl").read_text().strip().split("\n"))
        for name in ("validation", "test")
    }
    assert splits == {"validation": 853, "test": 853}
    assert json.loads((tmp_path / "out" / "test_results.json").read_text())["test_accuracy"] >= 0.74
    assert re.search(r"test +accuracy +0\.7\d+ +\[0\.7\d+, 0\.\d+\]", result.stdout)


def test_two_machines_train_one_model(tmp_path, write_data):
    """Two launchers, as on machines with disks of their own, and one process with batches twice as large."""
    # 149 rows to train on: the last batch of an epoch has 5, of which the second process gets 1.
    flags = write_data(train=166)
    settings = ["--model_type", "textcnn", "--embed_size", "16", "--num_filters", "8", "--dropout_prob", "0"]
    settings += ["--learning_rate", "1e-2", "--num_train_epochs", "2", "--mixed_precision", "no", *flags]
    settings += ["--logging_steps", "5", "--disable_tqdm", "true"]
    with own_port() as port:
        machines = [
            start(
                *(ACCELERATE, "launch", "--config_file", ROOT / "configs/accelerate/cpu_2proc.yaml"),
                *("--num_machines", "2", "--machine_rank", rank, "--main_process_ip", "127.0.0.1"),
                *("--main_process_port", str(port), ROOT / "recipes/run_classification.py", *settings),
                *("--per_device_train_batch_size", "4", "--output_dir", tmp_path / f"two_{rank}"),
                cwd=tmp_path,
            )
            for rank in range(2)
        ]
        said = [machine.communicate(timeout=1200) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], [err[-2000:] for _, err in said]
    alone = [*settings, "--per_device_train_batch_size", "8", "--output_dir", tmp_path / "one"]
    one = run_program(ROOT / "recipes/run_classification.py", alone, tmp_path)
    assert one.returncode == 0, one.stderr[-2000:]
    assert_same_run(tmp_path / "one", tmp_path / "two_0")
    # The first machine says and writes what one process does, once; the second nothing but what it needs to resume.
    assert said[1][0].strip() == ""
    written = [path.name for path in (tmp_path / "two_1").rglob("*") if path.is_file()]
    assert set(written) <= {"rng_state_1.pth"}
    lines = [line for line in said[0][0].splitlines() if line.startswith(("Note: ", "test ", "Report: "))]
    assert len(lines) == len(set(lines)) > 5
    log = (tmp_path / "two_0" / "training.log").read_text().splitlines()
    steps = [line.split(" - ", 3)[3] for line in log if "hf_ext.trainers.base" in line]
    assert len(steps) == len(set(steps)) > 5


def assert_same_run(one, other):
    """Weights, results and predictions; within what sums in another order differ by."""
    weights, theirs = (load_file(folder / "model.safetensors") for folder in (one, other))
    for name, value in weights.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-5)
    results, others = (json.loads((folder / "all_results.json").read_text()) for folder in (one, other))
    measured = ("runtime", "per_second", "total_flos", "model_preparation_time")
    names = [name for name in results if not any(word in name for word in measured)]
    assert len(names) > 20
    assert {name: others[name] for name in names} == pytest.approx({name: results[name] for name in names}, rel=1e-3)
    for split in ("validation", "test"):
        rows, others = (
            [json.loads(line) for line in (folder / f"predictions_{split}.jsonl").read_text().splitlines()]
            for folder in (one, other)
        )
        for row, their in zip(rows, others, strict=True):
            assert their["probabilities"] == pytest.approx(row["probabilities"], abs=1e-4)
            assert {**their, "probabilities": None} == {**row, "probabilities": None}


def test_an_error_is_one_message_without_a_traceback(tmp_path):
    result = command(sys.executable, ROOT / "recipes/run_classification.py", "--lerning_rate", "1", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1] == (
        "run_classification.py: error: The command line has the flag --lerning_rate, which does not exist. "
        "Did you mean 'learning_rate'? (--help lists all.)"
    )
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_groups_the_flags(tmp_path):
    result = run_program(ROOT / "recipes/run_classification.py", ["--help"], tmp_path)
    assert result.returncode == 0
    for group in ("model:", "textcnn:", "data:", "training:", "run:"):
        assert f"\n{group}\n" in result.stdout
