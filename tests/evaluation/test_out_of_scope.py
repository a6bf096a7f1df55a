import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, recall_score

from hf_ext import (
    Calibration,
    CalibrationArguments,
    ConfigurationError,
    DataError,
    Predictions,
    SavedCalibrationArguments,
    build_compute_metrics,
    check_calibration,
    check_saved_threshold,
    fit_calibration,
    read_predictions,
    tune_out_of_scope,
)
from hf_ext.evaluation.predictions import softmax
from hf_ext.evaluation.same_rows import take_rows

SINGLE, MULTI = "single_label_classification", "multi_label_classification"
NAMES = ["a", "b", "c"]
OUTSIDE = CalibrationArguments(calibrate=True, out_of_scope_files=["outside.txt"])
# A class of its own, as Larson et al. count it.
NONE = -1


def drawn(seed, rows=120, outside=40, rounded=False):
    """Logits of rows with a class, their classes, and logits of rows without one, which are less sure."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, rows)
    logits = generator.normal(size=(rows, 3)) + 2.5 * np.eye(3)[labels]
    strange = generator.normal(size=(outside, 3))
    return (np.round(logits), labels, np.round(strange)) if rounded else (logits, labels, strange)


def accuracy_with(threshold, logits, labels, strange):
    """Of all rows, turning away as a decision like the others."""
    probabilities = softmax(np.concatenate([logits, strange]))
    decided = np.where(probabilities.max(axis=1) < threshold, NONE, probabilities.argmax(axis=1))
    return accuracy_score([*labels, *[NONE] * len(strange)], decided)


def tuned(logits, labels, strange):
    inside, outside = softmax(logits), softmax(strange)
    return tune_out_of_scope(inside.max(axis=1), inside.argmax(axis=1) == labels, outside.max(axis=1))


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_no_other_threshold_is_better(seed, rounded):
    rows = drawn(seed, rounded=rounded)
    scores = np.unique(softmax(np.concatenate([rows[0], rows[2]])).max(axis=1))
    cuts = [0.0, *((scores[1:] + scores[:-1]) / 2), 1.5]
    accuracies = [accuracy_with(cut, *rows) for cut in cuts]
    found = tuned(*rows)
    assert accuracy_with(found, *rows) == max(accuracies) > accuracies[0]
    # The lowest of the best.
    assert found == pytest.approx(cuts[int(np.argmax(accuracies))])


def test_where_turning_away_wins_nothing_all_are_answered():
    sure = np.array([0.6, 0.7, 0.8])
    assert tune_out_of_scope(sure, np.array([True, True, True]), np.array([0.9, 0.9, 0.9])) == 0.0
    # A wrong answer is no gain if it is not given.
    assert tune_out_of_scope(sure, np.array([False, True, True]), np.array([0.9])) == 0.0


def test_where_it_is_best_to_answer_none_no_probability_is_enough():
    assert tune_out_of_scope(np.array([1.0]), np.array([True]), np.array([1.0, 1.0])) > 1.0


# ---- In a calibration ----


def test_it_is_tuned_on_calibrated_probabilities_and_applied():
    logits, labels, strange = drawn(0, 400, 200)
    found = fit_calibration(OUTSIDE, 3 * logits, labels, SINGLE, NAMES, {"rows": 400}, 3 * strange)
    temperature = found.temperature / 3
    assert found.out_of_scope_threshold == tuned(logits / temperature, labels, strange / temperature)
    assert found.fitted_on == {"rows": 400, "out_of_scope_rows": 200}
    logits, labels, strange = drawn(1, 300, 300)
    probabilities, decisions = found.apply(3 * logits)
    outside = found.out_of_scope(probabilities)
    given = found.predict(3 * logits, labels, ["text"] * 300)
    np.testing.assert_array_equal(given.out_of_scope, outside)
    np.testing.assert_array_equal(given.predictions, decisions)
    evaluation = type("Evaluation", (), {"predictions": 3 * logits, "label_ids": labels})
    metrics = build_compute_metrics(SINGLE, calibration=found)(evaluation)
    turned_away = np.where(outside, NONE, decisions)
    assert metrics["in_scope_accuracy"] == pytest.approx(accuracy_score(labels, turned_away))
    assert metrics["coverage"] == pytest.approx(1 - recall_score([1] * 300, outside))
    # The others are those of the classes.
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, decisions))
    assert metrics["accuracy"] > metrics["in_scope_accuracy"]


def test_without_such_texts_nothing_is_turned_away():
    logits, labels, _ = drawn(0)
    found = fit_calibration(CalibrationArguments(calibrate=True), logits, labels, SINGLE, NAMES)
    assert found.out_of_scope_threshold is None
    assert found.out_of_scope(found.apply(logits)[0]) is None
    evaluation = type("Evaluation", (), {"predictions": logits, "label_ids": labels})
    assert not {"coverage", "in_scope_accuracy"} & set(build_compute_metrics(SINGLE, calibration=found)(evaluation))


def test_it_is_saved_and_found_again(tmp_path):
    Calibration(SINGLE, NAMES, 2.0, out_of_scope_threshold=0.25).save(tmp_path)
    assert Calibration.load(tmp_path).out_of_scope_threshold == 0.25
    path = tmp_path / "calibration.json"
    content = json.loads(path.read_text())
    # One of a version that did not know of it.
    path.write_text(json.dumps({key: value for key, value in content.items() if key != "out_of_scope_threshold"}))
    assert Calibration.load(tmp_path).out_of_scope_threshold is None
    for wrong in (-0.1, 3, "much"):
        path.write_text(json.dumps({**content, "out_of_scope_threshold": wrong}))
        with pytest.raises(DataError, match="fit it anew"):
            Calibration.load(tmp_path)


def test_it_is_written_beside_the_prediction(tmp_path):
    probabilities, outside = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]), np.array([False, True, False])
    given = Predictions(SINGLE, ["a", "b"], probabilities, np.array([0, 1, 1]), list("xyz"), out_of_scope=outside)
    lines = [json.loads(line) for line in given.to_jsonl(tmp_path / "some.jsonl").read_text().splitlines()]
    assert [(line["prediction"], line["out_of_scope"]) for line in lines] == [("a", False), ("b", True), ("b", False)]
    assert read_predictions(tmp_path / "some.jsonl").named(given.predictions) == ["a", "b", "b"]
    assert take_rows(given, [1, 0]).out_of_scope.tolist() == [True, False]


# ---- Refused ----


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"out_of_scope_files": "some.txt"}, "out_of_scope_files: no effect without calibrate"),
        ({"calibrate": True, "out_of_scope_test_files": "some.txt"}, "needs out_of_scope_files, other texts"),
    ],
)
def test_settings_without_effect(settings, said):
    with pytest.raises(ConfigurationError, match=said):
        CalibrationArguments(**settings)


def test_files_are_separated_by_commas():
    given = CalibrationArguments(calibrate=True, out_of_scope_files="a.txt, b.txt", out_of_scope_test_files="c.txt")
    assert (given.out_of_scope_files, given.out_of_scope_test_files) == (["a.txt", "b.txt"], ["c.txt"])


@pytest.mark.parametrize(
    ("problem_type", "names", "said"),
    [(MULTI, NAMES, "may have none already"), (SINGLE, ["a", "out_of_scope"], "there is a class 'out_of_scope'")],
)
def test_tasks_that_it_is_not_for(problem_type, names, said):
    with pytest.raises(ConfigurationError, match=said):
        check_calibration(OUTSIDE, problem_type, names, 100)


def test_a_model_that_turns_nothing_away_has_no_recall():
    wanted = SavedCalibrationArguments(out_of_scope_test_files="some.txt")
    for saved in (None, Calibration(SINGLE, NAMES)):
        with pytest.raises(ConfigurationError, match="the model turns no text away"):
            check_saved_threshold(wanted, saved)
    check_saved_threshold(wanted, Calibration(SINGLE, NAMES, out_of_scope_threshold=0.5))
    check_saved_threshold(SavedCalibrationArguments(), None)
