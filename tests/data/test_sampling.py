import itertools

import numpy as np
import pytest

from hf_ext.data.sampling import LengthGroupedSampler, length_grouped_order


@pytest.fixture(scope="module")
def lengths():
    return np.random.default_rng(0).geometric(0.05, size=3217)


def padding(lengths, order, batch_size):
    """Padded cells when each batch is padded to its longest row, by a plain loop."""
    cells = 0
    for start in range(0, len(order), batch_size):
        batch = [lengths[row] for row in order[start : start + batch_size]]
        cells += max(batch) * len(batch) - sum(batch)
    return cells


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 400, 401, 3217])
@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_every_row_comes_once(lengths, rows, batch_size):
    order = length_grouped_order(lengths[:rows], batch_size, seed=3, epoch=1)
    assert sorted(order.tolist()) == list(range(rows))


def test_the_order_is_a_function_of_seed_and_epoch(lengths):
    orders = {
        (seed, epoch): tuple(length_grouped_order(lengths, 16, seed, epoch)) for seed in range(3) for epoch in range(3)
    }
    assert len(set(orders.values())) == 9
    np.random.seed(1)
    np.random.rand(5)
    assert orders[2, 1] == tuple(length_grouped_order(lengths.tolist(), 16, 2, 1))


def test_less_padding_than_in_a_random_order(lengths):
    shuffled = np.random.default_rng(1).permutation(len(lengths))
    order = length_grouped_order(lengths, 16, seed=0, epoch=0)
    assert padding(lengths, order, 16) < 0.1 * padding(lengths, shuffled, 16)


def test_batches_come_in_random_order(lengths):
    order = length_grouped_order(lengths, 16, seed=0, epoch=0)
    longest = [max(lengths[order[start : start + 16]]) for start in range(0, len(order) // 16 * 16, 16)]
    # Without the first batch, which is chosen: neighbours rise about as often as they fall.
    rises = np.mean(np.diff(longest[1:]) > 0)
    assert 0.4 < rises < 0.6


@pytest.mark.parametrize("epoch", range(5))
def test_the_longest_row_is_in_the_first_batch_and_an_incomplete_batch_last(epoch):
    lengths = np.random.default_rng(epoch).permutation(np.arange(1000, 2003))
    order = length_grouped_order(lengths, 10, seed=0, epoch=epoch)
    assert lengths[order[:10]].max() == 2002
    # 1,003 rows: the last three are the shortest of the last pool, which holds what 500 and 500 leave.
    assert len(order[1000:]) == 3
    assert np.all(np.diff(lengths[order[:10]]) < 0)


def test_equal_lengths_are_still_shuffled():
    order = length_grouped_order(np.full(200, 7), 8, seed=0, epoch=0)
    assert not np.array_equal(order, np.arange(200))
    pairs = sum(abs(one - other) == 1 for one, other in itertools.pairwise(order))
    assert pairs < 10


def test_the_sampler_draws_that_order(lengths):
    sampler = LengthGroupedSampler(lengths, batch_size=16, seed=5)
    assert len(sampler) == len(lengths)
    assert list(sampler) == length_grouped_order(lengths, 16, 5, 0).tolist()
    sampler.set_epoch(4)
    assert list(sampler) == list(sampler) == length_grouped_order(lengths, 16, 5, 4).tolist()
    assert all(type(row) is int for row in sampler)
