import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from programs import run_program

from hf_ext import UsageError

from .conftest import load_recipe, make_rows

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run_preprocessing():
    return load_recipe("run_preprocessing").main


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "dataset" / "raw"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text(json.dumps(make_rows(200, 0) + make_rows(20, 0)))
    (folder / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in make_rows(100, 1)))
    return folder


def rows_of(folder):
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json") if path.stem != "data_report"}


def test_the_guide_s_command(tmp_path, raw):
    words = ["--input_dir", "dataset/raw", "--output_dir", "dataset/processed"]
    words += ["--config", ROOT / "configs" / "data_config.yaml"]
    recipe = ROOT / "recipes" / "run_preprocessing.py"
    command = [str(word) for word in (sys.executable, recipe, *words)]
    environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    results = [
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True),
        run_program(recipe, words, tmp_path, environment),
    ]
    assert [result.returncode for result in results] == [0, 0], results[0].stderr[-2000:]
    out = tmp_path / "dataset" / "processed"
    rows = rows_of(out)
    assert set(rows) == {"train", "validation", "test"}
    assert not (out / ".preprocessing").exists()
    assert "320  read\n" in results[0].stdout and "Report: dataset/processed/data_report.html" in results[0].stdout
    table = [line.split() for line in results[0].stdout.splitlines() if line.startswith(("negative", "positive"))]
    counts = [
        [sum(row["label"] == name for row in rows[split]) for split in ("train", "validation", "test")]
        for name, *_ in table
    ]
    assert [list(map(int, line[1:])) for line in table] == counts
    assert results[1].stdout.splitlines()[-1] == "Up to date, nothing to do: dataset/processed/data_report.html"


def test_settings_of_a_file_that_training_reads_too(run_preprocessing, run_classification, raw, tmp_path, capsys):
    config = tmp_path / "data.yaml"
    config.write_text(
        f"""data:
  data_dir: {tmp_path / "out"}
  test_size: 0.2
preprocessing:
  deduplicate: exact
  label_map:
    negative: 0
    positive: 1
"""
    )
    run_preprocessing(["--input_dir", str(raw), "--output_dir", str(tmp_path / "out"), "--config", str(config)])
    rows = rows_of(tmp_path / "out")
    total = sum(map(len, rows.values()))
    assert len(rows["test"]) == round(0.2 * total) and len(rows["validation"]) == round(0.1 * total)
    assert {row["label"] for row in rows["train"]} == {0, 1}
    settings = ["--model_type", "textcnn", "--embed_size", "8", "--num_filters", "4", "--max_steps", "2"]
    run_classification([str(config), *settings, "--disable_tqdm", "true", "--output_dir", str(tmp_path / "model")])
    assert len((tmp_path / "model/predictions_test.jsonl").read_text().splitlines()) == len(rows["test"])


def test_a_dry_run_writes_nothing(run_preprocessing, raw, tmp_path, capsys):
    flags = ["--input_dir", str(raw), "--output_dir", str(tmp_path / "out")]
    run_preprocessing([*flags, "--dry_run", "true", "--clean_urls", "replace"])
    shown = capsys.readouterr().out
    assert "a.json (1 .json, for train): text: text; label: label" in shown and 'clean_urls: "replace"' in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--clean_urls", "delete"], "clean_urls is 'delete'; it must be one of keep, replace, remove"),
        (["--label_map", "{"], "label_map .* a JSON object"),
        (["--dedupliacte", "off"], "Did you mean 'deduplicate'"),
        (["--test_size", "1"], "test_size is 1.0"),
        (["--text_column_names", "body"], r"has no column 'body'\."),
    ],
)
def test_flags_that_do_not_fit(run_preprocessing, raw, tmp_path, flags, expected):
    with pytest.raises(UsageError, match=expected):
        run_preprocessing(["--input_dir", str(raw), "--output_dir", str(tmp_path / "out"), *flags])
    assert not (tmp_path / "out").exists()


def test_folders_without_data(run_preprocessing, tmp_path):
    with pytest.raises(UsageError, match=r"Pass --input_dir FOLDER and --output_dir FOLDER\."):
        run_preprocessing([])
    (tmp_path / "raw").mkdir()
    with pytest.raises(UsageError, match=r"holds no data\. What is read: \.json"):
        run_preprocessing(["--input_dir", str(tmp_path / "raw"), "--output_dir", str(tmp_path / "out")])
