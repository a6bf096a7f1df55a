"""The edits of whole batches beside the same edits written word by word, given the same random numbers."""

import gzip
import random
import re
import unicodedata
from collections import Counter
from importlib.resources import files

import numpy as np
import pytest

import hf_ext.data.augmentation.text_edits as text_edits
from hf_ext.data.augmentation.function_words import NEGATIONS, STOP_WORDS
from hf_ext.data.augmentation.synonyms import table_of_words, wordnet_synonyms
from hf_ext.data.augmentation.text_edits import TECHNIQUES, edit_texts, row_keys
from hf_ext.data.augmentation.word_spans import find_words, hash_strings, index_words

UNTOUCHABLE = {"the", "a", "not", "don't", "don\u2019t", "is", "yourselves"}
SYNONYMS = {
    "film": ["movie", "picture", "motion picture"],
    "good": ["fine"],
    "GREAT": ["super", "straße"],
    "mother-in-law": ["relative"],
    "incomprehensibilities": ["riddles", "x"],
}
MASK = 2**64 - 1


def scalar_mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def draw(key, stream, position):
    return scalar_mix((key + ((stream << 40) + position + 1) * 0x9E3779B97F4A7C15) & MASK)


def below(bits, count):
    return (bits >> 32) * count >> 32


def is_glue(character):
    if character < "\x80":
        return character in "0123456789_@#/\\&<>="
    return character.encode()[0] not in (0xC2, 0xE2) and character < "\U00010000"


def spans(text):
    """Words by a regular expression, less those that are a part of something else."""
    found = []
    for match in re.finditer(r"[A-Za-z]+(?:['\u2019-][A-Za-z]+)*", text):
        before, behind = text[: match.start()][-1:], text[match.end() :][:2]
        glued = before and (is_glue(before) or before in "'-\u2019.:")
        glued = glued or (behind and (is_glue(behind[0]) or behind[0] in "'-\u2019"))
        part = (
            behind[:1] and behind[:1] in ".:" and behind[1:] and (is_glue(behind[1]) or re.match("[A-Za-z]", behind[1]))
        )
        if not glued and not part:
            found.append(match.span())
    return found


def like(word, model):
    if len(model) > 1 and not any("a" <= letter <= "z" for letter in model):
        return re.sub("[a-z]", lambda match: match[0].upper(), word)
    return word[:1].upper() + word[1:] if "A" <= model[0] <= "Z" and "a" <= word[0] <= "z" else word


def edit_word_by_word(text, technique, key, share):
    words = spans(text)
    names = [text[start:end] for start, end in words]
    count = max(1, round(share * len(words)))
    order = sorted(
        (i for i, name in enumerate(names) if name.lower() not in UNTOUCHABLE), key=lambda i: (draw(key, 0, i) >> 48, i)
    )
    table = {word.lower(): others for word, others in SYNONYMS.items()}
    models = sorted([i for i in order if names[i].lower() in table][:count])
    chosen = {i: table[names[i].lower()] for i in models}
    chosen = {i: others[below(draw(key, 1, i), len(others))] for i, others in chosen.items()}
    edits = []
    if technique == "synonym_replacement":
        edits = [(*words[i], like(chosen[i], names[i])) for i in models]
    elif technique == "random_insertion":
        for i in models:
            place = below(draw(key, 2, i), len(words) + 1)
            new = like(chosen[i], names[i]) if len(names[i]) > 1 and names[i].isupper() else chosen[i]
            at_end = place == len(words)
            where = words[-1][1] if at_end else words[place][0]
            edits.append((where, where, " " + new if at_end else new + " "))
        edits.sort(key=lambda edit: edit[0])
    elif technique == "random_swap":
        order = order[: 2 * min(count, len(order) // 2)]
        for one, other in zip(order[::2], order[1::2], strict=True):
            edits += [(*words[one], names[other]), (*words[other], names[one])]
        edits.sort()
    else:
        hits = [i for i in order if draw(key, 0, i) >> 48 < round(share * 65536)]
        taken = -1
        for i in sorted(order[: min(max(1, len(hits)), len(words) - 1)] if words else []):
            start, end = words[i]
            if text[start - 1 : start] in (" ", "\t") and start > 0 and start - 1 > taken:
                start -= 1
            elif text[end : end + 1] in (" ", "\t") and end < len(text):
                end += 1
            taken = end - 1
            edits.append((start, end, ""))
    for start, end, new in reversed(edits):
        text = text[:start] + new + text[end:]
    return text


@pytest.fixture(scope="module")
def tables():
    return index_words(UNTOUCHABLE), table_of_words(SYNONYMS)


def random_texts(seed, count):
    """Texts of words, function words, every kind of white space and joint, and characters from anywhere."""
    generator = random.Random(seed)
    pieces = [
        *SYNONYMS,
        *UNTOUCHABLE,
        "FILM",
        "Film",
        "fiLm",
        "Don't",
        "mother\u2019in-law",
        "x",
        "A",
        "I",
        "naïve",
        "3rd",
    ]
    pieces += [
        "b2b",
        "www.site.com",
        "end.",
        "'s",
        "n't",
        "-lrb-",
        "--",
        "good,",
        "(good)",
        "\u201cgood\u201d",
        "<b>",
        "é",
    ]
    pieces += [
        "e\u0301",
        "日本語",
        "привет",
        "\U0001f389",
        "\U0001f468\u200d\U0001f469",
        "\x00",
        "\x1e",
        "\xff",
        "\xa0",
    ]
    pieces += [
        "incomprehensibilities" * 4,
        "a" * 70,
        "\u2019tis",
        "it\u2019s",
        "good:",
        "good:film",
        "10:film",
        "\ufeff",
    ]
    gaps = [" ", " ", " ", " ", "  ", "\t", "\n", "\r\n", "", "-", "'", "\u2019", "\u2028"]
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(generator.randrange(25)):
            parts += [generator.choice(pieces), generator.choice(gaps)]
            if generator.random() < 0.05:
                character = chr(generator.randrange(0x110000))
                parts.append(character if unicodedata.category(character) != "Cs" else "")
        texts.append("".join(parts))
    return texts


@pytest.mark.parametrize("share", [0.01, 0.1, 0.35, 1.0])
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_batches_are_edited_as_word_by_word(technique, share, tables):
    texts = ["", " ", "good", "good film", "The film is not good.", "\t good\r\nfilm ", *random_texts(3, 1500)]
    keys = row_keys(7, np.arange(len(texts)), copy=1)
    edited = edit_texts(texts, technique, keys, share, *tables)
    expected = [edit_word_by_word(text, technique, int(key), share) for text, key in zip(texts, keys, strict=True)]
    assert edited == expected
    changed = sum(one != other for one, other in zip(texts, edited, strict=True))
    assert changed > 700


def test_words_are_those_of_the_regular_expression():
    texts = [*random_texts(11, 2000), *random_texts(12, 10)]
    words = find_words(texts)
    found = [[] for _ in texts]
    for text, position, start, end in zip(words.text, words.position, words.starts, words.ends, strict=True):
        assert position == len(found[text])
        found[text].append(bytes(words.bytes[start:end]).decode())
    assert found == [[text[start:end] for start, end in spans(text)] for text in texts]
    assert words.counts.tolist() == list(map(len, found))


@pytest.mark.parametrize(
    "text, words",
    [
        ("It's a mother-in-law\u2019s  joke", ["It's", "a", "mother-in-law\u2019s", "joke"]),
        ("the 3rd b2b naïve café #tag @you and/or", ["the"]),
        ("see www.site.com or me@site.org: yes.", ["see", "or", "yes"]),
        ("it 's -lrb- fun -rrb- , n't it ?", ["it", "fun", "n't", "it"]),
        ("\u201cGreat\u201d\u2014she said\u2026", ["Great", "she", "said"]),
        ("\u2018fine\u2019 \U0001f389good\U0001f389", ["good"]),
    ],
    ids=range(6),
)
def test_what_is_a_word(text, words):
    found = find_words([text])
    assert [bytes(found.bytes[a:b]).decode() for a, b in zip(found.starts, found.ends, strict=True)] == words


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_how_a_batch_is_cut_makes_no_difference(technique, tables, monkeypatch):
    texts = random_texts(5, 300)
    keys = row_keys(1, np.arange(300), copy=0)
    whole = edit_texts(texts, technique, keys, 0.2, *tables)
    monkeypatch.setattr(text_edits, "BATCH_TEXTS", 7)
    monkeypatch.setattr(text_edits, "BATCH_CHARACTERS", 400)
    assert edit_texts(texts, technique, keys, 0.2, *tables) == whole
    assert [edit_texts([t], technique, keys[i : i + 1], 0.2, *tables)[0] for i, t in enumerate(texts)] == whole


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_text_of_a_million_words(technique, tables):
    text = "the film is good , not great " * 170_000
    (edited,) = edit_texts([text], technique, row_keys(0, np.arange(1), copy=0), 0.1, *tables)
    before, after = Counter(text.split()), Counter(edited.split())
    assert before["not"] == after["not"] and before["the"] == after["the"]
    # A tenth of the 1,020,000 words; deletion hits a tenth of the touchable half.
    lost = sum((before - after).values())
    expected = {"synonym_replacement": 102_000, "random_insertion": 0, "random_swap": 0, "random_deletion": 51_000}
    assert lost == pytest.approx(expected[technique], abs=0 if technique != "random_deletion" else 1500)
    gained = sum((after - before).values())
    # "motion picture" is two.
    assert gained >= 102_000 if technique in TECHNIQUES[:2] else gained == 0
    assert technique != "random_swap" or sum(a != b for a, b in zip(text.split(), edited.split(), strict=True)) > 90_000


def test_keys_are_all_different_and_do_not_depend_on_the_batch():
    keys = [
        row_keys(seed, np.arange(-5, 200), copy, attempt, column)
        for seed in (0, 1, -1, 2**60) for copy in (-1, 0, 1) for attempt in (0, 1) for column in (0, 1)
    ]  # fmt: skip
    assert len(np.unique(np.concatenate(keys))) == 48 * 205
    assert row_keys(3, np.array([17]), 2)[0] == row_keys(3, np.arange(100), 2)[17]


def test_draws_are_uniform_and_independent_of_their_neighbours():
    positions = np.arange(200_000)
    first = text_edits.draws(row_keys(0, np.zeros(1), 0), 0, positions) / 2**64
    second = text_edits.draws(row_keys(0, np.ones(1), 0), 0, positions) / 2**64
    for values in (first, second):
        # The largest deviation from uniform that chance allows: Kolmogorov at about 1e-5.
        assert np.abs(np.sort(values) - (positions + 0.5) / 200_000).max() < 2.5 / 200_000**0.5
        assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.01
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.01


def test_every_word_is_chosen_equally_often():
    text = "one two three four five six seven eight nine ten".replace("one", "uno")
    edited = edit_texts(
        [text] * 20_000, "random_deletion", row_keys(0, np.arange(20_000), 0), 0.01, index_words(["q"]), None
    )
    deleted = Counter((set(text.split()) - set(result.split())).pop() for result in edited)
    assert len(deleted) == 10 and all(abs(count - 2000) < 5 * 1800**0.5 for count in deleted.values())


def test_an_index_holds_its_words_only():
    generator = random.Random(0)
    words = {"".join(generator.choices("abcdefghij", k=generator.randrange(1, 30))) for _ in range(6000)}
    inside, outside = sorted(words)[::2], sorted(words)[1::2]
    known = index_words(inside)
    assert known.holds(hash_strings(word.upper() for word in inside)).all()
    assert not known.holds(hash_strings(outside)).any()
    assert sorted(known.find(hash_strings(inside)).tolist()) == list(range(len(inside)))
    assert (known.find(hash_strings(outside)) == -1).all()
    assert index_words([]).holds(hash_strings(["a"])).tolist() == [False]


def test_the_wordnet_table_pairs_the_words_of_each_line():
    content = files("hf_ext.data.augmentation").joinpath("resources", "wordnet_synonyms.txt.gz").read_bytes()
    expected = {}
    for line in gzip.decompress(content).decode().splitlines():
        for word in line.split(" "):
            expected.setdefault(word, set()).update(set(line.split(" ")) - {word})
    table, words = wordnet_synonyms(), sorted(expected)
    assert len(words) == len(table.first) - 1 == 40_286
    entries = table.index.find(hash_strings(words))
    assert (entries >= 0).all()
    for word, entry in zip(words, entries.tolist(), strict=True):
        chosen = slice(table.first[entry], table.first[entry + 1])
        places = zip(table.starts[chosen].tolist(), table.lengths[chosen].tolist(), strict=True)
        found = [bytes(table.letters[start - 1 : start + length + 1]).decode() for start, length in places]
        assert sorted(found) == sorted(f" {other} " for other in expected[word])
    assert {"movie", "picture", "flick"} <= expected["film"]
    assert not set(expected) & (STOP_WORDS | NEGATIONS)
    assert (table.index.find(hash_strings(["qwertz", "the", "not"])) == -1).all()


def test_the_licence_comes_with_the_table():
    notice = files("hf_ext.data.augmentation").joinpath("resources", "WORDNET_LICENSE.txt").read_text()
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in notice
