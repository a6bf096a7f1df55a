import numpy as np
import pytest

from hf_ext import (
    CalibrationArguments,
    ConfigurationError,
    DataError,
    build_compute_metrics,
    check_calibration,
    fit_calibration,
)
from hf_ext.evaluation.calibration import calibration_scores
from hf_ext.evaluation.predictions import sigmoid, softmax

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
NAMES = ["ham", "spam"]


class Evaluation:
    def __init__(self, predictions, label_ids):
        self.predictions, self.label_ids = predictions, label_ids


def some_rows(problem_type, classes=2, rows=200):
    generator = np.random.default_rng(0)
    logits = 4 * generator.normal(size=(rows, classes))
    if problem_type == MULTI:
        return logits, (generator.random((rows, classes)) < sigmoid(logits / 3)).astype(float)
    return logits, (logits / 3 + generator.gumbel(size=logits.shape)).argmax(axis=1)


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
def test_before_and_after_are_those_of_the_rows(problem_type):
    logits, labels = some_rows(problem_type)
    found = fit_calibration(CalibrationArguments(calibrate=True), logits, labels, problem_type, NAMES, {"rows": 200})
    activation, ids = (sigmoid if problem_type == MULTI else softmax), labels.astype(int)
    assert found.scores == {
        "validation": {
            "before": calibration_scores(activation(logits), ids),
            "after": calibration_scores(activation(logits / found.temperature), ids),
        }
    }
    assert found.temperature == pytest.approx(3.0, rel=0.3)
    scores = found.scores["validation"]
    assert all(scores["after"][name] < scores["before"][name] for name in ("ece", "nll", "brier"))
    assert (found.thresholds, found.cost_matrix, found.fitted_on) == (None, None, {"rows": 200})


def test_costs_of_several_labels_are_elkans_threshold():
    wanted = CalibrationArguments(
        calibrate=True, threshold_objective="cost", false_positive_cost=1.0, false_negative_cost=4.0
    )
    logits, labels = some_rows(MULTI)
    found = fit_calibration(wanted, logits, labels, MULTI, NAMES)
    probabilities, decisions = found.apply(logits)
    # Yes where (1 - p) * 1 < p * 4.
    np.testing.assert_array_equal(decisions, (1 - probabilities) < 4 * probabilities)
    assert found.objective["false_negative_cost"] == 4.0


def test_costs_of_a_single_label_default_to_one_for_a_wrong_answer():
    wanted = CalibrationArguments(calibrate=True, threshold_objective="cost", cost_matrix={"ham": {"spam": 10}})
    logits, labels = some_rows(SINGLE)
    found = fit_calibration(wanted, logits, labels, SINGLE, NAMES)
    assert found.cost_matrix.tolist() == [[0, 10], [1, 0]]
    probabilities, decisions = found.apply(logits)
    np.testing.assert_array_equal(decisions == 1, probabilities[:, 0] * 10 < probabilities[:, 1])


def test_the_positive_class_of_two():
    logits, labels = some_rows(SINGLE)
    for name, positive in (("ham", 0), ("spam", 1)):
        wanted = CalibrationArguments(
            calibrate=True,
            threshold_objective="precision_at_recall",
            threshold_min_recall=0.95,
            threshold_positive_class=name,
        )
        _, decisions = fit_calibration(wanted, logits, labels, SINGLE, NAMES).apply(logits)
        assert (decisions == positive)[labels == positive].mean() >= 0.95


def test_metrics_are_those_with_calibration_beside_those_without():
    logits, labels = some_rows(SINGLE, 3)
    wanted = CalibrationArguments(calibrate=True, threshold_objective="f1")
    found = fit_calibration(wanted, logits, labels, SINGLE, list("abc"))
    plain = build_compute_metrics(SINGLE)(Evaluation(logits, labels))
    both = build_compute_metrics(SINGLE, calibration=found)(Evaluation(logits, labels))
    for name, value in {**plain, **calibration_scores(softmax(logits), labels)}.items():
        assert both[f"uncalibrated_{name}"] == pytest.approx(value, abs=1e-12), name
    probabilities, decisions = found.apply(logits)
    assert both["accuracy"] == pytest.approx((decisions == labels).mean())
    for name, value in calibration_scores(probabilities, labels).items():
        assert both[name] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threshold_objective": "f1"}, "threshold_objective: no effect without calibrate"),
        (
            {"calibrate": True, "threshold_min_recall": 0.5},
            "threshold_min_recall: no effect with threshold_objective=None",
        ),
        ({"calibrate": True, "threshold_objective": "f1", "cost_matrix": {}}, "cost_matrix: no effect with .*=f1"),
        (
            {"calibrate": True, "threshold_objective": "precision_at_recall"},
            "needs threshold_min_recall, .* it is None",
        ),
        (
            {"calibrate": True, "threshold_objective": "recall_at_precision", "threshold_min_precision": 90.0},
            r"needs threshold_min_precision, a number in \(0, 1\]; it is 90",
        ),
        (
            {
                "calibrate": True,
                "threshold_objective": "recall_at_precision",
                "threshold_min_precision": 0.9,
                "threshold_min_recall": 0.9,
            },
            "threshold_min_recall: no effect",
        ),
        ({"calibrate": True, "threshold_objective": "cost"}, "cost needs cost_matrix .* or false_positive_cost"),
        (
            {"calibrate": True, "threshold_objective": "cost", "false_positive_cost": 0.0, "false_negative_cost": 1.0},
            "false_positive_cost is 0.0; it must be above 0",
        ),
    ],
)
def test_arguments_that_do_not_fit_each_other(settings, said):
    with pytest.raises(ConfigurationError, match=said):
        CalibrationArguments(**settings)


def cost(**settings):
    return {"threshold_objective": "cost", **settings}


RECALL = {"threshold_objective": "precision_at_recall", "threshold_min_recall": 0.5}


@pytest.mark.parametrize(
    ("settings", "problem_type", "names", "rows", "said"),
    [
        ({}, REGRESSION, ["value"], 100, "a regression has no probabilities"),
        ({}, SINGLE, NAMES, 19, "there are 19 validation rows, and at least 20 are needed.*--validation_file"),
        ({}, SINGLE, NAMES, 1, "there is 1 validation row"),
        ({}, SINGLE, NAMES, 0, "there are no validation rows"),
        (RECALL, SINGLE, NAMES, 100, r"naming the one to be found \(it is None\). The classes are ham, spam"),
        (RECALL | {"threshold_positive_class": "eggs"}, SINGLE, NAMES, 100, "it is eggs"),
        (
            RECALL | {"threshold_positive_class": "a"},
            SINGLE,
            list("abc"),
            100,
            "it is for multi-label, or for two classes",
        ),
        (RECALL | {"threshold_positive_class": "a"}, MULTI, list("abc"), 100, "no effect on several labels"),
        (cost(false_positive_cost=1.0), SINGLE, NAMES, 100, "of a single one pass cost_matrix"),
        (cost(false_positive_cost=1.0), MULTI, NAMES, 100, "needs false_positive_cost and false_negative_cost"),
        (cost(cost_matrix={"ham": {"spam": 2}}), MULTI, NAMES, 100, "and no cost_matrix"),
        (cost(cost_matrix={"eggs": {"spam": 2}}), SINGLE, NAMES, 100, "names eggs; the classes are ham, spam"),
        (cost(cost_matrix={"ham": {"eggs": 2}}), SINGLE, NAMES, 100, "names eggs; the classes are ham, spam"),
        (cost(cost_matrix={"ham": 2}), SINGLE, NAMES, 100, "ham has 2; it must be an object"),
        (cost(cost_matrix={"ham": {"spam": -1}}), SINGLE, NAMES, 100, "the cost of spam where ham is true is -1"),
        (cost(cost_matrix={"ham": {"spam": "2"}}), SINGLE, NAMES, 100, "is '2'; it must be a number"),
        (cost(cost_matrix={"ham": {"spam": 0}, "spam": {"ham": 0}}), SINGLE, NAMES, 100, "nothing costs anything"),
    ],
)
def test_data_that_they_do_not_fit(settings, problem_type, names, rows, said):
    wanted = CalibrationArguments(calibrate=True, **settings)
    with pytest.raises((ConfigurationError, DataError), match=said):
        check_calibration(wanted, problem_type, names, rows)


def test_nothing_asked_fits_everything():
    check_calibration(CalibrationArguments(), REGRESSION, ["value"], 0)
