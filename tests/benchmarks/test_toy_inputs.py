"""The toys are in the forms of what they stand for, as others read them."""

import json
import warnings
from collections import Counter

import pytest
from needs import SETS
from toy_inputs import COUNTS, LABELS, write_sets, write_wordnet


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    write_sets(folder)
    return {
        name: {part: json.loads((folder / name / f"{part}.json").read_text()) for part in parts}
        for name, parts in SETS.items()
    }


def test_the_rows(sets):
    for name, parts in sets.items():
        for part, rows in parts.items():
            assert len(rows) >= 20
            if part.startswith("oos_"):
                assert {row["label"] for row in rows} == {"oos"}
                continue
            labels = [row["label"] if isinstance(row["label"], list) else [row["label"]] for row in rows]
            assert {label for each in labels for label in each} == set(LABELS[name])
            assert any(len(each) > 1 for each in labels) == (name == "goemotions")
            assert set(rows[0]) - {"label"} == ({"text_a", "text_b"} if name == "mrpc" else {"text"})
    assert sum(len(row["text"].split()) == 21 for row in sets["mr"]["all"]) > 15


def test_what_is_planted(sets):
    train, test = sets["trec6"]["train"], sets["trec6"]["test"]
    planted = COUNTS["trec6"]
    counts = Counter(row["text"] for row in train)
    assert sum(counts.values()) - len(counts) == planted["exact_duplicates"]["train"] == 3
    label_of = {row["text"]: row["label"] for row in train}
    leaks = [row for row in test if row["text"] in label_of]
    assert len(leaks) == planted["exact_leaks"]["test in train"] == 2
    assert sum(row["label"] != label_of[row["text"]] for row in leaks) == 1


def test_nltk_reads_the_wordnet(tmp_path, monkeypatch):
    import nltk
    from nltk.corpus.reader import WordNetCorpusReader

    # Where it looks for itself, and all that it opens.
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    folder = tmp_path / "corpora" / "wordnet"
    write_wordnet(folder)
    with warnings.catch_warnings():
        # That there are no other languages.
        warnings.simplefilter("ignore")
        reader = WordNetCorpusReader(str(folder), None)
    (synset,) = reader.synsets("films", pos="n")
    assert synset.lemma_names() == ["film", "movie", "picture"]
    assert [synset.pos() for synset in reader.synsets("play")] == ["v"]
    assert len(list(reader.all_synsets())) == 8
