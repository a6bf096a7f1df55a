import numpy as np
import pytest
import scipy.stats
from scipy.optimize import brentq
from statsmodels.stats.weightstats import ttost_paired

from hf_ext.evaluation.equivalence import detectable_difference, detectable_from_interval, paired_equivalence
from hf_ext.evaluation.significance import exact_mcnemar


def rows(only_a, only_b, total):
    a, b = np.zeros((2, total), bool)
    a[:only_a] = True
    b[only_a : only_a + only_b] = True
    return a, b


def score_by_search(only_a, only_b, total, difference):
    """z of a difference of paired proportions, its nuisance share found as the root of the likelihood's slope."""

    def slope(q):
        first = only_a / (q + difference) if only_a else 0.0
        second = only_b / q if only_b else 0.0
        return first + second - 2 * (total - only_a - only_b) / (1 - 2 * q - difference)

    least, most = max(0.0, -difference), (1 - difference) / 2
    if slope(least + 1e-13) <= 0:
        share = least
    elif only_a + only_b == total:
        share = most
    else:
        share = brentq(slope, least + 1e-15, most - 1e-15, xtol=1e-16, rtol=1e-15)
    return (only_a - only_b - total * difference) / (total * (2 * share + difference * (1 - difference))) ** 0.5


@pytest.mark.parametrize("margin", [0.01, 0.05, 0.3])
@pytest.mark.parametrize(
    ("only_a", "only_b", "total"),
    [(0, 0, 5), (0, 0, 400), (3, 0, 100), (0, 3, 100), (20, 25, 500), (60, 60, 3000), (10, 30, 40), (1, 0, 1)],
)
def test_against_a_search_for_the_likeliest_share(only_a, only_b, total, margin):
    found = paired_equivalence(*rows(only_a, only_b, total), margin)
    not_worse = scipy.stats.norm.sf(score_by_search(only_a, only_b, total, -margin))
    not_better = scipy.stats.norm.cdf(score_by_search(only_a, only_b, total, margin))
    assert (found.p_not_worse, found.p_not_better) == pytest.approx((not_worse, not_better), abs=1e-9)
    assert found.p == max(found.p_not_worse, found.p_not_better)


def test_many_rows_agree_with_the_t_tests_of_statsmodels():
    a, b = rows(900, 950, 20_000)
    p, lower, upper = ttost_paired(a.astype(float), b.astype(float), -0.01, 0.01)
    found = paired_equivalence(a, b)
    assert found.p == pytest.approx(p, rel=0.1)
    assert (found.p_not_worse < 1e-3) == (lower[1] < 1e-3) and (found.p_not_better < 1e-3) == (upper[1] < 1e-3)


def test_the_same_mistakes_on_few_rows_show_nothing():
    # The chance to see no discordant row if one in a hundred were: 0.99^n.
    for total in (5, 100, 200, 400):
        p = paired_equivalence(*rows(0, 0, total)).p
        assert (p < 0.05) == (0.99**total < 0.05), total


def test_it_seldom_calls_different_models_equal():
    generator, found = np.random.default_rng(0), 0
    for _ in range(2000):
        # Worse by exactly the margin.
        only_a, only_b, _ = generator.multinomial(1000, [0.04, 0.06, 0.9])
        found += paired_equivalence(*rows(only_a, only_b, 1000), 0.02).p < 0.05
    assert 0.02 < found / 2000 < 0.065


@pytest.mark.parametrize("margin", [0, 1, -0.01, float("nan")])
def test_margins_that_are_none(margin):
    with pytest.raises(ValueError, match="share between 0 and 1"):
        paired_equivalence(*rows(1, 1, 9), margin)


def test_equivalence_needs_the_same_rows():
    with pytest.raises(ValueError, match=r"shape \(3,\) and correct_b \(2,\)"):
        paired_equivalence(np.ones(3, bool), np.ones(2, bool))
    with pytest.raises(ValueError, match="for the same rows"):
        paired_equivalence(np.ones(0, bool), np.ones(0, bool))


# ---- What a test set could show ----


@pytest.mark.parametrize(("total", "discordance"), [(500, 0.1), (853, 0.2), (10_000, 0.05), (200, 0.5)])
def test_detectable_difference_solves_connor_s_equation(total, discordance):
    alpha, beta = scipy.stats.norm.ppf([0.975, 0.8])
    found = brentq(
        lambda d: total * d**2 - (alpha * discordance**0.5 + beta * (discordance - d**2) ** 0.5) ** 2,
        1e-6,
        discordance,
        xtol=1e-15,
    )
    assert detectable_difference(total, discordance) == pytest.approx(found, rel=1e-9)


def test_with_few_discordant_rows_all_must_go_one_way():
    alpha, beta = scipy.stats.norm.ppf([0.975, 0.8])
    found = brentq(lambda d: 100 * d - (alpha + beta * (1 - d) ** 0.5) ** 2, 1e-6, 1, xtol=1e-15)
    assert detectable_difference(100, 0.01) == detectable_difference(100, 0) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize(("total", "discordance"), [(500, 0.1), (2000, 0.2)])
def test_it_is_found_four_times_in_five(total, discordance):
    generator = np.random.default_rng(0)
    difference = detectable_difference(total, discordance)
    shares = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    found = np.mean(
        [exact_mcnemar(*rows(*cells[:2], total)).p < 0.05 for cells in generator.multinomial(total, shares, size=600)]
    )
    # The formula is for the test without the exact one's caution.
    assert 0.72 < found < 0.85


@pytest.mark.parametrize("total", [1, 3, 5])
def test_on_five_rows_nothing_shows(total):
    assert detectable_difference(total, 0.5) is None
    assert exact_mcnemar(*rows(total, 0, total)).p > 0.05


def test_on_six_rows_everything_or_nothing():
    assert detectable_difference(6, 0) == 1
    assert exact_mcnemar(*rows(6, 0, 6)).p < 0.05


def test_detectable_of_other_metrics():
    alpha, beta = scipy.stats.norm.ppf([0.975, 0.8])
    error = 0.013
    found = detectable_from_interval(0.02 - alpha * error, 0.02 + alpha * error)
    assert found == pytest.approx((alpha + beta) * error, rel=1e-9)
    assert detectable_from_interval(float("nan"), float("nan")) is None


@pytest.mark.parametrize(("total", "discordance"), [(0, 0.1), (10, 1.1), (10, float("nan"))])
def test_rows_and_shares_that_are_none(total, discordance):
    with pytest.raises(ValueError, match="at least one row"):
        detectable_difference(total, discordance)
