import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from hf_ext.data.splitting import merge_groups, strata_of, stratified_group_split
from hf_ext.errors import ConfigurationError

SHARES = (0.8, 0.1, 0.1)


def shares_by_class(labels, splits, count):
    return np.array([np.bincount(splits[labels == name], minlength=count) for name in np.unique(labels)])


def random_groups(rows, seed, lone_share=0.5):
    """Half of the rows alone, the others in groups of two to thirty."""
    generator = np.random.default_rng(seed)
    groups = np.arange(rows)
    grouped = generator.permutation(rows)[int(rows * lone_share) :]
    start = 0
    while start < len(grouped):
        size = int(generator.integers(2, 31))
        groups[grouped[start : start + size]] = grouped[start]
        start += size
    return groups


@pytest.mark.parametrize("seed", range(4))
def test_no_group_is_in_two_splits(seed):
    generator = np.random.default_rng(seed)
    labels = generator.choice(5, 3000, p=[0.5, 0.3, 0.1, 0.07, 0.03])
    groups = random_groups(3000, seed)
    splits = stratified_group_split(labels, groups, SHARES, seed)
    for group in np.unique(groups):
        assert len(set(splits[groups == group].tolist())) == 1
    assert set(splits.tolist()) == {0, 1, 2}


def test_rows_alone_are_split_like_scikit_learn_does():
    generator = np.random.default_rng(0)
    labels = generator.choice(6, 2357, p=[0.4, 0.3, 0.15, 0.1, 0.04, 0.01])
    splits = stratified_group_split(labels, np.arange(len(labels)), (0.85, 0.15), seed=0)
    held = round(0.15 * len(labels))
    assert (splits == 1).sum() == held
    _, theirs = train_test_split(np.arange(len(labels)), test_size=held, stratify=labels, random_state=0)
    ours = np.bincount(labels[splits == 1], minlength=6)
    assert np.abs(ours - np.bincount(labels[theirs], minlength=6)).max() <= 1
    assert np.abs(ours - 0.15 * np.bincount(labels)).max() < 1


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_split_as_evenly_as_scikit_learn_does(seed):
    generator = np.random.default_rng(seed)
    labels = generator.choice(4, 4000, p=[0.4, 0.3, 0.2, 0.1])
    groups = random_groups(4000, seed)
    ours = stratified_group_split(labels, groups, (0.8, 0.2), seed)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, groups)
    wanted = 0.2 * np.bincount(labels)
    theirs = [np.abs(np.bincount(labels[test], minlength=4) - wanted).max() for _, test in folds]
    assert np.abs(np.bincount(labels[ours == 1], minlength=4) - wanted).max() <= max(1, min(theirs))


def test_every_class_has_its_share_of_three_splits():
    labels = np.repeat(np.arange(7), 200)
    splits = stratified_group_split(labels, np.arange(1400), SHARES, seed=3)
    assert shares_by_class(labels, splits, 3).tolist() == [[160, 20, 20]] * 7


def test_rare_classes_share_what_is_held_out():
    # 100 classes of 5 rows: a tenth is 50 rows, of 50 different classes each.
    labels = np.repeat(np.arange(100), 5)
    counts = shares_by_class(labels, stratified_group_split(labels, np.arange(500), SHARES, seed=0), 3)
    assert counts.sum(axis=0).tolist() == [400, 50, 50]
    assert counts[:, 0].min() >= 3 and counts[:, 1:].max() == 1


def test_a_class_in_one_piece_is_for_training():
    labels = np.array([0] * 50 + [1] + [2] * 5)
    groups = np.array([*range(51), *[99] * 5])
    for seed in range(20):
        splits = stratified_group_split(labels, groups, (0.5, 0.5), seed)
        assert splits[50:].tolist() == [0] * 6


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 9])
def test_few_rows(rows):
    splits = stratified_group_split(np.zeros(rows, dtype=int), np.arange(rows), SHARES, seed=0)
    assert len(splits) == rows
    assert rows == 0 or (splits == 0).any()


def test_one_huge_group_is_for_training():
    labels = np.arange(1000) % 2
    groups = np.where(np.arange(1000) < 700, 0, np.arange(1000))
    splits = stratified_group_split(labels, groups, SHARES, seed=0)
    assert set(splits[:700].tolist()) == {0}
    assert np.bincount(splits).tolist() == [800, 100, 100]


def test_training_keeps_a_row_of_each_class():
    generator = np.random.default_rng(0)
    for seed in range(20):
        labels = generator.integers(0, 30, 90)
        groups = random_groups(90, seed)
        splits = stratified_group_split(labels, groups, (0.4, 0.3, 0.3), seed)
        assert set(labels[splits == 0].tolist()) == set(labels.tolist())


def test_a_function_of_the_seed():
    labels = np.arange(600) % 3
    groups = random_groups(600, 0)
    splits = [stratified_group_split(labels, groups, SHARES, seed).tolist() for seed in (0, 1, 0)]
    assert splits[0] == splits[2] != splits[1]
    # Names of classes and groups don't matter.
    assert stratified_group_split(labels * 7 + 3, groups * 11, SHARES, 0).tolist() == splits[0]


@pytest.mark.parametrize("shares", [(0.5, 0.4), (1.2, -0.2), (0.0, 1.0)])
def test_shares_that_cannot_be(shares):
    with pytest.raises(ConfigurationError, match="sum to 1"):
        stratified_group_split(np.zeros(4), np.arange(4), shares, 0)


def test_numbers_are_stratified_by_tenths():
    values = np.random.default_rng(0).exponential(size=2000)
    strata = strata_of(values, "regression")
    assert np.abs(np.bincount(strata) - 200).max() <= 1
    splits = stratified_group_split(strata, np.arange(2000), (0.9, 0.1), 0)
    assert np.quantile(values[splits == 1], 0.9) == pytest.approx(np.quantile(values, 0.9), rel=0.15)
    assert len(set(strata_of([1.0] * 50, "regression").tolist())) == 1


def test_rare_label_sets_are_pooled_by_their_rarest_label():
    labels = [["a"]] * 50 + [["b", "a"]] * 20 + [["a", "c"]] * 2 + [["c", "b"]] + [[]] * 3
    strata = strata_of(labels, "multi_label_classification").tolist()
    assert strata[0] != strata[50]
    assert len(set(strata[70:73])) == 1 and strata[70] not in (strata[0], strata[50])
    assert strata[73] == strata[75] and strata[73] not in strata[:73]


@pytest.mark.parametrize("seed", range(5))
def test_merged_groups_are_connected_rows(seed):
    generator = np.random.default_rng(seed)
    groupings = [generator.integers(-1, 40, 100), generator.integers(-1, 60, 100)]
    expected = list(range(100))
    changed = True
    while changed:
        changed = False
        for grouping in groupings:
            for one in range(100):
                for other in range(one):
                    same = grouping[one] == grouping[other] >= 0
                    if same and expected[one] != expected[other]:
                        low, high = sorted((expected[one], expected[other]))
                        expected = [low if value == high else value for value in expected]
                        changed = True
    merged = merge_groups(*groupings)
    pairs = {(a, b) for a, b in zip(merged.tolist(), expected, strict=True)}
    assert len(pairs) == len(set(expected)) == len(set(merged.tolist()))
