import gzip
import json
import math
import re

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hf_ext.arguments import DataArguments
from hf_ext.data.augmentation import DataAugmenter
from hf_ext.data.transfer_set import build_transfer_set, read_unlabelled
from hf_ext.errors import ConfigurationError, DataError

SINGLE = {"problem_type": "single_label_classification", "num_labels": 2}
TEXTS = ["a good film of this year", "a bad film of that year", "it is a slow film", "the cast is superb"]


def raises(error, *words):
    return pytest.raises(error, match="(?s)" + ".*".join(re.escape(str(word)) for word in words))


def rows(texts=TEXTS, labels=(1, 0, 0, 1)):
    return Dataset.from_dict({"text": list(texts), "label": list(labels)})


def swap():
    return DataAugmenter(techniques=["random_swap"], augmentation_prob=0.3)


def test_sources_and_labels():
    found = build_transfer_set(rows(), unlabelled=["a new text", "another text"], **SINGLE)
    assert found.dataset[:] == {
        "text": [*TEXTS, "a new text", "another text"],
        "label": [1, 0, 0, 1, -100, -100],
        "source": ["train"] * 4 + ["unlabelled"] * 2,
    }
    assert found.counts == {
        "train": 4, "unlabelled": 2, "augmented": 0, "repeated": 0, "contradictory": 0, "held_out": 0
    }  # fmt: skip
    assert found.notes == ["The student learns from 4 training texts and 2 unlabelled ones."]


def test_labels_of_other_tasks():
    several = rows(labels=[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    found = build_transfer_set(several, unlabelled=["new"], problem_type="multi_label_classification", num_labels=2)
    assert found.dataset["label"][:4] == several["label"][:]
    assert len(found.dataset["label"][4]) == 2 and all(map(math.isnan, found.dataset["label"][4]))
    with raises(DataError, "row 1", "2 labels", "3 classes"):
        build_transfer_set(several, problem_type="multi_label_classification", num_labels=3)
    values = rows(labels=[0.5, 1.5, 2.5, 3.5])
    found = build_transfer_set(values, unlabelled=["new"], problem_type="regression", num_labels=1)
    assert found.dataset["label"][:4] == [0.5, 1.5, 2.5, 3.5] and math.isnan(found.dataset["label"][4])


def test_class_labels_are_ids():
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    found = build_transfer_set(rows().cast(features), unlabelled=["new"], **SINGLE)
    assert found.dataset["label"][:] == [1, 0, 0, 1, -100]


def test_repeats_are_used_once():
    train = rows([*TEXTS, TEXTS[0], TEXTS[1]], [1, 0, 0, 1, 1, 1])
    found = build_transfer_set(train, unlabelled=[TEXTS[2], "new", "new", "A GOOD FILM of this year"], **SINGLE)
    # The fifth row repeats the first; the sixth says something else than the second.
    assert found.dataset["text"][:] == [*TEXTS, TEXTS[1], "new", "A GOOD FILM of this year"]
    assert found.dataset["label"][:] == [1, 0, 0, 1, 1, -100, -100]
    assert (found.counts["repeated"], found.counts["contradictory"]) == (3, 2)
    notes = " ".join(found.notes)
    assert "1 training rows repeat" in notes and "2 unlabelled texts repeat" in notes
    assert "2 training rows have a text that occurs with another label" in notes


def test_edited_copies_keep_their_texts_label():
    unlabelled = ["one text without any label", "yet another one of them"]
    found = build_transfer_set(rows(), unlabelled=unlabelled, augmenter=swap(), factor=3, **SINGLE)
    sources = found.dataset["source"][:]
    assert sources == sorted(sources, key=["train", "unlabelled", "augmented"].index)
    assert len(set(found.dataset["text"])) == len(found.dataset)
    labels = {" ".join(sorted(text.split())): label for text, label in zip(TEXTS, [1, 0, 0, 1], strict=True)}
    labels |= {" ".join(sorted(text.split())): -100 for text in unlabelled}
    copies = [row for row in found.dataset if row["source"] == "augmented"]
    assert len(copies) == found.counts["augmented"] >= 8
    # A swap changes only the order of the words.
    assert all(row["label"] == labels[" ".join(sorted(row["text"].split()))] for row in copies)
    assert found.counts["augmented"] + found.counts["repeated"] == 3 * 6
    alone = build_transfer_set(rows(), augmenter=swap(), factor=3, **SINGLE)
    with_label = [row for row in copies if row["label"] != -100]
    assert [row for row in alone.dataset if row["source"] == "augmented"] == with_label


def test_held_out_texts_are_left_out_and_said():
    train = rows(["fine film", *TEXTS[1:]])
    held = ["Film   FINE", "a new text", TEXTS[1]]
    unlabelled = ["A new  TEXT", "another text"]
    found = build_transfer_set(train, unlabelled=unlabelled, augmenter=swap(), factor=4, held_out=held, **SINGLE)
    texts = found.dataset["text"][:]
    assert "another text" in texts and "A new  TEXT" not in texts
    # The only swap of the first row; the training row itself stays, and so does the second.
    assert "film fine" not in texts
    assert texts[:4] == train["text"][:]
    assert found.counts["held_out"] == 2
    assert "1 unlabelled texts and 1 edited copies equal a text of validation or test" in found.notes[-1]


def test_pairs():
    train = Dataset.from_dict({"text": ["a b c", "a b"], "text_pair": ["d", "c d"], "label": [0, 1]})
    unlabelled = Dataset.from_dict({"text": ["a b c", "x y z", "a"], "text_pair": ["d", "u v w", "b"]})
    held = [("A", "b"), ("x", "y")]
    found = build_transfer_set(train, unlabelled=unlabelled, held_out=held, augmenter=swap(), factor=1, **SINGLE)
    assert found.dataset.column_names == ["text", "text_pair", "label", "source"]
    assert found.dataset["text"][:3] == ["a b c", "a b", "x y z"]
    assert found.dataset["text_pair"][:3] == ["d", "c d", "u v w"]
    assert found.counts["held_out"] == 1
    for row in found.dataset.select(range(3, len(found.dataset))):
        assert sorted(row["text"].split()) in [sorted(text.split()) for text in ("a b c", "a b", "x y z")]


def test_bad_input():
    with raises(DataError, "unlabelled", "row 1", "pairs"):
        build_transfer_set(rows(), unlabelled=[("a", "b")], **SINGLE)
    with raises(DataError, "Row 2", "None"):
        build_transfer_set(rows(), unlabelled=["a", None], **SINGLE)
    with raises(DataError, "held_out", "row 1", "pairs"):
        build_transfer_set(rows(), held_out=[("a", "b")], **SINGLE)
    with raises(DataError, "no column 'label'"):
        build_transfer_set(rows().remove_columns("label"), **SINGLE)
    with raises(DataError, "no column 'text'"):
        build_transfer_set(rows(), unlabelled=Dataset.from_dict({"sentence": ["a"]}), **SINGLE)
    with raises(DataError, "edited copies already"):
        build_transfer_set(swap().augment_dataset(rows()), **SINGLE)
    with raises(ConfigurationError, "no augmenter"):
        build_transfer_set(rows(), factor=1, **SINGLE)
    with raises(ConfigurationError, "factor=0"):
        build_transfer_set(rows(), augmenter=swap(), **SINGLE)
    with raises(ConfigurationError, "factor is -1"):
        build_transfer_set(rows(), factor=-1, **SINGLE)


# ---- Files ----


def test_files_of_unlabelled_texts(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "b.csv").write_text("text,label\nthree,7\n")
    with gzip.open(tmp_path / "c.json.gz", "wt") as file:
        json.dump([{"sentence": "four"}], file)
    texts, notes = read_unlabelled([tmp_path / name for name in ("a.jsonl", "b.csv", "c.json.gz")], DataArguments())
    assert texts == ["one", "two", "three", "four"]
    assert notes == [f"The column label of {tmp_path / 'b.csv'} is not used: its rows count as unlabelled."]
    assert read_unlabelled(str(tmp_path / "a.jsonl"), DataArguments())[0] == ["one", "two"]


def test_files_of_a_text_a_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b'\xef\xbb\xbfone film, "good"\r\n\n  \ntw\xc3\xb6\xe2\x80\xa8x')
    with gzip.open(tmp_path / "b.txt.gz", "wt") as file:
        file.write("three\n")
    texts, notes = read_unlabelled([tmp_path / "a.txt", tmp_path / "b.txt.gz"], DataArguments())
    assert (texts, notes) == (['one film, "good"', "tw\u00f6\u2028x", "three"], [])
    (tmp_path / "pairs.jsonl").write_text('{"sentence1": "one", "sentence2": "two"}\n')
    with raises(DataError, "a.txt", "single texts", "pairs of texts"):
        read_unlabelled([tmp_path / "pairs.jsonl", tmp_path / "a.txt"], DataArguments())
    (tmp_path / "c.txt").write_bytes(b"fine\nna\xefve\n")
    with raises(DataError, "c.txt", "byte 7", "line 2"):
        read_unlabelled(tmp_path / "c.txt", DataArguments())
    (tmp_path / "d.txt").write_text(" \n")
    with raises(DataError, "d.txt", "no text"):
        read_unlabelled(tmp_path / "d.txt", DataArguments())
    with raises(DataError, "There is no file", "e.txt"):
        read_unlabelled(tmp_path / "e.txt", DataArguments())


def test_columns_of_unlabelled_texts(tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"sentence1": "one", "sentence2": "two"}\n')
    (tmp_path / "named.csv").write_text("review,stars\nfine,5\n")
    assert read_unlabelled(tmp_path / "pairs.jsonl", DataArguments())[0] == [("one", "two")]
    texts, notes = read_unlabelled(
        tmp_path / "named.csv", DataArguments(text_column_names="review", label_column_name="stars")
    )
    assert texts == ["fine"] and "stars" in notes[0]
    with raises(DataError, "named.csv", "no column 'text'", "review"):
        read_unlabelled(tmp_path / "named.csv", DataArguments())
    (tmp_path / "single.jsonl").write_text('{"text": "one"}\n')
    with raises(DataError, "single.jsonl", "single texts", "pairs of texts"):
        read_unlabelled([tmp_path / "pairs.jsonl", tmp_path / "single.jsonl"], DataArguments())


def test_broken_files_of_unlabelled_texts(tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with raises(DataError, "empty.jsonl", "empty"):
        read_unlabelled(empty, DataArguments())
    with raises(DataError, "There is no file"):
        read_unlabelled(tmp_path / "missing.json", DataArguments())
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "one"}\n{"text": 2}\n')
    with raises(DataError, "broken.jsonl, row 2", "must be a string"):
        read_unlabelled(broken, DataArguments())
