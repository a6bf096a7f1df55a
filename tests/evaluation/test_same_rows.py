from dataclasses import replace

import numpy as np
import pytest

from hf_ext.errors import DataError
from hf_ext.evaluation.predictions import Predictions
from hf_ext.evaluation.same_rows import check_same_rows


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
