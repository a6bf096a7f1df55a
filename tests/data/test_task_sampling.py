"""The order of several tasks' rows against loops that count by hand."""

import collections
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from torch.utils.data import DataLoader

from hf_ext.data.task_sampling import SAMPLINGS, TaskBatchSampler, sampling_exponent, task_quotas, task_rows
from hf_ext.errors import ConfigurationError

GLUE = [3668, 67349, 5452]


def largest_remainder(shares: list[float], total: int) -> list[int]:
    """By hand: floors, then one more for the largest remainders; a task without a batch takes one from the richest."""
    exact = [total * share / sum(shares) for share in shares]
    quotas = [math.floor(value) for value in exact]
    for _ in range(total - sum(quotas)):
        behind = [value - quota for value, quota in zip(exact, quotas, strict=True)]
        quotas[behind.index(max(behind))] += 1
    while 0 in quotas:
        quotas[quotas.index(max(quotas))] -= 1
        quotas[quotas.index(0)] += 1
    return quotas


@pytest.mark.parametrize("sizes", [GLUE, [1, 1], [100000, 3], [40, 20, 27], [17, 17, 17, 45]], ids=str)
@pytest.mark.parametrize("exponent", [0.0, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("batch_size", [1, 16, 32])
def test_quotas_are_those_of_a_hand_count(sizes, exponent, batch_size):
    total = sum(math.ceil(Fraction(size, batch_size)) for size in sizes)
    quotas = task_quotas(sizes, batch_size, exponent)
    assert quotas == largest_remainder([size**exponent for size in sizes], total)
    assert sum(quotas) == total


def test_proportional_gives_every_task_its_own_batches():
    assert task_quotas([17, 17, 17, 45], 16, 1.0) == [2, 2, 2, 3]
    assert task_quotas([100000, 3], 16, 1.0) == [6250, 1]


def test_exponents():
    assert [sampling_exponent(name) for name in ("proportional", "sqrt", "uniform")] == [1.0, 0.5, 0.0]
    assert sampling_exponent("temperature", temperature=4) == 0.25
    assert [sampling_exponent("annealed", epoch, 5) for epoch in range(5)] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert sampling_exponent("annealed", 0, 1) == 1.0


def runs_of_batches(order: list[int], sizes: list[int], batch_size: int) -> list[int]:
    """The task of each run of a batch's length, after checking that it has one."""
    ends = np.cumsum(sizes)
    tasks = []
    for start in range(0, len(order), batch_size):
        of_run = {int(np.searchsorted(ends, index, side="right")) for index in order[start : start + batch_size]}
        assert len(of_run) == 1
        tasks.append(of_run.pop())
    return tasks


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("grouped", [False, True])
def test_every_batch_is_of_one_task_and_the_quotas_hold(sampling, grouped):
    sizes, epochs = [50, 7, 23], 4
    generator = np.random.default_rng(0)
    lengths = [generator.integers(3, 60, size) for size in sizes] if grouped else None
    temperature = 3 if sampling == "temperature" else None
    sampler = TaskBatchSampler(sizes, 8, 1, sampling, temperature, epochs, lengths)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert len(order) == len(sampler) == (7 + 1 + 3) * 8
        counts = collections.Counter(runs_of_batches(order, sizes, 8))
        exponent = sampling_exponent(sampling, epoch, epochs, temperature)
        assert [counts[task] for task in range(3)] == task_quotas(sizes, 8, exponent)


def test_proportional_shows_every_row_in_every_epoch():
    sampler = TaskBatchSampler([50, 7, 23], 8, seed=3)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        counts = collections.Counter(sampler)
        assert sorted(counts) == list(range(80))
        # The last batch of a task is filled up.
        assert sum(counts.values()) - 80 == 6 + 1 + 1


def test_rows_that_an_epoch_leaves_out_come_next():
    """A task with less than its rows an epoch goes on where it stopped: no row comes twice before all came once."""
    sizes = [100, 4]
    sampler = TaskBatchSampler(sizes, 4, seed=0, sampling="uniform")
    assert sampler.quotas(0) == [13, 13]
    seen = []
    for epoch in range(8):
        sampler.set_epoch(epoch)
        seen += [index for index in sampler if index < 100]
    for start in range(0, len(seen) - 99, 100):
        assert sorted(seen[start : start + 100]) == list(range(100))


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = TaskBatchSampler([50, 7, 23], 8, seed, "sqrt")
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


def test_tasks_alternate_at_random():
    tasks = runs_of_batches(list(TaskBatchSampler([800, 800], 8, 0)), [800, 800], 8)
    changes = sum(one != other for one, other in itertools.pairwise(tasks))
    # 199 neighbours, half of which differ: 5 standard deviations are 35.
    assert abs(changes - 100) < 35


def test_sequential_rows_stand_in_their_order():
    sampler = TaskBatchSampler([10, 6], 4, 0, shuffle=False)
    order = list(sampler)
    assert [index for index in order if index < 10] == [*range(10), 0, 1]
    assert [index - 10 for index in order if index >= 10] == [*range(6), 0, 1]


def test_rows_of_similar_lengths_come_together():
    lengths = [np.random.default_rng(task).integers(3, 100, 2000) for task in range(2)]

    def padding(sampler):
        every = np.concatenate(lengths)
        batches = every[np.array(list(sampler)).reshape(-1, 16)]
        return float((batches.max(axis=1, keepdims=True) - batches).sum() / batches.sum())

    grouped = padding(TaskBatchSampler([2000, 2000], 16, 0, lengths=lengths))
    assert grouped < 0.1 * padding(TaskBatchSampler([2000, 2000], 16, 0))


def test_a_plain_data_loader_makes_batches_of_one_task():
    sizes = [50, 7, 23]
    rows = [(task, index) for task, size in enumerate(sizes) for index in range(size)]
    loader = DataLoader(rows, batch_size=8, sampler=TaskBatchSampler(sizes, 8, 0), collate_fn=list)
    assert all(len({task for task, _ in batch}) == 1 and len(batch) == 8 for batch in loader)


def test_the_stream_of_rows_is_one_order_after_the_other():
    whole = task_rows(7, 0, 28, seed=5, task=1)
    for start in range(0, 28, 7):
        assert sorted(whole[start : start + 7]) == list(range(7))
    for start, count in ((0, 3), (5, 4), (6, 15), (14, 7)):
        assert task_rows(7, start, count, seed=5, task=1).tolist() == whole[start : start + count].tolist()
    assert task_rows(7, 0, 7, seed=5, task=2).tolist() != whole[:7].tolist()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sampling": "proportionl"}, "'proportionl'; it must be one of proportional, sqrt"),
        ({"sampling": "temperature"}, "needs a sampling_temperature"),
        ({"sampling": "sqrt", "temperature": 2}, "no effect"),
        ({"sampling": "temperature", "temperature": 0.5}, "at least 1"),
        ({"sampling": "temperature", "temperature": math.nan}, "at least 1"),
        ({"sampling": "temperature", "temperature": "2"}, "at least 1"),
        ({"sizes": [3, 0]}, r"\[3, 0\] rows"),
        ({"sizes": []}, "needs rows"),
        ({"lengths": [[1, 2], [3]]}, r"\[2, 1\] lengths"),
    ],
    ids=range(9),
)
def test_bad_input(settings, said):
    with pytest.raises(ConfigurationError, match=said):
        TaskBatchSampler(**{"sizes": [3, 4], "batch_size": 2, "seed": 0, **settings})
