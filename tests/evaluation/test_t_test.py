import numpy as np
import pytest
import scipy.stats

from hf_ext.evaluation.t_test import paired_t_test

# The training guide's example.
GUIDE = ([0.85, 0.87, 0.86, 0.88, 0.85], [0.82, 0.84, 0.83, 0.85, 0.82])


def scores(runs, seed=0):
    generator = np.random.default_rng(seed)
    first = generator.normal(0.8, 0.02, runs)
    return first, first + generator.normal(-0.004, 0.01, runs)


@pytest.mark.parametrize("runs", [2, 5, 30])
def test_over_seeds_against_scipy(runs):
    a, b = scores(runs)
    expected = scipy.stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.9)
    found = paired_t_test(a, b, confidence=0.9)
    assert (found.t, found.p, found.df) == pytest.approx((expected.statistic, expected.pvalue, expected.df), rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.value == pytest.approx(np.mean(a - b), rel=1e-12) and found.spread
    back = paired_t_test(b, a)
    assert (back.t, back.p) == (-found.t, found.p)


@pytest.mark.filterwarnings("ignore:Precision loss")
def test_the_guide_s_example_has_the_guide_s_p_but_no_spread():
    expected = scipy.stats.ttest_rel(*GUIDE)
    found = paired_t_test(*GUIDE)
    assert (found.t, found.p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9)
    # Each pair differs by 0.03 but for rounding: a p of 1e-60 rests on the sixteenth digit.
    assert not found.spread


@pytest.mark.parametrize(("folds", "ratio"), [(10, 1 / 9), (5, 1 / 4), (30, 0.5)])
def test_over_folds_against_a_corrected_loop(folds, ratio):
    a, b = scores(folds, seed=2)
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean = sum(differences) / folds
    variance = sum((d - mean) ** 2 for d in differences) / (folds - 1)
    t = mean / ((1 / folds + ratio) * variance) ** 0.5
    found = paired_t_test(a, b, test_train_ratio=ratio)
    assert found.t == pytest.approx(t, rel=1e-9)
    assert found.p == pytest.approx(2 * scipy.stats.t.cdf(-abs(t), folds - 1), rel=1e-9)
    assert (found.low < 0 < found.high) == (found.p > 0.05)
    assert found.p > paired_t_test(a, b).p


def test_splits_of_the_same_rows_find_less_by_chance_when_corrected():
    """Least squares on one of two features that know equally much: neither method is better."""
    found = {0.0: 0, 1.0: 0}
    for seed in range(200):
        generator = np.random.default_rng(seed)
        y = generator.normal(size=60)
        features = y + 2 * generator.normal(size=(2, 60))
        scores = [[], []]
        for _ in range(15):
            order = generator.permutation(60)
            train, test = order[:30], order[30:]
            for x, series in zip(features, scores, strict=True):
                slope = (x[train] @ y[train]) / (x[train] @ x[train])
                series.append(((y[test] - slope * x[test]) ** 2).mean())
        for ratio in found:
            found[ratio] += paired_t_test(*scores, ratio).p < 0.05
    assert found[0.0] > 60
    assert found[1.0] < 0.5 * found[0.0]


@pytest.mark.filterwarnings("error")
def test_no_spread():
    assert paired_t_test([0.5, 0.75], [0.25, 0.5]) == (0.25, 0.25, 0.25, np.inf, 1, 0.0, False)
    assert paired_t_test([0.5, 0.5], [0.5, 0.5]) == (0.0, 0.0, 0.0, 0.0, 1, 1.0, False)


@pytest.mark.parametrize(
    ("a", "b", "ratio", "message"),
    [
        ([0.5], [0.4], 0, "at least two runs of each; there is 1"),
        ([], [], 0, "there are none"),
        ([0.5, 0.6], [0.5], 0, r"scores_a has the shape \(2,\) and scores_b \(1,\)"),
        ([0.5, 0.6], [0.5, float("nan")], 0, r"scores_b\[1\] is nan"),
        ([0.5, 0.6], [0.5, 0.4], -1, "test_train_ratio is -1"),
    ],
)
def test_scores_that_do_not_fit(a, b, ratio, message):
    with pytest.raises(ValueError, match=message):
        paired_t_test(a, b, ratio)
