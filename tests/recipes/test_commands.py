"""The commands as a user types them, in processes of their own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ACCELERATE = Path(sys.executable).parent / "accelerate"


def command(*words, cwd):
    environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run([str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True)


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


def test_two_processes_train_one_model(tmp_path, write_data):
    flags = write_data()
    settings = ["--model_type", "textcnn", "--embed_size", "16", "--num_filters", "8", "--dropout_prob", "0"]
    settings += ["--learning_rate", "1e-2", "--num_train_epochs", "2", "--mixed_precision", "no", *flags]
    two = command(
        *(ACCELERATE, "launch", "--config_file", ROOT / "configs/accelerate/cpu_2proc.yaml"),
        *(ROOT / "recipes/run_classification.py", *settings, "--per_device_train_batch_size", "4"),
        *("--output_dir", tmp_path / "two"),
        cwd=tmp_path,
    )
    assert two.returncode == 0, two.stderr[-2000:]
    one = command(
        *(sys.executable, ROOT / "recipes/run_classification.py", *settings, "--per_device_train_batch_size", "8"),
        *("--output_dir", tmp_path / "one"),
        cwd=tmp_path,
    )
    assert one.returncode == 0, one.stderr[-2000:]
    losses = [json.loads((tmp_path / name / "all_results.json").read_text())["test_loss"] for name in ("one", "two")]
    assert abs(losses[0] - losses[1]) < 1e-3 * losses[0]


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
    result = command(sys.executable, ROOT / "recipes/run_classification.py", "--help", cwd=tmp_path)
    assert result.returncode == 0
    for group in ("model:", "textcnn:", "data:", "training:", "run:"):
        assert f"\n{group}\n" in result.stdout
