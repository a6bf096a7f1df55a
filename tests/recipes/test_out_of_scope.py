"""Texts of no class, as a user has them: a threshold from files, told on others, applied wherever a model is used."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from programs import run_launched

from hf_ext import UsageError, load_pipeline

from .conftest import BAD, FILLER, GOOD, load_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "run_classification.py"
CNN = ["--model_type", "textcnn", "--embed_size", "16", "--num_filters", "8", "--learning_rate", "1e-2"]
FAST = ["--num_train_epochs", "2", "--disable_tqdm", "true", "--preflight", "off", "--validation_size", "0.3"]


def strange_rows(count, seed):
    """Sentences with one word that tells a class, or none, labelled as some sets label them."""
    generator = random.Random(seed)
    words = [generator.choices(FILLER, k=5) + generator.choices(GOOD + BAD, k=index % 2) for index in range(count)]
    return [{"text": " ".join(each), "label": "oos"} for each in words]


@pytest.fixture
def files(tmp_path, write_data):
    flags = write_data(train=300, test=60)
    for seed, (name, count) in enumerate((("tune", 30), ("more", 20), ("tell", 40))):
        (tmp_path / f"{name}.json").write_text(json.dumps(strange_rows(count, seed)))
    return flags


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_json(path):
    return json.loads(path.read_text())


def test_a_run_tunes_tells_saves_and_others_apply_it(run_classification, run_evaluation, files, tmp_path, capsys):
    out, tell = tmp_path / "model", ["--out_of_scope_test_files", str(tmp_path / "tell.json")]
    tune = f"{tmp_path / 'tune.json'},{tmp_path / 'more.json'}"
    run_classification(
        [*CNN, *FAST, *files, "--calibrate", "true", "--out_of_scope_files", tune, *tell, "--output_dir", str(out)]
    )
    found, results = read_json(out / "calibration.json"), read_json(out / "test_results.json")
    threshold, strangers = found["out_of_scope_threshold"], read_lines(out / "predictions_out_of_scope.jsonl")
    assert found["fitted_on"]["out_of_scope_rows"] == 50
    assert [row["text"] for row in strangers] == [row["text"] for row in read_json(tmp_path / "tell.json")]
    turned_away = [max(row["probabilities"].values()) < threshold for row in strangers]
    assert [row["out_of_scope"] for row in strangers] == turned_away
    assert results["test_out_of_scope_recall"] == pytest.approx(np.mean(turned_away))
    assert 0.3 < np.mean(turned_away) < 1
    rows = read_lines(out / "predictions_test.jsonl")
    answered = [max(row["probabilities"].values()) >= threshold for row in rows]
    right = [row["label"] == row["prediction"] for row in rows]
    assert results["test_coverage"] == pytest.approx(np.mean(answered))
    assert results["test_in_scope_accuracy"] == pytest.approx(np.mean(np.logical_and(answered, right)))
    assert results["test_accuracy"] == pytest.approx(np.mean(right))
    record, page = read_json(out / "run.json"), (out / "report.html").read_text()
    assert {"out_of_scope_validation", "out_of_scope_test"} <= record["data"].keys()
    assert any("counts as out of scope" in note for note in record["notes"])
    assert "The column label of" in capsys.readouterr().out
    assert "Recall out of scope" in page

    again = tmp_path / "again"
    run_evaluation(
        ["--model_path", str(out), "--test_file", str(tmp_path / "test.json"), *tell, "--output_dir", str(again)]
    )
    for name in ("test", "out_of_scope"):
        assert read_lines(again / f"predictions_{name}.jsonl") == read_lines(out / f"predictions_{name}.jsonl")
    assert read_json(again / "test_results.json")["test_out_of_scope_recall"] == results["test_out_of_scope_recall"]

    classify = load_pipeline(out, device="cpu")
    shown = [*strangers[:20], *rows[:20]]
    texts = [row["text"] for row in shown]
    for row, answer, listed in zip(shown, classify(texts), classify(texts, top_k=None), strict=True):
        assert answer["label"] == ("out_of_scope" if row["out_of_scope"] else row["prediction"])
        assert answer["score"] == pytest.approx(max(row["probabilities"].values()), abs=2e-5)
        assert sum(item["predicted"] for item in listed) == (not row["out_of_scope"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--out_of_scope_files", "tune.json"], "no effect without calibrate"),
        (["--out_of_scope_test_files", "tell.json"], "the model turns no text away"),
        (["--calibrate", "true", "--out_of_scope_files", "nowhere.json"], "There is no file nowhere.json"),
        (["--calibrate", "true", "--out_of_scope_files", "pairs.json"], "pairs of texts, but the validation rows"),
        (
            ["--calibrate", "true", "--out_of_scope_files", "tune.json", "--out_of_scope_test_files", "tell.json",
             "--do_train", "--do_eval"],
            "there are no test rows to go with them",
        ),
    ],
)  # fmt: skip
def test_what_is_refused_before_anything_is_written(run_classification, files, tmp_path, monkeypatch, flags, said):
    (tmp_path / "pairs.json").write_text(json.dumps([{"text_a": "one", "text_b": "two"}] * 20))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said):
        run_classification([*CNN, *FAST, *files, *flags, "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_folds_do_not_tell_it(files, tmp_path):
    flags = [*CNN, *files[:2], "--out_of_scope_test_files", str(tmp_path / "tell.json")]
    with pytest.raises(UsageError, match=r"told by run_classification\.py and run_evaluation\.py"):
        load_recipe("run_kfold").main([*flags, "--output_dir", str(tmp_path / "out")])


def test_two_processes_tune_and_tell_one_threshold(files, tmp_path):
    # Odd numbers: rows that fill up the last batch of a process must not count.
    for name, count in (("tune", 31), ("tell", 41)):
        (tmp_path / f"{name}.json").write_text(json.dumps(strange_rows(count, count)))
    out = tmp_path / "out"
    flags = [*CNN, *FAST, *files, "--calibrate", "true", "--out_of_scope_files", tmp_path / "tune.json"]
    flags += ["--out_of_scope_test_files", tmp_path / "tell.json", "--output_dir", out]
    for done in run_launched(RECIPE, flags):
        assert done.returncode == 0, done.stderr
    found, strangers = read_json(out / "calibration.json"), read_lines(out / "predictions_out_of_scope.jsonl")
    assert found["fitted_on"]["out_of_scope_rows"] == 31
    assert [row["text"] for row in strangers] == [row["text"] for row in read_json(tmp_path / "tell.json")]
    turned_away = [max(row["probabilities"].values()) < found["out_of_scope_threshold"] for row in strangers]
    assert [row["out_of_scope"] for row in strangers] == turned_away
    recall = read_json(out / "test_results.json")["test_out_of_scope_recall"]
    assert recall == pytest.approx(np.mean(turned_away)) and 0 < recall <= 1
