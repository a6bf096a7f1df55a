"""benchmarks/public_sets.py: metrics by the sets' protocols, files, draws, a whole run on made-up rows."""

import importlib.util
import json
import random
import statistics
from argparse import Namespace
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import f1_score

from hf_ext import Calibration, Predictions

ROOT = Path(__file__).parents[2]
MULTI = "multi_label_classification"
WORDS = {"balance": ["money", "account", "left"], "weather": ["rain", "sun", "cold"], "oos": ["why", "who", "is"]}


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("public_sets", ROOT / "benchmarks" / "public_sets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_f1_of_a_class_is_scikit_learns(benchmark, tmp_path):
    generator = np.random.default_rng(0)
    logits, labels, names = generator.normal(size=(200, 2)), generator.integers(0, 2, 200), ["irony", "non_irony"]
    given = Predictions.from_logits(
        logits, labels, ["text"] * 200, problem_type="single_label_classification", label_names=names
    )
    for split in ("test", "validation"):
        given.to_jsonl(tmp_path / f"predictions_{split}.jsonl")
        truth, decided = ([names[index] for index in ids] for ids in (labels, logits.argmax(axis=1)))
        for name in names:
            expected = f1_score(truth, decided, pos_label=name)
            assert benchmark.f1_of(name, split)(tmp_path) == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("average", ["macro", "micro"])
def test_a_threshold_is_one_of_the_models_own_probabilities(benchmark, tmp_path, temperature, average):
    generator = np.random.default_rng(1)
    labels = (generator.random((300, 5)) < 0.2).astype(int)
    logits = generator.normal(size=(300, 5)) + 2 * labels - 1
    names = list("abcde")
    calibration = Calibration(MULTI, names, temperature, np.full(5, 0.9))
    calibration.save(tmp_path)
    calibration.predict(logits, labels, ["text"] * 300).to_jsonl(tmp_path / "predictions_test.jsonl")
    expected = f1_score(labels, expit(logits) >= 0.3, average=average)
    assert benchmark.at_threshold(f"f1_{average}", 0.3)(tmp_path) == pytest.approx(expected)


def test_each_configuration_has_its_metrics_and_its_files(benchmark):
    configs = {path.stem for path in benchmark.CONFIGS.glob("*.json")} - {"ulmfit"}
    assert configs == {f"{name}_minilm" for name in benchmark.METRICS} | {
        f"{name}_textcnn" for name in benchmark.METRICS if name not in (benchmark.DRAWN, "mrpc")
    }
    assert {name for name, _ in benchmark.PUBLISHED} <= benchmark.METRICS.keys()
    assert all(metric in benchmark.METRICS[name] for name, metric in benchmark.PUBLISHED)
    flags = benchmark.file_flags(benchmark.read_json(benchmark.CONFIGS / "clinc150_minilm.json"), Path("/some"))
    folder = "/some/clinc150"
    assert dict(zip(flags[::2], flags[1::2], strict=True)) == {
        "--train_file": f"{folder}/train.json",
        "--validation_file": f"{folder}/validation.json",
        "--test_file": f"{folder}/test.json",
        "--out_of_scope_files": f"{folder}/oos_train.json,{folder}/oos_validation.json",
        "--out_of_scope_test_files": f"{folder}/oos_test.json",
    }


def test_draws_are_of_ten_rows_a_class_and_of_the_seed(benchmark, tmp_path):
    rows = [{"text": f"text {index}", "label": "abc"[index % 3]} for index in range(90)]
    (tmp_path / "banking77").mkdir()
    (tmp_path / "banking77" / "train.json").write_text(json.dumps(rows))
    args = Namespace(data_dir=tmp_path, work_dir=tmp_path)
    first, second = (json.loads(benchmark.draw(args, seed).read_text()) for seed in (0, 1))
    for drawn in (first, second):
        assert Counter(row["label"] for row in drawn) == {"a": 10, "b": 10, "c": 10}
        assert len({row["text"] for row in drawn}) == 30
        assert all(row in rows for row in drawn)
    assert first != second
    assert json.loads(benchmark.draw(args, 0).read_text()) == first


def test_tables_show_means_and_what_is_under_the_floor(benchmark, tmp_path, capsys):
    values = [91.0, 92.0, 93.0]
    rows = [
        {"set": "r8", "model": "textcnn", "seed": seed, "more": "", "metrics": {"accuracy": value}, "cpu_seconds": 120}
        for seed, value in enumerate(values)
    ]
    rows.append({**rows[0], "more": "--max_train_samples 20", "metrics": {"accuracy": 10.0}})
    rows.append({**rows[0], "set": "banking77", "metrics": {"accuracy": 88.0}})
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "floors.json").write_text(json.dumps({"r8": 97.5, "banking77": 87.3}))
    benchmark.main(["tables", "--work_dir", str(tmp_path), "--floors", str(tmp_path / "floors.json")])
    _, _, banking, r8 = capsys.readouterr().out.strip().splitlines()
    assert banking == "| banking77 | textcnn | accuracy | 93.66 BERT | 87.30 | 88.00 |  | 1 | 2 |"
    mean, sd = statistics.mean(values), statistics.stdev(values)
    assert r8.endswith(f"| 97.50 | {mean:.2f} (under the SVM) | {sd:.2f} | 3 | 2 |")


def write_queries(folder):
    generator = random.Random(0)
    for name, labels, count in (
        ("train", ("balance", "weather"), 60), ("validation", ("balance", "weather"), 30),
        ("test", ("balance", "weather"), 20), ("oos_train", ("oos",), 10), ("oos_validation", ("oos",), 10),
        ("oos_test", ("oos",), 20),
    ):  # fmt: skip
        chosen = [labels[index % len(labels)] for index in range(count)]
        rows = [{"text": " ".join(generator.choices(WORDS[label], k=4)), "label": label} for label in chosen]
        (folder / f"{name}.json").write_text(json.dumps(rows))


def test_a_run_is_made_once_and_leaves_results_without_weights(benchmark, tmp_path, capsys):
    (tmp_path / "clinc150").mkdir()
    write_queries(tmp_path / "clinc150")
    out = tmp_path / "out"
    words = ["run", "--data_dir", str(tmp_path), "--sets", "clinc150", "--models", "textcnn", "--seeds", "1"]
    words += ["--work_dir", str(out)]
    toy = ["--embed_size", "8", "--num_filters", "4", "--num_train_epochs", "1"]
    benchmark.main([*words, *toy])
    [row] = benchmark.done(out)
    found = json.loads((out / "clinc150_textcnn_0" / "test_results.json").read_text())
    assert (row["set"], row["model"], row["seed"], row["more"]) == ("clinc150", "textcnn", 0, " ".join(toy))
    names = {"accuracy": "accuracy", "accuracy with rejection": "in_scope_accuracy"}
    names["out-of-scope recall"] = "out_of_scope_recall"
    assert row["metrics"] == {title: round(100 * found[f"test_{name}"], 2) for title, name in names.items()}
    assert row["cpu_seconds"] > 0
    assert not [*out.rglob("*.safetensors")]
    capsys.readouterr()
    benchmark.main([*words, *toy])
    assert benchmark.done(out) == [row]
    # Another shard has no run of its own here, and a toy's numbers are in no table.
    benchmark.main([*words, "--shard", "1/2"])
    assert len(benchmark.done(out)) == 1
    benchmark.main(["tables", "--work_dir", str(out)])
    assert "clinc150" not in capsys.readouterr().out


def test_a_run_without_data_is_refused(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["run", "--encoder", "some"])
    assert "--data_dir is missing" in capsys.readouterr().err
