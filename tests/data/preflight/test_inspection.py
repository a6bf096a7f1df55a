import json
import random

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict

from hf_ext.data.labels import Task
from hf_ext.data.preflight import PreflightArguments, preflight
from hf_ext.errors import ConfigurationError, DataError
from hf_ext.problem_types import MULTI_LABEL, SINGLE_LABEL

LABELS = ("bird", "cat", "dog")
WORDS = [
    one + other + end
    for one in ("amber", "candle", "desert", "forest", "island", "quarry")
    for other in ("bridge", "hammer", "kettle", "needle", "rocket", "window")
    for end in ("dom", "ful", "ing", "less", "ness", "ward")
]


def make_rows(count, seed):
    """Rows of different texts, every label equally often."""
    generator = random.Random(seed)
    return [
        {"text": " ".join(generator.sample(WORDS, 9)), "label": LABELS[number % len(LABELS)]} for number in range(count)
    ]


@pytest.fixture
def splits():
    return {"train": make_rows(90, 0), "validation": make_rows(30, 1), "test": make_rows(30, 2)}


def check(splits, task=None, **settings):
    return preflight(splits, task, progress=False, **settings)


def places(finding):
    return [(example.split, example.row) for example in finding.examples]


def test_clean_data_passes_every_check(splits):
    report = check(splits, folds=[row // 3 % 3 for row in range(90)])
    assert report.verdict == "ok"
    skipped = ["copy_leaks", "truncation", "unknown_tokens"]
    assert len(report.findings) == 17
    assert [finding.check for finding in report.findings if finding.verdict == "skipped"] == skipped
    assert all(finding.count == 0 and not finding.examples for finding in report.findings)
    report.raise_if_failed()


@pytest.mark.parametrize("form", ["dataset", "shuffled", "dict", "ids", "class_label"])
def test_every_form_of_data_gives_the_same_counts(splits, form):
    for split, row in (("train", 5), ("validation", 2), ("test", 7), ("test", 11)):
        splits[split][row] = dict(splits["train"][3], text=splits["train"][3]["text"].upper())
    splits["train"][8]["text"] = splits["train"][4]["text"]
    splits["test"][7]["label"] = "dog"
    expected = check(splits).as_dict()
    assert expected["verdict"] == "fail"
    task = None
    if form == "ids":
        task = Task(SINGLE_LABEL, list(LABELS))
        for row in (row for rows in splits.values() for row in rows):
            row["label"] = LABELS.index(row["label"])
    data = DatasetDict({name: Dataset.from_list(rows) for name, rows in splits.items()}) if form != "ids" else splits
    if form == "shuffled":
        # An indices mapping in front of rows that come in another order.
        backwards = {name: Dataset.from_list(rows[::-1]) for name, rows in splits.items()}
        data = {name: rows.select(range(len(rows))[::-1]) for name, rows in backwards.items()}
    elif form == "dict":
        data = {name: rows.to_list() for name, rows in data.items()}
    elif form == "class_label":
        data = data.cast_column("label", ClassLabel(names=list(LABELS)))
    assert check(data, task).as_dict() == expected


def test_repeats_are_counted_by_row(splits):
    train = splits["train"]
    train[10]["text"] = "  " + train[4]["text"].upper().replace(" ", "\n")
    train[20]["text"] = train[4]["text"]
    train[4]["label"] = train[10]["label"] = train[20]["label"] = "cat"
    finding = check(splits)["exact_duplicates"]
    assert (finding.verdict, finding.count) == ("warn", 2)
    assert finding.numbers == {"train": 2, "validation": 0, "test": 0}
    assert places(finding) == [("train", 11), ("train", 21)]
    assert "row 5" in finding.examples[1].note
    assert "train 2 (2.2 %)" in finding.message


def test_conflicting_labels_are_counted_by_text(splits):
    train = splits["train"]
    for row, label in ((10, "dog"), (11, "bird"), (12, "cat"), (13, "cat")):
        train[row] = {"text": train[7]["text"], "label": label}
    train[7]["label"] = "cat"
    train[30] = {"text": train[31]["text"], "label": "dog"}
    train[31]["label"] = "cat"
    finding = check(splits)["conflicting_labels"]
    assert (finding.verdict, finding.count) == ("warn", 2)
    assert places(finding) == [("train", 11), ("train", 12), ("train", 32)]
    assert finding.examples[0].note == "the text of train, row 8 [cat]"
    assert finding.examples[0].label == "dog"


def test_leaked_rows_are_named_with_the_row_they_equal(splits):
    splits["test"][3] = {"text": splits["train"][40]["text"].title(), "label": "dog"}
    splits["test"][4] = dict(splits["train"][41])
    splits["test"][5] = dict(splits["train"][41])
    splits["test"][6]["text"] = splits["validation"][2]["text"]
    splits["train"][40]["label"] = "cat"
    report = check(splits)
    finding = report["exact_leaks"]
    assert (finding.verdict, finding.count) == ("fail", 4)
    assert finding.numbers["test in train"] == 3
    assert finding.numbers["test in train, other label"] == 1
    assert finding.numbers["test in validation"] == 1
    assert finding.numbers["validation in train"] == 0
    assert places(finding) == [("test", 4), ("test", 5), ("test", 6), ("test", 7)]
    assert finding.examples[0].note == "the text of train, row 41 [cat]"
    # Not once more among what is merely alike.
    assert report["near_leaks"].count == 0
    with pytest.raises(DataError, match=r"exact_leaks: .*3 rows of test \(10.0 %\) in train, 1 of them with another"):
        report.raise_if_failed()


def test_a_label_is_another_one_only_if_no_row_of_the_text_has_it(splits):
    text = splits["train"][0]["text"]
    splits["train"][0]["label"], splits["train"][1] = "cat", {"text": text, "label": "dog"}
    for row, label in enumerate(LABELS):
        splits["test"][row] = {"text": text, "label": label}
    assert check(splits)["exact_leaks"].numbers["test in train, other label"] == 1


def test_near_duplicates_are_found_inside_and_across(splits):
    train = splits["train"]
    train[10]["text"] = train[4]["text"] + "s"
    train[11]["text"] = train[4]["text"].upper()
    splits["test"][8]["text"] = "x" + train[50]["text"]
    report = check(splits)
    inside, across = report["near_duplicates"], report["near_leaks"]
    assert (inside.verdict, inside.numbers) == ("warn", {"train": 1, "validation": 0, "test": 0})
    assert places(inside) == [("train", 11)]
    assert "like train, row 5" in inside.examples[0].note
    assert across.numbers == {"validation in train": 0, "test in train": 1, "test in validation": 0}
    assert "like train, row 51" in across.examples[0].note
    # One of 30 is more than one percent.
    assert across.verdict == "fail"


def test_a_few_near_leaks_only_warn(splits):
    splits["test"] = make_rows(101, 2)
    splits["test"][8]["text"] = "x" + splits["train"][50]["text"]
    assert check(splits)["near_leaks"].verdict == "warn"
    assert check(splits, near_duplicate_threshold=1.0)["near_leaks"].verdict == "ok"


def test_copies_of_one_source_are_no_repeats(splits):
    train = splits["train"]
    for number, row in enumerate(train):
        row["source_idx"] = number
    train.append(dict(train[3]))
    train.append(dict(train[3], text=train[3]["text"] + "s"))
    assert check(splits).verdict == "ok"
    train[-2]["source_idx"] = 4
    train[-1]["source_idx"] = 5
    report = check(splits)
    assert report["exact_duplicates"].numbers["train"] == 1
    assert report["near_duplicates"].numbers["train"] == 1


def test_copies_of_training_rows_in_the_test_split_are_leaks(splits):
    for rows in splits.values():
        for number, row in enumerate(rows):
            row["source_idx"] = number
    # Numbered alike, but with texts of their own: no copies.
    assert check(splits)["copy_leaks"].verdict == "ok"
    for number, row in enumerate(splits["test"][:9]):
        words = splits["train"][20 + number]["text"].split()
        row.update(text=" ".join([*words[:4], "other", *words[6:]]), source_idx=20 + number)
    del splits["test"][9:]
    report = check(splits)
    assert report["near_leaks"].count == 0
    finding = report["copy_leaks"]
    assert (finding.verdict, finding.count) == ("fail", 9)
    assert finding.numbers == {"validation in train": 0, "test in train": 9, "test in validation": 0}
    assert places(finding) == [("test", row) for row in range(1, 6)]
    assert finding.examples[0].note == f"of one source with train, row 21 [{splits['train'][20]['label']}]"


def test_texts_and_sources_in_two_folds_are_leaks(splits):
    train = splits["train"]
    train[2]["text"] = train[1]["text"]
    train[30]["text"] = train[29]["text"]
    train[31]["text"] = train[29]["text"]
    folds = np.arange(90) // 30
    finding = check(splits, folds=folds)["fold_leaks"]
    assert (finding.verdict, finding.count) == ("fail", 2)
    assert places(finding) == [("train", 31), ("train", 32)]
    assert finding.examples[0].note == "the text of row 30, but in fold 2, not 1"
    pairs = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(3)]
    assert check(splits, folds=pairs)["fold_leaks"] == finding
    for number, row in enumerate(train):
        row["source_idx"] = number
    train[80]["source_idx"] = 3
    finding = check(splits, folds=folds)["fold_leaks"]
    assert finding.count == 3
    assert finding.examples[2].note == "the source of row 4, but in fold 3, not 1"


def test_pairs_are_compared_as_wholes(splits):
    for rows in splits.values():
        for row in rows:
            row["text_pair"] = "the same second text"
    splits["train"][5].update(text="one two", text_pair="three")
    splits["train"][6].update(text="one", text_pair="two three")
    splits["test"][5].update(text="One two", text_pair="Three")
    report = check(splits)
    assert report["exact_duplicates"].count == 0
    assert report["exact_leaks"].count == 1
    assert report["exact_leaks"].examples[0].text == "One two | Three"


def test_several_labels_a_row(splits):
    for rows in splits.values():
        for number, row in enumerate(rows):
            row["label"] = [LABELS[number % 3], LABELS[(number + 1) % 3]]
    # The order of names is no difference.
    splits["train"][1] = {"text": splits["train"][0]["text"], "label": splits["train"][0]["label"][::-1]}
    assert check(splits)["conflicting_labels"].count == 0
    splits["train"][1]["label"] = ["dog"]
    expected = check(splits)
    assert expected["conflicting_labels"].count == 1
    for row in (row for rows in splits.values() for row in rows):
        row["label"] = [float(name in row["label"]) for name in LABELS]
    assert check(splits, Task(MULTI_LABEL, list(LABELS))).as_dict() == expected.as_dict()
    without_names = check(splits)
    assert without_names["conflicting_labels"].count == 1
    assert without_names["labels"].verdict == "ok"


def test_numbers_as_labels(splits):
    for rows in splits.values():
        for number, row in enumerate(rows):
            row["label"] = number / 7
    splits["train"][4]["label"] = float("nan")
    report = check(splits)
    assert report["labels"].count == 1
    assert "1 where it is missing" in report["labels"].message
    for name in ("unseen_classes", "missing_classes", "class_imbalance", "revealing_tokens"):
        assert report[name].verdict == "skipped"


def test_texts_without_labels(splits):
    for row in splits["test"]:
        row["label"] = -1
    report = check(splits)
    assert report["labels"].verdict == "ok"
    assert "test without labels" in report["labels"].message
    report = check({name: [{"text": row["text"]} for row in rows] for name, rows in splits.items()})
    assert report.verdict == "ok"
    assert report["labels"].verdict == report["conflicting_labels"].verdict == "skipped"


def test_degenerate_data_is_reported_not_crashed_on():
    same = check({"train": [{"text": "all equal", "label": number % 2} for number in range(50)]})
    assert same["exact_duplicates"].count == 49
    assert same["conflicting_labels"].count == 1
    empty = check({"train": [{"text": " ", "label": number % 2} for number in range(5)]})
    assert empty["empty_texts"].count == 5
    assert empty["exact_duplicates"].count == empty["near_duplicates"].count == 0
    unlabelled = check({"train": [{"text": word, "label": -1} for word in WORDS]})
    assert unlabelled["labels"].count == len(WORDS)
    single = check({"train": [{"text": "one", "label": "a"}]})
    assert single["class_imbalance"].verdict == "warn"


def test_the_report_can_be_written_and_read(splits):
    splits["train"][4]["text"] = ""
    splits["test"][0] = dict(splits["train"][0], text=splits["train"][0]["text"] + " " + "word " * 100)
    splits["test"][1] = dict(splits["train"][1])
    report = check(splits)
    facts = report.as_dict()
    assert json.loads(json.dumps(facts)) == facts
    assert json.dumps(check(splits).as_dict()) == json.dumps(facts)
    table = report.table()
    assert max(map(len, table.splitlines())) <= 100
    assert "fail: exact_leaks" in table
    assert f"test, row 2 [{splits['train'][1]['label']}]" in table.replace("\n    ", " ")
    assert "What to do: Remove these rows from the training split" in table.replace("\n  ", " ")
    for finding in report.findings:
        assert f"{finding.verdict:<7}  {finding.check}" in table
        assert all(len(example.text) <= 200 for example in finding.examples)


def test_no_more_than_five_examples(splits):
    for row in range(20, 40):
        splits["train"][row]["text"] = splits["train"][0]["text"]
        splits["test"][row - 20]["text"] = splits["train"][60]["text"]
    report = check(splits)
    assert report["exact_duplicates"].count == 20 + 19
    assert places(report["exact_duplicates"]) == [("train", row) for row in range(21, 26)]
    assert report["exact_leaks"].count == 20
    assert len(report["exact_leaks"].examples) == 5


def test_data_stays_as_it_was(splits):
    splits["train"][0]["text"] = "half \ud83d"
    before = {name: [dict(row) for row in rows] for name, rows in splits.items()}
    check(splits)
    assert splits == before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "no split was given"),
        ({"train": []}, "'train' holds no rows"),
        ({"train": [{"sentence": "a", "label": 0}]}, "has no column 'text'; it has sentence, label"),
        ({"train": [{"text": "a"}, {"text": 3}]}, "train, row 2: 'text' is 3"),
        ({"train": [{"text": "a", "source_idx": None}]}, "train, row 1: 'source_idx' is None"),
        ({"train": Dataset.from_dict({"text": [1, 2]})}, "'text' is of the type int64"),
        ({"train": [{"text": "a", "label": [[1]]}]}, "train, row 1: the label"),
        (Dataset.from_dict({"text": ["a"]}), "splits is a Dataset; name the split"),
        ({"train": pd.DataFrame({"text": ["a"]})}, "'train' is a DataFrame; it must be a Dataset or a list of dicts"),
        ({"train": ["a", "b"]}, "'train' is a list; it must be a Dataset or a list of dicts"),
    ],
    ids=["nothing", "no_rows", "no_column", "number", "source", "type", "label", "no_split", "frame", "strings"],
)
def test_what_cannot_be_checked_is_refused(wrong, message):
    with pytest.raises(DataError, match=message):
        check(wrong)


def test_labels_of_numpy_are_those_of_python():
    rows = make_rows(12, 0)
    for labels in ([1, 0, 1], [0, 0, 1]), ([0], [1]):
        plain = [
            {**row, "label": labels[i % 2] if len(labels[0]) > 1 else labels[i % 2][0]} for i, row in enumerate(rows)
        ]
        arrays = [{**row, "label": np.array(row["label"])[()]} for row in plain]
        assert check({"train": arrays}).as_dict() == check({"train": plain}).as_dict()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"near_duplicate_threshold": 0}, "near_duplicate_threshold is 0"),
        ({"near_duplicate_threshold": 1.5}, "near_duplicate_threshold is 1.5"),
        ({"max_seq_length": 0}, "max_seq_length is 0"),
        ({"folds": [0, 1]}, r"shape \(2,\) for 90 training rows"),
        ({"folds": [0] * 90}, "1 fold"),
        ({"folds": [([0, 1], [2]), ([0, 2], [90])]}, "fold 2 has no row, or one outside"),
    ],
    ids=["zero", "large", "length", "short", "one", "outside"],
)
def test_settings_out_of_range_are_refused(splits, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        check(splits, **settings)
    with pytest.raises(ConfigurationError, match="'train'"):
        check({"test": splits["test"]}, folds=[0, 1])


def test_the_arguments_refuse_thresholds_out_of_range():
    assert PreflightArguments().preflight == "warn"
    with pytest.raises(ConfigurationError, match="near_duplicate_threshold is 2"):
        PreflightArguments(near_duplicate_threshold=2)
