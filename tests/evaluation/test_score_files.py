import json

import numpy as np
import pytest
import scipy.stats

from hf_ext.errors import DataError
from hf_ext.evaluation.score_files import compare_scores, read_scores, score_table


def fold(seed=42, repeat=0, number=0, value=0.9, train=900, test=100, **metrics):
    metrics = {"accuracy": value, **metrics}
    return {
        "seed": seed, "repeat": repeat, "fold": number, "train_rows": train, "test_rows": test, "metrics": metrics
    }  # fmt: skip


def write(path, folds, metric="accuracy"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"metric": metric, "folds": folds, "mean": {}, "std": {}, "ci95": {}}))
    return path


def values(count, shift=0.0, seed=0):
    generator = np.random.default_rng(seed)
    common = generator.normal(0.8, 0.05, count)
    return common + shift + np.random.default_rng([seed, int(1000 * shift)]).normal(0, 0.01, count)


def read(tmp_path, **series):
    return {name: read_scores(write(tmp_path / name / "kfold_results.json", folds)) for name, folds in series.items()}


def corrected(a, b, ratio):
    differences = np.asarray(a) - np.asarray(b)
    t = differences.mean() / np.sqrt(differences.var(ddof=1) * (1 / len(differences) + ratio))
    return t, 2 * scipy.stats.t.sf(abs(t), len(differences) - 1)


def test_over_folds_the_test_is_corrected(tmp_path):
    a, b = values(10, 0.03), values(10)
    series = {name: [fold(number=i, value=v) for i, v in enumerate(vs)] for name, vs in (("a", a), ("b", b))}
    series["b"].reverse()
    (pair,) = compare_scores(read(tmp_path, **series), [("a", "b")])
    assert (pair.over, pair.runs, pair.p_holm) == ("folds", 10, None)
    assert (pair.tests["accuracy"].t, pair.tests["accuracy"].p) == pytest.approx(corrected(a, b, 1 / 9), rel=1e-9)
    assert pair.sentence.startswith("The accuracy of a is ") and "higher than that of b over 10 folds" in pair.sentence
    assert pair.sentence.endswith("by the corrected t test over folds.")


def test_over_seeds_it_is_the_plain_test(tmp_path):
    a, b = values(5, 0.001), values(5)
    series = {name: [fold(seed=i, value=v) for i, v in enumerate(vs)] for name, vs in (("a", a), ("b", b))}
    (pair,) = compare_scores(read(tmp_path, **series), [("a", "b")])
    expected = scipy.stats.ttest_rel(a, b)
    assert pair.over == "seeds" and pair.tests["accuracy"].p == pytest.approx(expected.pvalue, rel=1e-9)
    assert pair.sentence.startswith("5 seeds cannot tell a and b apart: accuracy differs by ")


def test_seeds_on_the_same_folds_count_once(tmp_path):
    a, b = values(10, 0.03).reshape(2, 5), values(10).reshape(2, 5)
    series = {
        name: [fold(seed=s, number=i, value=vs[s, i], train=80, test=20) for s in range(2) for i in range(5)]
        for name, vs in (("a", a), ("b", b))
    }
    (pair,) = compare_scores(read(tmp_path, **series), [("a", "b")])
    assert (pair.over, pair.runs) == ("folds", 5)
    expected = corrected(a.mean(axis=0), b.mean(axis=0), 1 / 4)
    assert (pair.tests["accuracy"].t, pair.tests["accuracy"].p) == pytest.approx(expected, rel=1e-9)


def test_several_pairs_are_corrected_and_all_metrics_tested(tmp_path):
    series = {
        name: [
            fold(number=i, value=v, loss=1 - v, **({"odd": 1.0} if i else {})) for i, v in enumerate(values(6, shift))
        ]
        for name, shift in (("a", 0.0), ("b", 0.02), ("c", 0.021))
    }
    pairs = compare_scores(read(tmp_path, **series), [("b", "a"), ("c", "a")])
    raw = [pair.tests["accuracy"].p for pair in pairs]
    assert max(pair.p_holm for pair in pairs) == pytest.approx(max(2 * min(raw), max(raw)))
    assert set(pairs[0].tests) == {"accuracy", "loss"}
    assert "corrected for 2 comparisons" in pairs[0].sentence
    lines = score_table(pairs).splitlines()
    assert lines[0].split()[:3] == ["model", "baseline", "over"] and "Holm" in lines[0] and len(lines) == 3
    assert json.loads(json.dumps(pairs[0].as_dict(), allow_nan=False))["p_holm"] == pairs[0].p_holm


def test_equal_differences_are_said(tmp_path):
    series = {name: [fold(number=i, value=v) for i in range(3)] for name, v in (("a", 0.75), ("b", 0.5))}
    (pair,) = compare_scores(read(tmp_path, **series), [("a", "b")])
    assert pair.sentence == (
        "a and b differ by the same 25.0 points in accuracy in each of 3 folds: without spread there is nothing to "
        "judge chance by."
    )
    assert json.loads(json.dumps(pair.as_dict(), allow_nan=False))["tests"]["accuracy"]["t"] is None


GOOD = [fold(number=i) for i in range(3)]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (GOOD[:2], r"kfold_results.json holds 3 runs, .* 2\. Give both the same folds"),
        (
            [*GOOD[:2], fold(number=3)],
            r"seed 42, repeat 0, fold 2 \(900 rows trained, 100 tested\) stands in .* fold 3",
        ),
        ([fold(seed=1, number=i) for i in range(3)], r"seed 42, repeat 0, fold 0 .* where seed 1, repeat 0, fold 0"),
        ([*GOOD[:2], fold(number=2, test=99)], r"fold 2 \(900, 99\)"),
    ],
)
def test_other_runs_are_refused(tmp_path, other, message):
    with pytest.raises(DataError, match=message):
        compare_scores(read(tmp_path, a=GOOD, b=other), [("b", "a")])


def test_another_metric_or_a_single_run_is_refused(tmp_path):
    scores = read(tmp_path, a=GOOD)
    scores["b"] = read_scores(write(tmp_path / "b.json", [fold(number=i, f1_macro=0.5) for i in range(3)], "f1_macro"))
    with pytest.raises(DataError, match=r"is about accuracy, .* about f1_macro"):
        compare_scores(scores, [("b", "a")])
    with pytest.raises(DataError, match=r"holds one run"):
        compare_scores(read(tmp_path, a=GOOD[:1], b=GOOD[:1]), [("b", "a")])


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([], "must hold an object with the key 'folds'"),
        ([{"seed": 1}], r"folds\[0\] has no 'repeat'; it has seed"),
        ([3], r"folds\[0\] is 3"),
        ([fold(), fold()], "holds seed 42, repeat 0, fold 0 twice"),
        ([fold(value=None)], r"folds\[0\]: accuracy is None; it must be a finite number"),
        ([fold(value=float("nan"))], r"folds\[0\]: accuracy is nan"),
        ([{**fold(), "metrics": {"loss": 1.0}}], r"folds\[0\]: metrics lack 'accuracy'.*they are loss"),
        ([fold(test=0)], r"folds\[0\]: test_rows is 0; it must be a whole number from 1"),
        ([fold(seed="a")], r"folds\[0\]: seed is 'a'"),
    ],
)
def test_broken_files(folds, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_scores(write(tmp_path / "kfold_results.json", folds))


def test_files_that_are_none(tmp_path):
    with pytest.raises(DataError, match="There is no file"):
        read_scores(tmp_path / "nothing.json")
    (tmp_path / "kfold_results.json").write_text("{")
    with pytest.raises(DataError, match=r"kfold_results.json is not JSON"):
        read_scores(tmp_path)
