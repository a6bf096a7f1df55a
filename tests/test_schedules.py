"""The functions of progress against the papers' formulas, against torch, and against exact fractions."""

import itertools
import math
from decimal import Decimal, getcontext
from fractions import Fraction

import numpy
import pytest
import torch
from torch.optim.lr_scheduler import CyclicLR

from hf_ext.schedules import (
    INTERPOLATIONS,
    PACINGS,
    UNITS,
    competence,
    cyclical_triangular,
    interpolate,
    slanted_triangular,
    stages_begun,
    to_step,
)

# ---- Slanted triangular ----


def howard_and_ruder(t, total, cut_frac, ratio):
    """Equation 3 of the paper, in exact fractions; eta over eta_max."""
    cut_frac = Fraction(str(cut_frac))
    cut = math.floor(total * cut_frac)
    p = Fraction(t, cut) if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
    return (1 + p * (ratio - 1)) / ratio


WHOLE_CUTS = [(10, 0.1), (30, 0.1), (100, 0.1), (1000, 0.1), (8, 0.25), (100, 0.5), (20, 0.95), (100, 0.29)]


@pytest.mark.parametrize("ratio", [1, 2, 32])
@pytest.mark.parametrize(("total", "cut_frac"), WHOLE_CUTS)
def test_slanted_triangular_is_equation_3(total, cut_frac, ratio):
    for t in range(total + 1):
        expected = float(howard_and_ruder(t, total, cut_frac, ratio))
        assert slanted_triangular(t, total, cut_frac, ratio) == pytest.approx(expected, rel=1e-9), f"step {t}"


def test_the_highest_rate_comes_where_the_paper_cuts():
    """Also where `100 * cut_frac` is a little less than the whole number that it means."""
    for hundredths in range(1, 100):
        factors = [slanted_triangular(t, 100, hundredths / 100) for t in range(101)]
        assert factors.index(max(factors)) == hundredths


def test_the_defaults_are_the_papers():
    assert [slanted_triangular(t, 40) for t in range(41)] == pytest.approx(
        [float(howard_and_ruder(t, 40, 0.1, 32)) for t in range(41)]
    )


TOTALS = [1, 2, 3, 4, 5, 7, 10, 11, 19, 33, 101]


@pytest.mark.parametrize("cut_frac", [0.001, 0.1, 0.3, 1 / 3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("total", TOTALS)
def test_slanted_triangular_stays_in_its_bounds_and_has_one_peak(total, cut_frac):
    ratio = 32
    factors = [slanted_triangular(t, total, cut_frac, ratio) for t in range(total + 5)]
    assert min(factors) >= 1 / ratio > 0
    assert max(factors) <= 1
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    if total > 1:
        assert factors[peak] == 1
        assert peak < total
        assert factors[total] == pytest.approx(1 / ratio)


@pytest.mark.parametrize(("total", "expected"), [(2, [1 / 32, 1]), (3, [1 / 32, 1, 33 / 64])])
def test_short_trainings_reach_the_highest_rate(total, expected):
    assert [slanted_triangular(t, total) for t in range(total)] == pytest.approx(expected)


@pytest.mark.parametrize("ratio", [1, 1.5, 32, 1e6])
def test_the_lowest_rate_is_the_highest_over_the_ratio(ratio):
    assert slanted_triangular(0, 50, ratio=ratio) == pytest.approx(1 / ratio)
    assert slanted_triangular(50, 50, ratio=ratio) == pytest.approx(1 / ratio)
    assert slanted_triangular(5, 50, ratio=ratio) == 1


def test_the_rate_stays_at_its_lowest_after_the_end():
    assert [slanted_triangular(t, 10) for t in (10, 11, 1000)] == [1 / 32] * 3


# ---- Cyclical triangular ----


def torchs_factors(total, num_cycles, min_ratio, mode):
    """The same schedule by torch, as factors of the highest rate."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=1.0)
    scheduler = CyclicLR(
        optimizer,
        base_lr=min_ratio,
        max_lr=1.0,
        step_size_up=total / (2 * num_cycles),
        mode=mode,
        cycle_momentum=False,
    )
    factors = []
    for _ in range(total):
        factors.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return factors


@pytest.mark.parametrize(("mode", "decay"), [("triangular", 1.0), ("triangular2", 0.5)])
@pytest.mark.parametrize("min_ratio", [0.0, 0.25, 1 / 3, 1.0])
@pytest.mark.parametrize(
    ("total", "num_cycles"), [(24, 3), (40, 1), (40, 5), (6, 3), (7, 1), (25, 3), (100, 7), (3, 1), (2, 1)]
)
def test_cyclical_triangular_is_torchs(total, num_cycles, min_ratio, mode, decay):
    ours = [cyclical_triangular(t, total, num_cycles, min_ratio, decay) for t in range(total)]
    assert ours == pytest.approx(torchs_factors(total, num_cycles, min_ratio, mode), abs=1e-9)


def test_the_highest_and_the_lowest_rate_of_each_cycle():
    factors = [cyclical_triangular(t, 60, num_cycles=3, min_ratio=0.2, decay=0.5) for t in range(61)]
    assert [factors[t] for t in (0, 20, 40, 60)] == pytest.approx([0.2] * 4)
    assert [factors[t] for t in (10, 30, 50)] == pytest.approx([1.0, 0.6, 0.4])


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("num_cycles", [1, 2, 3, 10])
@pytest.mark.parametrize("total", TOTALS)
def test_cyclical_triangular_stays_in_its_bounds(total, num_cycles, decay):
    factors = [cyclical_triangular(t, total, num_cycles, 0.25, decay) for t in range(total + 5)]
    assert min(factors) >= 0.25
    assert max(factors) <= 1
    assert factors[total:] == pytest.approx([0.25] * 5)


def test_a_decay_of_zero_leaves_one_cycle():
    factors = [cyclical_triangular(t, 30, num_cycles=3, min_ratio=0.5, decay=0.0) for t in range(31)]
    assert factors[5] == 1
    assert factors[10:] == [0.5] * 21


# ---- Moments ----


def test_the_units_are_these():
    assert UNITS == ("epochs", "steps", "fraction")


@pytest.mark.parametrize(
    ("moment", "unit", "expected"),
    [
        (0, "epochs", 0),
        (1, "epochs", 7),
        (2.5, "epochs", 18),  # 17.5
        (0.01, "epochs", 1),
        (3, "steps", 3),
        (2.2, "steps", 3),
        (0.5, "fraction", 15),
        (0.1, "fraction", 3),
        (1 / 3, "fraction", 10),
        (0.11, "fraction", 4),  # 3.3
        (1, "fraction", 30),
    ],
)
def test_a_moment_comes_before_the_first_step_that_is_not_earlier(moment, unit, expected):
    assert to_step(moment, unit, steps_per_epoch=7, max_steps=30) == expected


@pytest.mark.parametrize(("unit", "other"), [("fraction", "steps_per_epoch"), ("epochs", "max_steps")])
def test_decimals_mean_what_they_say(unit, other):
    """0.1 * 30 is more than 3 and 0.29 * 100 less than 29, but only in floating point."""
    own = {"fraction": "max_steps", "epochs": "steps_per_epoch"}[unit]
    noisy = 0
    for total in (1, 3, 7, 10, 30, 49, 100, 330, 1000, 12345):
        for hundredths in range(201):
            moment = hundredths / 100
            exact = Fraction(hundredths, 100) * total
            assert to_step(moment, unit, **{own: total, other: 17}) == math.ceil(exact), f"{moment} of {total}"
            noisy += math.ceil(moment * total) != math.ceil(exact)
    assert noisy


def test_multiples_of_an_interval_mean_what_they_say():
    assert to_step(3 * 0.1, "fraction", 1, 10) == 3  # 3 * 0.1 is 0.30000000000000004
    assert [to_step(number * 0.1, "fraction", 1, 1000) for number in range(11)] == list(range(0, 1001, 100))


@pytest.mark.parametrize(
    ("begins", "expected"),
    [
        ([0], [1, 1, 1, 1, 1]),
        ([0, 2, 3], [1, 1, 2, 3, 3]),
        ([0, 2, 2], [1, 1, 3, 3, 3]),
        ([1, 4], [0, 1, 1, 1, 2]),
        ([], [0, 0, 0, 0, 0]),
    ],
)
def test_stages_have_begun_from_their_step_on(begins, expected):
    assert [stages_begun(step, begins) for step in range(5)] == expected
    assert expected == [sum(begin <= step for begin in begins) for step in range(5)]


# ---- Competence ----


def by_the_formula(pacing, u, c0, c1):
    """In decimals of 40 digits."""
    getcontext().prec = 40
    u, c0, c1 = (Decimal(value) for value in (u, c0, c1))
    if u >= 1:
        return c1
    progress = {
        "linear": lambda: u,
        "log": lambda: max(Decimal(0), 1 + (u + Decimal(-10).exp()).ln() / 10),
        "exp": lambda: ((10 * u).exp() - 1) / (Decimal(10).exp() - 1),
        "step": lambda: Decimal(0),
    }
    if pacing == "root":
        return (u * (c1**2 - c0**2) + c0**2).sqrt()
    return min(c1, c0 + (c1 - c0) * progress[pacing]())


@pytest.mark.parametrize(
    ("initial", "final"), [("0.3", "1"), ("0.01", "1"), ("0.2", "0.7"), ("1", "1"), ("0.5", "0.5")]
)
@pytest.mark.parametrize("pacing", PACINGS)
def test_competence_is_its_formula(pacing, initial, final):
    for t in range(0, 31):
        expected = by_the_formula(pacing, Decimal(t) / 20, initial, final)
        assert competence(t, 20, float(initial), float(final), pacing) == pytest.approx(float(expected), rel=1e-12), t


@pytest.mark.parametrize("pacing", PACINGS)
def test_competence_grows_from_the_initial_to_the_final_share(pacing):
    for initial, final in [(0.3, 1.0), (1e-6, 1.0), (0.1, 0.3), (1 / 3, 2 / 3), (0.7, 0.7)]:
        for total in (1, 3, 7.5, 1000):
            shares = [competence(total * i / 997, total, initial, final, pacing) for i in range(1100)]
            assert shares[0] == pytest.approx(initial, rel=1e-12)
            assert shares == sorted(shares)
            assert set(shares[997:]) == {final}
            assert all(type(share) is float and initial <= share <= final for share in shares)


def test_the_guides_call_is_linear():
    assert [competence(epoch, 10) for epoch in (0, 1, 5, 10, 11)] == pytest.approx([0.3, 0.37, 0.65, 1, 1])


def test_pacings_differ_in_when_rows_come():
    halfway = {pacing: competence(5, 10, pacing=pacing) for pacing in PACINGS}
    assert halfway["step"] < halfway["exp"] < halfway["linear"] < halfway["root"] < halfway["log"]


def test_with_the_root_new_rows_get_equal_shares_of_the_training():
    """Platanios et al. (2019), section 3.2: rows come in at a rate inversely proportional to those in use."""
    shares = [competence(t, 1000, 0.1, 1.0, "root") for t in range(1001)]
    rates = [after - before for before, after in itertools.pairwise(shares)]
    products = [rate * (before + rate / 2) for rate, before in zip(rates, shares, strict=False)]
    assert max(products) == pytest.approx(min(products), rel=1e-9)


# ---- On the way from one value to another ----

WAYS = [(4.0, 1.0), (0.7, 1.0), (1.0, 0.0), (0.3, 0.3), (20.0, 0.5)]


@pytest.mark.parametrize(("begin", "end"), WAYS)
def test_linear_is_numpys_and_cosine_is_torchs(begin, end):
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([parameter], lr=begin)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=end)
    for step, value in enumerate(numpy.linspace(begin, end, 51)):
        assert interpolate(step / 50, begin, end) == pytest.approx(value, rel=1e-12)
        assert interpolate(step / 50, begin, end, "cosine") == pytest.approx(annealing.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        annealing.step()


@pytest.mark.parametrize("shape", INTERPOLATIONS)
@pytest.mark.parametrize(("begin", "end"), WAYS)
def test_interpolation_is_exact_at_its_ends_and_stays_between(begin, end, shape):
    values = [interpolate(step / 300, begin, end, shape) for step in range(-3, 304)]
    assert set(values[:4]) == {begin}
    assert set(values[303:]) == {end}
    assert values == sorted(values, reverse=begin > end) or begin == end
    assert all(min(begin, end) * (1 - 1e-15) <= value <= max(begin, end) * (1 + 1e-15) for value in values)
