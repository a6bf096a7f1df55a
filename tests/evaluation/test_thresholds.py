import itertools

import numpy as np
import pytest
from sklearn.metrics import f1_score

from hf_ext import ConfigurationError, decide, tune_thresholds
from hf_ext.evaluation.predictions import softmax

SINGLE, MULTI = "single_label_classification", "multi_label_classification"


def single_label(seed, classes, rows=80, rounded=False):
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, rows, p=generator.dirichlet(np.ones(classes)))
    logits = generator.normal(size=(rows, classes)) + np.eye(classes)[labels]
    logits[:, 0] += 1
    probabilities = softmax(logits)
    if rounded:
        # Many rows have the same.
        of_last = np.round(probabilities[:, -1:], 1)
        probabilities = np.concatenate([1 - of_last, of_last], axis=1)
    return probabilities, labels


def multi_label(seed, classes=4, rows=80, rounded=False):
    generator = np.random.default_rng(seed)
    labels = (generator.random((rows, classes)) < generator.uniform(0.05, 0.6, classes)).astype(int)
    probabilities = np.clip(0.3 * labels + 0.7 * generator.random((rows, classes)) ** 2, 0, 1)
    return np.round(probabilities, 1) if rounded else probabilities, labels


def cuts(scores):
    """Every distinct way to divide rows by their scores, among them all and none."""
    ordered = np.unique(scores)
    return [-1.0, *((ordered[1:] + ordered[:-1]) / 2), 2.0]


def counted(truth, decided):
    """Precision, recall and F1 of a yes-or-no question; 0 where nothing is predicted."""
    pairs = list(zip(truth.tolist(), decided.tolist(), strict=True))
    hits, missed, wrong = (sum(bool(t) == a and bool(d) == b for t, d in pairs) for a, b in ((1, 1), (1, 0), (0, 1)))
    precision, recall = hits / max(1, hits + wrong), hits / max(1, hits + missed)
    return precision, recall, 2 * hits / max(1, 2 * hits + missed + wrong)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_f1_of_several_labels_by_brute_force(seed, rounded):
    probabilities, labels = multi_label(seed, rounded=rounded)
    thresholds, notes = tune_thresholds(probabilities, labels, list("abcd"))
    decisions = decide(probabilities, MULTI, thresholds)
    for c in range(4):
        best = max(counted(labels[:, c], probabilities[:, c] > cut)[2] for cut in cuts(probabilities[:, c]))
        assert counted(labels[:, c], decisions[:, c])[2] == pytest.approx(best, abs=1e-12)
        assert best == pytest.approx(max(best, f1_score(labels[:, c], probabilities[:, c] >= 0.5)))
    assert notes == []


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("goal", [0.3, 0.8, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_precision_at_a_recall_by_brute_force(seed, goal, rounded):
    probabilities, labels = multi_label(seed, rounded=rounded)
    names = list("abcd")
    thresholds, _ = tune_thresholds(probabilities, labels, names, "precision_at_recall", min_recall=goal)
    decisions = decide(probabilities, MULTI, thresholds)
    for c in range(4):
        found = [counted(labels[:, c], probabilities[:, c] > cut) for cut in cuts(probabilities[:, c])]
        precision, recall, _ = counted(labels[:, c], decisions[:, c])
        assert recall >= goal
        assert precision == pytest.approx(max(p for p, r, _ in found if r >= goal), abs=1e-12)


@pytest.mark.parametrize("goal", [0.4, 0.7])
@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize("seed", range(4))
def test_recall_at_a_precision_by_brute_force(seed, positive, goal):
    probabilities, labels = single_label(seed, 2)
    thresholds, notes = tune_thresholds(
        probabilities,
        labels,
        ["no", "yes"],
        "recall_at_precision",
        min_precision=goal,
        positive_class=["no", "yes"][positive],
    )
    truth, scores = labels == positive, probabilities[:, positive]
    found = [counted(truth, scores > cut) for cut in cuts(scores)]
    reached = [recall for precision, recall, _ in found if precision >= goal]
    decided = decide(probabilities, SINGLE, thresholds) == positive
    if reached:
        precision, recall, _ = counted(truth, decided)
        assert precision >= goal
        assert recall == pytest.approx(max(reached), abs=1e-12)
        assert notes == []
    else:
        assert not decided.any()
        assert "no threshold reaches a precision" in notes[0]


def macro_f1(labels, decisions):
    return f1_score(labels, decisions, labels=np.unique(labels), average="macro", zero_division=0)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_macro_f1_of_two_classes_by_brute_force(seed, rounded):
    probabilities, labels = single_label(seed, 2, rounded=rounded)
    thresholds, _ = tune_thresholds(probabilities, labels, ["no", "yes"])
    best = max(macro_f1(labels, (probabilities[:, 1] > cut).astype(int)) for cut in cuts(probabilities[:, 1]))
    assert macro_f1(labels, decide(probabilities, SINGLE, thresholds)) == pytest.approx(best, abs=1e-12)
    assert thresholds.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(6))
def test_no_other_threshold_of_one_class_is_better(seed):
    """What coordinate ascent promises, by trying all cuts of each class in a loop."""
    probabilities, labels = single_label(seed, 3, rows=50)
    thresholds, _ = tune_thresholds(probabilities, labels, list("abc"))
    found = macro_f1(labels, decide(probabilities, SINGLE, thresholds))
    assert found >= macro_f1(labels, probabilities.argmax(axis=1))
    for c in range(3):
        others = [k for k in range(3) if k != c]
        rest = (probabilities / thresholds)[:, others]
        ratios = probabilities[:, c] / rest.max(axis=1)
        for cut in [ratios.min() / 2, *cuts(ratios)[1:-1], 2 * ratios.max()]:
            decisions = np.where(ratios > cut, c, np.array(others)[rest.argmax(axis=1)])
            assert macro_f1(labels, decisions) <= found + 1e-12


def test_nothing_better_leaves_the_likeliest_class():
    probabilities = softmax(4 * np.eye(3)[[0, 1, 2, 0, 1]])
    thresholds, notes = tune_thresholds(probabilities, np.array([0, 1, 2, 0, 1]), list("abc"))
    np.testing.assert_allclose(thresholds, 1 / 3)
    assert notes == []


def test_a_class_without_rows():
    probabilities, labels = multi_label(0)
    labels[:, 2] = 0
    thresholds, notes = tune_thresholds(probabilities, labels, ["a", "b", "rare", "d"])
    assert thresholds[2] == 0.5
    assert notes == ["rare occurs in no row that thresholds were tuned on; its threshold stays at 0.5."]
    probabilities, labels = single_label(1, 4)
    labels[labels == 3] = 0
    thresholds, _ = tune_thresholds(probabilities, labels, list("abcd"))
    assert np.isfinite(thresholds).all()
    assert macro_f1(labels, decide(probabilities, SINGLE, thresholds)) >= macro_f1(labels, probabilities.argmax(axis=1))


def test_a_precision_that_cannot_be_reached_is_said_and_the_class_not_predicted():
    probabilities = np.array([[0.9], [0.8], [0.7], [0.2]])
    thresholds, notes = tune_thresholds(
        probabilities, np.array([[0], [1], [0], [1]]), ["a"], "recall_at_precision", min_precision=0.9
    )
    assert not decide(probabilities, MULTI, thresholds).any()
    assert notes == [
        "a: no threshold reaches a precision of 0.9 (the largest is 0.5), so it is not predicted: its threshold is 1."
    ]


def test_zeros_and_ones_are_probabilities_too():
    probabilities, labels = np.array([[1.0, 0.0], [0.0, 1.0]] * 3), np.array([0, 1, 0, 1, 1, 0])
    for objective, goal in (("f1", {}), ("precision_at_recall", {"min_recall": 0.5, "positive_class": "b"})):
        thresholds, _ = tune_thresholds(probabilities, labels, ["a", "b"], objective, **goal)
        assert ((thresholds > 0) & (thresholds < 1)).all()
        assert decide(probabilities, SINGLE, thresholds).tolist() == [0, 1] * 3


def test_the_least_expected_cost_by_a_loop():
    generator = np.random.default_rng(0)
    costs = generator.uniform(0, 5, (4, 4))
    probabilities = generator.dirichlet(np.ones(4), 50)
    decisions = decide(probabilities, SINGLE, cost_matrix=costs)
    for row, decision in zip(probabilities, decisions, strict=True):
        expected = [sum(row[true] * costs[true, answer] for true in range(4)) for answer in range(4)]
        assert decision == int(np.argmin(expected))


def test_decisions_by_default():
    probabilities = np.array([[0.5, 0.2], [0.49, 0.9]])
    assert decide(probabilities, MULTI).tolist() == [[1, 0], [0, 1]]
    assert decide(probabilities, SINGLE).tolist() == [0, 1]


def test_two_classes_are_divided_at_the_threshold():
    p = np.linspace(0.005, 0.995, 100)
    probabilities = np.stack([1 - p, p], axis=1)
    for threshold in (0.1, 0.5, 0.83):
        decided = decide(probabilities, SINGLE, np.array([1 - threshold, threshold]))
        assert decided.tolist() == (p > threshold).astype(int).tolist()


@pytest.mark.parametrize(
    ("objective", "settings", "said"),
    [
        ("f2", {}, "objective is 'f2'; thresholds are tuned for precision_at_recall, recall_at_precision, f1"),
        ("precision_at_recall", {}, r"needs min_recall in \(0, 1\]; it is None"),
        ("recall_at_precision", {"min_precision": 1.5}, "needs min_precision .* it is 1.5"),
        ("recall_at_precision", {"min_precision": 0.5}, "it is None, and the classes are a, b, c"),
        ("recall_at_precision", {"min_precision": 0.5, "positive_class": "a"}, "or for two classes"),
    ],
)
def test_what_does_not_fit_is_refused(objective, settings, said):
    probabilities, labels = single_label(0, 3)
    with pytest.raises(ConfigurationError, match=said):
        tune_thresholds(probabilities, labels, list("abc"), objective, **settings)


def test_many_classes():
    """As many classes and validation rows as CLINC150 has."""
    probabilities, labels = single_label(0, 150, rows=3000)
    thresholds, _ = tune_thresholds(probabilities, labels, [str(c) for c in range(150)])
    better = macro_f1(labels, decide(probabilities, SINGLE, thresholds))
    assert better > macro_f1(labels, probabilities.argmax(axis=1)) + 0.01


def test_brute_force_over_a_grid_of_three_classes_is_hardly_better():
    gaps = []
    for seed in range(4):
        probabilities, labels = single_label(seed, 3, rows=60)
        thresholds, _ = tune_thresholds(probabilities, labels, list("abc"))
        found = macro_f1(labels, decide(probabilities, SINGLE, thresholds))
        grid = itertools.product(np.exp(np.linspace(-3, 3, 15)), repeat=2)
        best = max(macro_f1(labels, decide(probabilities, SINGLE, np.array([1.0, *pair]))) for pair in grid)
        gaps.append(best - found)
    assert np.mean(gaps) < 0.03
