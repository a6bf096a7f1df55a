import json

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_softmax
from sklearn.metrics import brier_score_loss, log_loss

from hf_ext import Calibration, ConfigurationError, DataError, fit_temperature
from hf_ext.evaluation.calibration import expected_calibration_error, proper_scores

SINGLE, MULTI = "single_label_classification", "multi_label_classification"


def calibration_error_by_hand(probabilities, labels, num_bins):
    """Equation 3 of Guo et al. (2017), a row at a time."""
    bins = [[] for _ in range(num_bins)]
    for row, label in zip(probabilities, labels, strict=True):
        confidence = max(row)
        index = next(i for i in range(num_bins) if i / num_bins < confidence <= (i + 1) / num_bins)
        bins[index].append((confidence, float(np.argmax(row) == label)))
    total = 0.0
    for rows in bins:
        if rows:
            confidences, hits = zip(*rows, strict=True)
            total += len(rows) / len(labels) * abs(sum(hits) / len(rows) - sum(confidences) / len(rows))
    return total


@pytest.mark.parametrize("num_bins", [1, 10, 15, 100])
@pytest.mark.parametrize("classes", [2, 5])
def test_against_a_loop(classes, num_bins):
    generator = np.random.default_rng(classes)
    probabilities = generator.dirichlet(np.full(classes, 0.7), size=700)
    labels = generator.integers(0, classes, 700)
    expected = calibration_error_by_hand(probabilities, labels, num_bins)
    assert expected_calibration_error(probabilities, labels, num_bins) == pytest.approx(expected, abs=1e-12)


def test_fifteen_bins_are_the_default():
    generator = np.random.default_rng(0)
    probabilities, labels = generator.dirichlet(np.ones(3), size=300), generator.integers(0, 3, 300)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(
        calibration_error_by_hand(probabilities, labels, 15), abs=1e-12
    )


def test_extremes():
    sure = np.eye(2)[[0, 1, 1, 0]]
    assert expected_calibration_error(sure, np.array([0, 1, 1, 0])) == 0.0
    assert expected_calibration_error(sure, np.array([1, 0, 0, 1])) == 1.0
    # Seven of ten right at a confidence of 0.7.
    probabilities = np.tile([0.7, 0.3], (10, 1))
    assert expected_calibration_error(probabilities, np.array([0] * 7 + [1] * 3)) == pytest.approx(0.0, abs=1e-12)
    assert expected_calibration_error(probabilities, np.array([0] * 2 + [1] * 8)) == pytest.approx(0.5)


def test_lists_are_taken_too():
    assert expected_calibration_error([[0.9, 0.1], [0.2, 0.8]], [0, 1]) == pytest.approx(0.15)


def test_of_several_labels_each_yes_or_no_is_a_decision():
    generator = np.random.default_rng(3)
    probabilities, labels = generator.random((200, 4)), generator.integers(0, 2, (200, 4))
    pairs = [[1 - p, p] for row in probabilities for p in row]
    expected = calibration_error_by_hand(pairs, [label for row in labels for label in row], 15)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-12)


# ---- Proper scores ----


def test_scores_are_scikit_learns():
    generator = np.random.default_rng(0)
    probabilities, labels = generator.dirichlet(np.ones(3), 200), generator.integers(0, 3, 200)
    scores = proper_scores(probabilities, labels)
    assert scores["nll"] == pytest.approx(log_loss(labels, probabilities), rel=1e-12)
    assert scores["brier"] == pytest.approx(brier_score_loss(labels, probabilities, scale_by_half=False), rel=1e-12)
    probabilities, labels = generator.random((200, 3)), generator.integers(0, 2, (200, 3))
    scores = proper_scores(probabilities, labels)
    columns = list(zip(labels.T, probabilities.T, strict=True))
    assert scores["nll"] == pytest.approx(np.mean([log_loss(y, p) for y, p in columns]), rel=1e-12)
    assert scores["brier"] == pytest.approx(np.mean([brier_score_loss(y, p) for y, p in columns]), rel=1e-12)


# ---- Temperature ----


def drawn(temperature, problem_type=SINGLE, rows=20_000, classes=4, seed=0, size=1.0):
    """Logits, and labels drawn from what these divided by a temperature say."""
    generator = np.random.default_rng(seed)
    logits = 2 * size * generator.normal(size=(rows, classes))
    if problem_type == MULTI:
        return logits, (generator.random(logits.shape) < expit(logits / temperature / size)).astype(int)
    scores = logits / temperature / size + generator.gumbel(size=logits.shape)
    return logits, scores.argmax(axis=1)


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature, problem_type):
    logits, labels = drawn(temperature, problem_type)
    found = fit_temperature(logits, labels)
    assert found.value == pytest.approx(temperature, rel=0.05)
    assert found.note == ""
    assert found.nll_after <= found.nll_before


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
@pytest.mark.parametrize("seed", range(4))
def test_the_temperature_is_the_minimum_that_another_optimiser_finds(seed, problem_type):
    logits, labels = drawn(1.7, problem_type, rows=60, seed=seed)

    def nll(inverse):
        scaled = logits * inverse[0]
        if problem_type == MULTI:
            return -np.where(labels == 1, np.log(expit(scaled)), np.log(expit(-scaled))).mean()
        return -log_softmax(scaled, axis=1)[np.arange(len(labels)), labels].mean()

    expected = minimize(nll, [1.0], method="BFGS", options={"gtol": 1e-10})
    found = fit_temperature(logits, labels)
    assert found.value == pytest.approx(1 / expected.x[0], rel=1e-4)
    assert found.nll_before == pytest.approx(nll([1.0]), rel=1e-12)
    assert found.nll_after == pytest.approx(expected.fun, rel=1e-9)


@pytest.mark.parametrize("size", [1e-4, 1e4])
def test_the_size_of_logits_does_not_matter(size):
    logits, labels = drawn(2.0, rows=500, size=size)
    assert fit_temperature(logits, labels).value == pytest.approx(fit_temperature(logits / size, labels).value * size)


@pytest.mark.parametrize("scale", [0.01, 1.0, 1000.0])
def test_a_perfect_model_keeps_its_probabilities_and_that_is_said(scale):
    labels = np.arange(30) % 3
    for logits, truth in ((np.eye(3)[labels], labels), (2 * np.eye(3)[labels] - 1, np.eye(3)[labels].astype(int))):
        found = fit_temperature(scale * logits, truth)
        assert found.value == 1.0
        assert found.nll_after == found.nll_before
        assert "right on 30 of 30 rows" in found.note


def test_equal_logits_say_nothing():
    found = fit_temperature(np.full((30, 3), 7.0), np.arange(30) % 3)
    assert (found.value, found.nll_after) == (1.0, pytest.approx(np.log(3)))
    assert "All logits of a row are equal" in found.note


def test_logits_that_mislead_are_levelled():
    labels = np.arange(60) % 3
    logits = -5.0 * np.eye(3)[labels]
    found = fit_temperature(logits, labels)
    assert np.isfinite(found.value)
    assert found.nll_after == pytest.approx(np.log(3), abs=0.02)
    assert "contradict the model's confidence" in found.note


def test_what_cannot_be_fitted_is_refused():
    logits, labels = drawn(1.0, rows=30)
    for values, truth, said in (
        (logits[:19], labels[:19], "There are 19 rows to calibrate on; at least 20"),
        (logits[:1], labels[:1], "There is 1 row to calibrate on"),
        (logits, labels[:29], r"Logits of shape \(30, 4\) and labels of shape \(29,\)"),
        (logits, np.where(labels == 0, 4, labels), "The label 4 occurs; labels must be class ids from 0 to 3"),
        (logits, np.full((30, 4), 2), "The label 2 occurs; labels must be 0 or 1"),
        (np.where(logits == logits[3, 1], np.nan, logits), labels, "The logits of row 3 are .*nan"),
    ):
        with pytest.raises(DataError, match=said):
            fit_temperature(values, truth)


# ---- Calibration ----


def some_calibrations():
    thresholds = np.array([0.1, 0.25, 1 / 3])
    scores = {"test": {"before": {"ece": 0.2}, "after": {"ece": 0.1}}}
    return [
        Calibration(SINGLE, ["a", "b", "ü"], 1.7, None, np.array([[0, 1, 5], [1, 0, 1], [0.5, 1, 0]])),
        Calibration(SINGLE, ["0", "1", "2"], 0.3, thresholds, scores=scores, notes=["A note."]),
        Calibration(MULTI, ["x", "y", "z"], 2.0, thresholds, objective={"threshold_objective": "f1"}),
    ]


@pytest.mark.parametrize("index", range(3))
def test_saved_and_loaded_it_does_the_same(tmp_path, index):
    calibration = some_calibrations()[index]
    path = calibration.save(tmp_path)
    assert path.name == "calibration.json"
    loaded = Calibration.load(tmp_path, calibration.label_names, calibration.problem_type)
    logits = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    for ours, theirs in zip(calibration.apply(logits), loaded.apply(logits), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.as_dict() == calibration.as_dict()


def test_it_divides_decides_and_predicts():
    logits = np.random.default_rng(1).normal(size=(40, 3))
    single, _, multi = some_calibrations()
    probabilities, decisions = single.apply(logits)
    np.testing.assert_allclose(probabilities, np.exp(log_softmax(logits / 1.7, axis=1)), rtol=1e-12)
    np.testing.assert_array_equal(decisions, (probabilities @ single.cost_matrix).argmin(axis=1))
    assert (decisions != probabilities.argmax(axis=1)).any()
    predictions = single.predict(logits, np.zeros(40, dtype=int), ["text"] * 40)
    np.testing.assert_array_equal(predictions.predictions, decisions)
    probabilities, decisions = multi.apply(logits)
    np.testing.assert_allclose(probabilities, expit(logits / 2), rtol=1e-12)
    np.testing.assert_array_equal(decisions, probabilities >= multi.thresholds)
    assert multi.predict(logits, None, ["text"] * 40).labels is None


def test_files_of_other_models_and_damaged_ones_are_refused(tmp_path):
    calibration = some_calibrations()[2]
    path = calibration.save(tmp_path)
    for names, problem_type in ((["x", "z", "y"], MULTI), (["x", "y"], MULTI), (["x", "y", "z"], SINGLE)):
        with pytest.raises(
            ConfigurationError, match=r"calibration.json was fitted to multi.* x, y, z; the model is of"
        ):
            Calibration.load(path, names, problem_type)
    with pytest.raises(ConfigurationError, match=r"There is no .*nowhere"):
        Calibration.load(tmp_path / "nowhere")
    content = json.loads(path.read_text())
    for change, said in (
        ({"temperature": 0}, "temperature is 0, which no calibration has"),
        ({"temperature": "hot"}, "is no calibration .*hot"),
        ({"thresholds": {"x": 0.5}}, "is no calibration .*'y'"),
        ({"thresholds": {"x": 0.5, "y": 2, "z": 0.1}}, "thresholds is .* which no calibration has"),
        ({"cost_matrix": [[0, 1], [1, 0]]}, "cost_matrix is .* which no calibration has"),
        ({"problem_type": "regression"}, "problem_type is 'regression'"),
    ):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(DataError, match=f"calibration.json.*{said}"):
            Calibration.load(path)
    path.write_text("{")
    with pytest.raises(DataError, match="is no calibration"):
        Calibration.load(path)
