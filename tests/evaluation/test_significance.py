import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from hf_ext.evaluation import significance
from hf_ext.evaluation.calibration import expected_calibration_error
from hf_ext.evaluation.metrics import multi_label_metrics, regression_metrics, single_label_metrics
from hf_ext.evaluation.predictions import Predictions
from hf_ext.evaluation.significance import bootstrap_intervals, metric_intervals

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def single(rows=500, classes=3, seed=0, strength=1.0):
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, rows, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    logits = generator.normal(size=(rows, classes)) + strength * np.eye(classes)[labels]
    names = [f"c{i}" for i in range(classes)]
    return Predictions.from_logits(logits, labels, ["t"] * rows, problem_type=SINGLE, label_names=names)


def multi(rows=300, classes=4, seed=0):
    generator = np.random.default_rng(seed)
    labels = (generator.random((rows, classes)) < 0.3).astype(int)
    logits = generator.normal(size=(rows, classes)) + labels
    names = [f"c{i}" for i in range(classes)]
    return Predictions.from_logits(logits, labels, ["t"] * rows, problem_type=MULTI, label_names=names)


def values(rows=300, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.normal(2, 3, rows)
    predicted = 0.8 * labels + generator.normal(size=rows)
    return Predictions.from_logits(predicted, labels, ["t"] * rows, problem_type=REGRESSION, label_names=["value"])


@pytest.fixture
def unresampled(monkeypatch):
    """The intervals' own functions of sums, with every row counted once."""

    def once(statistics, counts, metrics):
        return {name: float(value[0]) for name, value in metrics((counts @ statistics)[None]).items()}

    monkeypatch.setattr(significance, "bootstrap_intervals", once)
    return metric_intervals


# ---- Functions of sums ----


@pytest.mark.parametrize(("classes", "seed"), [(2, 0), (3, 1), (10, 2)])
def test_single_label_metrics_from_sums(unresampled, classes, seed):
    predictions = single(classes=classes, seed=seed)
    expected = single_label_metrics(predictions.labels, predictions.predictions)
    # scikit-learn's numbers, by way of the function that the metrics' own tests check.
    assert expected["accuracy"] == sklearn.metrics.accuracy_score(predictions.labels, predictions.predictions)
    expected["ece"] = expected_calibration_error(predictions.probabilities, predictions.labels)
    assert unresampled(predictions) == pytest.approx(expected, abs=1e-12)


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize(
    ("labels", "predicted"),
    [([0, 1, 2, 2], [0, 0, 2, 2]), ([0, 0, 0], [0, 0, 0]), ([1, 0, 1], [0, 0, 0]), ([0, 3, 0], [3, 3, 1])],
)
def test_single_labels_with_classes_missing(unresampled, labels, predicted):
    predictions = Predictions(SINGLE, list("abcd"), np.eye(4)[predicted], np.array(labels), ["t"] * len(labels))
    scores = unresampled(predictions)
    scores.pop("ece")
    assert scores == pytest.approx(single_label_metrics(np.array(labels), np.array(predicted)), abs=1e-12)


def test_multi_label_metrics_from_sums(unresampled):
    predictions = multi()
    expected = multi_label_metrics(predictions.labels, predictions.predictions)
    # A mean over rows of F1 is no function of sums over rows of counts by class.
    expected.pop("f1_samples")
    assert unresampled(predictions) == pytest.approx(expected, abs=1e-12)


def test_multi_label_metrics_without_any_label(unresampled):
    predictions = Predictions(MULTI, ["a", "b"], np.full((3, 2), 0.1), np.zeros((3, 2), int), ["t"] * 3)
    expected = multi_label_metrics(predictions.labels, predictions.predictions)
    expected.pop("f1_samples")
    assert unresampled(predictions) == pytest.approx(expected, abs=1e-12)


def test_regression_metrics_from_sums(unresampled):
    predictions = values()
    expected = regression_metrics(predictions.labels, predictions.predictions)
    # Ranks change with the sample.
    expected.pop("spearman")
    assert unresampled(predictions) == pytest.approx(expected, abs=1e-9)


# ---- Intervals ----


def f1_macro(labels, predictions, axis=-1):
    scores = []
    for c in range(3):
        hits = ((labels == c) & (predictions == c)).sum(axis=axis)
        scores.append(2 * hits / ((labels == c).sum(axis=axis) + (predictions == c).sum(axis=axis)))
    return np.mean(scores, axis=0)


def accuracy(labels, predictions, axis=-1):
    return (labels == predictions).mean(axis=axis)


@pytest.mark.parametrize(("name", "statistic"), [("accuracy", accuracy), ("f1_macro", f1_macro)])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_intervals_against_scipy(name, statistic, confidence):
    predictions = single()
    reference = scipy.stats.bootstrap(
        (predictions.labels, predictions.predictions),
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=5000,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    low, high = metric_intervals(predictions, num_resamples=5000, confidence=confidence)[name]
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=0.005)
    assert low < statistic(predictions.labels, predictions.predictions) < high


def test_regression_intervals_against_scipy():
    predictions = values()
    for name, statistic in {
        "mae": lambda y, p, axis=-1: np.abs(y - p).mean(axis=axis),
        "rmse": lambda y, p, axis=-1: ((y - p) ** 2).mean(axis=axis) ** 0.5,
    }.items():
        reference = scipy.stats.bootstrap(
            (predictions.labels, predictions.predictions),
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=5000,
            method="percentile",
            rng=np.random.default_rng(1),
        ).confidence_interval
        interval = metric_intervals(predictions, num_resamples=5000)[name]
        assert interval == pytest.approx((reference.low, reference.high), rel=0.02)


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (
            single,
            {
                *("accuracy", "f1_macro", "f1_micro", "f1_weighted", "precision_macro", "recall_macro", "mcc"),
                "ece",
            },
        ),
        (
            multi,
            {
                *("subset_accuracy", "f1_macro", "f1_micro", "f1_weighted", "precision_macro", "recall_macro"),
                "hamming_loss",
            },
        ),
        (values, {"mse", "rmse", "mae", "r2", "pearson"}),
    ],
)
def test_which_metrics_have_an_interval(build, names):
    intervals = metric_intervals(build(rows=60), num_resamples=100)
    assert set(intervals) == names
    assert all(low <= high for low, high in intervals.values())
    assert all(type(bound) is float for interval in intervals.values() for bound in interval)


def test_the_seed_decides():
    predictions = single(rows=100)
    first = metric_intervals(predictions)
    assert metric_intervals(predictions) == first
    assert metric_intervals(predictions, seed=1) != first


def test_resamples_in_pieces_are_the_same(monkeypatch):
    whole = {build: metric_intervals(build(rows=50), num_resamples=301) for build in (single, multi, values)}
    monkeypatch.setattr(significance, "CELLS_AT_ONCE", 400)
    for build, intervals in whole.items():
        pieces = metric_intervals(build(rows=50), num_resamples=301)
        for name, interval in intervals.items():
            assert pieces[name] == pytest.approx(interval, abs=1e-9), name


def test_counts_stand_for_rows():
    generator = np.random.default_rng(0)
    rows = generator.random(400) < 0.7
    cells, counts = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([np.sum(~rows), np.sum(rows)])
    each = np.stack([np.ones(400), rows], axis=1)

    def mean(sums):
        return {"mean": sums[:, 1] / sums[:, 0]}

    grouped = bootstrap_intervals(cells, counts, mean, num_resamples=8000)["mean"]
    single_rows = bootstrap_intervals(each, np.ones(400), mean, num_resamples=8000)["mean"]
    exact = scipy.stats.binom(400, counts[1] / 400).ppf([0.025, 0.975]) / 400
    assert grouped == pytest.approx(tuple(exact), abs=0.004)
    assert single_rows == pytest.approx(tuple(exact), abs=0.004)


def test_more_rows_make_narrower_intervals():
    widths = {}
    for rows in (200, 3200):
        low, high = metric_intervals(single(rows=rows))["accuracy"]
        widths[rows] = high - low
    assert widths[200] / widths[3200] == pytest.approx(4, rel=0.2)


def test_perfect_predictions_have_no_spread():
    labels = np.array([0, 1] * 20)
    predictions = Predictions(SINGLE, ["a", "b"], np.eye(2)[labels], labels, ["t"] * 40)
    intervals = metric_intervals(predictions)
    assert intervals["accuracy"] == intervals["f1_macro"] == (1.0, 1.0)
    assert intervals["ece"] == (0.0, 0.0)
