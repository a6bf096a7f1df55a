"""Difficulty: the scorers against plain loops, percentiles against SciPy and pandas, and what is refused."""

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from scipy.stats import rankdata

from hf_ext.data.difficulty import difficulty_scores, label_groups, percentile_within_label, source_rows
from hf_ext.errors import DataError

TEXTS = ["a b a", "", "c", "a b  c d", "d d d d d"]
IDS = [[5, 6, 5], [], [7], [5, 6, 7, 8], [8] * 5]


def as_dicts(**columns):
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@pytest.fixture(params=["dicts", "Dataset"])
def make(request):
    return as_dicts if request.param == "dicts" else lambda **columns: Dataset.from_dict(columns)


# ---- Scorers ----


@pytest.mark.parametrize(
    "columns", [{"text": TEXTS}, {"input_ids": IDS}, {"length": [3, 0, 1, 4, 5], "text": ["x"] * 5}]
)
def test_length(make, columns):
    scores = difficulty_scores(make(**columns), "length")
    assert scores.tolist() == [3, 0, 1, 4, 5]
    assert scores.dtype == np.float64


def rarities(rows):
    """-sum log p(w), by a loop."""
    counts = Counter(token for row in rows for token in row)
    total = sum(counts.values())
    return [sum(-math.log(counts[token] / total) for token in row) for row in rows]


@pytest.mark.parametrize("columns", [{"text": TEXTS}, {"input_ids": IDS}, {"input_ids": IDS, "text": ["x"] * 5}])
def test_rarity(make, columns):
    expected = rarities([text.split() for text in TEXTS])
    assert difficulty_scores(make(**columns), "rarity") == pytest.approx(expected, rel=1e-12)


def test_rarity_of_many_rows():
    generator = np.random.default_rng(0)
    rows = [generator.zipf(1.5, size=length).tolist() for length in generator.integers(0, 30, size=2000)]
    scores = difficulty_scores(Dataset.from_dict({"input_ids": rows}), "rarity")
    assert scores == pytest.approx(rarities(rows), rel=1e-9)


def test_padding_and_pairs_are_counted_as_what_they_are(make):
    padded = [ids + [0] * (5 - len(ids)) for ids in IDS]
    masks = [[1] * len(ids) + [0] * (5 - len(ids)) for ids in IDS]
    rows = make(input_ids=padded, attention_mask=masks)
    assert difficulty_scores(rows, "length").tolist() == [3, 0, 1, 4, 5]
    assert difficulty_scores(rows, "rarity") == pytest.approx(rarities(IDS))
    pairs = make(text=["a b", "a"], text_pair=["a", "c c"])
    assert difficulty_scores(pairs, "length").tolist() == [3, 3]
    assert difficulty_scores(pairs, "rarity") == pytest.approx(rarities([["a", "b", "a"], ["a", "c", "c"]]))


def test_texts_without_a_word(make):
    assert difficulty_scores(make(text=["", "  "]), "rarity").tolist() == [0, 0]


def test_a_column_a_function_and_an_array(make):
    rows = make(text=["x", "y", "z"], score=[0.5, -1, 3])
    assert difficulty_scores(rows, "score").tolist() == [0.5, -1, 3]
    assert difficulty_scores(rows, lambda given: [len(given) - i for i in range(3)]).tolist() == [3, 2, 1]
    for array in ([1, 2, 3], np.float32([1, 2, 3]), (1.0, 2, 3)):
        scores = difficulty_scores(rows, array)
        assert scores.tolist() == [1, 2, 3]
        assert scores.dtype == np.float64


def test_a_data_set_is_read_as_it_is_stored():
    rows = Dataset.from_dict({"length": [4, 5, 6], "input_ids": [[1], [2], [3]]})
    assert difficulty_scores(rows.with_format("torch"), "length").tolist() == [4, 5, 6]
    assert difficulty_scores(rows.with_transform(lambda batch: {"x": batch["length"]}), "length").tolist() == [4, 5, 6]
    assert difficulty_scores(rows.select([2, 0]), "length").tolist() == [6, 4]


# ---- Augmented copies ----


def test_copies_have_the_score_of_their_source(make):
    rows = make(
        text=["a", "a a a a", "b b", "c c c c c", "b"],
        source_idx=[10, 10, 20, 20, 20],
        is_augmented=[False, True, False, True, True],
    )
    assert source_rows(rows).tolist() == [0, 0, 2, 2, 2]
    assert difficulty_scores(rows, "length").tolist() == [1, 1, 2, 2, 2]
    # The words of the copies are not counted either.
    expected = rarities([["a"], ["b", "b"]])
    assert difficulty_scores(rows, "rarity") == pytest.approx([expected[i] for i in (0, 0, 1, 1, 1)])
    assert difficulty_scores(rows, lambda given: [len(row["text"]) for row in given]).tolist() == [1, 1, 3, 3, 3]
    # An array is taken as it is: it is as long as the rows.
    assert difficulty_scores(rows, [5, 4, 3, 2, 1]).tolist() == [5, 4, 3, 2, 1]


def test_a_copy_may_come_before_its_source(make):
    rows = make(text=["b b", "a", "b"], source_idx=[1, 0, 1], is_augmented=[True, False, False])
    assert difficulty_scores(rows, "length").tolist() == [1, 1, 1]
    assert source_rows(rows).tolist() == [2, 1, 2]


def test_a_copy_without_its_source_is_refused(make):
    rows = make(text=["a", "b"], source_idx=[0, 7], is_augmented=[False, True])
    with pytest.raises(DataError, match="Row 2 is an augmented copy of source_idx 7, which is not among the 2 rows"):
        difficulty_scores(rows, "length")
    with pytest.raises(DataError, match="no column source_idx"):
        difficulty_scores(make(text=["a", "b"], is_augmented=[False, True]), "length")


# ---- What is refused ----


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), None, "3"])
def test_a_score_that_is_no_finite_number_names_its_row(value):
    rows = [{"text": "a", "score": score} for score in (1.0, 2, value, 4)]
    with pytest.raises(DataError, match=r"The column 'score' is .* in row 3; it must be a finite number") as error:
        difficulty_scores(rows, "score")
    assert repr(value) in str(error.value)
    with pytest.raises(DataError, match=r"The difficulty is .* in row 3"):
        difficulty_scores(rows, [1.0, 2, value, 4])
    with pytest.raises(DataError, match=r"The difficulty that scorer returns is .* in row 3"):

        def scorer(given):
            return [row["score"] for row in given]

        difficulty_scores(rows, scorer)


def test_a_missing_value_of_pandas_names_its_row(make):
    scores = pd.Series([1, pd.NA, 3], dtype="Int64")
    with pytest.raises(DataError, match="is <NA> in row 2"):
        difficulty_scores(make(text=TEXTS[:3]), scores)


def test_the_row_is_named_among_all_rows():
    rows = [
        {"score": 1.0, "source_idx": 0, "is_augmented": False},
        {"score": 1.0, "source_idx": 0, "is_augmented": True},
        {"score": None, "source_idx": 1, "is_augmented": False},
    ]
    with pytest.raises(DataError, match="in row 3"):
        difficulty_scores(rows, "score")
    rows = [{"text": "a"}, {"text": None}]
    with pytest.raises(DataError, match="Row 2: 'text' is None"):
        difficulty_scores(rows, "rarity")


def test_an_unknown_difficulty_names_the_nearest(make):
    rows = make(text=["a"], perplexity=[1.0])
    with pytest.raises(DataError, match=r"no difficulty 'perplexty'.*length, rarity.*text, perplexity.*'perplexity'\?"):
        difficulty_scores(rows, "perplexty")
    with pytest.raises(DataError, match="compute it with cross_review_scores and pass the array"):
        difficulty_scores(rows, "cross_review")
    with pytest.raises(DataError, match="column length, input_ids or text; there are only perplexity"):
        difficulty_scores(make(perplexity=[1.0]), "rarity")


@pytest.mark.parametrize("scores", [[1.0], [[1.0, 2.0], [3.0, 4.0]], 3.0, []], ids=["short", "2d", "scalar", "empty"])
def test_scores_of_another_shape_are_refused(make, scores):
    with pytest.raises(DataError, match="must be one number a row"):
        difficulty_scores(make(text=["a", "b"]), scores)
    with pytest.raises(DataError, match="must be one number a row"):
        difficulty_scores(make(text=["a", "b"]), lambda rows: scores)


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="no rows"):
        difficulty_scores([], "length")
    with pytest.raises(DataError, match="no rows"):
        difficulty_scores(Dataset.from_dict({"text": []}), "length")
    with pytest.raises(DataError, match="must be a mapping"):
        difficulty_scores(["text"], "length")


# ---- Percentiles ----


def test_percentiles_of_different_scores_are_scipys_ranks():
    scores = np.random.default_rng(0).normal(size=501)
    assert percentile_within_label(scores) == pytest.approx((rankdata(scores) - 1) / 501)


def test_percentiles_within_labels_are_pandas_ranks():
    generator = np.random.default_rng(1)
    scores, labels = generator.normal(size=400), generator.choice(["x", "y", "rare"], p=[0.7, 0.28, 0.02], size=400)
    groups = pd.Series(scores).groupby(labels)
    expected = (groups.rank(method="first") - 1) / groups.transform("size")
    assert percentile_within_label(scores, labels) == pytest.approx(expected.to_numpy())
    assert percentile_within_label(scores, labels.tolist(), seed=9) == pytest.approx(expected.to_numpy())


def test_equal_scores_are_ordered_by_the_seed():
    scores = np.repeat([2.0, 1.0, 3.0], 40)
    labels = np.tile([0, 1], 60)
    found = [percentile_within_label(scores, labels, seed) for seed in range(200)]
    for shares in found:
        for label in (0, 1):
            ranks = shares[labels == label] * 60 + 1
            assert sorted(ranks) == pytest.approx(range(1, 61))
            assert np.all(ranks >= rankdata(scores[labels == label], "min") - 1e-9)
            assert np.all(ranks <= rankdata(scores[labels == label], "max") + 1e-9)
    assert len({tuple(shares) for shares in found}) == 200
    # Not by position: over the seeds each of the equal rows is as often early as late.
    assert np.mean(found, axis=0)[40:80] == pytest.approx(np.full(40, 19 / 2 / 60), abs=0.03)
    assert np.array_equal(found[3], percentile_within_label(scores, labels, 3))


def test_the_easiest_share_of_a_label_is_so_many_rows():
    for rows in (1, 2, 3, 7, 10, 30, 999):
        shares = percentile_within_label(np.arange(rows))
        for hundredths in range(1, 101):
            taken = int((shares < hundredths / 100 - 1e-9).sum())
            assert taken == -(-rows * hundredths // 100)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (None, [0, 0, 0, 0]),
        ([3, 1, 3, 2], [2, 0, 2, 1]),
        (["b", "a", "b", "c"], [1, 0, 1, 2]),
        ([True, False, True, True], [1, 0, 1, 1]),
        ([0.5, 1.5, 2.5, 2.5], [0, 0, 0, 0]),
        ([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]], [1, 0, 2, 1]),
        ([[1, 0], [0, 1], [0, 0], [0, 0]], [2, 1, 0, 0]),
        (np.array([5, 5, 4, 4]), [1, 1, 0, 0]),
    ],
    ids=["none", "ids", "names", "bools", "regression", "sets", "integer sets", "array"],
)
def test_rows_with_the_same_label_are_one_group(labels, expected):
    groups = label_groups(labels, 4)
    assert groups.tolist() == expected
    assert groups.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "2 labels for 3 rows"),
        ([0, None, 1], "row 2 has none"),
        ([[1.0], [1.0, 0.0], [1.0]], "several kinds or lengths"),
    ],
    ids=["too few", "missing", "ragged"],
)
def test_labels_that_cannot_be_grouped_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        percentile_within_label([1.0, 2.0, 3.0], labels)
