"""Cartography: statistics against plain loops, probabilities against SciPy, and that watching changes nothing."""

import math
import random

import numpy as np
import pytest
import runs
import torch
from scipy.special import expit, softmax

from hf_ext.errors import ConfigurationError, DataError
from hf_ext.experiments.cartography import DataMap, cartography_scores, data_map, true_label_probabilities

ROWS = 40
TINY = runs.Case("", model="textcnn", rows=ROWS, epochs=3, batch_size=8, dropout=0.1, sampling="random")


def rows_and_labels(case=TINY):
    rows = runs.make_rows(case)
    return rows, [row["labels"] for row in rows]


class Maker:
    def __init__(self, output_dir, case=TINY):
        self.case, self.trainers = case.but(output_dir=str(output_dir)), []

    def __call__(self, rows):
        trainer = runs.make_trainer(self.case)
        trainer.train_dataset = rows
        self.trainers.append(trainer)
        return trainer


# ---- Pure parts ----


def test_statistics_are_those_of_a_loop():
    generator = np.random.default_rng(0)
    probabilities, right = generator.random((7, 30)), generator.random((7, 30)) < 0.6
    found = data_map(probabilities, right)
    assert found.epochs == 7
    for row in range(30):
        values = [probabilities[epoch][row] for epoch in range(7)]
        mean = sum(values) / 7
        assert found.confidence[row] == pytest.approx(mean)
        assert found.variability[row] == pytest.approx(math.sqrt(sum((value - mean) ** 2 for value in values) / 7))
        assert found.correctness[row] == pytest.approx(sum(bool(right[epoch][row]) for epoch in range(7)) / 7)
        assert found.difficulty[row] == pytest.approx(1 - mean)


def test_the_probability_of_the_true_class_is_scipys():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(scale=10, size=(100, 4)), generator.integers(0, 4, size=100)
    probabilities, right = true_label_probabilities(logits, labels)
    assert probabilities == pytest.approx(softmax(logits, axis=1)[np.arange(100), labels], rel=1e-4, abs=1e-7)
    assert right.tolist() == (logits.argmax(axis=1) == labels).tolist()


def test_the_probability_of_several_labels_is_their_mean():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(scale=3, size=(60, 3)), generator.integers(0, 2, size=(60, 3)).astype(float)
    probabilities, right = true_label_probabilities(logits, labels)
    expected = np.where(labels > 0, expit(logits), 1 - expit(logits)).mean(axis=1)
    assert probabilities == pytest.approx(expected, rel=1e-4)
    assert right.tolist() == [bool(np.all((row > 0) == (label > 0))) for row, label in zip(logits, labels, strict=True)]


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[0.5]], [0.5], "regression has no probability of the true label. Use cross review"),
        ([[0.0, 1.0]], [0, 1], "do not fit"),
        ([[0.0, 1.0]], [[1.0, 0.0, 1.0]], "do not fit"),
    ],
    ids=["regression", "too many", "too wide"],
)
def test_labels_that_do_not_fit_are_refused(logits, labels, message):
    with pytest.raises(DataError, match=message):
        true_label_probabilities(logits, labels)


# ---- A training ----


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification"])
def test_the_map_is_that_of_the_models_at_the_ends_of_the_epochs(tmp_path, problem_type):
    case = TINY.but(problem_type=problem_type)
    rows, labels = rows_and_labels(case)
    found = cartography_scores(Maker(tmp_path / "watched", case), rows, labels)
    # The same training without anybody looking, with a checkpoint at the end of each epoch.
    whole = runs.run(case.but(output_dir=str(tmp_path / "plain"), save_steps=5))
    seen = []
    for step in (5, 10, 15):
        model = runs.make_model(case).eval()
        state = model.from_pretrained(tmp_path / "plain" / f"checkpoint-{step}").state_dict()
        model.load_state_dict(state)
        with torch.no_grad():
            logits = np.stack([model(**runs.collate([row])).logits[0].numpy() for row in rows])
        seen.append(true_label_probabilities(logits, labels)[0])
    assert whole["steps"] == 15
    assert found.epochs == 3
    assert found.confidence == pytest.approx(np.mean(seen, axis=0), rel=1e-4)
    assert found.variability == pytest.approx(np.std(seen, axis=0), rel=1e-2, abs=1e-6)


def test_watching_changes_neither_the_training_nor_what_follows(tmp_path):
    rows, labels = rows_and_labels()
    expected = runs.run(TINY.but(output_dir=str(tmp_path / "plain")))
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    make = Maker(tmp_path / "watched")
    cartography_scores(make, rows, labels)
    runs.assert_same_weights(expected, {"weights": make.trainers[0].model.state_dict()})
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())


def test_a_map_is_drawn_once(tmp_path):
    rows, labels = rows_and_labels()
    cached = {"cache_dir": tmp_path / "cache", "fingerprint": "textcnn"}
    first, second, third = (Maker(tmp_path / "out") for _ in range(3))
    expected = cartography_scores(first, rows, labels, **cached)
    again = cartography_scores(second, rows, labels, **cached)
    assert (len(first.trainers), len(second.trainers)) == (1, 0)
    assert again.epochs == expected.epochs
    for name in ("confidence", "variability", "correctness"):
        assert np.array_equal(getattr(again, name), getattr(expected, name))
    cartography_scores(third, rows[::-1], labels[::-1], **cached)
    assert len(third.trainers) == 1
    assert len(list((tmp_path / "cache").rglob("dynamics.npy"))) == 2


def test_copies_have_the_map_of_their_source(tmp_path):
    rows, _ = rows_and_labels()
    rows = [{**row, "source_idx": index, "is_augmented": False} for index, row in enumerate(rows)]
    copies = [{**row, "input_ids": [7, *row["input_ids"]], "is_augmented": True} for row in rows[:10]]
    make = Maker(tmp_path)
    found = cartography_scores(make, rows + copies, [row["labels"] for row in rows + copies])
    for part in (found.confidence, found.variability, found.correctness, found.difficulty):
        assert part.shape == (50,)
        assert np.array_equal(part[:10], part[40:])
    assert len(make.trainers[0].train_dataset) == 50


def test_wrong_labels_are_at_the_bottom(tmp_path):
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, size=200)
    labels = truth.copy()
    labels[:20] = 1 - labels[:20]
    rows = [
        {"input_ids": [int(100 + side)] * 3 + generator.integers(200, 3000, size=2).tolist(), "labels": int(label)}
        for side, label in zip(truth, labels, strict=True)
    ]
    case = TINY.but(arguments={"learning_rate": 2e-2})
    found = cartography_scores(Maker(tmp_path, case), rows, labels.tolist())
    assert set(np.argsort(-found.difficulty)[:20].tolist()) == set(range(20))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 1}, "the run has 1. Train for at least two"),
        ({"arguments": {"learning_rate": 1e38, "max_grad_norm": 0.0}}, r"has diverged.* Lower the learning rate"),
    ],
    ids=["one epoch", "diverged"],
)
def test_runs_that_give_no_map_are_refused(tmp_path, changes, message):
    rows, labels = rows_and_labels()
    with pytest.raises(ConfigurationError, match=message):
        cartography_scores(Maker(tmp_path, TINY.but(**changes)), rows, labels)
    with pytest.raises(DataError, match="39 labels for 40 rows"):
        cartography_scores(Maker(tmp_path), rows, labels[1:])


# ---- The figure ----


@pytest.mark.parametrize("rows", [1, 300, 25_001])
def test_the_figure_shows_each_row_up_to_a_number(tmp_path, rows):
    generator = np.random.default_rng(0)
    found = DataMap(generator.random(rows), generator.random(rows) / 2, generator.random(rows), 4)
    figure = found.plot(tmp_path / "map.png")
    axes = figure.axes[0]
    points = np.asarray(axes.collections[0].get_offsets())
    assert len(points) == min(rows, 25_000)
    everything = set(zip(found.variability.tolist(), found.confidence.tolist(), strict=True))
    assert {tuple(point) for point in points.tolist()} <= everything
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("variability", "confidence")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert ("25,000 of 25,001" in axes.get_title()) == (rows > 25_000)
