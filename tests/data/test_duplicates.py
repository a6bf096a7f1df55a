import random

import numpy as np
import pyarrow as pa
import pytest

from hf_ext.data import text_columns
from hf_ext.data.duplicates import exact_duplicates, link_clusters, near_duplicate_pairs, near_duplicates
from hf_ext.data.minhash import similarities
from hf_ext.data.text_columns import PAIR_SEPARATOR, normalize_text
from hf_ext.errors import ConfigurationError, DataError

SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprst" for vowel in "aeiou"]


def grams(text):
    """The set of five-byte runs, by a plain loop."""
    data = " ".join(text.lower().split()).encode()
    return {data[i : i + 5] for i in range(max(1, len(data) - 4))}


def jaccard(one, other):
    return len(grams(one) & grams(other)) / len(grams(one) | grams(other))


def sentences(count, words, seed=0):
    generator = random.Random(seed)
    vocabulary = ["".join(generator.choices(SYLLABLES, k=generator.randint(1, 4))) for _ in range(800)]
    return [" ".join(generator.choices(vocabulary, k=generator.randint(*words))) for _ in range(count)]


@pytest.fixture(scope="module")
def perturbed():
    """600 short texts, two thirds of them copies of others with none to four letters changed."""
    generator = random.Random(1)
    texts = sentences(200, (6, 20))
    for text in texts[:]:
        for _ in range(2):
            letters = list(text)
            for _ in range(generator.randint(0, 4)):
                letters[generator.randrange(len(letters))] = generator.choice("aeiourst")
            texts.append("".join(letters))
    generator.shuffle(texts)
    return texts


def components(rows, pairs):
    """Clusters by relabelling until nothing changes."""
    cluster, changed = list(range(rows)), True
    while changed:
        changed = False
        for one, other in pairs:
            low = min(cluster[one], cluster[other])
            if cluster[one] != low or cluster[other] != low:
                cluster[one] = cluster[other] = low
                changed = True
    return cluster


def as_forms(texts):
    return {
        "list": texts,
        "array": pa.array(texts),
        "sliced": pa.array(["before", *texts]).slice(1),
        "large": pa.array(texts, pa.large_string()),
        "chunked": pa.chunked_array([texts[:3], [], texts[3:10], texts[10:]], pa.string()),
    }


def test_normalised_texts_have_no_case_and_single_blanks():
    assert normalize_text(" The\u00a0CAT\n\tsat \u2003 ÉTÉ ") == "the cat sat été"


def test_exact_duplicates_are_those_that_a_dictionary_finds():
    generator = random.Random(3)
    texts = [generator.choice(["a b", "A  b", "a\nb", "ab", "", "  ", "straße", "STRASSE", "ÉTÉ", "été", "\udc80"])]
    texts += [f"{generator.choice('aAbB')} {generator.randint(0, 40)}" for _ in range(2000)]
    seen = {}
    expected = [seen.setdefault(" ".join(text.lower().split()), row) for row, text in enumerate(texts)]
    found = exact_duplicates(texts)
    assert found.dtype == np.int64
    assert found.tolist() == expected
    assert len(set(expected)) < len(texts) / 10


@pytest.mark.parametrize("form", ["array", "sliced", "large", "chunked"])
def test_arrow_columns_give_what_lists_give(perturbed, form):
    column = as_forms(perturbed)[form]
    assert exact_duplicates(column).tolist() == exact_duplicates(perturbed).tolist()
    for one, other in zip(near_duplicate_pairs(column), near_duplicate_pairs(perturbed), strict=True):
        assert one.tolist() == other.tolist()


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95, 1.0])
def test_clusters_are_those_of_comparing_all_pairs(perturbed, threshold):
    sets = [grams(text) for text in perturbed]
    pairs = [
        (one, other)
        for one in range(len(sets))
        for other in range(one + 1, len(sets))
        if len(sets[one] & sets[other]) >= threshold * len(sets[one] | sets[other])
    ]
    assert len(pairs) >= 20
    found = near_duplicates(perturbed, threshold)
    expected = components(len(perturbed), pairs)
    together = np.mean([found[one] == found[other] for one, other in pairs])
    assert together >= 0.97
    # Never more than the truth: what is together in ours is together by comparing all pairs.
    for row, leader in enumerate(found):
        assert expected[row] == expected[leader]
        assert leader <= row


@pytest.mark.parametrize("seed", range(4))
def test_pairs_just_above_the_threshold_are_found(seed):
    generator = random.Random(seed)
    first, second = sentences(300, (8, 20), seed), []
    for text in first:
        letters = list(text)
        # A change at a time until one more would make the pair too different.
        while True:
            changed = letters[:]
            changed[generator.randrange(len(changed))] = "#"
            if jaccard(text, "".join(changed)) < 0.8:
                break
            letters = changed
        second.append("".join(letters))
    assert np.mean([jaccard(one, other) for one, other in zip(first, second, strict=True)]) < 0.87
    found = near_duplicates(first + second, 0.8, seed)
    assert np.mean(found[300:] == np.arange(300)) >= 0.97


def test_similarities_of_links_are_exact(perturbed):
    first, second, similarity = near_duplicate_pairs(perturbed, 0.7)
    assert len(first) > 200
    assert (first < second).all()
    expected = [jaccard(perturbed[one], perturbed[other]) for one, other in zip(first, second, strict=True)]
    assert similarity.tolist() == pytest.approx(expected, abs=1e-12)
    assert min(expected) >= 0.7
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == list(
        zip(first.tolist(), second.tolist(), strict=True)
    )
    cluster = components(len(perturbed), list(zip(first.tolist(), second.tolist(), strict=True)))
    assert link_clusters(len(perturbed), first, second).tolist() == cluster


def test_similarities_of_any_pairs_are_exact():
    texts = ["", "a", "ab", "abcd", "abcde", "abcdef", "abcdeabcde", "日本語テキスト", "日本語テキスト。", "Abc  DE"]
    first, second = (part.ravel() for part in np.indices((len(texts), len(texts))))
    expected = [jaccard(texts[one], texts[other]) for one, other in zip(first, second, strict=True)]
    assert similarities(texts, first, second).tolist() == pytest.approx(expected, abs=1e-12)


def test_the_result_depends_neither_on_chunks_nor_on_the_run(perturbed, monkeypatch):
    expected = near_duplicate_pairs(perturbed, 0.6, seed=5)
    monkeypatch.setattr(text_columns, "ROWS_A_CHUNK", 7)
    monkeypatch.setattr(text_columns, "BYTES_A_CHUNK", 300)
    for one, other in zip(near_duplicate_pairs(perturbed, 0.6, seed=5), expected, strict=True):
        assert one.tolist() == other.tolist()


@pytest.mark.parametrize("changed", [False, True])
def test_texts_that_are_all_alike_cost_no_more(changed):
    beginning = "your parcel is at the post office, please bring a document to fetch it; its number is "
    texts = [beginning + (f"{row:05d}" if changed else "1") for row in range(30_000)]
    first, second, _ = near_duplicate_pairs(texts)
    assert len(first) < 1.5 * len(texts)
    assert not link_clusters(len(texts), first, second).any()


def test_short_and_empty_texts_and_no_texts():
    assert near_duplicates(["ab", "ac", "AB ", "", "  ", "abc", "x"]).tolist() == [0, 1, 0, 3, 3, 5, 6]
    assert near_duplicates([]).tolist() == exact_duplicates([]).tolist() == []
    assert near_duplicates(pa.chunked_array([], pa.string())).tolist() == []


def test_a_text_of_a_million_words():
    words = " ".join(sentences(50_000, (20, 20)))
    assert near_duplicates([words, "short", words + " more", words[::-1]]).tolist() == [0, 1, 0, 3]


def test_pairs_of_texts_are_told_apart():
    joined = [f"{one}{PAIR_SEPARATOR}{other}" for one, other in [("a b", "c"), ("a", "b c"), ("a  b", "C")]]
    assert exact_duplicates(joined).tolist() == [0, 1, 0]


# Of 1e-7, 53 million bands a text would be needed.
@pytest.mark.parametrize("threshold", [0, 1e-7, 0.049, -0.1, 1.01, float("nan"), "0.8", True, None])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ConfigurationError, match=r"at least 0\.05 .* at most 1"):
        near_duplicates(["a", "b"], threshold)


@pytest.mark.parametrize("function", [exact_duplicates, near_duplicates])
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", None], "Row 2 of the texts is None"),
        (["a", "b", 3], "Row 3 of the texts is 3"),
        (pa.chunked_array([["a"], ["b", None]]), "Row 3 of the texts is None"),
        (pa.array([1, 2]), "a column of int64"),
    ],
    ids=["none", "number", "null", "numbers"],
)
def test_what_is_no_text_is_refused(function, texts, message):
    with pytest.raises(DataError, match=message):
        function(texts)
