"""The curriculum's orders: against plain loops, as pure functions, and what is refused."""

import math
from collections import Counter

import numpy as np
import pytest
from torch.utils.data import RandomSampler, Sampler

from hf_ext.data.sampling import (
    MODES,
    CurriculumSampler,
    CurriculumScheduler,
    curriculum_order,
    curriculum_shares,
    length_grouped_order,
    rows_in_use,
)
from hf_ext.errors import ConfigurationError, DataError
from hf_ext.schedules import PACINGS

ROWS = 403
GENERATOR = np.random.default_rng(0)
DIFFICULTY = GENERATOR.normal(size=ROWS)
LABELS = GENERATOR.choice([0, 1, 2], p=[0.6, 0.37, 0.03], size=ROWS)
LENGTHS = GENERATOR.geometric(0.05, size=ROWS)
GROUPED = [
    *(25, 3, 14, 36, 22, 0, 11, 33, 38, 19, 8, 30, 34, 23, 12, 26, 15, 37, 4, 18),
    *(2, 16, 5, 27, 32, 35, 13, 24, 20, 9, 31, 1, 7, 29, 10, 21, 17, 39, 6, 28),
]


def hardest_of_the_easiest(difficulty, labels, share):
    """The easiest share of each label's rows, by a loop."""
    rows = []
    for label in sorted(set(labels.tolist())):
        members = sorted((i for i in range(len(labels)) if labels[i] == label), key=lambda i: difficulty[i])
        rows += members[: max(1, math.ceil(round(share * len(members), 6)))]
    return sorted(rows)


# ---- Scheduler ----


def test_the_guides_scheduler():
    scheduler = CurriculumScheduler(initial_difficulty=0.3, final_difficulty=1.0, num_epochs=10)
    expected = [0.3 + 0.07 * epoch for epoch in range(11)] + [1.0]
    assert [scheduler.get_difficulty(epoch) for epoch in range(12)] == pytest.approx(expected)
    assert scheduler(5) == scheduler.get_difficulty(5)
    assert CurriculumScheduler().get_difficulty(5) == scheduler(5)


@pytest.mark.parametrize("pacing", PACINGS)
def test_every_pacing_reaches_its_end(pacing):
    scheduler = CurriculumScheduler(0.2, 0.8, 4, pacing)
    assert [scheduler(0), scheduler(4)] == pytest.approx([0.2, 0.8])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initial_difficulty": 0}, "initial_difficulty is 0; it must be a share of the rows: above 0"),
        ({"initial_difficulty": -0.1}, "initial_difficulty is -0.1"),
        ({"initial_difficulty": 1.1}, "initial_difficulty is 1.1"),
        ({"initial_difficulty": math.nan}, "initial_difficulty is nan"),
        ({"initial_difficulty": True}, "initial_difficulty is True"),
        ({"initial_difficulty": "0.3"}, "initial_difficulty is '0.3'"),
        ({"final_difficulty": 0}, "final_difficulty is 0"),
        ({"final_difficulty": math.inf}, "final_difficulty is inf"),
        ({"final_difficulty": 0.2}, "initial_difficulty=0.3 is above final_difficulty=0.2"),
        ({"num_epochs": 0}, "num_epochs is 0; it must be a number of at least 1"),
        ({"num_epochs": 0.5}, "num_epochs is 0.5"),
        ({"num_epochs": math.nan}, "num_epochs is nan"),
        ({"num_epochs": True}, "num_epochs is True"),
        ({"pacing": "liner"}, r"pacing is 'liner'; it must be one of linear, root, .* Did you mean 'linear'\?"),
        ({"pacing": None}, "pacing is None"),
    ],
    ids=str,
)
def test_a_scheduler_out_of_range_is_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        CurriculumScheduler(**settings)


def test_a_scheduler_of_open_length_says_so():
    with pytest.raises(ConfigurationError, match="give num_epochs"):
        CurriculumScheduler(num_epochs=None).get_difficulty(0)


# ---- Which rows ----


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.999, 1.0])
def test_a_curriculum_draws_from_the_easiest_of_each_label(share):
    shares = curriculum_shares(DIFFICULTY, "curriculum", 0, LABELS)
    assert rows_in_use(shares, share).tolist() == hardest_of_the_easiest(DIFFICULTY, LABELS, share)
    anti = curriculum_shares(DIFFICULTY, "anti", 0, LABELS)
    assert rows_in_use(anti, share).tolist() == hardest_of_the_easiest(-DIFFICULTY, LABELS, share)


def test_a_label_with_one_row_is_always_drawn():
    labels = np.zeros(1000, dtype=int)
    labels[17] = 1
    hardest = np.arange(1000.0)
    hardest[17] = 1e9
    for mode in MODES:
        assert 17 in rows_in_use(curriculum_shares(hardest, mode, 0, labels), 1e-12)


def test_without_labels_a_hard_label_is_left_out():
    difficulty = DIFFICULTY + 100 * (LABELS == 2)
    assert not np.any(LABELS[rows_in_use(curriculum_shares(difficulty), 0.3)] == 2)
    within = LABELS[rows_in_use(curriculum_shares(difficulty, labels=LABELS), 0.3)]
    assert Counter(within) == {label: math.ceil(0.3 * np.sum(label == LABELS)) for label in range(3)}


def test_a_random_share_grows_and_is_of_the_same_size():
    shares = curriculum_shares(DIFFICULTY, "random", 3, LABELS)
    others = curriculum_shares(DIFFICULTY, "curriculum", 3, LABELS)
    before = set()
    for share in (0.1, 0.3, 0.31, 0.7, 1.0):
        used = set(rows_in_use(shares, share).tolist())
        assert before <= used
        assert len(used) == len(rows_in_use(others, share))
        before = used
    assert len(before) == ROWS
    drawn = np.mean(
        [DIFFICULTY[rows_in_use(curriculum_shares(DIFFICULTY, "random", s), 0.3)].mean() for s in range(200)]
    )
    assert drawn == pytest.approx(DIFFICULTY.mean(), abs=0.02)


def test_equal_difficulties_are_a_random_share():
    same = np.ones(ROWS)
    used = [tuple(rows_in_use(curriculum_shares(same, "curriculum", seed), 0.3)) for seed in range(20)]
    assert len(set(used)) == 20
    assert max(used[0]) > 300


def test_no_curriculum_draws_from_all():
    assert len(rows_in_use(curriculum_shares(DIFFICULTY, "none", 0, LABELS), 0.3)) == ROWS


# ---- Their order ----


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["any", "grouped"])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.3, 0.5, 0.99, 1.0])
def test_each_row_in_use_comes_as_often_as_any_other(share, lengths):
    shares = curriculum_shares(DIFFICULTY, labels=LABELS)
    order = curriculum_order(shares, share, 0, 2, lengths, None if lengths is None else 16)
    used = rows_in_use(shares, share)
    counts = Counter(order.tolist())
    assert len(order) == ROWS
    assert set(counts) == set(used.tolist())
    assert max(counts.values()) - min(counts.values()) <= 1


def test_a_row_comes_again_only_when_all_have_come():
    shares = curriculum_shares(DIFFICULTY)
    order, used = curriculum_order(shares, 0.3, 0, 0), rows_in_use(shares, 0.3)
    for start in range(0, ROWS, len(used)):
        part = order[start : start + len(used)]
        assert len(set(part.tolist())) == len(part)
    assert not np.array_equal(order[: len(used)], order[len(used) : 2 * len(used)])


@pytest.mark.parametrize("mode", MODES)
def test_the_order_is_a_function_of_seed_and_epoch(mode):
    scheduler = CurriculumScheduler(0.5, 1.0, 2)
    orders = {}
    for seed in range(3):
        sampler = CurriculumSampler(DIFFICULTY, scheduler, seed, mode, LABELS)
        for epoch in (2, 0, 1):
            sampler.set_epoch(epoch)
            orders[seed, epoch] = tuple(sampler)
    assert len(set(orders.values())) == 9
    np.random.seed(1)
    np.random.rand(5)
    again = CurriculumSampler(DIFFICULTY.tolist(), scheduler, 2, mode, LABELS.tolist())
    again.set_epoch(1)
    assert tuple(again) == orders[2, 1]
    assert tuple(again) == orders[2, 1]


def test_the_sampler_keeps_its_length_while_it_takes_rows_in():
    sampler = CurriculumSampler(DIFFICULTY, CurriculumScheduler(0.3, 1.0, 4), seed=0, labels=LABELS)
    sizes = []
    for epoch in range(6):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert len(order) == len(sampler) == ROWS
        assert all(type(row) is int for row in order)
        expected = hardest_of_the_easiest(DIFFICULTY, LABELS, min(1, 0.3 + 0.175 * epoch))
        assert sorted(set(order)) == expected
        sizes.append(len(expected))
    assert sizes[0] < 0.32 * ROWS
    assert sizes[4:] == [ROWS, ROWS]


def test_it_is_no_random_sampler():
    """Which accelerate would replace by one of its own."""
    assert issubclass(CurriculumSampler, Sampler)
    assert not issubclass(CurriculumSampler, RandomSampler)


def padding(order, batch_size):
    cells = 0
    for start in range(0, len(order), batch_size):
        batch = [LENGTHS[row] for row in order[start : start + batch_size]]
        cells += max(batch) * len(batch) - sum(batch)
    return cells


@pytest.mark.parametrize("epoch", [0, 3])
def test_rows_of_similar_lengths_come_together(epoch):
    scheduler = CurriculumScheduler(0.5, 1.0, 3)
    samplers = [
        CurriculumSampler(DIFFICULTY, scheduler, 0, labels=LABELS, lengths=lengths, batch_size=size)
        for lengths, size in ((None, None), (LENGTHS, 8))
    ]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    plain, grouped = (list(sampler) for sampler in samplers)
    assert sorted(plain) == sorted(grouped)
    assert padding(grouped, 8) < 0.15 * padding(plain, 8)
    assert LENGTHS[grouped[:8]].max() == LENGTHS[plain].max()


def test_grouping_by_length_alone_is_as_it_was():
    """A run that was begun before there were curricula resumes with the same batches."""
    lengths = np.arange(40) * 7 % 11
    assert length_grouped_order(lengths, 4, seed=1, epoch=2).tolist() == GROUPED


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"difficulty": []}, ConfigurationError, "needs rows"),
        ({"difficulty": [1.0, math.nan]}, DataError, "is nan in row 2"),
        ({"labels": [1]}, DataError, "1 labels for 2 rows"),
        ({"mode": "antí"}, ConfigurationError, r"one of curriculum, anti, random, none. Did you mean 'anti'\?"),
        ({"mode": None}, ConfigurationError, "mode is None"),
        ({"lengths": [1, 2]}, ConfigurationError, "together only"),
        ({"batch_size": 2}, ConfigurationError, "together only"),
        ({"lengths": [1], "batch_size": 2}, ConfigurationError, "1 lengths for 2 rows"),
    ],
    ids=str,
)
def test_what_a_sampler_cannot_use_is_refused(settings, error, message):
    with pytest.raises(error, match=message):
        CurriculumSampler(**{"difficulty": [1.0, 2.0], "scheduler": CurriculumScheduler(), "seed": 0, **settings})


def test_one_row_is_drawn():
    assert list(CurriculumSampler([3.0], CurriculumScheduler(), 0, labels=[1])) == [0]


def test_a_random_share_is_not_what_a_user_with_the_same_seed_draws():
    rows, share = 3000, 0.3
    used = rows_in_use(curriculum_shares(np.zeros(rows), "random", seed=5), share)
    # NumPy takes [5, 0] for 5: labels flipped at the first rows of this order were once the very rows of the share.
    drawn = np.random.default_rng(5).permutation(rows)[: len(used)]
    # Hypergeometric: 270 on average, with a standard deviation of 11.
    assert 215 < len(np.intersect1d(used, drawn)) < 325
