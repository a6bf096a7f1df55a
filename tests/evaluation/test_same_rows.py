from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hf_ext.errors import DataError
from hf_ext.evaluation.prediction_files import PredictionFile
from hf_ext.evaluation.predictions import Predictions
from hf_ext.evaluation.same_rows import align_rows, check_same_rows


def given(texts=("one", "two", "three"), labels=(0, 1, 1), names=("no", "yes")):
    probabilities = np.full((len(texts), len(names)), 1 / len(names))
    return Predictions("single_label_classification", list(names), probabilities, np.array(labels), list(texts))


def test_the_same_rows():
    check_same_rows({"a": given(), "b": given(), "c": replace(given(), threshold=0.3)})
    pairs, lists = given([("x", "y")] * 3), given([["x", "y"]] * 3)
    check_same_rows({"a": pairs, "b": lists})


def test_several_labels():
    def several(labels):
        return Predictions("multi_label_classification", ["x", "y"], np.zeros((2, 2)), np.array(labels), ["s", "t"])

    check_same_rows({"a": several([[0, 1], [1, 1]]), "b": several([[0, 1], [1, 1]])})
    with pytest.raises(DataError, match=r"Row 1 \(from 0\) has the label \[1, 1\] .* of a and \[1, 0\] in those of b"):
        check_same_rows({"a": several([[0, 1], [1, 1]]), "b": several([[0, 1], [1, 0]])})


REGRESSION = Predictions("regression", ["value"], np.zeros((3, 1)), np.zeros(3), ["one", "two", "three"])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(given(), labels=None), "predictions of b have no labelled rows"),
        (given([], []), "predictions of b have no labelled rows"),
        (REGRESSION, "of a are single_label_classification, those of b regression"),
        (given(names=("yes", "no")), "classes of a are no, yes; those of b are yes, no"),
        (given(names=("no", "yes", "may")), "those of b are no, yes, may"),
        (given(("one", "two"), (0, 1)), "a answered 3 rows and b 2"),
        (given(("one", "deux", "three")), r"Row 1 \(from 0\) has the text 'two' in the predictions of a and 'deux'"),
        (given(labels=(0, 1, 0)), r"Row 2 \(from 0\) has the label 1 in the predictions of a and 0 in those of b"),
        (given((("o", "ne"), "two", "three")), r"Row 0 .*'one' .*\('o', 'ne'\)"),
    ],
)
def test_other_rows_are_refused(other, message):
    with pytest.raises(DataError, match=message):
        check_same_rows({"a": given(), "b": other})


def test_long_texts_are_shown_where_they_differ():
    a, b = given(["word " * 100 + "left" + " end" * 100] * 3), given(["word " * 100 + "right" + " end" * 100] * 3)
    with pytest.raises(DataError) as error:
        check_same_rows({"a": a, "b": b})
    assert "word left end" in str(error.value) and "word right end" in str(error.value)
    assert len(str(error.value)) < 400


# ---- Files in different orders ----


def file(rows, name="p", classes=("no", "yes"), **columns):
    """Rows are (index, text, label, answer)."""
    index, texts, labels, answers = zip(*rows, strict=True)
    ids = {name: i for i, name in enumerate(classes)}
    answered = np.array([ids[answer] for answer in answers])
    predictions = Predictions(
        "single_label_classification",
        list(classes),
        np.eye(len(classes))[answered] * 0.8 + 0.1,
        np.array([ids[label] for label in labels]),
        list(texts),
        decisions=answered,
    )
    return PredictionFile(Path(f"{name}.jsonl"), predictions, list(index), columns)


A = [(0, "one", "no", "no"), (1, "two", "yes", "no"), (2, "two", "no", "yes"), (5, "three", "yes", "yes")]


def test_rows_of_another_order_and_classes_of_another_order_are_aligned():
    shuffled = [(0, "three", "yes", "no"), (1, "two", "no", "no"), (2, "one", "no", "yes"), (3, "two", "yes", "yes")]
    other = file(shuffled, classes=("yes", "no"), genre=list("tdoe"))
    aligned, notes = align_rows({"a": file(A), "b": other})
    b = aligned["b"]
    assert b.predictions.texts == ["one", "two", "two", "three"] and b.predictions.label_names == ["no", "yes"]
    assert b.predictions.labels.tolist() == [0, 1, 0, 1]
    # Each answer stays with its text and label.
    assert b.predictions.predictions.tolist() == [1, 1, 0, 0]
    assert b.predictions.probabilities.argmax(axis=1).tolist() == [1, 1, 0, 0]
    assert (b.columns["genre"], b.index) == (["o", "e", "d", "t"], [0, 1, 2, 5])
    assert len(notes) == 1 and "rows of b have other indices than those of a" in notes[0]


def test_the_same_order_needs_no_note():
    aligned, notes = align_rows({"a": file(A), "b": file(A), "c": file(A)})
    assert list(aligned) == ["a", "b", "c"] and notes == []


def test_several_labels_keep_their_columns():
    def several(classes, labels, decisions):
        given = Predictions(
            "multi_label_classification",
            classes,
            np.array(decisions) * 0.5 + 0.2,
            np.array(labels),
            ["s", "t"],
            decisions=np.array(decisions),
        )
        return PredictionFile(Path("p"), given, [0, 1])

    first = several(list("xyz"), [[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]])
    second = several(list("zxy"), [[0, 1, 0], [1, 0, 1]], [[0, 1, 1], [1, 0, 0]])
    b = align_rows({"a": first, "b": second})[0]["b"].predictions
    np.testing.assert_array_equal(b.predictions, first.predictions.predictions)
    np.testing.assert_array_equal(b.probabilities, first.predictions.probabilities)


@pytest.mark.parametrize(
    ("rows", "classes", "message"),
    [
        (
            A[:3],
            ("no", "yes"),
            r"a answered 4 rows and b 3, of another test set: b has no row for 'three' \(index 5 of a",
        ),
        ([*A, (9, "four", "no", "no")], ("no", "yes"), r"a has no row for 'four' \(index 9 of b\)"),
        ([*A[:3], (5, "drei", "yes", "yes")], ("no", "yes"), r"Row 3 \(from 0\) has the text 'three' .* and 'drei'"),
        ([*A[:3], (5, "three", "no", "yes")], ("no", "yes"), r"Row 3 \(from 0\) has the label 1 .* of a and 0 in"),
        ([*A[:3], (6, "three", "no", "yes")], ("no", "yes"), r"Row 3 \(from 0\) has the label 1 .* of a and 0 in"),
        (A, ("no", "yes", "may"), r"The first that differ are number 2 \(from 0\): nothing and may"),
    ],
)
def test_other_test_sets_are_refused(rows, classes, message):
    with pytest.raises(DataError, match=message):
        align_rows({"a": file(A), "b": file(rows, classes=classes)})
