import json

import numpy as np
import pytest
import scipy.special

from hf_ext.evaluation.metrics import multi_label_metrics, single_label_metrics
from hf_ext.evaluation.predictions import Predictions, class_notes, confused_pairs, reliability_bins
from hf_ext.files import open_atomically

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def predict(logits, labels=None, texts=None, problem_type=SINGLE, label_names=("no", "yes"), **kwargs):
    texts = texts or [f"text {i}" for i in range(len(logits))]
    return Predictions.from_logits(logits, labels, texts, problem_type=problem_type, label_names=label_names, **kwargs)


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_probabilities_match_scipy():
    logits = np.random.default_rng(0).normal(scale=30, size=(200, 4)).astype(np.float32)
    names = list("abcd")
    expected = logits.astype(np.float64)

    single = predict(logits, label_names=names)
    multi = predict(logits, label_names=names, problem_type=MULTI, threshold=0.3)
    value = predict(logits[:, :1], label_names=["value"], problem_type=REGRESSION)

    np.testing.assert_allclose(single.probabilities, scipy.special.softmax(expected, axis=1), rtol=1e-12)
    np.testing.assert_allclose(multi.probabilities, scipy.special.expit(expected), rtol=1e-12)
    np.testing.assert_array_equal(single.predictions, logits.argmax(axis=1))
    np.testing.assert_array_equal(multi.predictions, scipy.special.expit(expected) >= 0.3)
    np.testing.assert_array_equal(value.predictions, expected[:, 0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
def test_huge_float16_logits_do_not_overflow(problem_type):
    data = predict(np.array([[60000, -60000]], dtype=np.float16), problem_type=problem_type)
    np.testing.assert_array_equal(data.probabilities, [[1.0, 0.0]])


def test_jsonl_of_single_label(tmp_path):
    data = predict(np.array([[0.0, 0.0], [0.0, 9.0]]), np.array([1, 1]), ["é \u2028 \ud800", "b"])
    path = data.to_jsonl(tmp_path / "new" / "predictions.jsonl")
    assert read(path) == [
        {
            "index": 0,
            "label": "yes",
            "prediction": "no",
            "probabilities": {"no": 0.5, "yes": 0.5},
            "text": "é \u2028 \ud800",
        },
        {
            "index": 1,
            "label": "yes",
            "prediction": "yes",
            "probabilities": {"no": 0.000123, "yes": 0.999877},
            "text": "b",
        },
    ]
    assert "é" in path.read_text(encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["predictions.jsonl"]


@pytest.mark.parametrize(
    ("names", "expected"), [(["-1", "10"], 10), (["0", "x"], "x"), (["0", "01"], "01"), (["0", "1.5"], "1.5")]
)
def test_jsonl_names_are_integers_only_when_all_are(names, expected, tmp_path):
    row = read(predict(np.array([[0.0, 1.0]]), label_names=names).to_jsonl(tmp_path / "p.jsonl"))[0]
    assert row["prediction"] == expected and type(row["prediction"]) is type(expected)
    assert list(row["probabilities"]) == names


def test_jsonl_of_multi_label_and_pairs(tmp_path):
    labels = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    logits = np.array([[4.0, -4.0, -4.0], [-4.0, -4.0, -4.0]])
    data = predict(logits, labels, [("a", "b"), ("c", "d")], problem_type=MULTI, label_names=list("xyz"))
    rows = read(data.to_jsonl(tmp_path / "p.jsonl"))
    assert [row["label"] for row in rows] == [["x", "z"], []]
    assert [row["prediction"] for row in rows] == [["x"], []]
    assert rows[0]["text"] == ["a", "b"]


def test_jsonl_of_regression_and_unlabelled(tmp_path):
    data = predict(np.array([[1.5], [2.0]]), np.array([[1], [2]]), problem_type=REGRESSION, label_names=["value"])
    row = read(data.to_jsonl(tmp_path / "p.jsonl"))[0]
    assert row == {"index": 0, "label": 1.0, "prediction": 1.5, "probabilities": None, "text": "text 0"}
    assert read(predict(np.zeros((1, 2))).to_jsonl(tmp_path / "q.jsonl"))[0]["label"] is None


def test_interrupted_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), open_atomically(path) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_most_confident_errors():
    logits = np.array([[0.0, 3.0], [0.0, 1.0], [0.0, 5.0], [2.0, 0.0]])
    single = predict(logits, np.array([0, 0, 1, 1]))
    assert [row for row, _ in single.most_confident_errors()] == [0, 3, 1]
    assert single.most_confident_errors(1)[0][1] == pytest.approx(scipy.special.expit(3.0))
    # Row 1 misses a class that it gave 1 %, row 0 invents one that it gave 88 %; row 2 is right.
    multi = predict(
        scipy.special.logit([[0.88, 0.9], [0.2, 0.01], [0.9, 0.1]]),
        np.array([[0, 1], [0, 1], [1, 0]]),
        problem_type=MULTI,
    )
    assert multi.most_confident_errors() == [(1, pytest.approx(0.99)), (0, pytest.approx(0.88))]
    value = predict(
        np.array([[1.0], [2.0], [3.0]]), np.array([1.0, 5.0, 2.0]), problem_type=REGRESSION, label_names=["v"]
    )
    assert value.most_confident_errors() == [(1, 3.0), (2, 1.0)]


def test_confused_pairs_match_scikit_learn():
    from sklearn.metrics import confusion_matrix

    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 7, 500), rng.integers(0, 7, 500)
    matrix = np.zeros((7, 7), dtype=int)
    pairs = confused_pairs(labels, predictions, 7)
    for true, predicted, count in pairs:
        matrix[true, predicted] = count
    np.testing.assert_array_equal(matrix, confusion_matrix(labels, predictions))
    assert [count for *_, count in pairs] == sorted((count for *_, count in pairs), reverse=True)


def test_reliability_bins_match_a_loop():
    rng = np.random.default_rng(0)
    confidences = np.concatenate([rng.random(500), [0.0, 0.2, 1.0]])
    correct = rng.random(503) < 0.6
    rows, confidence, accuracy = reliability_bins(confidences, correct, 5)
    for i in range(5):
        low, high = i / 5, (i + 1) / 5
        inside = (confidences > low) & (confidences <= high) | ((confidences == 0) & (i == 0))
        assert rows[i] == inside.sum()
        assert confidence[i] == pytest.approx(confidences[inside].mean())
        assert accuracy[i] == pytest.approx(correct[inside].mean())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"problem_type": "ranking"}, "problem_type is 'ranking'; it must be one of single_label"),
        ({"label_names": ["a", "b", "c"]}, r"shape \(2, 2\), but there are 2 texts and 3 label_names"),
        ({"texts": ["a"]}, "1 texts and 2 label_names"),
        ({"label_names": ["a", "a"]}, "a name twice"),
        ({"logits": np.array([[0.0, 0.0], [np.nan, 0.0]])}, r"1 of 2 rows .* row 1.*diverged"),
        ({"labels": np.array([0, -100])}, "from 0 to 1 .* row 1 has .*-100"),
        ({"labels": np.array([0.0, 1.0])}, "integer class ids"),
        ({"labels": np.array([[0, 1], [1, 2]]), "problem_type": MULTI}, "0 or 1 for each class"),
        ({"labels": np.array([0, 1]), "problem_type": MULTI}, r"pass an array of shape \(2, 2\)"),
        ({"problem_type": REGRESSION}, "2 names for a regression"),
    ],
)
def test_errors_say_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        predict(**{"logits": np.zeros((2, 2)), **arguments})


# ---- Given decisions, and classes that metrics say little about ----


def test_given_decisions_are_the_predictions(tmp_path):
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])
    labels, texts = np.array([0, 1, 0]), ["one", "two", "three"]
    given = Predictions(SINGLE, ["a", "b"], probabilities, labels, texts, decisions=np.array([1, 0, 1]))
    assert given.predictions.tolist() == [1, 0, 1]
    # By the probability of what was answered wrongly.
    assert given.most_confident_errors() == [(2, 0.7), (1, 0.4), (0, 0.1)]
    rows = [json.loads(line) for line in given.to_jsonl(tmp_path / "p.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in rows] == ["b", "a", "b"]
    yes = Predictions(MULTI, ["a", "b"], probabilities, None, texts, decisions=np.array([[0, 0], [1, 1], [0, 1]]))
    assert yes.named(yes.predictions) == [[], ["a", "b"], ["b"]]


@pytest.mark.parametrize(
    ("problem_type", "decisions", "said"),
    [
        (SINGLE, [0, 1], r"decisions has shape \(2,\)"),
        (SINGLE, [0, 1, 2], "decisions must be integer class ids from 0 to 1.*row 2 has"),
        (SINGLE, [0.0, 1.0, 1.0], "decisions must be integer class ids"),
        (MULTI, [0, 1, 1], r"decisions has shape \(3,\)"),
        (MULTI, [[0, 1], [0, 2], [0, 0]], "decisions must be 0 or 1 .*row 1 has"),
    ],
)
def test_decisions_that_do_not_fit_are_refused(problem_type, decisions, said):
    probabilities = np.full((3, 2), 0.5)
    with pytest.raises(ValueError, match=said):
        Predictions(problem_type, ["a", "b"], probabilities, None, ["t"] * 3, decisions=np.array(decisions))


def test_a_regression_has_no_decisions():
    with pytest.raises(ValueError, match="decisions are given for a regression"):
        Predictions("regression", ["value"], np.zeros((2, 1)), None, ["t"] * 2, decisions=np.zeros(2))


def test_classes_that_are_never_predicted_or_have_no_row_are_named():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]])
    given = Predictions(SINGLE, ["a", "b", "c"], probabilities, np.array([0, 1]), ["t"] * 2)
    missed, absent = class_notes({"test": given})
    assert missed.startswith("test: never predicted: b.")
    assert absent.startswith("test: without a row: c.")
    metrics = single_label_metrics(given.labels, given.predictions)
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["f1_macro"] == pytest.approx((2 / 3 + 0) / 2)
    labels = np.array([[1, 0, 0], [1, 1, 0]])
    several = Predictions(MULTI, ["a", "b", "c"], probabilities, labels, ["t"] * 2)
    assert [note.split(".")[0] for note in class_notes({"validation": several})] == [
        "validation: never predicted: b",
        "validation: without a row: c",
    ]
    assert multi_label_metrics(labels, several.predictions)["f1_macro"] == pytest.approx(1 / 3)


def test_all_is_well_with_every_class_and_without_labels():
    probabilities, texts = np.array([[0.9, 0.1], [0.2, 0.8]]), ["t"] * 2
    fine = Predictions(SINGLE, ["a", "b"], probabilities, np.array([0, 1]), texts)
    unlabelled = Predictions(SINGLE, ["a", "b"], probabilities, None, texts)
    values = Predictions("regression", ["value"], np.zeros((2, 1)), np.zeros(2), texts)
    assert class_notes({"validation": fine, "test": unlabelled, "other": values}) == []


def test_many_classes_are_counted():
    names = [f"c{i}" for i in range(50)]
    given = Predictions(SINGLE, names, np.eye(50)[[0] * 50], np.arange(50), ["t"] * 50)
    (note,) = class_notes({"test": given})
    assert "c20 and 29 more" in note
    assert "c21" not in note
