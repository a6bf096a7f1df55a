import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn import metrics

from hf_ext import Predictions
from hf_ext.evaluation.class_scores import class_scores
from hf_ext.evaluation.curve_figures import coverage_view, ranking_curves, threshold_view
from hf_ext.evaluation.curves import (
    Points,
    Ranking,
    accuracy_by_coverage,
    class_rankings,
    mean_precision_recall,
    mean_roc,
    pooled_ranking,
    scores_by_threshold,
    thinned,
)

RNG = np.random.default_rng(0)


def exclusive(rows=400, classes=4, decimals=None):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += 1.2
    data = Predictions.from_logits(
        logits, labels, ["x"] * rows, problem_type="single_label_classification",
        label_names=[f"c{i}" for i in range(classes)],
    )  # fmt: skip
    if decimals is None:
        return data
    return Predictions(data.problem_type, data.label_names, data.probabilities.round(decimals), labels, data.texts)


def several(rows=300, classes=5, threshold=0.5):
    rng = np.random.default_rng(2)
    labels = (rng.random((rows, classes)) < np.linspace(0.05, 0.5, classes)).astype(int)
    probabilities = np.clip(0.4 * labels + 0.6 * rng.random(labels.shape), 0, 1)
    names = [f"c{i}" for i in range(classes)]
    return Predictions("multi_label_classification", names, probabilities, labels, ["x"] * rows, threshold)


def truths(data):
    return data.labels if data.labels.ndim == 2 else np.eye(len(data.label_names), dtype=int)[data.labels]


EVERY = {"fine": exclusive(), "ties": exclusive(decimals=1), "many rows": exclusive(20_000, 3), "several": several()}


@pytest.mark.parametrize("kind", EVERY)
def test_average_precision_and_auc_equal_scikit_learn(kind):
    data, truth = EVERY[kind], truths(EVERY[kind])
    for index, ranking in enumerate(class_rankings(data)):
        given = truth[:, index], data.probabilities[:, index]
        assert ranking.average_precision == pytest.approx(metrics.average_precision_score(*given), abs=1e-12)
        assert ranking.roc_auc == pytest.approx(metrics.roc_auc_score(*given), abs=1e-12)
    pooled = pooled_ranking(data)
    for score, found in (
        (metrics.average_precision_score, pooled.average_precision),
        (metrics.roc_auc_score, pooled.roc_auc),
    ):
        assert found == pytest.approx(score(truth, data.probabilities, average="micro"), abs=1e-12)
    averages = ranking_curves(data, "test")["averages"]
    for position, score in enumerate((metrics.average_precision_score, metrics.roc_auc_score)):
        for average in ("micro", "macro"):
            found = averages[average][position]
            assert found == pytest.approx(score(truth, data.probabilities, average=average), abs=1e-12)


@pytest.mark.parametrize("kind", EVERY)
def test_curves_pass_through_the_points_of_scikit_learn(kind):
    data, truth = EVERY[kind], truths(EVERY[kind])
    for index, ranking in enumerate(class_rankings(data)):
        given = truth[:, index], data.probabilities[:, index]
        x, y = ranking.roc()
        false, true, _ = metrics.roc_curve(*given, drop_intermediate=True)
        corners = set(zip(x.tolist(), y.tolist(), strict=True))
        assert set(zip(false.tolist(), true.tolist(), strict=True)) <= corners
        assert metrics.auc(x, y) == pytest.approx(ranking.roc_auc, abs=1e-12)
        precision, recall, _ = metrics.precision_recall_curve(*given)
        best = {}
        for r, p in zip(recall.tolist(), precision.tolist(), strict=True):
            best[r] = max(p, best.get(r, 0))
        points = ranking.precision_recall()
        assert points.x == pytest.approx(sorted(best)[1:], abs=1e-12)
        assert points.y == pytest.approx([best[r] for r in sorted(best)[1:]], abs=1e-12)


def test_thinning_keeps_the_ends_and_the_shape():
    curve = next(class_rankings(EVERY["many rows"])).roc()
    few = thinned(curve)
    assert len(few.x) <= 200 < len(curve.x)
    assert (few.x[0], few.y[0], few.x[-1], few.y[-1]) == (0, 0, 1, 1)
    assert np.abs(np.interp(curve.x, few.x, few.y) - curve.y).max() < 2 / 199 + 1e-3
    assert thinned(few) is few


def test_averages_of_curves():
    curves = [Points(np.array([0.5, 1.0]), np.array([1.0, 0.4])), Points(np.array([1.0]), np.array([0.2]))]
    mean = mean_precision_recall(curves)
    assert mean.y[[0, 50, 51, 100]].tolist() == pytest.approx([0.6, 0.6, 0.3, 0.3])
    steps = Points(np.array([0.0, 0.0, 0.5, 0.5, 1.0]), np.array([0.0, 0.4, 0.4, 1.0, 1.0]))
    mean = mean_roc([steps, Points(np.array([0.0, 1.0]), np.array([0.0, 1.0]))])
    assert (mean.x[0], mean.y[0]) == (0, 0)
    assert mean.y[[1, 26, 51, 101]].tolist() == pytest.approx([0.2, (0.4 + 0.25) / 2, (1 + 0.5) / 2, 1.0])


def test_a_class_without_rows_or_without_others_has_no_score():
    for positive in (np.zeros(5, bool), np.ones(5, bool)):
        ranking = Ranking.of(RNG.random(5), positive)
        assert not ranking.defined and np.isnan(ranking.average_precision) and np.isnan(ranking.roc_auc)
    data = Predictions(
        "single_label_classification", ["a", "b"], np.full((3, 2), 0.5), np.zeros(3, dtype=int), ["x"] * 3
    )
    assert "roc" not in ranking_curves(data, "test")


def test_scores_by_threshold_equal_scikit_learn():
    data = several()
    scores = scores_by_threshold(list(class_rankings(data)))
    for place in (0, 30, 49, 80, 98):
        predicted = (data.probabilities >= scores.thresholds[place]).astype(int)
        for average, names in (("micro", ("precision", "recall", "f1")), ("macro", (None, None, "f1_macro"))):
            expected = metrics.precision_recall_fscore_support(data.labels, predicted, average=average, zero_division=0)
            for name, value in zip(names, expected, strict=False):
                if name is not None:
                    assert getattr(scores, name)[place] == pytest.approx(value, abs=1e-12)
    assert scores.f1[scores.best] == scores.f1.max()


def test_two_classes_are_one_question_of_the_second():
    data = exclusive(500, 2)
    view = threshold_view(data, "test")
    assert (view["of"], view["used"], [name for name, _ in view["columns"]]) == (
        "c1",
        0.5,
        ["precision", "recall", "F1"],
    )
    rows = dict(view["rows"])
    report = metrics.classification_report(data.labels, data.predictions, output_dict=True)["1"]
    assert rows["0.50"] == pytest.approx([report[key] for key in ("precision", "recall", "f1-score")])
    assert threshold_view(several(threshold=0.3), "test")["used"] == 0.3


def test_a_threshold_that_nothing_reaches_has_no_precision():
    scores = scores_by_threshold([Ranking.of(np.array([0.1, 0.2, 0.3]), np.array([True, False, True]))])
    assert np.isnan(scores.precision[-1]) and scores.recall[-1] == 0 and scores.f1[-1] == 0


def test_accuracy_by_coverage():
    data = exclusive(300, 3, decimals=1)
    confidence, right = data.probabilities.max(axis=1), data.predictions == data.labels
    coverage = accuracy_by_coverage(data)
    assert coverage.confidences.tolist() == sorted(set(confidence.tolist()), reverse=True)
    for least, answered, accuracy in zip(coverage.confidences, coverage.answered, coverage.accuracy, strict=True):
        assert answered == pytest.approx((confidence >= least).mean())
        assert accuracy == pytest.approx(right[confidence >= least].mean())
    least, answered, _ = coverage.at(0.5)
    assert answered >= 0.5 > (confidence > least).mean()
    assert coverage.at(1.0)[1:] == (1.0, pytest.approx(right.mean()))
    assert coverage_view(data, "test")["rows"][0] == coverage.at(1.0)


def _f1(true, answer, axis=-1):
    return 2 * (true * answer).sum(axis=axis) / (true.sum(axis=axis) + answer.sum(axis=axis))


def test_class_scores_equal_scikit_learn_and_their_intervals_scipy():
    for data in (exclusive(), several()):
        found = class_scores(data)
        expected = metrics.precision_recall_fscore_support(data.labels, data.predictions, zero_division=0)
        shown = [(score.precision, score.recall, score.f1, score.support) for score in found]
        np.testing.assert_allclose(np.transpose(shown), np.array(expected), atol=1e-12)
        for index in (0, 2):
            both = data.labels, data.predictions
            pair = [column[:, index] if column.ndim == 2 else (column == index).astype(int) for column in both]
            interval = bootstrap(
                pair, _f1, paired=True,
                vectorized=True, n_resamples=20_000, method="percentile", rng=0,
            ).confidence_interval  # fmt: skip
            assert found[index].interval == pytest.approx(tuple(interval), abs=0.02)


def test_a_class_that_is_nowhere_has_no_interval():
    data = Predictions(
        "single_label_classification", ["a", "b", "c"], np.eye(3)[[0, 0, 1]], np.array([0, 1, 1]), ["x"] * 3
    )
    last = class_scores(data)[2]
    assert (last.f1, last.interval, last.support, last.predicted) == (0, None, 0, 0)


@pytest.mark.parametrize(
    "name", ["\\1 \\g<x>", "#000000", "half \ud800", "a\x00b\n c", "$x_2", "_hidden", "<i>&\"'", "中"]
)
def test_figures_take_any_name(name, recwarn):
    data = exclusive(60, 3)
    data = Predictions(data.problem_type, [name, "b", "c"], data.probabilities, data.labels, data.texts)
    view = ranking_curves(data, f"split {name}")
    for svg in (view["precision_recall"], view["roc"], coverage_view(data, f"split {name}")["svg"]):
        assert svg.startswith('<svg role="img" aria-label="') and svg.encode() and "<i>" not in svg
        assert not any(character in svg for character in "\x00\ud800")
    assert "currentColor 0." not in view["roc"]
    assert sum(">" in part for part in view["roc"].split("</text>")) >= 14
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_long_names_that_begin_alike_are_all_drawn():
    data = exclusive(60, 3)
    names = [40 * "a" + end for end in "xyz"]
    perfect = np.eye(3)[data.labels]
    svg = ranking_curves(Predictions(data.problem_type, names, perfect, data.labels, data.texts), "test")["roc"]
    assert svg.count("aaa… 1.000</text>") == 3
