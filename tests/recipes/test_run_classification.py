import json
import re

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

CNN = ["--model_type", "textcnn", "--embed_size", "16", "--num_filters", "8", "--learning_rate", "1e-2"]
FAST = ["--num_train_epochs", "3", "--per_device_train_batch_size", "8", "--disable_tqdm", "true"]
LEFT = {
    "README.md",
    "all_results.json",
    "config.json",
    "eval_results.json",
    "model.safetensors",
    "predictions_test.jsonl",
    "predictions_validation.jsonl",
    "report.html",
    "run.json",
    "test_results.json",
    "tokenizer.json",
    "train_results.json",
    "training.log",
}


def read_lines(path):
    return [json.loads(line) for line in path.read_text().strip().split("\n")]


@pytest.fixture
def output_dir(tmp_path):
    return tmp_path / "out"


def test_textcnn_from_file_to_report(run_classification, write_data, output_dir, capsys):
    flags = write_data()
    run_classification([*CNN, *FAST, *flags, "--output_dir", str(output_dir), "--logging_steps", "5"])
    assert {path.name for path in output_dir.iterdir()} >= LEFT

    rows = read_lines(output_dir / "predictions_test.jsonl")
    labels, predictions = [row["label"] for row in rows], [row["prediction"] for row in rows]
    results = json.loads((output_dir / "test_results.json").read_text())
    assert len(rows) == 40
    assert [row["index"] for row in rows] == list(range(40))
    assert results["test_accuracy"] == pytest.approx(accuracy_score(labels, predictions))
    assert results["test_f1_macro"] == pytest.approx(f1_score(labels, predictions, average="macro"))
    assert results["test_accuracy"] > 0.9
    assert results.items() <= json.loads((output_dir / "all_results.json").read_text()).items()

    record = json.loads((output_dir / "run.json").read_text())
    assert record["arguments"]["textcnn"]["embed_size"] == 16
    assert record["arguments"]["training"]["learning_rate"] == 0.01
    assert set(record["data"]) == {"train", "validation", "test"}
    assert record["versions"]["torch"].startswith("2.13.0")
    assert record["times"]["seconds"] > 0
    log = (output_dir / "training.log").read_text()
    assert re.search(r"^[\d-]+ [\d:,]+ - hf_ext.trainers.base - INFO - step 5: ", log, re.MULTILINE)
    shown = capsys.readouterr().out
    assert re.search(r"test +accuracy +[\d.]+ +\[[\d.]+, [\d.]+\]", shown)
    assert f"Report: {output_dir / 'report.html'}" in shown
    assert "16 rows taken from the training rows (stratified by class, seed 42)" in shown

    classify = pipeline("text-classification", model=str(output_dir))
    for row in rows[:5]:
        assert classify(row["text"])[0]["label"] == row["prediction"]


@pytest.mark.parametrize("kind", ["integer", "multi", "number"])
def test_kinds_of_labels_on_a_pretrained_model(run_classification, write_data, output_dir, tiny_bert, kind):
    model = ["--model_name_or_path", tiny_bert, "--learning_rate", "1e-2"]
    run_classification([*model, *FAST, *write_data(kind), "--output_dir", str(output_dir)])
    rows = read_lines(output_dir / "predictions_test.jsonl")
    results = json.loads((output_dir / "test_results.json").read_text())
    labels, predictions = [row["label"] for row in rows], [row["prediction"] for row in rows]
    if kind == "integer":
        assert set(labels) == {0, 1}
        assert results["test_accuracy"] == pytest.approx(accuracy_score(labels, predictions))
    elif kind == "multi":
        exact = np.mean([set(label) == set(guess) for label, guess in zip(labels, predictions, strict=True)])
        assert results["test_subset_accuracy"] == pytest.approx(exact)
        assert set(rows[0]["probabilities"]) == {"bad", "good", "long"}
    else:
        assert results["test_mse"] == pytest.approx(np.mean((np.array(labels) - np.array(predictions)) ** 2), rel=1e-4)
        assert results["test_loss"] == pytest.approx(results["test_mse"], rel=1e-2)
    config = AutoModelForSequenceClassification.from_pretrained(output_dir).config
    assert config.problem_type == {"integer": "single_label", "multi": "multi_label"}.get(kind, "regression") + (
        "" if kind == "number" else "_classification"
    )


def test_text_pairs(run_classification, tmp_path, output_dir, tiny_bert):
    rows = [
        {"text_a": f"the film was {a}", "text_b": f"a very {b} plot", "label": int(a == b)}
        for a in ("good", "bad", "dull")
        for b in ("good", "bad", "dull")
    ] * 8
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows if name == "train" else rows[:9])))
    files = ["--train_file", str(tmp_path / "train.jsonl"), "--test_file", str(tmp_path / "test.jsonl")]
    run_classification(["--model_name_or_path", tiny_bert, *FAST, *files, "--output_dir", str(output_dir)])
    assert read_lines(output_dir / "predictions_test.jsonl")[1]["text"] == ["the film was good", "a very bad plot"]


def test_unlabelled_test_rows_are_predicted(run_classification, write_data, tmp_path, output_dir):
    flags = write_data()
    (tmp_path / "test.json").write_text('[{"text": "a good film"}, {"text": ""}]')
    run_classification([*CNN, *FAST, *flags, "--output_dir", str(output_dir)])
    rows = read_lines(output_dir / "predictions_test.jsonl")
    assert [row["label"] for row in rows] == [None, None]
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert "test_accuracy" not in json.loads((output_dir / "test_results.json").read_text())


def test_best_checkpoint_is_what_is_saved(run_classification, write_data, output_dir):
    best = ["--load_best_model_at_end", "true", "--metric_for_best_model", "accuracy", "--save_total_limit", "1"]
    run_classification([*CNN, *FAST, *write_data(), *best, "--output_dir", str(output_dir)])
    state = json.loads((output_dir / "trainer_state.json").read_text())
    evaluations = [log["eval_accuracy"] for log in state["log_history"] if "eval_accuracy" in log]
    results = json.loads((output_dir / "eval_results.json").read_text())
    assert len(evaluations) == 3
    assert results["eval_accuracy"] == max(evaluations)


def test_a_finished_run_is_not_overwritten_unless_asked(run_classification, write_data, output_dir):
    flags = [*CNN, *FAST, *write_data(), "--output_dir", str(output_dir)]
    run_classification([*flags, "--save_steps", "20"])
    before = {path: path.stat().st_mtime_ns for path in output_dir.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"holds another run .* --resume_from_checkpoint true, .* --overwrite"):
        run_classification(flags)
    assert before == {path: path.stat().st_mtime_ns for path in output_dir.rglob("*") if path.is_file()}

    weights = (output_dir / "model.safetensors").read_bytes()
    run_classification([*flags, "--save_steps", "20", "--resume_from_checkpoint", "true"])
    assert (output_dir / "model.safetensors").read_bytes() == weights
    (output_dir / "notes.txt").write_text("mine")
    (output_dir / "nonfinite_step_3.json").write_text("{}")
    run_classification([*flags, "--overwrite"])
    assert not list(output_dir.glob("nonfinite*"))
    assert [path.name for path in output_dir.glob("checkpoint-*")] == ["checkpoint-54"]
    assert (output_dir / "notes.txt").read_text() == "mine"


def test_dry_run_writes_nothing(run_classification, write_data, output_dir, capsys):
    run_classification([*CNN, *write_data(), "--output_dir", str(output_dir), "--dry_run"])
    shown = capsys.readouterr().out
    assert '"learning_rate": 0.01' in shown
    assert "train: 144 rows (negative 72, positive 72)" in shown
    assert not output_dir.exists()


def test_a_saved_model_can_be_fine_tuned_further(run_classification, write_data, output_dir, tmp_path):
    flags = write_data()
    run_classification([*CNN, *FAST, *flags, "--output_dir", str(output_dir)])
    again = ["--model_name_or_path", str(output_dir), *FAST, *flags, "--output_dir", str(tmp_path / "again")]
    run_classification(again)
    assert AutoTokenizer.from_pretrained(tmp_path / "again").model_max_length == 128


def test_tokens_are_kept_out_of_the_record(run_classification, write_data, output_dir):
    run_classification([*CNN, *FAST, *write_data(), "--output_dir", str(output_dir), "--hub_token", "hf_SECRET"])
    assert not [
        p for p in output_dir.iterdir() if p.suffix != ".bin" and p.is_file() and b"hf_SECRET" in p.read_bytes()
    ]
