import textwrap

import evaluate
import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
from transformers import EvalPrediction

from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.calibration import expected_calibration_error
from hf_ext.evaluation.compute_metrics import build_compute_metrics, possible_metric_names
from hf_ext.evaluation.metrics import (
    METRIC_NAMES,
    multi_label_metrics,
    regression_metrics,
    single_label_metrics,
)
from hf_ext.evaluation.modules import MODULES, CalibrationError, SingleLabelMetrics

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def averaged(labels, predictions, averages):
    """F1 by scikit-learn's report of all averages, precision and recall by their own functions."""
    scores = {}
    for average in averages:
        precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
            labels, predictions, average=average, zero_division=0
        )
        scores[f"f1_{average}"] = f1
        if average == "macro":
            scores["precision_macro"], scores["recall_macro"] = precision, recall
    return scores


def single_label_reference(labels, predictions):
    return {
        **averaged(labels, predictions, ("macro", "micro", "weighted")),
        "accuracy": np.mean(labels == predictions),
        "mcc": sklearn.metrics.matthews_corrcoef(labels, predictions),
    }


def multi_label_reference(labels, predictions):
    return {
        **averaged(labels, predictions, ("macro", "micro", "weighted", "samples")),
        "subset_accuracy": np.mean((labels == predictions).all(axis=1)),
        "hamming_loss": np.mean(labels != predictions),
    }


def regression_reference(labels, predictions):
    errors = labels - predictions
    return {
        "mse": np.mean(errors**2),
        "rmse": np.mean(errors**2) ** 0.5,
        "mae": np.mean(np.abs(errors)),
        "r2": 1 - (errors**2).sum() / ((labels - labels.mean()) ** 2).sum(),
        "pearson": np.corrcoef(labels, predictions)[0, 1],
        "spearman": np.corrcoef(scipy.stats.rankdata(labels), scipy.stats.rankdata(predictions))[0, 1],
    }


# ---- Values ----


@pytest.mark.parametrize("classes", [2, 3, 20])
def test_single_label_metrics(classes):
    generator = np.random.default_rng(classes)
    labels = generator.integers(0, classes, 300)
    predictions = np.where(generator.random(300) < 0.6, labels, generator.integers(0, classes, 300))
    scores = single_label_metrics(labels, predictions)
    assert scores == pytest.approx(single_label_reference(labels, predictions))
    assert {type(score) for score in scores.values()} == {float}
    # By hand, for two classes.
    if classes == 2:
        hits = np.sum((labels == 1) & (predictions == 1))
        f1 = [
            2 * np.sum((labels == c) & (predictions == c)) / (np.sum(labels == c) + np.sum(predictions == c))
            for c in (0, 1)
        ]
        assert scores["f1_macro"] == pytest.approx(np.mean(f1))
        recalls = [hits / np.sum(labels == 1), np.sum((labels == 0) & (predictions == 0)) / np.sum(labels == 0)]
        assert scores["recall_macro"] == pytest.approx(np.mean(recalls))


@pytest.mark.filterwarnings("error")
def test_classes_that_are_never_predicted_count_as_zero():
    scores = single_label_metrics(np.array([0, 1, 2, 2]), np.array([0, 0, 2, 2]))
    assert scores["precision_macro"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert scores["f1_macro"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    # A class that is nowhere does not count at all.
    assert single_label_metrics(np.array([0, 2]), np.array([0, 2]))["f1_macro"] == 1.0


@pytest.mark.filterwarnings("ignore:A single label was found")
def test_one_class_has_no_correlation():
    scores = single_label_metrics(np.array([1, 1]), np.array([1, 1]))
    assert (scores["accuracy"], scores["f1_macro"], scores["mcc"]) == (1.0, 1.0, 0.0)


def test_multi_label_metrics():
    generator = np.random.default_rng(0)
    labels = (generator.random((200, 6)) < 0.3).astype(int)
    predictions = np.where(generator.random((200, 6)) < 0.8, labels, 1 - labels)
    scores = multi_label_metrics(labels, predictions)
    assert scores == pytest.approx(multi_label_reference(labels, predictions))
    assert multi_label_metrics(labels.astype(float), predictions.tolist()) == scores


@pytest.mark.filterwarnings("error")
def test_multi_label_metrics_without_any_label():
    nothing = np.zeros((3, 2))
    scores = multi_label_metrics(nothing, nothing)
    assert (scores["subset_accuracy"], scores["hamming_loss"], scores["f1_macro"]) == (1.0, 0.0, 0.0)


def test_regression_metrics():
    generator = np.random.default_rng(0)
    labels = generator.normal(3, 2, 250).round(1)
    predictions = (0.7 * labels + generator.normal(0, 1, 250)).round(1)
    assert regression_metrics(labels, predictions) == pytest.approx(regression_reference(labels, predictions))


@pytest.mark.filterwarnings("error")
def test_correlations_that_do_not_exist():
    scores = regression_metrics(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0]))
    assert scores["mse"] == pytest.approx(2 / 3)
    assert np.isnan(scores["pearson"]) and np.isnan(scores["spearman"])
    scores = regression_metrics(np.array([1.0]), np.array([3.0]))
    assert (scores["mse"], scores["mae"]) == (4.0, 2.0)
    assert all(np.isnan(scores[name]) for name in ("r2", "pearson", "spearman"))


# ---- Modules of `evaluate` ----


def test_modules_combine():
    class WrongRows(evaluate.Metric):
        """A user's own."""

        def _info(self):
            return SingleLabelMetrics._info(self)

        def _compute(self, predictions, references):
            return {"wrong": sum(one != other for one, other in zip(predictions, references, strict=True))}

    labels, predictions = np.array([0, 1, 2, 2, 1]), np.array([0, 1, 2, 1, 0])
    combined = evaluate.combine([SingleLabelMetrics(keep_in_memory=True), WrongRows(keep_in_memory=True)])
    scores = combined.compute(predictions=predictions, references=labels)
    assert scores.pop("wrong") == 2
    assert scores == pytest.approx(single_label_reference(labels, predictions))


def test_modules_add_batches():
    generator = np.random.default_rng(0)
    labels = (generator.random((40, 3)) < 0.5).astype(int)
    predictions = (generator.random((40, 3)) < 0.5).astype(int)
    module = MODULES[MULTI](keep_in_memory=True)
    for rows in (slice(0, 16), slice(16, 32), slice(32, 40)):
        module.add_batch(predictions=predictions[rows], references=labels[rows])
    assert module.compute() == pytest.approx(multi_label_reference(labels, predictions))
    values = generator.normal(size=(2, 30))
    scores = MODULES[REGRESSION](keep_in_memory=True).compute(predictions=values[1], references=values[0])
    assert scores == pytest.approx(regression_reference(*values))


def test_module_of_calibration():
    generator = np.random.default_rng(0)
    probabilities, labels = generator.dirichlet(np.ones(3), 50), generator.integers(0, 3, 50)
    scores = CalibrationError(keep_in_memory=True).compute(predictions=probabilities, references=labels)
    assert scores == {"ece": pytest.approx(expected_calibration_error(probabilities, labels), abs=1e-12)}


# ---- For the Trainer ----


def test_compute_metrics_of_single_labels():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(80, 3)).astype(np.float32), generator.integers(0, 3, 80)
    scores = build_compute_metrics(SINGLE)(EvalPrediction(logits, labels))
    expected = single_label_reference(labels, logits.argmax(axis=1))
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=1)
    expected["ece"] = expected_calibration_error(probabilities, labels)
    assert scores == pytest.approx(expected)
    assert set(scores) == set(METRIC_NAMES[SINGLE])


def test_compute_metrics_of_several_labels():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(80, 4)).astype(np.float32), generator.integers(0, 2, (80, 4))
    logits[0, 0] = 0.0
    scores = build_compute_metrics(MULTI)(EvalPrediction(logits, labels.astype(np.float32)))
    # A probability of one half is a yes.
    assert scores == pytest.approx(multi_label_reference(labels, (logits >= 0).astype(int)))
    assert set(scores) == set(METRIC_NAMES[MULTI])


def test_compute_metrics_of_values():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(80, 1)), generator.normal(size=80)
    expected = regression_reference(labels, logits[:, 0])
    compute = build_compute_metrics(REGRESSION)
    for shape in ((80,), (80, 1)):
        assert compute(EvalPrediction(logits, labels.reshape(shape))) == pytest.approx(expected)
    assert set(expected) == set(METRIC_NAMES[REGRESSION])


def test_of_several_outputs_the_first_is_the_logits():
    logits, labels = np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0, 1])
    scores = build_compute_metrics(SINGLE)(EvalPrediction((logits, np.zeros((2, 7))), labels))
    assert scores["accuracy"] == 1.0


def test_half_precision_logits():
    logits = np.array([[60000, -60000], [-60000, 60000]], dtype=np.float16)
    scores = build_compute_metrics(SINGLE)(EvalPrediction(logits, np.array([0, 1])))
    assert (scores["accuracy"], scores["ece"]) == (1.0, 0.0)


@pytest.mark.parametrize(("problem_type", "num_labels"), [(SINGLE, 2), (SINGLE, 5), (MULTI, 3), (REGRESSION, 1)])
def test_possible_metric_names(problem_type, num_labels):
    names = possible_metric_names(build_compute_metrics(problem_type), problem_type, num_labels)
    assert names == ["loss", *sorted(METRIC_NAMES[problem_type])]


# ---- Further metrics ----

OWN_METRIC = """
    import datasets
    import evaluate


    class {name}(evaluate.Metric):
        def _info(self):
            value = datasets.Sequence(datasets.Value("int64")) if {multi} else datasets.Value("int64")
            features = datasets.Features({{"predictions": value, "references": value}})
            return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

        def _compute(self, predictions, references{average}):
            return {{"rows_{name}": len(predictions), "first": predictions[0], "average": {returned}}}
"""


@pytest.fixture
def own_metric(tmp_path):
    def write(name, average=False, multi=False):
        path = tmp_path / f"{name.lower()}.py"
        values = {
            "name": name,
            "multi": multi,
            "average": ', average="none"' if average else "",
            "returned": "average" if average else None,
        }
        path.write_text(textwrap.dedent(OWN_METRIC.format(**values)))
        return str(path)

    return write


LOGITS, LABELS = np.array([[0.0, 1.0], [2.0, 1.0], [0.0, 4.0]]), np.array([1, 0, 0])


def test_a_metric_of_ones_own(own_metric):
    scores = build_compute_metrics(SINGLE, own_metric("Rows"))(EvalPrediction(LOGITS, LABELS))
    assert (scores["rows_Rows"], scores["first"], scores["average"]) == (3, 1, None)
    assert scores["accuracy"] == pytest.approx(2 / 3)
    names = possible_metric_names(build_compute_metrics(SINGLE, own_metric("Rows")), SINGLE, 2)
    assert "rows_Rows" in names and "accuracy" in names


def test_a_metric_that_averages_is_asked_for_the_macro_average(own_metric):
    scores = build_compute_metrics(SINGLE, own_metric("Averaging", average=True))(EvalPrediction(LOGITS, LABELS))
    assert scores["average"] == "macro"


def test_a_metric_of_several_labels(own_metric):
    compute = build_compute_metrics(MULTI, own_metric("Several", multi=True))
    scores = compute(EvalPrediction(LOGITS - 1, np.array([[0, 1], [1, 0], [0, 1]])))
    assert (scores["rows_Several"], scores["first"]) == (3, [0, 1])


@pytest.mark.parametrize("name", ["accuracy", "f1", "precision", "recall", "matthews_correlation"])
def test_names_of_what_is_always_reported_load_nothing(name):
    scores = build_compute_metrics(SINGLE, name)(EvalPrediction(LOGITS, LABELS))
    assert set(scores) == set(METRIC_NAMES[SINGLE])


def test_unknown_metrics(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigurationError, match="metric_name=no_such_metric could not be loaded") as caught:
        build_compute_metrics(SINGLE, "no_such_metric")
    assert "without a network: accuracy, f1_macro" in str(caught.value)
