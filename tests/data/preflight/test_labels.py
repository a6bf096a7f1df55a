import numpy as np
import pytest

from hf_ext.data.labels import Task
from hf_ext.data.preflight import preflight
from hf_ext.problem_types import MULTI_LABEL, SINGLE_LABEL

TASK = Task(SINGLE_LABEL, ["neg", "pos"])


def check(name, labels, task=None, folds=None):
    splits = {
        split: [{"text": f"{split} text number {row * 7919}", "label": label} for row, label in enumerate(values)]
        for split, values in labels.items()
    }
    return preflight(splits, task, folds=folds, progress=False)[name]


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (-1, "is -1, which marks a missing label"),
        (2, "is 2, outside 0 to 1"),
        (None, "is missing"),
        ("", "is missing"),
        (float("nan"), "is missing"),
        ("neutral", "is 'neutral', which is none of the classes"),
        (0.5, "is 0.5; it must be a class id or a class name"),
        (True, "is True; it must be a class id or a class name"),
        ([0, 1], "is a list, but rows have one label each"),
    ],
    ids=["minus_one", "range", "none", "empty", "nan", "name", "float", "bool", "list"],
)
def test_bad_labels_are_named_by_row(label, reason):
    finding = check("labels", {"train": [0, 1, 0, label, 1, "pos", label], "test": [0, 1]}, TASK)
    assert (finding.verdict, finding.count) == ("fail", 2)
    assert finding.numbers == {"train": 2, "test": 0}
    assert [(example.split, example.row) for example in finding.examples] == [("train", 4), ("train", 7)]
    assert finding.examples[0].note == f"the label {reason}"
    assert f"2 where it {reason} (train 2)" in finding.message


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ([1, 0], "zeros and ones"),
        ([1, 0, 2], "zeros and ones"),
        (["joy", "anger"], "none of the classes"),
        ("joy", "rows have lists of labels"),
    ],
    ids=["short", "two", "name", "string"],
)
def test_bad_lists_of_labels(label, reason):
    task = Task(MULTI_LABEL, ["joy", "love", "fear"])
    finding = check("labels", {"train": [[1, 0, 0], ["love", "joy"], [0, 0, 0], label]}, task)
    assert [(example.row, reason in example.note) for example in finding.examples] == [(4, True)]


def test_raw_labels_of_one_kind_are_classes_by_themselves():
    assert check("labels", {"train": [3, 5, 3, 9], "test": [9, 3]}).verdict == "ok"
    finding = check("labels", {"train": ["a", "b", -1, "a"]})
    assert finding.count == 1


def test_classes_that_training_never_sees():
    finding = check("unseen_classes", {"train": ["a", "b", "a"], "validation": ["a", "c"], "test": ["d", "c", "c"]})
    assert (finding.verdict, finding.count) == ("fail", 4)
    assert finding.numbers == {"validation": 1, "test": 3}
    assert "validation has c (1 row); test has c (2 rows), d (1 row)" in finding.message
    assert [(example.split, example.row) for example in finding.examples] == [
        ("validation", 2),
        ("test", 1),
        ("test", 2),
        ("test", 3),
    ]


def test_classes_without_a_row():
    labels = {"train": [0, 1, 2, 0], "validation": [0, 2], "test": [0, 1, 2]}
    finding = check("missing_classes", labels, Task(SINGLE_LABEL, ["a", "b", "c", "d"]))
    assert (finding.verdict, finding.numbers) == ("warn", {"train": 1, "validation": 2, "test": 1})
    assert "train lacks d; validation lacks b, d; test lacks d" in finding.message


@pytest.mark.parametrize(
    ("counts", "verdict", "ratio", "rare"),
    [
        ({"a": 50, "b": 40}, "ok", 1.25, 0),
        ({"a": 200, "b": 20}, "warn", 10.0, 0),
        ({"a": 20, "b": 9, "c": 1}, "warn", 20.0, 2),
    ],
    ids=["even", "uneven", "rare"],
)
def test_imbalance(counts, verdict, ratio, rare):
    finding = check("class_imbalance", {"train": [name for name, count in counts.items() for _ in range(count)]})
    assert (finding.verdict, finding.numbers) == (verdict, {"ratio": ratio, "rare": rare})


def test_classes_absent_from_folds():
    labels = {"train": ["a", "b"] * 6 + ["c", "c"]}
    folds = np.asarray([0, 0, 1, 1, 2, 2] * 2 + [0, 1])
    finding = check("folds", labels, folds=folds)
    assert (finding.verdict, finding.count) == ("fail", 1)
    assert finding.numbers["fold 3, validation"] == 1
    assert finding.numbers["classes with fewer rows than folds"] == 1
    assert "validation part of fold 3: c" in finding.message
    assert "fewer rows than the 3 folds: c (2 rows)" in finding.message
    pairs = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(3)]
    assert check("folds", labels, folds=pairs) == finding
    # A class that stands in one validation part only is never trained on there.
    folds[-2:] = 2
    finding = check("folds", labels, folds=folds)
    assert finding.numbers["fold 3, training"] == 1
    assert finding.numbers["fold 1, validation"] == finding.numbers["fold 2, validation"] == 1
    assert check("folds", {"train": ["a", "b"] * 6}, folds=[0, 0, 1, 1] * 3).verdict == "ok"
