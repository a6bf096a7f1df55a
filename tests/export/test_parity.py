import numpy as np
import pytest
from scipy.stats import binomtest

from hf_ext import ConfigurationError, DataError, ExportedModel, Parity, Predictions, compare_exports
from hf_ext.export.parity import check_flips, check_shapes, compare_outputs

NAMES = ["no", "yes", "maybe"]


def answers(logits, kind, names=None, labels=None):
    texts = [f"text {row}" for row in range(len(logits))]
    return Predictions.from_logits(logits, labels, texts, problem_type=kind, label_names=names or NAMES)


def outputs(seed, noise, classes=3, rows=200):
    generator = np.random.default_rng(seed)
    before = generator.normal(size=(rows, classes)).astype(np.float32)
    return before, (before + noise * generator.normal(size=before.shape)).astype(np.float32)


def test_flips_of_a_single_label():
    before, after = outputs(0, 0.3)
    kind, labels = "single_label_classification", np.arange(200) % 3
    rows = [row + 1 for row in range(200)]
    found = compare_outputs(before, after, answers(before, kind, None, labels), answers(after, kind), rows)
    expected, differences = [], []
    for row in range(200):
        first, second = max(range(3), key=lambda c: before[row, c]), max(range(3), key=lambda c: after[row, c])
        if first != second:
            flip = {"row": row + 1, "text": f"text {row}", "before": NAMES[first], "after": NAMES[second]}
            expected.append({**flip, "label": NAMES[row % 3]})
        differences += [abs(float(a) - float(b)) for a, b in zip(before[row], after[row], strict=True)]
    assert len(expected) > 5
    assert found.flips == expected
    assert found.flip_share == len(expected) / 200
    assert found.max_difference == max(differences)
    assert found.mean_difference == pytest.approx(sum(differences) / len(differences))


def test_flips_of_several_labels():
    before, after = outputs(1, 0.1)
    kind = "multi_label_classification"
    found = compare_outputs(before, after, answers(before, kind), answers(after, kind))
    expected = [
        row for row in range(200) if any((a >= 0) != (b >= 0) for a, b in zip(before[row], after[row], strict=True))
    ]
    assert 5 < len(expected) < 100
    assert [flip["row"] for flip in found.flips] == expected
    assert all(isinstance(flip["before"], list) and "label" not in flip for flip in found.flips)


def test_flips_of_a_regression():
    before, after = outputs(2, 0.04, classes=1)
    found = compare_outputs(
        before, after, answers(before, "regression", ["value"]), answers(after, "regression", ["value"])
    )
    values = [float(value) for value in before[:, 0]]
    mean = sum(values) / 200
    deviation = (sum((value - mean) ** 2 for value in values) / 200) ** 0.5
    expected = [row for row in range(200) if abs(float(after[row, 0]) - values[row]) > 0.05 * deviation]
    assert 5 < len(expected) < 150
    assert [flip["row"] for flip in found.flips] == expected
    same = answers(np.full((3, 1), 2.0), "regression", ["value"])
    assert compare_outputs(np.full((3, 1), 2.0), np.full((3, 1), 2.0), same, same).flips == []


@pytest.fixture(scope="module")
def reference(words, make_cnn):
    return ExportedModel.of_pytorch(make_cnn(words), words)


def disturbed(reference, change):
    """The same model, with its logits changed."""
    return ExportedModel(
        lambda inputs: change(reference.run(inputs)), reference.inputs, reference.tokenizer, reference.task
    )


def test_the_test_is_the_exact_one_of_mcnemar(reference, make_texts):
    texts = make_texts(120)
    logits = reference(texts)
    labels = np.where(np.arange(120) % 4, logits.argmax(1), (logits.argmax(1) + 1) % 3)
    shifted = disturbed(reference, lambda logits: logits + np.array([0, 0, 0.5], dtype=np.float32))
    parity, comparison = compare_exports(reference, {"shifted": shifted}, texts, labels)
    after = (logits + np.array([0, 0, 0.5], dtype=np.float32)).argmax(1)
    lost = sum(logits.argmax(1)[row] == labels[row] != after[row] for row in range(120))
    won = sum(logits.argmax(1)[row] != labels[row] == after[row] for row in range(120))
    assert lost > won
    (pair,) = comparison.pairs
    assert pair.p == pytest.approx(binomtest(won, won + lost).pvalue)
    assert comparison.models["pytorch"].metrics["accuracy"] == (logits.argmax(1) == labels).mean() == 0.75
    assert comparison.models["shifted"].metrics["accuracy"] == (after == labels).mean()
    assert len(parity["shifted"].flips) == (after != logits.argmax(1)).sum()


def test_without_labels_and_without_texts(reference, make_texts):
    parity, comparison = compare_exports(reference, {"same": reference}, make_texts(10))
    assert comparison is None
    assert parity["same"] == Parity(10, 0.0, 0.0, [])
    with pytest.raises(DataError, match="no texts to compare on"):
        compare_exports(reference, {"same": reference}, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: logits[:, :2], r"int8 gives logits of shape \(40, 2\); the model gives \(40, 3\)"),
        (lambda logits: np.where(np.arange(len(logits))[:, None] == 3, np.nan, logits), "2 of 40 texts .* number 4"),
    ],
)
def test_outputs_that_are_none(reference, change, message, make_texts):
    with pytest.raises(ConfigurationError, match=message):
        compare_exports(reference, {"int8": disturbed(reference, change)}, make_texts(40))


def test_a_graph_of_one_shape_only(reference):
    def two_rows(logits):
        if len(logits) != 2:
            raise RuntimeError("expected 2 rows")
        return logits

    with pytest.raises(ConfigurationError, match=r"onnx: the exported graph fails \(expected 2 rows\) for the text ''"):
        check_shapes("onnx", reference, disturbed(reference, two_rows), exact=True)
    wrong_batches = disturbed(reference, lambda logits: logits + 0.01 * (len(logits) > 1))
    with pytest.raises(ConfigurationError, match=r"differs from PyTorch by 0.01 for 4 texts"):
        check_shapes("onnx", reference, wrong_batches, exact=True)
    check_shapes("int8", reference, wrong_batches, exact=False)
    check_shapes("onnx", reference, reference, exact=True)


def test_what_is_refused_and_what_not():
    flips = [{"row": 7 * row, "text": "t", "before": "no", "after": "yes"} for row in range(1, 26)]
    found = Parity(100, 0.5, 0.1, flips)
    check_flips("int8", found, 0.25, "test.json")
    with pytest.raises(ConfigurationError) as error:
        check_flips("int8", found, 0.24, "test.json")
    message = str(error.value)
    assert "int8 is refused: 25 of 100 answers flip (25 %)" in message
    assert "max_flips is 0.24. test.json, rows 7 (no -> yes), 14 (no -> yes)" in message
    assert "140 (no -> yes) and 5 more. Nothing is kept. Leave int8 out, allow more with --max_flips" in message
