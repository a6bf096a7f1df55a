import re

import pytest

from hf_ext.data.labels import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    Task,
    encode_labels,
    infer_task,
    parse_labels,
)
from hf_ext.data.reading import Table
from hf_ext.errors import DataError


def table_of(values, typed=True, names=None):
    rows = [{"text": f"text {i}", "label": value} for i, value in enumerate(values)]
    return Table("rows.json" if typed else "rows.csv", rows, typed, names or {})


def parse(*values, typed=True):
    return parse_labels(table_of(values, typed), list(values))


def infer(*values, do_regression=None, num_labels=None, typed=True, names=None):
    table = table_of(values, typed, names)
    return infer_task(table, parse_labels(table, list(values)), do_regression, num_labels)


def encode(task, *values, typed=True, names=None):
    table = table_of(values, typed, names)
    return encode_labels(table, parse_labels(table, list(values)), task)


def raises(*words):
    return pytest.raises(DataError, match=".*".join(re.escape(word) for word in words))


# ---- One consistent type ----


def test_types_of_labels():
    assert parse(1, 0) == [1, 0]
    assert parse("a", "b") == ["a", "b"]
    assert parse(["a"], []) == [["a"], []]
    assert parse(True, False) == ["True", "False"]
    mixed = parse(1, 2.5)
    assert mixed == [1.0, 2.5] and all(type(value) is float for value in mixed)


def test_labels_of_a_csv_are_numbers_when_all_are():
    assert parse("1", " 0", "-2", typed=False) == [1, 0, -2]
    assert parse("1", "2.5", "1e3", typed=False) == [1.0, 2.5, 1000.0]
    assert parse("1", "two", typed=False) == ["1", "two"]
    # In JSON a string is meant as one.
    assert parse("1", "0") == ["1", "0"]


@pytest.mark.parametrize(
    ("values", "typed", "words"),
    [
        (("a", None), True, ("rows.json, row 2 has no label", "None")),
        (("a", ""), True, ("rows.json, row 2 has no label", "''")),
        (("1", ""), False, ("rows.csv, row 2 has no label",)),
        ((0.5, float("nan")), True, ("rows.json, row 2: the label is nan", "finite")),
        ((float("-inf"), 0.5), True, ("rows.json, row 1: the label is -inf",)),
        (("0.5", "nan"), False, ("rows.csv, row 2: the label is nan",)),
        (("a", {"name": "b"}), True, ("rows.json, row 2: the label is {'name': 'b'}", "a string or a list")),
        ((0, "b", 1), True, ("mixes types", "0 in row 1 (whole number)", "'b' in row 2 (string)")),
        ((True, 1), True, ("mixes types", "True in row 1 (true/false)", "1 in row 2 (whole number)")),
        ((["a"], "a"), True, ("mixes types", "['a'] in row 1 (list)", "'a' in row 2 (string)")),
        ((["a"], ["b", 1]), True, ("mixes types", "a string in row 1", "a whole number in row 2")),
        ((["a"], [0.5]), True, ("row 2: 0.5 in the label",)),
        ((["a"], [None]), True, ("row 2: None in the label",)),
        (([0, 1], [1, 0, 0]), True, ("row 2", "names a class twice", "not a vector of zeros and ones")),
    ],
)
def test_labels_that_cannot_be_used(values, typed, words):
    with raises(*words):
        parse(*values, typed=typed)


# ---- The task ----


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ((1, 0, 1), Task(SINGLE_LABEL, ["0", "1"])),
        ((10, 9, 2), Task(SINGLE_LABEL, ["2", "9", "10"])),
        (("pos", "neg"), Task(SINGLE_LABEL, ["neg", "pos"])),
        ((True, False), Task(SINGLE_LABEL, ["False", "True"])),
        (("-1", "1"), Task(SINGLE_LABEL, ["-1", "1"])),
        ((["b"], ["a", "c"], []), Task(MULTI_LABEL, ["a", "b", "c"])),
        (([3], [10, 2]), Task(MULTI_LABEL, ["2", "3", "10"])),
        ((0.5, 1.5), Task(REGRESSION, ["value"])),
        ((1, 0.5), Task(REGRESSION, ["value"])),
    ],
)
def test_the_labels_say_what_the_task_is(values, task):
    assert infer(*values) == task


def test_regression_on_request():
    assert infer(1, 2, do_regression=True) == Task(REGRESSION, ["value"])
    assert infer(0.5, 2.0, num_labels=1) == Task(REGRESSION, ["value"])
    assert infer(1, 2, do_regression=False) == Task(SINGLE_LABEL, ["1", "2"])
    with raises("do_regression=true", "strings"):
        infer("a", "b", do_regression=True)
    with raises("do_regression=false", "numbers such as 0.5"):
        infer(0.5, 2.0, do_regression=False)
    with raises("num_labels must be 1, not 2"):
        infer(0.5, 2.0, num_labels=2)


def test_num_labels():
    assert infer(0, 2, num_labels=4).label_names == ["0", "1", "2", "3"]
    assert infer(1, 2, num_labels=2).label_names == ["1", "2"]
    assert infer("a", "b", num_labels=2).label_names == ["a", "b"]
    assert infer([0], [2], num_labels=3).label_names == ["0", "1", "2"]
    with raises("num_labels is 3", "has 2 classes: a, b", "Leave num_labels out"):
        infer("a", "b", num_labels=3)
    with raises("num_labels is 3", "has 2 classes: 0, 7"):
        infer(0, 7, num_labels=3)


def test_labels_outside_num_labels_name_the_rows():
    with raises("num_labels is 2, but there are 3 classes: 0, 1, 2. Outside 0, 1: rows 3, 5 (2 in all), label 2 first"):
        infer(0, 1, 2, 1, 2, num_labels=2)
    with raises("Outside 0, 1: row 2 (1 in all), label 7 first"):
        infer(0, 7, 1, num_labels=2)
    with raises("rows 3, 4, 5, 6, 7 ... (8 in all), label 'c' first"):
        infer("a", "b", *"cccccccc", num_labels=2)
    with raises("row 3 (1 in all), label ['b', 'c'] first"):
        infer(["a"], ["b"], ["b", "c"], num_labels=2)


@pytest.mark.parametrize(("values", "row"), [((0, 1, -1), 3), ((-1, 1), 1), (([0], [-1, 1]), 2)])
def test_minus_one_is_refused(values, row):
    with raises(f"rows.json, row {row}: the label is -1"):
        infer(*values)


@pytest.mark.parametrize("values", [("a", "a"), (1, 1), (True, True), (["a"], ["a"], [])])
def test_one_class_is_not_enough(values):
    with raises("has the single class", "needs at least two"):
        infer(*values)


def test_names_of_a_hub_column_win():
    names = {"label": ["neg", "pos", "unused"]}
    assert infer(0, 1, names=names) == Task(SINGLE_LABEL, ["neg", "pos", "unused"])
    assert encode(Task(SINGLE_LABEL, ["pos", "unused", "neg"]), 0, 1, names=names) == [2, 0]


# ---- Ids ----


@pytest.mark.parametrize(
    ("values", "ids"),
    [((1, 0, 1), [1, 0, 1]), ((10, 9, 2), [2, 1, 0]), (("pos", "neg"), [1, 0]), ((True, False), [1, 0])],
)
def test_ids_are_positions_among_the_names(values, ids):
    assert encode(infer(*values), *values) == ids


def test_several_labels_become_vectors():
    task = Task(MULTI_LABEL, ["a", "b", "c"])
    assert encode(task, ["c", "a"], [], ["b"]) == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert encode(Task(MULTI_LABEL, ["1", "2"]), [2], [1, 2]) == [[0.0, 1.0], [1.0, 1.0]]


def test_values_become_floats():
    values = encode(Task(REGRESSION, ["value"]), 1, 2)
    assert values == [1.0, 2.0] and all(type(value) is float for value in values)
    with raises("must be numbers, as in training"):
        encode(Task(REGRESSION, ["value"]), "a", "b")


def test_labels_that_training_did_not_have():
    task = Task(SINGLE_LABEL, ["a", "b"])
    with raises("row 2: the label 'c' is none of the classes", "(a, b). 1 row is affected"):
        encode(task, "a", "c")
    with raises("rows 1, 2, 3, 4, 5 ...: the label 'c'", "6 rows are affected"):
        encode(task, *"cccccc")
    with raises("rows 1, 2: the label ['a'] is none of"):
        encode(task, ["a"], ["b"])
    with raises("row 2: the label ['a', 'c'] is none of"):
        encode(Task(MULTI_LABEL, ["a", "b"]), ["a"], ["a", "c"])
    with raises("rows 1, 2: the label 'a' is none of"):
        encode(Task(MULTI_LABEL, ["a", "b"]), "a", "b")
    with raises("(c0, c1", "... 30 in all)"):
        encode(Task(SINGLE_LABEL, [f"c{i}" for i in range(30)]), "a", "c1")
