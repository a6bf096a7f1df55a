import numpy as np
import pytest
import scipy.stats

from hf_ext.evaluation.comparison import right_rows
from hf_ext.evaluation.permutation import paired_permutation
from hf_ext.evaluation.predictions import Predictions
from hf_ext.evaluation.same_rows import take_rows
from hf_ext.evaluation.significance import exact_mcnemar, metric_intervals

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def two(problem_type, rows, seed=0, strength=0.7):
    """Two models on the same rows, the second with more noise."""
    generator = np.random.default_rng(seed)
    if problem_type == SINGLE:
        labels, names = generator.integers(0, 3, rows), list("abc")
        signal = np.eye(3)[labels]
    elif problem_type == MULTI:
        labels, names = generator.integers(0, 2, (rows, 3)), list("abc")
        signal = 2.0 * labels - 1
    else:
        labels, names = generator.normal(size=rows), ["value"]
        signal = labels[:, None]
    common = signal + generator.normal(size=signal.shape)
    return [
        Predictions.from_logits(
            common + noise * generator.normal(size=signal.shape),
            labels,
            [f"t{i}" for i in range(rows)],
            problem_type=problem_type,
            label_names=names,
        )
        for noise in (0.1, strength)
    ]


def scores(problem_type, labels, answers):
    """Some metrics of each kind, by their definition."""
    if problem_type == REGRESSION:
        y, p = labels, answers[:, 0]
        return {
            "mae": np.abs(y - p).mean(),
            "r2": 1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum(),
            "pearson": np.corrcoef(y, p)[0, 1],
        }
    if problem_type == MULTI:
        decided = answers >= 0.5
        hits = (decided & (labels == 1)).sum()
        return {
            "subset_accuracy": (decided == labels).all(axis=1).mean(),
            "f1_micro": 2 * hits / (decided.sum() + labels.sum()),
            "brier": ((answers - labels) ** 2).mean(),
        }
    decided = answers.argmax(axis=1)
    f1 = [
        2 * ((decided == c) & (labels == c)).sum() / ((decided == c).sum() + (labels == c).sum())
        for c in range(3)
        if c in decided or c in labels
    ]
    bins = np.ceil(answers.max(axis=1) * 15)
    gaps = (decided == labels) - answers.max(axis=1)
    return {
        "accuracy": (decided == labels).mean(),
        "f1_macro": np.mean(f1),
        "ece": sum(abs(gaps[bins == number].sum()) for number in set(bins)) / len(labels),
        "nll": -np.log(answers[np.arange(len(labels)), labels]).mean(),
    }


def exchanged(a, b, swap):
    """The metrics' differences after exchanging the answers of the rows in `swap`."""
    first, second = (np.where(swap[:, None], x.probabilities, y.probabilities) for x, y in ((b, a), (a, b)))
    mine, theirs = (scores(a.problem_type, a.labels, answers) for answers in (first, second))
    return {name: mine[name] - theirs[name] for name in mine}


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI, REGRESSION])
def test_all_exchanges_against_a_loop(problem_type):
    a, b = two(problem_type, 9)
    observed = exchanged(a, b, np.zeros(9, bool))
    larger = dict.fromkeys(observed, 0)
    for number in range(2**9):
        swap = np.array([number >> row & 1 for row in range(9)], dtype=bool)
        for name, difference in exchanged(a, b, swap).items():
            larger[name] += abs(difference) >= abs(observed[name]) - 1e-10
    found = paired_permutation(a, b)
    assert set(found) == set(metric_intervals(a, num_resamples=2)) - {"spearman"}
    for name in observed:
        value, p, exact = found[name]
        assert value == pytest.approx(observed[name], abs=1e-9)
        assert p == pytest.approx(larger[name] / 2**9, abs=1e-9), name
        assert exact


def test_against_scipy():
    a, b = two(REGRESSION, 8, strength=2.0)

    def mse(x, y, axis=-1):
        return (x**2 - y**2).mean(axis=axis)

    errors = (a.labels - a.predictions, b.labels - b.predictions)
    reference = scipy.stats.permutation_test(errors, mse, permutation_type="samples", vectorized=True)
    assert paired_permutation(a, b)["mse"].p == pytest.approx(reference.pvalue, abs=1e-9)


@pytest.mark.parametrize(("rows", "exact"), [(40, True), (600, False)])
def test_of_accuracy_it_is_mcnemar_s_test(rows, exact):
    a, b = two(SINGLE, rows, seed=3)
    a, b = (take_rows(model, np.flatnonzero(a.labels < 2)) for model in (a, b))
    found = paired_permutation(a, b)["accuracy"]
    assert found.exact == exact
    expected = exact_mcnemar(right_rows(a), right_rows(b)).p
    # 10,000 exchanges: four standard errors.
    assert found.p == pytest.approx(expected, abs=1e-9 if exact else 4 * np.sqrt(expected * (1 - expected) / 10_000))


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI, REGRESSION])
def test_random_exchanges_against_a_loop(problem_type):
    a, b = two(problem_type, 40, seed=1)
    observed, generator = exchanged(a, b, np.zeros(40, bool)), np.random.default_rng(7)
    draws = [exchanged(a, b, generator.random(40) < 0.5) for _ in range(400)]
    found = paired_permutation(a, b)
    for name in observed:
        p = found[name].p
        expected = np.mean([abs(draw[name]) >= abs(observed[name]) - 1e-10 for draw in draws])
        assert p == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 400)), name
    # Every row of its own, and none of 10,000 exchanges as extreme as this.
    best, worst = two(REGRESSION, 300, strength=30.0)
    assert paired_permutation(best, worst)["mae"].p == 1 / 10_001


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI, REGRESSION])
def test_equal_answers_can_change_places(problem_type):
    a, _ = two(problem_type, 20)
    assert set(paired_permutation(a, a).values()) == {(0.0, 1.0, True)}


@pytest.mark.filterwarnings("error")
def test_one_row():
    found = paired_permutation(*two(REGRESSION, 1))
    assert np.isnan(found["pearson"].p) and found["mae"].p == 1


def test_the_seed_decides_and_other_rows_are_refused():
    a, b = two(SINGLE, 500)
    assert paired_permutation(a, b) == paired_permutation(a, b) != paired_permutation(a, b, seed=1)
    with pytest.raises(ValueError, match="same rows and classes"):
        paired_permutation(a, two(SINGLE, 40)[0])
