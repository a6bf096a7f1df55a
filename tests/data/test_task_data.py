"""Rows of several tasks as one dataset: what a loader reads, what a collator makes, what is refused."""

import math

import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from hf_ext.data.task_data import TaskCollator, TaskDataset, check_rows, infer_problem_type
from hf_ext.errors import ConfigurationError, DataError

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
FIRST = [{"input_ids": [n], "labels": n % 2, "text": "a"} for n in range(5)]
SECOND = [{"input_ids": [n, n], "labels": float(n), "segment": 1} for n in range(10, 13)]


@pytest.mark.parametrize("make", [list, Dataset.from_list], ids=["list", "arrow"])
def test_rows_are_concatenated_with_their_task_and_their_columns(make):
    dataset = TaskDataset({0: make(FIRST), 2: make(SECOND)}, {0: {"input_ids", "labels"}})
    assert len(dataset) == 8
    expected = [{"input_ids": r["input_ids"], "labels": r["labels"], "task_id": 0} for r in FIRST]
    expected += [{**row, "task_id": 2} for row in SECOND]
    assert [dataset[index] for index in range(8)] == expected
    assert dataset.__getitems__([4, 0]) == [expected[4], expected[0]]
    assert dataset.__getitems__([5, 0, 7]) == [expected[5], expected[0], expected[7]]
    for index in (-1, 8):
        with pytest.raises(IndexError):
            dataset[index]


def collate(rows):
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def test_batches_are_made_by_the_collator_of_their_task():
    class Doubling:
        needed_columns = ("segment",)
        epoch = None

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __call__(self, rows):
            return {name: 2 * value for name, value in collate(rows).items()}

    doubling = Doubling()
    collator = TaskCollator({0: collate, 2: doubling})
    dataset = TaskDataset({0: FIRST, 2: SECOND}, {0: {"input_ids", "labels"}})
    first, second = DataLoader(dataset, batch_sampler=[[0, 1], [7, 5]], collate_fn=collator)
    assert first["input_ids"].tolist() == [[0], [1]] and first["task_id"].tolist() == [0, 0]
    assert second["labels"].tolist() == [24.0, 20.0] and second["task_id"].tolist() == [2, 2]
    assert list(second)[-1] == "task_id"
    assert collator.needed_columns == ["segment"]
    collator.set_epoch(3)
    assert doubling.epoch == 3
    with pytest.raises(ConfigurationError, match="2 tasks"):
        collator([dataset[0], dataset[7]])


@pytest.mark.parametrize("make", [list, Dataset.from_list], ids=["list", "arrow"])
def test_the_kind_of_task_is_that_of_the_labels(make):
    assert infer_problem_type(make([{"labels": 1}]), 3) == SINGLE
    assert infer_problem_type(make([{"labels": [1.0, 0.0, 0.0]}]), 3) == MULTI
    assert infer_problem_type(make([{"label": 0.5}]), 1) == REGRESSION


@pytest.mark.parametrize(
    ("labels", "kind", "num_labels"),
    [
        ([0, 1, 2], SINGLE, 3),
        ([[0.0, 1.0], [1.0, 1.0]], MULTI, 2),
        ([0.5, -3.0], REGRESSION, 1),
        ([[0.5, 1.0]], REGRESSION, 2),
    ],
    ids=range(4),
)
@pytest.mark.parametrize("make", [list, Dataset.from_list], ids=["list", "arrow"])
def test_labels_of_the_head_pass(labels, kind, num_labels, make):
    check_rows("a", "training", make([{"labels": label} for label in labels]), kind, num_labels)


@pytest.mark.parametrize(
    ("labels", "kind", "num_labels"),
    [
        ([0, 3], SINGLE, 3),
        ([0, -1], SINGLE, 3),
        ([0, -100], SINGLE, 3),
        ([0.0, 1.0], SINGLE, 3),
        ([True, False], SINGLE, 2),
        ([0, "1"], SINGLE, 2),
        ([0, None], SINGLE, 2),
        ([[0.0, 1.0], [1.0]], MULTI, 2),
        ([[0.0, 1.0], [1.0, 0.5]], MULTI, 2),
        ([[0.0, 1.0], [1, 0]], MULTI, 2),
        ([[0.0, 1.0], 1], MULTI, 2),
        ([0.5, 1], REGRESSION, 1),
        ([0.5, math.nan], REGRESSION, 1),
        ([[0.5, 0.5], [0.5]], REGRESSION, 2),
    ],
    ids=range(14),
)
def test_other_labels_are_named_with_their_row(labels, kind, num_labels):
    rows = [{"labels": label} for label in labels]
    row = 1 if labels in ([0.0, 1.0], [True, False]) else 2
    with pytest.raises(DataError, match=rf"'topic', validation row {row}: the label is .*{kind} with num_labels="):
        check_rows("topic", "validation", rows, kind, num_labels)


def test_rows_that_are_none():
    with pytest.raises(DataError, match="'topic' has no training rows"):
        check_rows("topic", "training", [])
    with pytest.raises(DataError, match="no column named labels or label"):
        check_rows("topic", "training", [{"input_ids": [1]}], SINGLE, 2)
    for rows in ("train.csv", {"train": FIRST}, iter(FIRST), Dataset.from_list(FIRST).to_iterable_dataset()):
        with pytest.raises(ConfigurationError, match=r"'topic' are a .*must be a Dataset with a length"):
            check_rows("topic", "training", rows)
