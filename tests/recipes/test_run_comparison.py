import json
import re

import numpy as np
import pytest

from hf_ext import Predictions, UsageError, exact_mcnemar, read_predictions

from .conftest import load_recipe

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


@pytest.fixture(scope="module")
def run_comparison():
    return load_recipe("run_comparison").main


def predictions(model, problem_type=SINGLE, rows=120, classes=3, noise=1.0):
    truth, generator = np.random.default_rng(0), np.random.default_rng([model, 1])
    if problem_type == SINGLE:
        labels = truth.integers(0, classes, rows)
        signal = 1.5 * np.eye(classes)[labels]
    elif problem_type == MULTI:
        labels = truth.integers(0, 2, (rows, classes))
        signal = 2.0 * labels - 1
    else:
        labels = truth.normal(size=rows)
        signal = labels[:, None]
    names = ["value"] if problem_type == REGRESSION else [f"c{i}" for i in range(classes)]
    logits = signal + noise * generator.normal(size=signal.shape)
    texts = [f"<b>text</b> {i}" for i in range(rows)]
    return Predictions.from_logits(logits, labels, texts, problem_type=problem_type, label_names=names)


@pytest.fixture
def files(tmp_path):
    """Two models' folders."""
    return [
        str(predictions(i).to_jsonl(tmp_path / name / "predictions_test.jsonl").parent) for i, name in enumerate("ab")
    ]


def folds(tmp_path, name, shift):
    rows = [
        {
            "seed": 1,
            "repeat": 0,
            "fold": i,
            "train_rows": 90,
            "test_rows": 10,
            "metrics": {"accuracy": 0.8 + i / 99 * shift},
        }
        for i in range(5)
    ]
    path = tmp_path / name / "kfold_results.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"metric": "accuracy", "folds": rows}))
    return str(path)


def test_a_comparison_of_two_folders(run_comparison, files, tmp_path, capsys):
    out = tmp_path / "out"
    run_comparison(["--predictions", *files, "--output_dir", str(out)])
    assert {path.name for path in out.iterdir()} == {"comparison.json", "comparison.png", "report.html", "run.json"}
    found = json.loads((out / "comparison.json").read_text())
    a, b = map(read_predictions, files)
    (pair,) = found["pairs"]
    assert (pair["model"], pair["baseline"], pair["rows"]) == ("b", "a", 120)
    expected = exact_mcnemar(b.predictions == b.labels, a.predictions == a.labels)
    assert pair["p"] == pytest.approx(expected.p, rel=1e-12) and pair["p_holm"] is None
    assert (pair["only_model"]["count"], pair["only_baseline"]["count"]) == expected[1:]
    assert pair["only_model"]["examples"][0]["text"].startswith("<b>text</b>")
    assert pair["equivalence"]["margin"] == 0.01 and 0 < pair["detectable"] < 1
    assert set(found["models"]["a"]["intervals"]) == set(found["models"]["a"]["metrics"]) == set(pair["differences"])
    assert set(pair["permutations"]) == set(pair["differences"])
    shown = capsys.readouterr().out
    assert pair["sentence"] in shown and re.search(r"b +a +[+-]0\.\d{4}", shown) and "report.html" in shown
    page = (out / "report.html").read_text()
    assert "<b>text" not in page and "&lt;b&gt;text" in page
    assert pair["sentence"] in page and "Differences in accuracy" in page
    run = json.loads((out / "run.json").read_text())
    assert len(run["files"]["a"]["predictions"]["sha256"]) == 64
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("problem_type", [MULTI, REGRESSION])
def test_other_tasks(run_comparison, problem_type, tmp_path):
    paths = [str(predictions(i, problem_type).to_jsonl(tmp_path / f"{i}.jsonl")) for i in range(3)]
    names = ["--names", "one", "two", "three", "--baseline", "two"]
    run_comparison(["--predictions", *paths, *names, "--output_dir", str(tmp_path / "out"), "--margin", "2.5"])
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [(pair["model"], pair["baseline"]) for pair in found["pairs"]] == [("one", "two"), ("three", "two")]
    for pair in found["pairs"]:
        assert pair["p"] <= pair["p_holm"] <= 1 and pair["family"] == 2
        assert (pair["equivalence"] is None) == (problem_type == REGRESSION)
        if problem_type == MULTI:
            assert pair["equivalence"]["margin"] == 0.025 and "2.5 points" in pair["sentence"]


def test_groups_of_a_column_of_the_data(run_comparison, files, tmp_path, capsys):
    genres = ["drama" if i % 3 else "" for i in range(120)]
    lines = [f"{genre},<b>text</b> {i}" for i, genre in enumerate(genres)]
    (tmp_path / "test.csv").write_text("\n".join(["genre,text", *lines]) + "\n")
    flags = ["--groups", "genre", "--groups_file", str(tmp_path / "test.csv"), "--output_dir", str(tmp_path / "out")]
    run_comparison(["--predictions", *files, *flags])
    groups = json.loads((tmp_path / "out" / "comparison.json").read_text())["groups"]
    assert groups["column"] == "genre"
    assert {name: found["rows"] for name, found in groups["values"].items()} == {"(none)": 40, "drama": 80}
    a = read_predictions(files[0])
    right = (a.predictions == a.labels)[np.array(genres) == "drama"]
    drama = groups["values"]["drama"]["models"]["a"]
    assert drama["metrics"]["accuracy"] == right.mean()
    assert drama["intervals"]["accuracy"][0] < right.mean() < drama["intervals"]["accuracy"][1]
    assert re.search(r"\ndrama +80 ", capsys.readouterr().out)
    assert "drama (80)" in (tmp_path / "out" / "report.html").read_text()


def test_groups_of_a_column_of_the_predictions(run_comparison, files, tmp_path):
    path = tmp_path / "b" / "predictions_test.jsonl"
    rows = [json.loads(line) | {"source": i % 2} for i, line in enumerate(path.read_text().splitlines())]
    rows.reverse()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_comparison(["--predictions", *files, "--groups", "source", "--output_dir", str(tmp_path / "out")])
    groups = json.loads((tmp_path / "out" / "comparison.json").read_text())["groups"]["values"]
    assert {name: found["rows"] for name, found in groups.items()} == {"0": 60, "1": 60}


def test_scores_alone_and_beside_predictions(run_comparison, files, tmp_path, capsys):
    scores = [folds(tmp_path, name, shift) for name, shift in (("a", 0.0), ("b", 1.0))]
    run_comparison(["--scores", *scores, "--output_dir", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert set(found) == {"scores", "margin", "files", "notes"}
    assert found["scores"][0]["over"] == "folds" and found["scores"][0]["sentence"] in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert found["scores"][0]["sentence"] in page
    assert "Over folds</h2>" in page and f">{found['scores'][0]['tests']['accuracy']['t']:.3f}</td>" in page
    run_comparison(["--predictions", *files, "--scores", *scores, "--output_dir", str(tmp_path / "both")])
    found = json.loads((tmp_path / "both" / "comparison.json").read_text())
    assert set(found["files"]["a"]) == {"predictions", "scores"} and found["pairs"] and found["scores"]


def test_perfect_equal_and_single_rows_are_told(run_comparison, tmp_path, capsys):
    perfect = [str(predictions(i, noise=0.0).to_jsonl(tmp_path / f"perfect{i}.jsonl")) for i in range(2)]
    run_comparison(["--predictions", *perfect, "--output_dir", str(tmp_path / "one")])
    shown = capsys.readouterr().out
    assert "perfect1 and perfect0 give the same answers on 120 rows." in shown
    assert "perfect0 has all of 120 rows right: all resamples are alike" in shown
    # 0.05^(1/120)
    assert "at least 97.5 %" in shown
    for kind in (SINGLE, REGRESSION):
        single = [str(predictions(i, kind, rows=1).to_jsonl(tmp_path / f"{kind}{i}.jsonl")) for i in (3, 4)]
        run_comparison(["--predictions", *single, "--output_dir", str(tmp_path / kind)])
        json.loads((tmp_path / kind / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert "it is undefined for one." in capsys.readouterr().out


def test_a_finished_comparison_is_only_replaced_when_asked(run_comparison, files, tmp_path):
    flags = ["--predictions", *files, "--output_dir", str(tmp_path / "out")]
    run_comparison(flags)
    with pytest.raises(UsageError, match=r"\(run.json\). Choose another directory or replace it with --overwrite."):
        run_comparison(flags)
    run_comparison([*flags, "--overwrite"])


def change(path, edit):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in edit(rows)))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda rows: [], r"b/predictions_test.jsonl is empty"),
        (
            lambda rows: rows[:-1],
            r"a answered 120 rows and b 119, of another test set: b has no row for '<b>text</b> 119'",
        ),
        (lambda rows: [*rows[:7], rows[7] | {"text": "other"}, *rows[8:]], r"Row 7 \(from 0\) has the text .*'other'"),
        (lambda rows: [*rows[:7], rows[7] | {"label": None}, *rows[8:]], r"line 8: label is null"),
        (
            lambda rows: [rows[0] | {"probabilities": {"c0": float("nan"), "c1": 0, "c2": 1}}, *rows[1:]],
            r"line 1: the probability of 'c0' is nan",
        ),
    ],
)
def test_files_that_do_not_fit(run_comparison, files, tmp_path, edit, message):
    change(tmp_path / "b" / "predictions_test.jsonl", edit)
    with pytest.raises(UsageError, match=message):
        run_comparison(["--predictions", *files, "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], r"Pass --predictions A.jsonl B.jsonl"),
        (["--predictions", "{a}", "{b}"], r"Pass --output_dir FOLDER"),
        (["--predictions", "{a}", "--output_dir", "{out}"], r"--predictions names 1 file"),
        (["--predictions", "{a}", "{a}", "--output_dir", "{out}"], r"is named twice"),
        (["--predictions", "{a}", "{b}", "--output_dir", "{a}"], r"output_dir .*/a holds .*/a, which is to be read"),
        (["--predictions", "{a}", "{b}", "--output_dir", "{out}", "--names", "x"], r"gives 1 names to 2 models"),
        (["--predictions", "{a}", "{b}", "--output_dir", "{out}", "--names", "x", "x"], r"gives 'x' to two models"),
        (["--predictions", "{a}", "{b}", "--output_dir", "{out}", "--baseline", "c"], r"baseline is 'c'; .* are a, b"),
        (["--predictions", "{a}", "{b}", "--output_dir", "{out}", "--margin", "0"], r"margin is 0"),
        (["--predictions", "{a}", "{b}", "--output_dir", "{out}", "--margin", "x"], r"margin is 'x'; .* a number"),
        (["--predictions", "{a}", "{b}", "--output_dir", "{out}", "--groups", "genre"], r"the usual keys only"),
        (["--predictions", "{a}", "{b}", "--output_dir", "{out}", "--groups_file", "x"], r"--groups COLUMN"),
        (["--scores", "{a}", "{b}", "--output_dir", "{out}"], r"/a holds no kfold_results.json"),
        (["--scores", "{a}", "{b}", "--output_dir", "{out}", "--groups", "g"], r"groups need --predictions"),
        (["--predictions", "{a}", "{b}", "--output_dir", "{out}", "--basline", "a"], r"Did you mean 'baseline'"),
    ],
)
def test_flags_that_do_not_fit(run_comparison, files, tmp_path, flags, message):
    places = {"a": files[0], "b": files[1], "out": str(tmp_path / "out")}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=message):
        run_comparison([flag.format(**places) for flag in flags])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("lines", "column", "message"),
    [
        (["genre,text"] + ["x,y"] * 3, "genre", r"holds 3 rows, the predictions 120"),
        (["genre,text"] + ["x,y"] * 120, "genre", r"row 1 has the text 'y', row 0 \(from 0\) of the predictions"),
        (["genre"] + ["x"] * 120, "gnre", r"has no column 'gnre'. Did you mean 'genre'"),
        (["genre"] + [f"g{i}" for i in range(120)], "genre", r"has 120 values, such as g0, g1, g2; at most 50"),
    ],
)
def test_groups_that_do_not_fit(run_comparison, files, tmp_path, lines, column, message):
    (tmp_path / "test.csv").write_text("\n".join(lines) + "\n")
    flags = ["--groups", column, "--groups_file", str(tmp_path / "test.csv"), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(UsageError, match=message):
        run_comparison(["--predictions", *files, *flags])
    assert not (tmp_path / "out").exists()


def test_names_are_the_shortest_ends_of_paths_that_differ(run_comparison, tmp_path):
    for run in ("x", "y"):
        predictions(1).to_jsonl(tmp_path / run / "cnn" / "predictions_test.jsonl")
    paths = [str(tmp_path / run / "cnn") for run in ("x", "y")]
    run_comparison(["--predictions", *paths, "--output_dir", str(tmp_path / "out")])
    assert list(json.loads((tmp_path / "out" / "comparison.json").read_text())["models"]) == ["x/cnn", "y/cnn"]
