import json

import numpy as np
import pytest

from hf_ext.errors import DataError
from hf_ext.evaluation.comparison import all_metrics
from hf_ext.evaluation.prediction_files import read_prediction_file, read_predictions
from hf_ext.evaluation.predictions import Predictions

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def predictions(problem_type, names=("no", "yes", "may"), pairs=False, **kwargs):
    generator = np.random.default_rng(0)
    texts = [(f"é \u2028 {i}", f"b{i}") if pairs else f"é \u2028 \ud800 {i}" for i in range(30)]
    logits = generator.normal(scale=4, size=(30, 1 if problem_type == REGRESSION else len(names)))
    if problem_type == SINGLE:
        labels = generator.integers(0, len(names), 30)
    elif problem_type == MULTI:
        labels = generator.integers(0, 2, logits.shape)
    else:
        labels, names = generator.normal(size=30), ["value"]
    return Predictions.from_logits(logits, labels, texts, problem_type=problem_type, label_names=names, **kwargs)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(
    ("problem_type", "names", "kwargs"),
    [
        (SINGLE, ("no", "yes", "may"), {}),
        (SINGLE, ("0", "1", "10"), {}),
        (MULTI, ("no", "yes", "may"), {"threshold": 0.2}),
        (MULTI, ("3", "-1"), {}),
        (REGRESSION, (), {}),
    ],
)
def test_what_was_written_is_read(problem_type, names, kwargs, pairs, tmp_path):
    written = predictions(problem_type, names, pairs, **kwargs)
    read = read_predictions(written.to_jsonl(tmp_path / "p.jsonl"))
    assert (read.problem_type, read.label_names, read.texts) == (problem_type, written.label_names, written.texts)
    np.testing.assert_array_equal(read.labels, written.labels)
    np.testing.assert_array_equal(read.predictions, written.predictions)
    tolerance = 1e-12 if problem_type == REGRESSION else 5.1e-7
    np.testing.assert_allclose(read.probabilities, written.probabilities, rtol=0, atol=tolerance)
    expected = all_metrics(written)
    for name, value in all_metrics(read).items():
        # A probability of 1e-9 is 0 in the file.
        assert value == pytest.approx(expected[name], abs=0.5 if name == "nll" else 1e-5), name


def row(**changes):
    usual = {"index": 0, "label": "yes", "prediction": "no", "probabilities": {"no": 0.4, "yes": 0.6}, "text": "t"}
    return {**usual, **changes}


def write(path, rows):
    lines = [item if isinstance(item, str) else json.dumps(item) for item in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_decisions_are_the_file_s(tmp_path):
    read = read_predictions(write(tmp_path / "p.jsonl", [row(), row(index=1, prediction="yes")]))
    assert read.predictions.tolist() == [0, 1] and all_metrics(read)["accuracy"] == 0.5


def test_rows_come_in_the_order_of_their_index_with_their_columns(tmp_path):
    rows = [row(index=7, text="c", genre="x"), "", row(index=0, text="a"), row(index=3, text="b", genre=2)]
    file = read_prediction_file(write(tmp_path / "p.jsonl", rows))
    assert (file.index, file.predictions.texts) == ([0, 3, 7], ["a", "b", "c"])
    assert file.columns == {"genre": [None, 2, "x"]}


def test_what_is_written_as_nothing_has_a_likelihood(tmp_path):
    none = row(probabilities={"no": 1, "yes": 0})
    assert all_metrics(read_predictions(write(tmp_path / "p.jsonl", [none])))["nll"] == pytest.approx(14.5087, abs=1e-4)
    several = row(label=["yes"], prediction=["no"], probabilities={"no": 1.0, "yes": 0.0})
    assert all_metrics(read_predictions(write(tmp_path / "m.jsonl", [several])))["nll"] == pytest.approx(
        14.5087, abs=1e-4
    )


def test_a_folder_stands_for_its_test_predictions(tmp_path):
    write(tmp_path / "predictions_test.jsonl", [row()])
    assert read_predictions(tmp_path).texts == ["t"]
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "predictions_validation.jsonl", [row()])
    with pytest.raises(DataError, match=r"other holds no predictions_test.jsonl; name one of predictions_validation"):
        read_predictions(tmp_path / "other")
    with pytest.raises(DataError, match=r"There is no file .*nowhere.jsonl"):
        read_predictions(tmp_path / "nowhere.jsonl")


SECOND = row(index=1, text="u")
VALUE = row(label=1.5, prediction=1.0, probabilities=None)
SEVERAL = row(label=["yes"], prediction=[])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([""], r"p.jsonl is empty"),
        ([row(), "{not json"], r"p.jsonl, line 2 is not JSON: .* at column 2"),
        ([row(), "", "[1, 2]"], r"line 3 holds a JSON list"),
        ([row(), {"index": 1, "label": "no"}], r"line 2 has no 'prediction'; it has index, label"),
        ([row(), row()], r"lines 1 and 2 both have the index 0"),
        ([row(index="0")], r"line 1: index is '0'"),
        ([row(), {**SECOND, "label": "maybe"}], r'line 2: label is "maybe", which is none of the classes no, yes'),
        ([row(), {**SECOND, "prediction": 3}], r"line 2: prediction is 3, which is none of the classes"),
        ([row(label=True)], r"line 1: label is true, which is none of the classes"),
        ([row(), {**SECOND, "label": None}], r"line 2: label is null; without the true labels"),
        ([row(label=None)], r"line 1: label is null"),
        (
            [row(), {**SECOND, "probabilities": {"no": float("nan"), "yes": 1}}],
            r"line 2: the probability of 'no' is nan",
        ),
        (
            [row(), {**SECOND, "probabilities": {"no": 0.4, "may": 0.6}}],
            r"line 2: probabilities are of no, may; in the",
        ),
        ([row(), {**SECOND, "probabilities": None}], r"line 2: probabilities are of null"),
        ([row(probabilities={"no": 2, "yes": -1})], r"line 1: the probability of 'no' is 2; it must lie"),
        (["{" + json.dumps(row())[1:].replace("0.4", "1" + "0" * 400)], r"line 1: the probability of 'no' is inf"),
        ([{**SEVERAL, "probabilities": {"no": 0.1, "yes": float("nan")}}], r"line 1: the probability of 'yes' is nan"),
        ([row(probabilities={"no": "0.4", "yes": 0.6})], r"""the probability of 'no' is "0.4"; it must be a number"""),
        ([row(probabilities={"no": 0.1, "yes": 0.2})], r"line 1: the probabilities add up to 0.3"),
        ([row(probabilities=[0.1, 0.9])], r"line 1: probabilities is \[0.1, 0.9\]"),
        ([row(text=None)], r"line 1: text is null"),
        ([row(text=["a"])], r'line 1: text is \["a"\]'),
        ([VALUE, {**SECOND, "label": float("inf"), "prediction": 1, "probabilities": None}], r"line 2: label is inf"),
        ([VALUE, {**VALUE, "index": 1, "prediction": "high"}], r'line 2: prediction is "high"; it must be a number'),
        ([VALUE, SECOND], r'line 2: label is "yes"; it must be a number'),
        (["{" + json.dumps(VALUE)[1:].replace("1.5", "1" + "0" * 400)], r"line 1: label is inf"),
        ([SEVERAL, SECOND], r'line 2: label is "yes"; in this file it must be a list'),
        ([SEVERAL, {**SEVERAL, "index": 1, "label": ["maybe"]}], r'line 2: label is "maybe", which is none'),
    ],
)
def test_broken_files(rows, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_predictions(write(tmp_path / "p.jsonl", rows))


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(json.dumps(row()).encode() + b'\n{"index": "\xff"}\n')
    with pytest.raises(DataError, match=r"line 2 is not UTF-8: broken at byte 11"):
        read_predictions(tmp_path / "p.jsonl")
