import json
import re

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from statsmodels.stats.multitest import multipletests

from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.comparison import all_metrics, compare_models
from hf_ext.evaluation.predictions import Predictions

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def answers(right, labels=None, confidence=0.8):
    """Two classes; each row is right or not, always equally sure."""
    right = np.asarray(right, dtype=bool)
    labels = np.zeros(len(right), int) if labels is None else np.asarray(labels)
    answered = np.where(right, labels, 1 - labels)
    probabilities = np.full((len(right), 2), 1 - confidence)
    probabilities[np.arange(len(right)), answered] = confidence
    return Predictions(SINGLE, ["no", "yes"], probabilities, labels, [f"text {i}" for i in range(len(right))])


def noisy(problem_type, seed, rows=120, classes=3):
    labels_of, noise = np.random.default_rng(0), np.random.default_rng([seed, 5])
    shape = (rows, 1 if problem_type == REGRESSION else classes)
    if problem_type == SINGLE:
        labels = labels_of.integers(0, classes, rows)
        logits = 1.5 * np.eye(classes)[labels]
    elif problem_type == MULTI:
        labels = labels_of.integers(0, 2, shape)
        logits = 2.0 * labels - 1
    else:
        labels = labels_of.normal(size=rows)
        logits = labels[:, None]
    names = ["value"] if problem_type == REGRESSION else [f"c{i}" for i in range(classes)]
    logits = logits + noise.normal(size=shape)
    return Predictions.from_logits(logits, labels, ["t"] * rows, problem_type=problem_type, label_names=names)


# ---- One model ----


def test_metrics_of_single_labels_against_scikit_learn():
    data = noisy(SINGLE, 1)
    scores = all_metrics(data)
    assert scores["accuracy"] == sklearn.metrics.accuracy_score(data.labels, data.predictions)
    assert scores["nll"] == pytest.approx(sklearn.metrics.log_loss(data.labels, data.probabilities), rel=1e-9)
    expected = sklearn.metrics.brier_score_loss(data.labels, data.probabilities, scale_by_half=False)
    assert scores["brier"] == pytest.approx(expected, rel=1e-9)
    assert {"f1_macro", "mcc", "ece"} <= set(scores)


def test_metrics_of_several_labels_against_scikit_learn():
    data = noisy(MULTI, 1)
    scores = all_metrics(data)
    flat, p = data.labels.ravel(), data.probabilities.ravel()
    assert scores["nll"] == pytest.approx(sklearn.metrics.log_loss(flat, p), rel=1e-9)
    assert scores["brier"] == pytest.approx(sklearn.metrics.brier_score_loss(flat, p), rel=1e-9)
    assert scores["subset_accuracy"] == sklearn.metrics.accuracy_score(data.labels, data.predictions)


def test_metrics_of_values_have_no_probabilities():
    data = noisy(REGRESSION, 1)
    scores = all_metrics(data)
    assert scores["pearson"] == pytest.approx(scipy.stats.pearsonr(data.labels, data.predictions)[0])
    assert not {"nll", "brier", "ece"} & set(scores)


def test_a_wrong_certainty_costs_much_but_not_infinity():
    data = answers([0], confidence=1.0)
    assert 700 < all_metrics(data)["nll"] < 710


# ---- Two models ----


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
def test_pairs_against_a_loop(problem_type):
    a, b = noisy(problem_type, 1), noisy(problem_type, 2)
    pair = compare_models({"a": a, "b": b}, [("a", "b")]).pairs[0]
    only_a, only_b, equal = [], [], 0
    for row in range(120):
        first, second, truth = (list(np.atleast_1d(item[row])) for item in (a.predictions, b.predictions, a.labels))
        equal += first == second
        if first == truth and second != truth:
            only_a.append(row)
        if second == truth and first != truth:
            only_b.append(row)
    assert pair.p == pytest.approx(scipy.stats.binomtest(len(only_a), len(only_a) + len(only_b)).pvalue, rel=1e-12)
    assert pair.test == "the exact McNemar test"
    assert pair.agreement == equal / 120
    assert (pair.only_model.count, pair.only_baseline.count) == (len(only_a), len(only_b))
    assert pair.differences[pair.metric].value == pytest.approx((len(only_a) - len(only_b)) / 120)
    for flips, rows in ((pair.only_model, only_a), (pair.only_baseline, only_b)):
        shown = [example["row"] for example in flips.examples]
        assert len(shown) == min(10, len(rows)) and set(shown) <= set(rows)
        assert shown[0] == rows[0] and shown[-1] == rows[-1]
        for example in flips.examples:
            assert example["label"] == a.named(a.labels[[example["row"]]])[0]
            assert (example["model"] == example["label"]) == (flips is pair.only_model)
            assert (example["baseline"] == example["label"]) == (flips is pair.only_baseline)


def test_values_are_compared_by_the_bootstrap():
    a, b = noisy(REGRESSION, 1), noisy(REGRESSION, 2)
    pair = compare_models({"a": a, "b": b}, [("a", "b")]).pairs[0]
    assert pair.test == "the paired bootstrap" and pair.p == pair.differences["pearson"].p
    assert pair.agreement is pair.only_model is pair.only_baseline is None
    assert "Pearson correlation differs by" in pair.sentence or "in Pearson correlation on 120 rows" in pair.sentence


def sentence(first, second):
    return compare_models({"new": first, "old": second}, [("new", "old")]).pairs[0].sentence


def test_sentences():
    better, worse = answers([1] * 1000 + [0] * 200), answers([1] * 900 + [0] * 300)
    words = sentence(better, worse)
    assert words.startswith(
        "new is 8.3 points (6.8 to 9.9) better than old in accuracy on 1,200 rows; p < 0.001 by the"
    )
    assert words.endswith("by the exact McNemar test.")
    assert sentence(worse, better).startswith("new is 8.3 points (6.8 to 9.9) worse than old in accuracy on 1,200")
    assert sentence(better, better) == "new and old give the same answers on 1,200 rows."
    close = sentence(answers([1, 1, 1, 1, 0, 0]), answers([0, 1, 1, 1, 0, 0]))
    assert close.startswith(
        "6 rows cannot tell new and old apart: accuracy differs by 16.7 points (0.0 to 50.0); p = 1 by"
    )
    assert "1 row" in sentence(answers([1]), answers([0])) and "1 rows" not in sentence(answers([1]), answers([0]))


def test_what_would_not_show_and_what_is_shown_to_be_equal():
    # 500 rows, 50 of them discordant: Connor's formula, by hand: 3.95 points.
    a = answers([1] * 400 + [1] * 25 + [0] * 25 + [0] * 50)
    b = answers([1] * 400 + [0] * 25 + [1] * 25 + [0] * 50)
    pair = compare_models({"a": a, "b": b}, [("a", "b")]).pairs[0]
    assert pair.detectable == pytest.approx(0.0395, abs=1e-4)
    assert pair.sentence.startswith("500 rows cannot tell a and b apart: accuracy differs by 0.0 points (-")
    assert (
        " A difference under 4.0 points would not show. Nor is it shown that they are equally good to within 1 point"
        in (pair.sentence)
    )
    near = compare_models({"a": a, "b": b}, [("a", "b")], margin=0.05).sentences[0]
    assert near.endswith(" would not show. They are equally good to within 5 points (p < 0.001).")
    few = sentence(answers([1, 1]), answers([0, 1]))
    assert "No difference would show on so few rows." in few
    half = compare_models(
        {"a": answers([1] * 470 + [0] * 30), "b": answers([1] * 460 + [0] * 40)}, [("a", "b")], margin=0.005
    )
    assert half.sentences[0].startswith("a is 2.0 points") and "equally" not in half.sentences[0]
    ten, four = answers([1] * 450 + [0] * 4 + [1] * 10 + [0] * 36), answers([1] * 454 + [0] * 46)
    assert sentence(ten, four).startswith("500 rows cannot tell new and old apart: accuracy differs by 1.2 points")
    one_sided = compare_models({"new": ten, "old": four}, [("new", "old")], margin=0.02).sentences[0]
    assert "new is not worse by 2 points or more (p < 0.001)." in one_sided


def test_several_pairs_are_corrected():
    a = answers([1] * 500 + [0] * 100)
    models = {"a": a, "b": answers([1] * 485 + [0] * 115), "c": answers([0] * 6 + [1] * 494 + [0] * 100), "d": a}
    comparison = compare_models(models, [("b", "a"), ("c", "a"), ("d", "a")])
    raw = [pair.p for pair in comparison.pairs]
    np.testing.assert_allclose(
        [pair.p_holm for pair in comparison.pairs], multipletests(raw, method="holm")[1], rtol=1e-9
    )
    assert "p = 0.062 by the exact McNemar test, corrected for 3 comparisons." in comparison.sentences[1]
    assert comparison.sentences[1].startswith("600 rows cannot tell c and a apart") and raw[1] < 0.05
    lines = comparison.pair_table().splitlines()
    assert re.split(" {2,}", lines[0]) == [
        *("model", "baseline", "accuracy +/-", "95 % interval", "p", "Holm", "equal to 1 pt: p", "would show")
    ]
    assert re.split(" {2,}", lines[2])[:3] == ["c", "a", "-0.0100"]


def test_permutations_and_equivalence_are_in_the_json():
    comparison = compare_models({"a": noisy(SINGLE, 1), "b": noisy(SINGLE, 2)}, [("a", "b")])
    facts = json.loads(json.dumps(comparison.as_dict(), allow_nan=False))["pairs"][0]
    assert set(facts["permutations"]) == set(facts["differences"])
    assert set(facts["permutations"]["f1_macro"]) == {"value", "p", "exact"}
    assert facts["equivalence"]["p"] == max(facts["equivalence"]["p_not_worse"], facts["equivalence"]["p_not_better"])


def test_equal_values_are_the_same_answers():
    a = noisy(REGRESSION, 1)
    assert sentence(a, a) == "new and old give the same answers on 120 rows."


@pytest.mark.filterwarnings("error")
def test_a_constant_answer_has_no_correlation():
    a = noisy(REGRESSION, 1, rows=30)
    constant = Predictions(REGRESSION, ["value"], np.zeros((30, 1)), a.labels, a.texts)
    comparison = compare_models({"a": a, "b": constant}, [("a", "b")])
    assert "undefined" in comparison.sentences[0]
    facts = json.loads(json.dumps(comparison.as_dict(), allow_nan=False))
    assert facts["models"]["b"]["metrics"]["pearson"] is None
    assert facts["pairs"][0]["p"] is None


# ---- What is handed on ----

COSTS = {
    "new": {"parameters": 4_012_345, "megabytes": 16.05, "texts_per_second": 6123.4, "speed_up": 46.7, "p50_ms": 0.21},
    "old": {"parameters": 22_713_216, "megabytes": 90.9, "texts_per_second": 131.2, "speed_up": 1.0, "p50_ms": 8.1},
}


def test_table():
    models = {"new": answers([1, 1, 1, 0]), "old": answers([1, 1, 1, 1]), "control": answers([1, 1, 1, 1])}
    lines = compare_models(models, [], COSTS).table().splitlines()
    assert [re.split(" {2,}", line) for line in lines] == [
        ["model", "accuracy", "95 % interval", "ECE", "parameters", "MB", "texts/s", "speed-up", "p50 ms"],
        ["new", "0.7500", "[0.2500, 1.0000]", "0.0500", "4.01M", "16.1", "6,123", "46.7x", "0.21"],
        ["old", "1.0000", "[1.0000, 1.0000]", "0.2000", "22.7M", "90.9", "131", "1.00x", "8.10"],
        ["control", "1.0000", "[1.0000, 1.0000]", "0.2000"],
    ]
    assert lines[0].index("ECE") + 3 == lines[1].index("0.0500") + 6


def test_as_dict_is_json():
    models = {"new": noisy(SINGLE, 1), "old": noisy(SINGLE, 2)}
    costs = {"new": {"parameters": np.int64(3), "texts_per_second_range": (1.0, 2.0)}}
    comparison = compare_models(models, [("new", "old"), ("old", "new")], costs)
    facts = json.loads(json.dumps(comparison.as_dict(), allow_nan=False))
    assert (facts["rows"], facts["metric"], list(facts["models"])) == (120, "accuracy", ["new", "old"])
    assert facts["models"]["new"]["costs"] == {"parameters": 3, "texts_per_second_range": [1.0, 2.0]}
    there, back = facts["pairs"]
    assert there["sentence"] == comparison.sentences[0]
    assert there["differences"]["accuracy"]["value"] == -back["differences"]["accuracy"]["value"]
    assert there["only_model"] | {"examples": 0} == back["only_baseline"] | {"examples": 0}
    assert there["p"] == back["p"]


@pytest.mark.parametrize(
    ("names", "pairs", "costs", "message"),
    [
        ([], [], {}, "no models"),
        (["a", "b"], [("a", "c")], {}, r"pair \(a, c\) names 'c'; the models are a, b"),
        (["a", "b"], [("b", "b")], {}, "with itself"),
        (["a", "b"], [], {"teacher": {}}, "costs of 'teacher'; the models are a, b"),
    ],
)
def test_names_that_do_not_fit(names, pairs, costs, message):
    with pytest.raises(ConfigurationError, match=message):
        compare_models({name: answers([1, 0]) for name in names}, pairs, costs)
