from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from statsmodels.stats.multitest import multipletests

from hf_ext.evaluation import significance
from hf_ext.evaluation.calibration import expected_calibration_error
from hf_ext.evaluation.comparison import all_metrics
from hf_ext.evaluation.metric_sums import metric_blocks, values_of
from hf_ext.evaluation.metrics import regression_metrics
from hf_ext.evaluation.predictions import Predictions
from hf_ext.evaluation.same_rows import take_rows
from hf_ext.evaluation.significance import (
    bootstrap_intervals,
    exact_mcnemar,
    holm,
    metric_intervals,
    paired_bootstrap,
)

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


def unresampled(predictions):
    """The intervals' own functions, with every row counted once."""
    return {
        name: float(value[0])
        for counts, (parts,) in metric_blocks([predictions])
        for name, value in values_of(parts, counts[None]).items()
    }


# ---- Metrics as functions of how often each row occurs ----

# `all_metrics` takes scikit-learn's and SciPy's numbers, as its own tests check.


@pytest.mark.parametrize(("classes", "seed"), [(2, 0), (3, 1), (10, 2)])
def test_single_label_metrics_from_sums(classes, seed):
    predictions = single(classes=classes, seed=seed)
    expected = all_metrics(predictions)
    assert expected["accuracy"] == sklearn.metrics.accuracy_score(predictions.labels, predictions.predictions)
    assert unresampled(predictions) == pytest.approx(expected, abs=1e-12)


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize(
    ("labels", "predicted"),
    [([0, 1, 2, 2], [0, 0, 2, 2]), ([0, 0, 0], [0, 0, 0]), ([1, 0, 1], [0, 0, 0]), ([0, 3, 0], [3, 3, 1]), ([2], [1])],
)
def test_single_labels_with_classes_missing(labels, predicted):
    predictions = Predictions(SINGLE, list("abcd"), np.eye(4)[predicted], np.array(labels), ["t"] * len(labels))
    assert unresampled(predictions) == pytest.approx(all_metrics(predictions), abs=1e-12)


@pytest.mark.parametrize("rows", [300, 1])
def test_multi_label_metrics_from_sums(rows):
    predictions = multi(rows=rows)
    assert unresampled(predictions) == pytest.approx(all_metrics(predictions), abs=1e-9)


def test_multi_label_metrics_without_any_label():
    predictions = Predictions(MULTI, ["a", "b"], np.full((3, 2), 0.1), np.zeros((3, 2), int), ["t"] * 3)
    assert unresampled(predictions) == pytest.approx(all_metrics(predictions), abs=1e-12)


def test_regression_metrics_from_sums():
    predictions = values()
    assert unresampled(predictions) == pytest.approx(all_metrics(predictions), abs=1e-9)


def test_decisions_do_not_change_what_the_confidence_says():
    predictions = single(rows=80, classes=3)
    decided = replace(predictions, decisions=np.zeros(80, int))
    assert unresampled(decided)["ece"] == pytest.approx(
        expected_calibration_error(predictions.probabilities, predictions.labels), abs=1e-12
    )
    assert unresampled(decided)["accuracy"] == (predictions.labels == 0).mean()


@pytest.mark.parametrize("decimals", [None, 0])
def test_metrics_of_a_resample_are_those_of_its_rows(decimals):
    """With ties too: a resample repeats rows, and rounded values repeat by themselves."""
    predictions = values(rows=60)
    if decimals is not None:
        rounded = np.round(predictions.probabilities, decimals)
        predictions = replace(predictions, probabilities=rounded, labels=np.round(predictions.labels, decimals))
    ((_, (parts,)),) = metric_blocks([predictions])
    for seed in range(5):
        rows = np.random.default_rng(seed).integers(0, 60, 60)
        found = values_of(parts, np.bincount(rows, minlength=60)[None])
        expected = regression_metrics(predictions.labels[rows], predictions.predictions[rows])
        assert {name: float(value[0]) for name, value in found.items()} == pytest.approx(expected, abs=1e-9)


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


def rows_of_known_error(seed, error, rows=300, sure=(0.55, 0.95)):
    """Rows of two classes that are right less often, by `error`, than they are sure."""
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(*sure, rows)
    right = generator.random(rows) < confidence - error
    logits = np.stack([np.zeros(rows), scipy.special.logit(confidence)], axis=1)
    return Predictions.from_logits(logits, right.astype(int), ["t"] * rows, problem_type=SINGLE, label_names=["a", "b"])


def in_bins(data):
    """Of each row its bin, counted from 0, and by how much it is surer than right."""
    confidence = data.probabilities.max(axis=1)
    return np.minimum((confidence * 15).astype(int), 14), confidence - (data.predictions == data.labels)


def calibration_error(bins, excess, axis=-1):
    sums = [np.where(bins == number, excess, 0.0).sum(axis=axis) for number in range(15)]
    return np.abs(sums).sum(axis=0) / excess.shape[axis]


def test_where_every_bin_is_clear_the_interval_of_the_calibration_error_is_the_basic_one_of_scipy():
    data = rows_of_known_error(0, 0.2, rows=1500)
    low, high = scipy.stats.bootstrap(
        in_bins(data),
        calibration_error,
        paired=True,
        vectorized=True,
        n_resamples=3000,
        batch=100,
        method="basic",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert metric_intervals(data, num_resamples=3000)["ece"] == pytest.approx((low, high), abs=0.004)


def astray(data, resamples):
    """Of each resample, how far the error would be from the true one; in a loop over resamples and bins."""
    bins, excess = in_bins(data)
    rows = len(bins)
    own = np.array([excess[bins == number].sum() / rows for number in range(15)])
    drawn = np.array([[excess[r][bins[r] == number].sum() / rows for number in range(15)] for r in resamples])
    moved = np.where(own < 0, own - drawn, drawn - own)
    moved[:, own == 0] = 0
    raised = moved.copy()
    for number in range(15):
        if abs(own[number]) <= np.sqrt(np.log(rows)) * np.std(drawn[:, number]):
            raised[:, number] = abs(drawn[:, number] - own[number])
    return abs(own).sum(), moved.sum(axis=1), raised.sum(axis=1)


@pytest.mark.parametrize("error", [0.0, 0.05, 0.2])
def test_the_calibration_error_against_a_loop_over_the_same_resamples(error):
    data, other = rows_of_known_error(0, error, rows=200), rows_of_known_error(1, 0.1, rows=200)
    other = Predictions(SINGLE, data.label_names, other.probabilities, data.labels, data.texts)
    generator = np.random.default_rng(3)
    resamples = [generator.integers(0, 200, 200, dtype=np.uint32) for _ in range(100)]
    (value, moved, raised), (value_b, moved_b, raised_b) = (astray(each, resamples) for each in (data, other))
    low, high = value - np.percentile(raised, 97.5), value - np.percentile(moved, 2.5)
    interval = metric_intervals(data, num_resamples=100, seed=3)["ece"]
    assert interval == pytest.approx((max(low, 0), high), abs=1e-12)
    assert 0 <= interval[0] <= value <= interval[1]
    found = paired_bootstrap(data, other, num_resamples=100, seed=3)["ece"]
    difference, above, below = value - value_b, raised - moved_b, moved - raised_b
    expected = (difference, difference - np.percentile(above, 97.5), difference - np.percentile(below, 2.5))
    assert found[:3] == pytest.approx(expected, abs=1e-12)
    shares = (1 + (above >= difference).sum(), 1 + (below <= difference).sum())
    assert found.p == pytest.approx(min(1, 2 * min(shares) / 101))


@pytest.mark.parametrize("sure", [(0.55, 0.95), (0.97, 0.97)], ids=["many bins", "one bin"])
@pytest.mark.parametrize("error", [0.0, 0.01, 0.05])
def test_the_interval_holds_the_calibration_error_of_endless_rows(error, sure):
    """Percentiles hold none of the first two, in many bins; the basic interval holds 65 % of the first there."""
    sets = [rows_of_known_error(seed, error, sure=sure) for seed in range(150)]
    intervals = [metric_intervals(data, num_resamples=300)["ece"] for data in sets]
    # On a bin with two dozen wrong answers the bootstrap comes to 92 %, 138 of these.
    assert sum(low <= error <= high for low, high in intervals) >= 130
    assert all(low >= 0 for low, _ in intervals)


def test_equal_calibration_errors_of_another_shape_are_not_told_apart():
    """Percentiles find a difference in two of three."""
    p_values = []
    for seed in range(60):
        one, many = (rows_of_known_error(seed, 0.02, sure=sure) for sure in ((0.97, 0.97), (0.55, 0.95)))
        # The same questions: what is right of the second model is so by its own answers.
        answers = np.where(many.labels == 1, one.labels, 1 - one.labels)
        many = Predictions(
            SINGLE,
            one.label_names,
            np.where((answers == 1)[:, None], many.probabilities, many.probabilities[:, ::-1]),
            one.labels,
            one.texts,
        )
        p_values.append(paired_bootstrap(one, many, num_resamples=300)["ece"].p)
    assert sum(p < 0.05 for p in p_values) <= 7


def spearman(labels, predictions, axis=-1):
    ranks = [scipy.stats.rankdata(values, axis=axis) for values in (labels, predictions)]
    first, second = (rank - rank.mean(axis=axis, keepdims=True) for rank in ranks)
    return (first * second).sum(axis=axis) / np.sqrt((first**2).sum(axis=axis) * (second**2).sum(axis=axis))


def test_regression_intervals_against_scipy():
    predictions = values()
    for name, statistic in {
        "spearman": spearman,
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
                *("ece", "nll", "brier"),
            },
        ),
        (
            multi,
            {
                *("subset_accuracy", "f1_macro", "f1_micro", "f1_weighted", "precision_macro", "recall_macro"),
                *("hamming_loss", "f1_samples", "nll", "brier"),
            },
        ),
        (values, {"mse", "rmse", "mae", "r2", "pearson", "spearman"}),
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
            assert np.isfinite(interval).all()
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


# ---- Two models on the same rows ----


def disturbed(predictions, strength, seed):
    """The same rows, answered by a worse model that makes many of the same mistakes."""
    noise = np.random.default_rng([seed, 99]).normal(size=predictions.probabilities.shape) * strength
    if predictions.problem_type == REGRESSION:
        outputs = predictions.probabilities + noise
    elif predictions.problem_type == MULTI:
        outputs = np.log(predictions.probabilities) - np.log1p(-predictions.probabilities) + noise
    else:
        outputs = np.log(predictions.probabilities) + noise
    return Predictions.from_logits(
        outputs,
        predictions.labels,
        predictions.texts,
        problem_type=predictions.problem_type,
        label_names=predictions.label_names,
    )


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (3, 3), (4, 3), (2, 11), (40, 41), (30, 60), (0, 900)])
def test_mcnemar_against_scipy(only_a, only_b):
    correct_a = np.array([1] * only_a + [0] * only_b + [1] * 50 + [0] * 7, dtype=bool)
    correct_b = np.array([0] * only_a + [1] * only_b + [1] * 50 + [0] * 7, dtype=bool)
    expected = scipy.stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    p, *discordant = exact_mcnemar(correct_a, correct_b)
    assert p == pytest.approx(expected, rel=1e-12, abs=1e-300) and p <= 1
    assert discordant == [only_a, only_b]
    assert exact_mcnemar(correct_b, correct_a) == (p, only_b, only_a)


def test_mcnemar_needs_the_same_rows():
    with pytest.raises(ValueError, match=r"shape \(3,\) and correct_b \(2,\)"):
        exact_mcnemar(np.ones(3, bool), np.ones(2, bool))


@pytest.mark.parametrize(
    ("name", "statistic", "score"),
    [
        ("accuracy", accuracy, sklearn.metrics.accuracy_score),
        ("f1_macro", f1_macro, lambda y, p: sklearn.metrics.f1_score(y, p, average="macro")),
    ],
)
def test_paired_bootstrap_against_resampled_rows(name, statistic, score):
    a = single(rows=300)
    b = disturbed(a, 0.8, seed=1)
    rows = np.random.default_rng(7).integers(0, 300, (5000, 300))
    first, second = (statistic(a.labels[rows], model.predictions[rows]) for model in (a, b))
    found = paired_bootstrap(a, b, num_resamples=5000)
    assert set(found) == set(metric_intervals(a, num_resamples=2))
    assert found[name].value == pytest.approx(
        score(a.labels, a.predictions) - score(b.labels, b.predictions), abs=1e-12
    )
    assert (found[name].low, found[name].high) == pytest.approx(np.percentile(first - second, [2.5, 97.5]), abs=0.005)
    assert found[name].p == pytest.approx(2 * np.mean(first <= second), abs=0.01)


@pytest.mark.parametrize("build", [multi, values])
def test_paired_bootstrap_against_the_same_resamples_by_scikit_learn(build):
    a = build(rows=80)
    b = disturbed(a, 1.0, seed=2)
    generator, draws = np.random.default_rng(3), []
    for _ in range(30):
        rows = generator.integers(0, 80, 80, dtype=np.uint32)
        first, second = (all_metrics(take_rows(model, rows)) for model in (a, b))
        draws.append({name: first[name] - second[name] for name in first})
    found = paired_bootstrap(a, b, num_resamples=30, seed=3)
    for name, difference in found.items():
        expected = np.array([draw[name] for draw in draws])
        interval = np.percentile(expected, [2.5, 97.5])
        assert (difference.low, difference.high) == pytest.approx(interval, rel=1e-9, abs=1e-12), name
        shares = (1 + (expected <= 0).sum(), 1 + (expected >= 0).sum())
        assert difference.p == pytest.approx(min(1, 2 * min(shares) / 31)), name


def test_pairing_is_sharper_than_two_intervals():
    a = single(rows=1000)
    low, high = paired_bootstrap(a, disturbed(a, 0.3, seed=1))["accuracy"][1:3]
    alone = metric_intervals(a)["accuracy"]
    assert high - low < 0.7 * (alone[1] - alone[0])


@pytest.mark.parametrize("build", [single, multi, values])
def test_equal_answers_differ_by_nothing(build):
    a = build(rows=101)
    assert set(paired_bootstrap(a, build(rows=101), num_resamples=200).values()) == {(0.0, 0.0, 0.0, 1.0)}


def test_equal_correlations_are_not_told_apart_by_rounding():
    a = values(rows=101)
    b = Predictions(REGRESSION, a.label_names, 0.3 * a.probabilities + 7, a.labels, a.texts)
    assert paired_bootstrap(a, b, num_resamples=200)["pearson"].p == 1


@pytest.mark.filterwarnings("error")
def test_a_constant_has_no_correlation_to_compare():
    a = values(rows=50)
    b = Predictions(REGRESSION, a.label_names, np.zeros((50, 1)), a.labels, a.texts)
    difference = paired_bootstrap(a, b, num_resamples=50)["pearson"]
    assert np.isnan(difference).all()


def test_chance_is_found_significant_as_often_as_promised():
    below = 0
    for seed in range(150):
        truth = single(rows=150, seed=seed)
        a, b = disturbed(truth, 1.0, seed=seed + 1000), disturbed(truth, 1.0, seed=seed + 2000)
        below += paired_bootstrap(a, b, num_resamples=400)["f1_macro"].p < 0.05
    # 7.5 expected; a binomial stays below 16 with a probability of 0.998.
    assert 1 <= below <= 15


@pytest.mark.parametrize(
    "change", [lambda a: values(), lambda a: single(classes=4), lambda a: single(seed=1), lambda a: single(rows=10)]
)
def test_paired_bootstrap_refuses_other_rows(change):
    a = single()
    with pytest.raises(ValueError, match="same rows and classes"):
        paired_bootstrap(a, change(a))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("build", [single, multi, values])
def test_one_row_has_intervals_without_width_or_none(build):
    predictions = build(rows=1)
    for low, high in metric_intervals(predictions, num_resamples=50).values():
        assert low == high or (np.isnan(low) and np.isnan(high))


# ---- Several tests ----


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1, 2, 7, 30])
def test_holm_against_statsmodels(size, seed):
    p_values = np.random.default_rng([size, seed]).random(size) ** 3
    p_values[-1] = p_values[0]
    expected = multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(holm(p_values), expected, rtol=1e-9, atol=0)


def test_holm_leaves_out_what_tests_nothing():
    corrected = holm([0.01, float("nan"), 0.04])
    assert corrected[::2] == [0.02, 0.04] and np.isnan(corrected[1])
    assert holm([]) == []
