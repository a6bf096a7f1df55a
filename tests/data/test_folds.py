"""Folds against scikit-learn, iterative stratification and plain loops; what cannot be dealt is refused by name."""

import random
import re
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

from hf_ext import ConfigurationError, DataError, make_folds, near_duplicates, row_groups

SINGLE, MULTI, NUMBER = "single_label_classification", "multi_label_classification", "regression"
GENERATOR = np.random.default_rng(0)
CLASSES = GENERATOR.choice(3, size=90, p=(0.6, 0.3, 0.1))
FLAGS = (GENERATOR.random((90, 4)) < (0.5, 0.3, 0.2, 0.1)).astype(float)
NUMBERS = GENERATOR.normal(size=200)


def parts(folds):
    return [(fold.train.tolist(), fold.test.tolist()) for fold in folds]


def expected(splitter, *arguments):
    return [(train.tolist(), test.tolist()) for train, test in splitter.split(*arguments)]


# ---- Dealing ----


def test_classes_are_dealt_as_by_scikit_learn():
    folds = make_folds(CLASSES, SINGLE, 5, 1, [7])
    assert parts(folds) == expected(StratifiedKFold(5, shuffle=True, random_state=7), CLASSES, CLASSES)
    assert [fold.name for fold in folds] == [f"seed7_repeat0_fold{index}" for index in range(5)]


def test_several_labels_are_dealt_by_iterative_stratification():
    folds = make_folds(FLAGS, MULTI, 5, 1, [7])
    splitter = MultilabelStratifiedKFold(5, shuffle=True, random_state=7)
    assert parts(folds) == expected(splitter, FLAGS, FLAGS)
    shares = np.array([FLAGS[fold.test].sum(axis=0) for fold in folds])
    assert (np.abs(shares - FLAGS.sum(axis=0) / 5) <= 1.5).all()


def test_groups_with_several_labels_are_dealt_whole():
    groups = np.arange(90) // 2
    folds = make_folds(FLAGS, MULTI, 5, 1, [7], groups)
    united = FLAGS[::2].astype(bool) | FLAGS[1::2].astype(bool)
    of_groups = expected(MultilabelStratifiedKFold(5, shuffle=True, random_state=7), united, united)
    assert [sorted({row // 2 for row in test}) for _, test in parts(folds)] == [test for _, test in of_groups]
    assert all(len(set(groups[fold.train]) & set(groups[fold.test])) == 0 for fold in folds)


def test_numbers_have_their_tenths_in_each_fold():
    folds = make_folds(NUMBERS, NUMBER, 5, 1, [3])
    edges = np.quantile(NUMBERS, np.arange(1, 10) / 10)
    for fold in folds:
        assert Counter(np.searchsorted(edges, NUMBERS[fold.test]).tolist()) == dict.fromkeys(range(10), 4)
    # Too few for that.
    few = NUMBERS[:20]
    assert parts(make_folds(few, NUMBER, 5, 1, [3])) == expected(KFold(5, shuffle=True, random_state=3), few)


def test_groups_are_dealt_as_by_scikit_learn():
    groups = np.array([f"author {number}" for number in GENERATOR.integers(0, 30, size=90)])
    folds = make_folds(CLASSES, SINGLE, 4, 1, [7], groups)
    splitter = StratifiedGroupKFold(4, shuffle=True, random_state=7)
    assert parts(folds) == expected(splitter, CLASSES, CLASSES, groups)
    for fold in folds:
        assert not set(groups[fold.train]) & set(groups[fold.test])


def test_each_dealing_tests_each_row_once_and_is_another():
    folds = make_folds(CLASSES, SINGLE, 3, 2, [7, 8])
    assert [(fold.seed, fold.repeat, fold.index) for fold in folds] == [
        (seed, repeat, index) for seed in (7, 8) for repeat in (0, 1) for index in (0, 1, 2)
    ]
    dealings = [folds[start : start + 3] for start in range(0, 12, 3)]
    for dealing in dealings:
        assert sorted(np.concatenate([fold.test for fold in dealing]).tolist()) == list(range(90))
        for fold in dealing:
            assert sorted([*fold.train.tolist(), *fold.test.tolist()]) == list(range(90))
    assert len({str(parts(dealing)) for dealing in dealings}) == 4
    assert parts(folds) == parts(make_folds(CLASSES, SINGLE, 3, 2, [7, 8]))
    # A seed's folds do not depend on the others.
    assert parts(folds[6:]) == parts(make_folds(CLASSES, SINGLE, 3, 2, [8]))


def test_each_fold_trains_with_a_seed_of_its_own():
    folds = make_folds(CLASSES, SINGLE, 3, 2, [0, 1])
    assert len({fold.training_seed for fold in folds}) == 12
    for fold in folds:
        state = np.random.SeedSequence([fold.seed, fold.repeat, fold.index]).generate_state(1)
        assert fold.training_seed == int(state[0]) >> 1 < 2**31


# ---- Groups ----


def test_rows_that_know_each_other_are_one_group():
    generator = random.Random(1)
    rows = {
        "text": [f"Text {generator.randint(0, 25)} " + " " * generator.randint(0, 2) for _ in range(40)],
        "source_idx": [generator.choice([*range(100, 110), *(200 + row for row in range(30))]) for row in range(40)],
        "group": [generator.choice(["a", *(f"own {row}" for row in range(80))]) for row in range(40)],
    }
    found = row_groups(Dataset.from_dict(rows))
    keys = [
        {("text", " ".join(text.split())), ("source", source), ("group", group)}
        for text, source, group in zip(rows["text"], rows["source_idx"], rows["group"], strict=True)
    ]
    merged = []
    for row, key in enumerate(keys):
        touching = [part for part in merged if part[0] & key]
        merged = [part for part in merged if not part[0] & key]
        others = [other for part in touching for other in part[1]]
        merged.append((key.union(*(part[0] for part in touching)), [row, *others]))
    assert sorted(sorted(part[1]) for part in merged) == sorted(
        np.flatnonzero(found == number).tolist() for number in set(found.tolist())
    )


def test_pairs_are_equal_in_both_texts():
    rows = Dataset.from_dict({"text": ["a", "a", "A"], "text_pair": ["b", "c", "b"]})
    found = row_groups(rows)
    assert found[0] == found[2] != found[1]


def test_similar_texts_are_one_group_if_asked():
    texts = ["a long sentence about a fine film", "a long sentence about a fine film!", "something else altogether"]
    rows = Dataset.from_dict({"text": texts})
    assert len(set(row_groups(rows))) == 3
    found = row_groups(rows, 0.8)
    assert found[0] == found[1] != found[2]
    assert near_duplicates(texts, 0.8).tolist() == [0, 0, 2]


# ---- What cannot be dealt ----


def test_more_folds_than_the_rarest_class_has_rows():
    labels = [0] * 20 + [1] * 3 + [2] * 20
    message = r"num_folds is 5, but the class 'neutral' has only 3 rows \(rows 21, 22, 23\).*at most 3 folds"
    with pytest.raises(ConfigurationError, match=message):
        make_folds(labels, SINGLE, 5, 1, [0], label_names=["bad", "neutral", "good"])
    flags = np.zeros((40, 2))
    flags[:30, 0], flags[17, 1] = 1, 1
    with pytest.raises(ConfigurationError, match=r"the class 'rare' has only 1 row \(row 118\)"):
        make_folds(flags, MULTI, 5, 1, [0], label_names=["common", "rare"], file_rows=range(101, 141))


def test_a_class_in_fewer_groups_than_folds():
    labels, groups = [0] * 30 + [1] * 10, [*range(30), *[100] * 5, *[101] * 5]
    message = (
        r"num_folds is 4, but the 10 rows of the class 'good' are in only 2 groups \(.* row 31 \(by Ann\)\).*at most 2"
    )
    with pytest.raises(DataError, match=message):
        make_folds(labels, SINGLE, 4, 1, [0], groups, ["bad", "good"], lambda row: "by Ann")


def test_a_group_larger_than_a_fold():
    labels, groups = [0, 1] * 20, [0] * 12 + list(range(1, 29))
    message = r"The group of row 1 \(by Ann\) has 12 of 40 rows.*one of 5 folds has at most 8\. Take at most 3 folds"
    with pytest.raises(DataError, match=message):
        make_folds(labels, SINGLE, 5, 1, [0], groups, name_group=lambda row: "by Ann")
    assert len(make_folds(labels, SINGLE, 3, 1, [0], groups)) == 3


@pytest.mark.parametrize(
    ("folds", "repeats", "seeds", "message"),
    [
        (1, 1, [0], "num_folds is 1; it must be at least 2"),
        (91, 1, [0], "num_folds is 91, but there are only 90 rows"),
        (3, 0, [0], "num_repeats is 0; it must be at least 1"),
        (3, 1, [], "fold_seeds is []"),
        (3, 1, [4, 4], "fold_seeds is [4, 4]; it must be one or more different seeds"),
        (3, 1, [-1], "fold_seeds is [-1]"),
    ],
)
def test_numbers_that_are_none(folds, repeats, seeds, message):
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        make_folds(CLASSES, SINGLE, folds, repeats, seeds)
