import random
import re
import unicodedata
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from transformers import AutoTokenizer

from hf_ext.models.word_tokenizer import build_word_tokenizer, load_word_vectors

SPECIAL = ["<pad>", "<unk>", "<sep>"]
TEXTS = ["The film, the FILM: it isn't good", "a well-made film", "it 's good !", "caf\u00e9 cafe\u0301 na\u00efve"]


def words_in_order(tokenizer):
    vocabulary = tokenizer.get_vocab()
    words = sorted(vocabulary, key=vocabulary.get)
    assert [vocabulary[word] for word in words] == list(range(len(words)))
    return words


# ---- Words ----


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("isn't it well-made?", ["isn't", "it", "well-made", "?"]),
        ("is n't it 's", ["is", "n't", "it", "'s"]),
        ("don\u2019t \u2019s", ["don\u2019t", "\u2019s"]),
        ("Wait... (what)", ["wait", ".", ".", ".", "(", "what", ")"]),
        ("caf\u00e9 CAFE\u0301", ["caf\u00e9", "caf\u00e9"]),
        ("a_b 3.5 --- -x-", ["a_b", "3", ".", "5", "-", "-", "-", "-", "x", "-"]),
        ("\u4e2d\u6587 \u0444\u0438\u043b\u043c\U0001f600", ["\u4e2d\u6587", "\u0444\u0438\u043b\u043c", "\U0001f600"]),
        (" \t\n ", []),
    ],
)
def test_what_a_word_is(text, words):
    tokenizer = build_word_tokenizer([text])
    assert tokenizer.tokenize(text) == words
    assert set(words_in_order(tokenizer)) == {*SPECIAL, *words}


def test_ids_are_ordered_by_frequency_then_alphabet():
    generator = random.Random(0)
    words = [f"w{i}" for i in range(40)]
    texts = [" ".join(generator.choices(words, weights=range(40, 0, -1), k=9)) for _ in range(60)]
    counts = Counter(" ".join(texts).split())
    expected = sorted(counts, key=lambda word: (-counts[word], word))
    assert len(set(counts.values())) < len(counts)
    assert words_in_order(build_word_tokenizer(texts)) == SPECIAL + expected
    assert words_in_order(build_word_tokenizer(reversed(texts))) == SPECIAL + expected
    assert words_in_order(build_word_tokenizer(texts, max_vocab_size=20)) == SPECIAL + expected[:17]
    often = [word for word in expected if counts[word] >= 15]
    assert 0 < len(often) < len(expected)
    assert words_in_order(build_word_tokenizer(texts, min_frequency=15)) == SPECIAL + often


def test_words_against_the_standard_library():
    expression = r"\w+(?:['\u2019\-]\w+)*|['\u2019]\w+|[^\w\s]"
    expected = [re.findall(expression, unicodedata.normalize("NFC", text).lower()) for text in TEXTS]
    counts = Counter(word for words in expected for word in words)
    tokenizer = build_word_tokenizer(TEXTS)
    assert words_in_order(tokenizer) == SPECIAL + sorted(counts, key=lambda word: (-counts[word], word))
    assert [tokenizer.tokenize(text) for text in TEXTS] == expected


def test_case():
    assert build_word_tokenizer(["Film film"], lowercase=False).tokenize("Film film FILM") == ["Film", "film", "<unk>"]
    assert build_word_tokenizer(["Film"]).tokenize("FILM") == ["film"]


def test_encoding():
    tokenizer = build_word_tokenizer(["a a a b b c"], model_max_length=4)
    assert tokenizer("c b a")["input_ids"] == [5, 4, 3]
    assert tokenizer("a never b")["input_ids"] == [3, 1, 4]
    assert tokenizer("")["input_ids"] == []
    assert tokenizer("a", "b c")["input_ids"] == [3, 2, 4, 5]
    assert tokenizer("a b c a b c", truncation=True)["input_ids"] == [3, 4, 5, 3]
    padded = tokenizer(["a", "b c"], padding=True)
    assert dict(padded) == {"input_ids": [[3, 0], [4, 5]], "attention_mask": [[1, 0], [1, 1]]}
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.sep_token_id) == (0, 1, 2)


def test_auto_tokenizer_loads_what_was_saved(tmp_path):
    tokenizer = build_word_tokenizer(TEXTS, model_max_length=77)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.model_max_length == 77
    for arguments in ((TEXTS,), (TEXTS[:2], TEXTS[2:]), (["never seen"],)):
        assert dict(loaded(*arguments, padding=True)) == dict(tokenizer(*arguments, padding=True))
    assert (loaded.pad_token_id, loaded.unk_token_id, loaded.sep_token_id) == (0, 1, 2)


# ---- Word vectors ----


@pytest.fixture
def tokenizer():
    # Ids: a 3, b 4, c 5.
    return build_word_tokenizer(["a a a b b c"])


VECTORS = {"a": [1.0, 2.0], "unused": [9.0, 9.0], "c": [-0.5, 1e-3]}


def check(matrix, found):
    assert found == 2
    assert matrix.dtype == torch.float32 and matrix.shape == (6, 2)
    np.testing.assert_allclose(matrix[[3, 5]], np.float32([VECTORS["a"], VECTORS["c"]]))
    assert (matrix[0] == 0).all()
    rest = matrix[[1, 2, 4]]
    assert (rest.abs() <= 0.25).all() and len(rest.unique()) == 6


@pytest.mark.parametrize("header", ["", "3 2\n"])
@pytest.mark.parametrize("ending", [".txt", ".vec"])
def test_vectors_of_text_files(tmp_path, tokenizer, header, ending):
    lines = "".join(f"{word} {' '.join(map(str, vector))}\n" for word, vector in VECTORS.items())
    path = tmp_path / f"vectors{ending}"
    path.write_text(header + lines, encoding="utf-8")
    check(*load_word_vectors(path, tokenizer))
    check(*load_word_vectors(str(path), tokenizer))


@pytest.mark.parametrize("kind", ["npy", "safetensors"])
def test_vectors_of_matrices_with_words(tmp_path, tokenizer, kind):
    matrix = np.array(list(VECTORS.values()))
    if kind == "npy":
        np.save(tmp_path / "vectors.npy", matrix)
    else:
        save_file({"anything": matrix}, tmp_path / "vectors.safetensors")
    (tmp_path / "vectors.words.txt").write_text("\n".join(VECTORS) + "\n", encoding="utf-8")
    check(*load_word_vectors(tmp_path / f"vectors.{kind}", tokenizer))


def test_vectors_of_the_tokenizers_own_ids(tmp_path, tokenizer):
    matrix = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", matrix)
    loaded, found = load_word_vectors(tmp_path / "vectors.npy", tokenizer)
    np.testing.assert_array_equal(loaded[1:], matrix[1:])
    assert found == 6 and (loaded[0] == 0).all()


def test_words_without_a_vector_are_uniform_and_reproducible(tmp_path):
    tokenizer = build_word_tokenizer([" ".join(f"w{i}" for i in range(500))])
    (tmp_path / "vectors.txt").write_text("w0 " + " ".join(["0.5"] * 100) + "\n")
    load = {seed: load_word_vectors(tmp_path / "vectors.txt", tokenizer, 0.1, seed)[0] for seed in (0, 1)}
    again, _ = load_word_vectors(tmp_path / "vectors.txt", tokenizer, 0.1, 0)
    assert torch.equal(load[0], again) and not torch.equal(load[0], load[1])
    rest = load[0][4:]
    assert 0.0999 < rest.abs().max() <= 0.1
    assert rest.std().item() == pytest.approx(0.2 / 12**0.5, rel=0.01)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("v.txt", "a 1 2\nb 1\n", "line 2: 1 numbers, the lines before have 2"),
        ("v.txt", "a 1 2\nb 1 x\n", r"line 2: not all of \['1', 'x'\]"),
        ("v.txt", "x 1 2\ny 1 2\n", "a vector for none of the 6 words"),
        ("v.bin", "a 1 2\n", "ends in '.bin'; valid are .txt, .vec, .npy and .safetensors"),
        ("v.npy", np.zeros(3), r"has shape \(3,\); it must be \(words, width\)"),
        ("v.npy", np.zeros((4, 2)), "has 4 rows, the vocabulary 6 words. List the words"),
        ("v.safetensors", {"one": np.zeros((6, 2)), "two": np.zeros(1)}, r"holds the tensors \['one', 'two'\]"),
    ],
)
def test_vectors_that_cannot_be_used(tmp_path, tokenizer, name, content, words):
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    elif isinstance(content, dict):
        save_file(content, path)
    else:
        np.save(path, content)
    with pytest.raises(ValueError, match=words) as caught:
        load_word_vectors(path, tokenizer)
    assert str(path) in str(caught.value)


def test_lists_of_words_that_do_not_fit(tmp_path, tokenizer):
    np.save(tmp_path / "v.npy", np.zeros((3, 2)))
    (tmp_path / "v.words.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match="lists 2 words for 3 rows"):
        load_word_vectors(tmp_path / "v.npy", tokenizer)


def test_missing_vectors(tmp_path, tokenizer):
    with pytest.raises(FileNotFoundError, match="word_vectors: there is no file"):
        load_word_vectors(tmp_path / "v.txt", tokenizer)


def test_pickled_matrices_are_not_opened(tmp_path, tokenizer):
    np.save(tmp_path / "v.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        load_word_vectors(tmp_path / "v.npy", tokenizer)
