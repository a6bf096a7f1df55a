"""Batches in parts, the rows that they were made of, and what is counted of them."""

import time

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from datasets import Dataset
from torch.utils.data import DataLoader, IterableDataset

from hf_ext.data.sampling import LengthGroupedSampler
from hf_ext.trainers.batch_parts import batch_parts, is_out_of_memory
from hf_ext.trainers.batch_rows import rows_of_update, shown_rows
from hf_ext.trainers.step_statistics import StepStatistics


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 7])
def test_parts_put_together_are_the_batch(parts):
    batch = {
        "input_ids": torch.arange(21).reshape(7, 3),
        "labels": torch.arange(7),
        "names": list("abcdefg"),
        "weight": torch.tensor(2.0),
        "classes": torch.ones(2, 3),
        "teacher": [{"input_ids": torch.arange(14).reshape(7, 2)}],
    }
    found = list(batch_parts(batch, parts))
    assert len(found) == parts and all(len(part["labels"]) in (7 // parts, -(-7 // parts)) for part in found)
    for name in ("input_ids", "labels"):
        assert torch.equal(torch.cat([part[name] for part in found]), batch[name])
    assert "".join(name for part in found for name in part["names"]) == "abcdefg"
    assert torch.equal(torch.cat([p["teacher"][0]["input_ids"] for p in found]), batch["teacher"][0]["input_ids"])
    assert all(part["weight"] == 2 and part["classes"].shape == (2, 3) for part in found)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize("epoch", [0, 3])
def test_rows_of_batches_are_those_that_the_loader_gives(epoch):
    sampler = LengthGroupedSampler(list(range(40)), 8, seed=1)
    loader = DataLoader(list(range(40)), batch_size=8, sampler=sampler)
    sampler.set_epoch(epoch)
    given = [batch.tolist() for batch in loader]
    sampler.set_epoch(99)
    assert rows_of_update(loader, epoch, 2, 2) == given[2:4]


def test_rows_of_a_prepared_loader():
    # As the Trainer has it.
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))
    make = lambda: accelerator.prepare(DataLoader(list(range(20)), batch_size=4, shuffle=True))  # noqa: E731
    loader = make()
    loader.set_epoch(2)
    given = [batch.tolist() for batch in loader]
    assert rows_of_update(make(), 2, 1, 2) == given[1:3]


def test_a_stream_has_no_rows():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(4))

    assert rows_of_update(DataLoader(Stream(), batch_size=None), 0, 0, 1) is None


class Letters:
    def decode(self, ids):
        return "".join(chr(96 + int(index)) for index in ids)


def test_rows_as_they_are_shown():
    batch = {
        "input_ids": torch.tensor([[1, 2, 0], [3, 4, 5]]),
        "attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]),
        "labels": torch.tensor([0, 1]),
    }
    pairs = Dataset.from_dict({"text": ["a", "b", "c"], "text_pair": ["x", "y", "z"]})
    assert shown_rows(pairs, [2, 0], batch, Letters()) == [
        {"row": 2, "text": ["c", "z"], "label": 0},
        {"row": 0, "text": ["a", "x"], "label": 1},
    ]
    unknown = [{"row": None, "text": "ab", "label": 0}, {"row": None, "text": "cde", "label": 1}]
    assert shown_rows(pairs, None, batch, Letters()) == unknown
    # An order of other batches than these is none.
    assert shown_rows(pairs, [1], batch, Letters()) == unknown
    assert shown_rows([], None, batch, None)[0]["text"] == [1, 2]


def test_statistics_are_of_the_batches_since_the_last_log(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    statistics = StepStatistics(processes=2)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    statistics.loaded([{"input_ids": mask, "attention_mask": mask}] * 2, 0.5)
    with statistics.paused():
        now[0] += 7
    now[0] += 2
    found = {name.removeprefix("performance/"): value for name, value in statistics.take().items()}
    assert found.pop("peak_cpu_memory_mib") > 10
    assert found == {
        "examples_per_second": 4.0,
        "tokens_per_second": 12.0,
        "padding_share": 0.25,
        "data_loading_share": 0.25,
    }
    assert statistics.take() == {}
    statistics.loaded([{"pixel_values": torch.ones(3, 2)}], 0.0)
    now[0] += 1
    left = {"examples_per_second", "data_loading_share", "peak_cpu_memory_mib"}
    assert set(statistics.take()) == {f"performance/{name}" for name in left}
