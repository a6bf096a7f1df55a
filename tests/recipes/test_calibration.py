"""Calibration, thresholds and class weights as a user has them: fitted, saved, found again, applied, refused."""

import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from programs import run_launched
from sklearn.metrics import f1_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from hf_ext import ConfigurationError, UsageError, load_pipeline

ROOT = Path(__file__).parents[2]
CNN = ["--model_type", "textcnn", "--embed_size", "16", "--num_filters", "8", "--learning_rate", "1e-2"]
FAST = ["--num_train_epochs", "2", "--disable_tqdm", "true", "--preflight", "off", "--validation_size", "0.3"]
WORDS = {"good": ["good", "great", "fine"], "bad": ["bad", "poor", "dull"], "odd": ["odd", "weird"]}
FILLER = ["the", "film", "was", "a", "very", "plot", "actor", "scene", "and", "of"]


def noisy_rows(count, seed, kind):
    """Words tell the class, and every fifth label is another one."""
    generator = random.Random(seed)
    rows = []
    for _ in range(count):
        names = generator.choices(list(WORDS), [5, 4, 1], k=1)
        if kind == "multi" and generator.random() < 0.3:
            names = sorted({*names, *generator.choices(list(WORDS), k=1)})
        words = generator.choices(FILLER, k=5) + [generator.choice(WORDS[name]) for name in names]
        if generator.random() < 0.2:
            names = generator.choices(list(WORDS), k=1)
        generator.shuffle(words)
        rows.append({"text": " ".join(words), "label": names if kind == "multi" else names[0]})
    return rows


@pytest.fixture
def write_rows(tmp_path):
    def write(kind="single", train=400):
        for seed, (name, count) in enumerate((("train", train), ("test", 100))):
            (tmp_path / f"{name}.json").write_text(json.dumps(noisy_rows(count, seed, kind)))
        return ["--train_file", str(tmp_path / "train.json"), "--test_file", str(tmp_path / "test.json")]

    return write


@pytest.fixture
def calibrated(run_classification, write_rows, tmp_path):
    """Train a calibrated model; returns its folder."""

    def train(*flags, kind="single", folder="model"):
        files = write_rows(kind)
        run_classification([*CNN, *FAST, *files, "--calibrate", "true", *flags, "--output_dir", str(tmp_path / folder)])
        return tmp_path / folder

    return train


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_json(path):
    return json.loads(path.read_text())


def model_logits(folder, texts):
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return np.stack([model(**tokenizer(text, return_tensors="pt")).logits[0].double().numpy() for text in texts])


def test_a_run_fits_saves_applies_and_shows_it(calibrated, capsys):
    out = calibrated(
        "--threshold_objective", "f1", "--load_best_model_at_end", "true", "--metric_for_best_model", "loss"
    )
    found, rows = read_json(out / "calibration.json"), read_lines(out / "predictions_test.jsonl")
    names, temperature = found["label_names"], found["temperature"]
    # Of the weights that were saved, i.e. of the best checkpoint.
    logits = model_logits(out, [row["text"] for row in rows]) / temperature
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    given = np.array([[row["probabilities"][name] for name in names] for row in rows])
    np.testing.assert_allclose(given, expected, atol=2e-5)
    decided = (given / [found["thresholds"][name] for name in names]).argmax(axis=1)
    assert [row["prediction"] for row in rows] == [names[index] for index in decided]
    assert (decided != given.argmax(axis=1)).any()
    results, labels = read_json(out / "test_results.json"), [row["label"] for row in rows]
    after = f1_score(labels, [row["prediction"] for row in rows], average="macro")
    before = f1_score(labels, [names[index] for index in expected.argmax(axis=1)], average="macro")
    assert results["test_f1_macro"] == pytest.approx(after)
    assert results["test_uncalibrated_f1_macro"] == pytest.approx(before)
    assert results["test_nll"] == pytest.approx(
        -np.log([row["probabilities"][row["label"]] for row in rows]).mean(), abs=1e-4
    )
    assert results["test_uncalibrated_nll"] == pytest.approx(results["test_loss"], rel=1e-4)
    validation = found["scores"]["validation"]
    assert validation["after"]["nll"] <= validation["before"]["nll"]
    assert validation["after"]["f1_macro"] >= validation["before"]["f1_macro"]
    assert found["scores"]["test"]["after"]["f1_macro"] == pytest.approx(after)
    assert found["fitted_on"]["rows"] == 120
    record, page = read_json(out / "run.json"), (out / "report.html").read_text()
    assert record["calibration"] == found
    for text in (capsys.readouterr().out, " ".join(record["notes"])):
        assert "it was fitted on 120 validation rows" in text
        assert "look at test" in text
        assert "A plain transformers.pipeline knows nothing of calibration.json" in text
    assert "Without and with calibration" in page
    assert "Probability at which a class is predicted" in page


def test_an_evaluation_finds_it_says_so_and_can_leave_it(calibrated, run_evaluation, tmp_path, capsys):
    out = calibrated("--threshold_objective", "f1")
    flags = ["--model_path", str(out), "--test_file", str(tmp_path / "test.json"), "--disable_tqdm", "true"]
    capsys.readouterr()
    run_evaluation([*flags, "--output_dir", str(tmp_path / "with")])
    assert f"it was found beside {out}" in capsys.readouterr().out
    run_evaluation([*flags, "--output_dir", str(tmp_path / "without"), "--calibration", "off"])
    trained, found, left = (
        read_json(folder / "test_results.json") for folder in (out, tmp_path / "with", tmp_path / "without")
    )
    assert (tmp_path / "with" / "predictions_test.jsonl").read_bytes() == (out / "predictions_test.jsonl").read_bytes()
    for name in ("accuracy", "ece", "nll", "uncalibrated_ece"):
        assert found[f"test_{name}"] == pytest.approx(trained[f"test_{name}"])
    assert left["test_ece"] == pytest.approx(trained["test_uncalibrated_ece"])
    assert "test_uncalibrated_ece" not in left
    assert read_json(tmp_path / "with" / "run.json")["calibration"]["temperature"] > 0
    assert "calibration" not in read_json(tmp_path / "without" / "run.json")


def test_a_finished_model_is_calibrated_afterwards(calibrated, run_classification, tmp_path):
    out = calibrated()
    (out / "calibration.json").rename(tmp_path / "first.json")
    (out / "predictions_validation.jsonl").rename(tmp_path / "validation.jsonl")
    flags = ["--model_name_or_path", str(out), *FAST, "--do_eval", "--do_predict"]
    flags += ["--validation_file", str(tmp_path / "validation.jsonl"), "--test_file", str(tmp_path / "test.json")]
    run_classification([*flags, "--calibrate", "true", "--output_dir", str(tmp_path / "later")])
    first, later = read_json(tmp_path / "first.json"), read_json(tmp_path / "later" / "calibration.json")
    assert later["temperature"] == pytest.approx(first["temperature"], rel=1e-5)
    # Once it lies beside the model, this recipe applies it too.
    shutil.copy(tmp_path / "later" / "calibration.json", out)
    run_classification([*flags, "--output_dir", str(tmp_path / "applied")])
    assert not (tmp_path / "applied" / "calibration.json").exists()
    applied = (tmp_path / "applied" / "predictions_test.jsonl").read_bytes()
    assert applied == (tmp_path / "later" / "predictions_test.jsonl").read_bytes()
    run_classification([*flags, "--calibration", "off", "--output_dir", str(tmp_path / "plain")])
    assert (tmp_path / "plain" / "predictions_test.jsonl").read_bytes() != applied


def test_another_run_without_it_leaves_none(calibrated, run_classification, write_rows):
    out = calibrated()
    run_classification([*CNN, *FAST, *write_rows(), "--overwrite", "--output_dir", str(out)])
    assert not (out / "calibration.json").exists()


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_loaded_pipeline_answers_as_the_run_did(calibrated, kind):
    out = calibrated("--threshold_objective", "f1", kind=kind)
    rows = read_lines(out / "predictions_test.jsonl")[:30]
    texts, classify = [row["text"] for row in rows], load_pipeline(out, device="cpu")
    for row, answer in zip(rows, classify(texts), strict=True):
        if kind == "single":
            assert answer["label"] == row["prediction"]
            assert answer["score"] == pytest.approx(row["probabilities"][answer["label"]], abs=2e-5)
        else:
            assert {item["label"] for item in answer} == set(row["prediction"])
    for row, listed in zip(rows, classify(texts, top_k=None), strict=True):
        assert {item["label"]: pytest.approx(item["score"], abs=2e-5) for item in listed} == row["probabilities"]
        predicted = [item["label"] for item in listed if item["predicted"]]
        assert set(predicted) == set(row["prediction"] if kind == "multi" else [row["prediction"]])
        assert [item["score"] for item in listed] == sorted((item["score"] for item in listed), reverse=True)
    one = classify(texts[0])
    assert [item["label"] for item in one] == [
        item["label"] for item in (classify(texts)[0] if kind == "multi" else classify(texts)[:1])
    ]
    # A plain one shows the model's own probabilities, as its docstring and the run's notes say.
    temperature = read_json(out / "calibration.json")["temperature"]
    plain = pipeline("text-classification", model=str(out), device="cpu", top_k=None)(texts[:1])[0]
    logits = model_logits(out, texts[:1])[0]
    own = np.exp(logits) / np.exp(logits).sum() if kind == "single" else 1 / (1 + np.exp(-logits))
    names = read_json(out / "calibration.json")["label_names"]
    assert {item["label"]: item["score"] for item in plain} == pytest.approx(
        dict(zip(names, own, strict=True)), abs=1e-5
    )
    assert temperature != pytest.approx(1.0, abs=1e-3)


def test_what_a_pipeline_refuses(calibrated, tmp_path):
    out = calibrated()
    with pytest.raises(ConfigurationError, match="function_to_apply='none': the calibration decides"):
        load_pipeline(out, device="cpu", function_to_apply="none")
    content = read_json(out / "calibration.json")
    (out / "calibration.json").write_text(json.dumps({**content, "label_names": ["bad", "good", "other"]}))
    with pytest.raises(ConfigurationError, match=r"classes bad, good, other; the model is of .* bad, good, odd"):
        load_pipeline(out, device="cpu")
    (out / "calibration.json").unlink()
    with pytest.raises(ConfigurationError, match=r"has no calibration\.json"):
        load_pipeline(out, device="cpu")


def test_a_calibration_of_another_model_is_refused(calibrated, run_evaluation, tmp_path):
    out = calibrated()
    content = read_json(out / "calibration.json")
    (out / "calibration.json").write_text(json.dumps({**content, "label_names": ["good", "bad", "odd"]}))
    flags = [
        "--model_path",
        str(out),
        "--test_file",
        str(tmp_path / "test.json"),
        "--output_dir",
        str(tmp_path / "eval"),
    ]
    with pytest.raises(UsageError, match="belongs to another model"):
        run_evaluation(flags)
    assert not (tmp_path / "eval").exists()
    run_evaluation([*flags, "--calibration", "off", "--disable_tqdm", "true"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--calibrate", "true", "--validation_size", "0.04"], "there are 16 validation rows, and at least 20"),
        (["--calibrate", "true", "--do_train", "--do_predict"], "there are no validation rows"),
        (["--threshold_objective", "f1"], "no effect without calibrate"),
        (
            ["--calibrate", "true", "--threshold_objective", "recall_at_precision", "--threshold_min_precision", "0.9"],
            "or for two classes",
        ),
        (
            ["--calibrate", "true", "--threshold_objective", "cost", "--cost_matrix", '{"good": {"bda": 3}}'],
            "names bda",
        ),
        (["--class_weights", '{"goood": 2}'], "class_weights names goood; the classes are bad, good, odd"),
        (["--class_weights", "blanced"], "class_weights is 'blanced'"),
        (["--class_weights", "[1, 2]"], "has 2 weights, but there are 3 classes"),
        (["--focal_gamma", "-1"], "focal_gamma is -1.0"),
        (["--do_regression", "true", "--focal_gamma", "1"], "do_regression=true, but the labels"),
    ],
)
@pytest.mark.parametrize("dry", [False, True])
def test_bad_input_is_named_and_nothing_written(run_classification, write_rows, tmp_path, flags, said, dry):
    files = write_rows()
    before = sorted(tmp_path.rglob("*"))
    flags = [*CNN, *FAST, *files, "--output_dir", str(tmp_path / "out"), *flags, *(["--dry_run"] if dry else [])]
    with pytest.raises(UsageError, match=said):
        run_classification(flags)
    assert sorted(tmp_path.rglob("*")) == before


def test_numbers_are_neither_weighed_nor_calibrated(run_classification, tmp_path):
    rows = [{"text": f"row {i}", "label": i / 10} for i in range(200)]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    flags = [*CNN, *FAST, "--train_file", str(tmp_path / "train.json"), "--output_dir", str(tmp_path / "out")]
    for given, said in (
        (["--calibrate", "true"], "a regression has no probabilities"),
        (["--class_weights", "balanced"], "class_weights is balanced, but what is predicted is a number"),
        (["--focal_gamma", "2"], "focal_gamma is 2.0, but what is predicted is a number"),
        (["--label_smoothing_factor", "0.1"], "label_smoothing_factor is 0.1, but what is predicted is a number"),
    ):
        with pytest.raises(UsageError, match=said):
            run_classification([*flags, *given])
    assert not (tmp_path / "out").exists()


def test_weights_reach_the_training_and_the_notes(calibrated):
    flags = ["--class_weights", '{"odd": 20}', "--focal_gamma", "1", "--label_smoothing_factor", "0.1"]
    plain, weighted = calibrated(folder="plain"), calibrated(*flags, folder="weighted")
    note = next(note for note in read_json(weighted / "run.json")["notes"] if note.startswith("Trained with"))
    weights = dict(re.findall(r"(bad|good|odd) ([\d.]+)", note))
    assert float(weights["odd"]) == pytest.approx(20 * float(weights["good"]), rel=0.01)
    assert "focal loss with gamma 1; label smoothing 0.1" in note
    answers = {
        folder.name: [row["prediction"] for row in read_lines(folder / "predictions_test.jsonl")]
        for folder in (plain, weighted)
    }
    assert answers["weighted"].count("odd") > 10 + answers["plain"].count("odd")


def test_a_class_that_is_never_predicted_is_said(run_classification, write_rows, tmp_path, capsys):
    run_classification([*CNN, *FAST, *write_rows(), "--output_dir", str(tmp_path / "out")])
    assert all(row["prediction"] != "odd" for row in read_lines(tmp_path / "out" / "predictions_test.jsonl"))
    notes = read_json(tmp_path / "out" / "run.json")["notes"]
    said = [note for note in notes if "never predicted: odd" in note]
    assert [note.split(":")[0] for note in said] == ["validation", "test"]
    assert said[0] in capsys.readouterr().out
    assert said[0] in (tmp_path / "out" / "report.html").read_text()
    assert said[1] in (tmp_path / "out" / "README.md").read_text()
    assert np.isfinite(read_json(tmp_path / "out" / "test_results.json")["test_f1_macro"])


def test_two_processes_fit_one_calibration(write_rows, tmp_path):
    flags = [*CNN, *FAST, *write_rows(), "--class_weights", "balanced", "--calibrate", "true"]
    flags += ["--threshold_objective", "f1", "--output_dir", tmp_path / "out"]
    for done in run_launched(ROOT / "recipes/run_classification.py", flags):
        assert done.returncode == 0, done.stderr
    found, results = read_json(tmp_path / "out" / "calibration.json"), read_json(tmp_path / "out" / "test_results.json")
    rows = read_lines(tmp_path / "out" / "predictions_test.jsonl")
    assert found["fitted_on"]["rows"] == 120
    assert results["test_accuracy"] == pytest.approx(np.mean([row["label"] == row["prediction"] for row in rows]))
    assert found["scores"]["test"]["after"]["accuracy"] == pytest.approx(results["test_accuracy"])
