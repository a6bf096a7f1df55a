"""Cross review: each row is scored by a model that has not seen it, once, and nothing else changes."""

import functools
import math
import os
import random
import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import runs
import torch
from datasets import Dataset
from datasets import config as datasets_config
from scipy.special import expit, log_softmax
from starting import exit_code_of, own_port, process_context
from transformers import Trainer

from hf_ext.data.difficulty import source_rows
from hf_ext.errors import ConfigurationError, DataError
from hf_ext.experiments.cross_review import assign_folds, cross_review_scores, row_losses

ROWS = 45
TINY = runs.Case("", model="textcnn", rows=ROWS, epochs=1, batch_size=9, dropout=0.1)


def rows_and_labels(case=TINY):
    rows = runs.make_rows(case)
    return rows, [row["labels"] for row in rows]


class Maker:
    """Makes small trainers, and notes what they are trained on."""

    def __init__(self, output_dir, case=TINY, stop_at=None):
        self.case, self.stop_at, self.trained_on = case.but(output_dir=str(output_dir)), stop_at, []

    def __call__(self, rows):
        if len(self.trained_on) == self.stop_at:
            raise KeyboardInterrupt
        self.trained_on.append([tuple(row["input_ids"]) for row in rows])
        trainer = runs.make_trainer(self.case)
        trainer.train_dataset = rows
        return trainer


@pytest.fixture
def maker(tmp_path):
    return functools.partial(Maker, tmp_path / "out")


# ---- The loss of a row ----


def test_the_loss_of_classes_is_scipys():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(scale=30, size=(200, 5)), generator.integers(0, 5, size=200)
    expected = [-log_softmax(row)[label] for row, label in zip(logits, labels, strict=True)]
    assert row_losses(logits, labels.tolist()) == pytest.approx(np.array(expected), rel=1e-4, abs=1e-6)
    assert row_losses([[1e4, 0.0]], [1])[0] == pytest.approx(1e4)
    halves = row_losses(torch.tensor([[60000.0, -60000.0]]).half(), [1])
    assert halves[0] == pytest.approx(120000, rel=1e-3)


def test_the_loss_of_several_labels_is_their_mean():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(scale=5, size=(50, 4)), generator.integers(0, 2, size=(50, 4)).astype(float)
    chances = expit(logits)
    expected = -np.mean(labels * np.log(chances) + (1 - labels) * np.log(1 - chances), axis=1)
    assert row_losses(logits, labels) == pytest.approx(expected, rel=1e-4)


def test_the_loss_of_a_regression_is_the_squared_error():
    expected = [0.25, 0.0, 9.0]
    for logits in ([[0.5], [2.0], [1.0]], [0.5, 2.0, 1.0]):
        assert row_losses(logits, [1.0, 2.0, 4.0]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[0.0, 1.0]], [2], "Row 1 has the class 2, but there are 2 logits"),
        ([[0.0, 1.0]], [-1], "the class -1"),
        ([[0.0, 1.0]], [0.5], "do not fit"),
        ([[0.0, 1.0]], [[1.0, 0.0, 0.0]], "do not fit"),
        ([[0.0, 1.0]], [0, 1], "do not fit"),
    ],
    ids=str,
)
def test_labels_that_do_not_fit_are_refused(logits, labels, message):
    with pytest.raises(DataError, match=message):
        row_losses(logits, labels)


# ---- Folds ----


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_each_label_is_spread_over_the_folds(folds):
    labels = np.random.default_rng(0).choice(3, p=[0.6, 0.35, 0.05], size=400)
    numbers = assign_folds(labels, np.arange(400), None, folds, seed=1)
    for label in range(3):
        counts = [np.sum((numbers == fold) & (labels == label)) for fold in range(folds)]
        assert max(counts) - min(counts) <= 1
    assert sorted(set(numbers.tolist())) == list(range(folds))
    assert not np.array_equal(numbers, assign_folds(labels, np.arange(400), None, folds, seed=2))
    assert np.array_equal(numbers, assign_folds(labels, np.arange(400), None, folds, seed=1))


@pytest.mark.filterwarnings("error")
def test_a_label_with_one_row_and_labels_all_different():
    numbers = assign_folds([0] * 20 + [1], np.arange(21), None, 5, seed=0)
    assert max(Counter(numbers.tolist()).values()) <= 5
    vectors = [[float(bit) for bit in f"{number:04b}"] for number in range(16)]
    assert set(Counter(assign_folds(vectors, np.arange(16), None, 4, 0).tolist()).values()) == {4}
    assert set(Counter(assign_folds(np.linspace(0, 1, 16), np.arange(16), None, 4, 0).tolist()).values()) == {4}


def test_rows_of_one_source_are_in_one_fold():
    generator = np.random.default_rng(0)
    identities = generator.integers(0, 60, size=200).tolist()
    labels = [identity % 3 for identity in identities]
    numbers = assign_folds(labels, np.arange(200), identities, 5, seed=0)
    for identity in set(identities):
        assert len({number for number, other in zip(numbers, identities, strict=True) if other == identity}) == 1
    assert len(set(numbers.tolist())) == 5


def test_more_folds_than_rows_are_refused(maker):
    rows, labels = rows_and_labels()
    with pytest.raises(ConfigurationError, match="folds is 5, but there are only 4 rows"):
        cross_review_scores(maker(), rows[:4], labels[:4])
    for folds in (1, 0, 2.5, True):
        with pytest.raises(ConfigurationError, match="whole number of at least 2"):
            cross_review_scores(maker(), rows, labels, folds=folds)
    with pytest.raises(DataError, match="44 labels for 45 rows"):
        cross_review_scores(maker(), rows, labels[1:])


# ---- Scores ----


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_scores_are_those_of_models_trained_without_the_row(maker, problem_type):
    case = TINY.but(problem_type=problem_type)
    rows, labels = rows_and_labels(case)
    make = maker(case)
    scores = cross_review_scores(make, rows, labels, folds=3, seed=5)
    assert scores.shape == (ROWS,)
    numbers = assign_folds(labels, np.arange(ROWS), None, 3, 5)
    for fold in range(3):
        assert make.trained_on[fold] == [tuple(rows[i]["input_ids"]) for i in range(ROWS) if numbers[i] != fold]
        trainer = maker(case)([row for row, number in zip(rows, numbers, strict=True) if number != fold])
        trainer.train()
        trainer.model.eval()
        for index in np.flatnonzero(numbers == fold):
            batch = runs.collate([rows[index]])
            loss = trainer.model(**batch).loss.item()
            assert scores[index] == pytest.approx(loss, rel=1e-3, abs=1e-6)


def test_wrong_labels_are_hard(tmp_path):
    """Rows whose first token tells the label; a tenth of them tell a lie."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, size=200)
    labels = truth.copy()
    labels[:20] = 1 - labels[:20]
    rows = [
        {"input_ids": [int(100 + side), *generator.integers(200, 3000, size=4).tolist()], "labels": int(label)}
        for side, label in zip(truth, labels, strict=True)
    ]
    case = TINY.but(epochs=8, batch_size=8, arguments={"learning_rate": 1e-2})
    scores = cross_review_scores(Maker(tmp_path, case), rows, labels.tolist(), folds=4)
    assert set(np.argsort(-scores)[:20].tolist()) == set(range(20))


def test_a_data_set_gives_the_same_as_a_list(maker):
    rows, labels = rows_and_labels()
    expected = cross_review_scores(maker(), rows, labels, folds=2)
    assert np.array_equal(cross_review_scores(maker(), Dataset.from_list(rows), labels, folds=2), expected)


def test_copies_are_trained_on_with_their_source_and_have_its_score(maker):
    rows, _ = rows_and_labels()
    rows = [{**row, "source_idx": index, "is_augmented": False} for index, row in enumerate(rows)]
    copies = [{**row, "input_ids": [7, *row["input_ids"]], "is_augmented": True} for row in rows[:20]]
    everything = [*copies[:10], *rows, *copies[10:]]
    labels = [row["labels"] for row in everything]
    make = maker()
    scores = cross_review_scores(make, everything, labels, folds=3)
    sources = source_rows(everything)
    assert np.array_equal(scores, scores[sources])
    originals = set(range(10, 10 + ROWS))
    assert len(set(scores[sorted(originals)])) == ROWS
    for trained in make.trained_on:
        seen = set(trained)
        for index, row in enumerate(everything):
            source = everything[sources[index]]
            assert (tuple(row["input_ids"]) in seen) == (tuple(source["input_ids"]) in seen)
    assert sum(map(len, make.trained_on)) == 2 * len(everything)


def test_a_training_that_diverges_is_refused(tmp_path):
    rows, labels = rows_and_labels()
    case = TINY.but(arguments={"learning_rate": 1e38, "max_grad_norm": 0.0}, epochs=3)
    with pytest.raises(ConfigurationError, match=r"fold 1 of 3 has diverged\. .* Lower the learning rate"):
        cross_review_scores(Maker(tmp_path, case), rows, labels, folds=3, cache_dir=tmp_path, fingerprint="x")
    assert not list(tmp_path.rglob("*.npy"))


def test_predictions_in_another_order_are_refused(tmp_path):
    rows, labels = rows_and_labels()
    case = TINY.but(output_dir=str(tmp_path), trainer="plain", sampling="group_by_length")

    def make(part):
        trainer = runs.make_trainer(case)
        assert type(trainer) is Trainer
        trainer.train_dataset = part
        return trainer

    with pytest.raises(ConfigurationError, match="not in the order of the rows"):
        cross_review_scores(make, rows, labels, folds=3)


# ---- Cache ----


def test_scores_are_computed_once(tmp_path, maker):
    rows, labels = rows_and_labels()
    cached = {"folds": 3, "cache_dir": tmp_path / "cache", "fingerprint": "textcnn"}
    first, second = maker(), maker()
    expected = cross_review_scores(first, rows, labels, **cached)
    assert len(first.trained_on) == 3
    assert np.array_equal(cross_review_scores(second, rows, labels, **cached), expected)
    assert second.trained_on == []
    (folder,) = (tmp_path / "cache").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["fold-0.npy", "fold-1.npy", "fold-2.npy"]


@pytest.mark.parametrize(
    "change",
    [
        {"folds": 2},
        {"seed": 1},
        {"fingerprint": "bert"},
        {"labels": [(label + 1) % 3 for label in rows_and_labels()[1]]},
        {"token": 9},
    ],
    ids=str,
)
def test_other_rows_models_folds_and_seeds_are_computed_anew(tmp_path, maker, change):
    rows, labels = rows_and_labels()
    settings = {"folds": 3, "seed": 0, "cache_dir": tmp_path / "cache", "fingerprint": "textcnn"}
    cross_review_scores(maker(), rows, labels, **settings)
    labels = change.pop("labels", labels)
    rows = [{**row, "labels": label} for row, label in zip(rows, labels, strict=True)]
    rows[3]["input_ids"][0] = change.pop("token", rows[3]["input_ids"][0])
    make = maker()
    cross_review_scores(make, rows, labels, **{**settings, **change})
    assert make.trained_on
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_without_a_fingerprint_nothing_is_cached(tmp_path, maker):
    rows, labels = rows_and_labels()
    cross_review_scores(maker(), rows, labels, folds=2, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_the_cache_is_beside_the_librarys(tmp_path, maker, monkeypatch):
    monkeypatch.setattr(datasets_config, "HF_CACHE_HOME", str(tmp_path / "home"))
    rows, labels = rows_and_labels()
    cross_review_scores(maker(), rows, labels, folds=2, fingerprint="x")
    assert len(list((tmp_path / "home" / "hf_ext" / "difficulty").rglob("fold-*.npy"))) == 2


def test_an_interrupted_computation_goes_on_with_its_fold(tmp_path, maker):
    rows, labels = rows_and_labels()
    expected = cross_review_scores(maker(), rows, labels, folds=4)
    cached = {"folds": 4, "cache_dir": tmp_path / "cache", "fingerprint": "x"}
    with pytest.raises(KeyboardInterrupt):
        cross_review_scores(maker(stop_at=2), rows, labels, **cached)
    rest = maker()
    assert np.array_equal(cross_review_scores(rest, rows, labels, **cached), expected)
    assert len(rest.trained_on) == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "other rows", "nan", "pickle"])
def test_a_damaged_file_is_computed_again(tmp_path, maker, damage):
    rows, labels = rows_and_labels()
    cached = {"folds": 3, "cache_dir": tmp_path / "cache", "fingerprint": "x"}
    expected = cross_review_scores(maker(), rows, labels, **cached)
    path = next((tmp_path / "cache").rglob("fold-1.npy"))
    whole = np.load(path)
    if damage in ("cut", "empty"):
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else -9])
    else:
        broken = {"other rows": whole[1:], "nan": whole * math.nan, "pickle": np.array([{}], dtype=object)}[damage]
        np.save(path, broken, allow_pickle=True)
    make = maker()
    assert np.array_equal(cross_review_scores(make, rows, labels, **cached), expected)
    assert len(make.trained_on) == 1


# ---- What follows is the same ----


def test_a_run_after_fresh_and_after_cached_scores_is_the_same(tmp_path, maker):
    rows, labels = rows_and_labels()
    cached = {"folds": 2, "cache_dir": tmp_path / "cache", "fingerprint": "x"}

    def train_after():
        random.seed(3)
        np.random.seed(3)
        torch.manual_seed(3)
        scores = cross_review_scores(maker(), rows, labels, **cached)
        drawn = random.random(), np.random.rand(), torch.rand(1).item()
        report = runs.run(TINY.but(output_dir=str(tmp_path / "main"), sampling="random", epochs=2))
        return scores, drawn, report

    (scores, drawn, report), (other_scores, other_drawn, other) = train_after(), train_after()
    assert np.array_equal(scores, other_scores)
    assert drawn == other_drawn
    assert report["batches"] == other["batches"]
    runs.assert_same_weights(report, other)
    random.seed(3)
    assert drawn[0] == random.random()


def test_a_trainer_that_was_made_before_goes_on_as_if_nothing_had_been(tmp_path, maker):
    rows, labels = rows_and_labels()
    case = TINY.but(output_dir=str(tmp_path / "main"), accumulation=2, epochs=2)
    expected = runs.run(case)
    trainer = runs.make_trainer(case)
    cross_review_scores(maker(), rows, labels, folds=2)
    trainer.train()
    runs.assert_same_weights(expected, {"weights": trainer.model.state_dict()})


# ---- Several processes ----


def _in_process(rank, world_size, port, output_dir):
    os.environ.update(
        WORLD_SIZE=str(world_size),
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        LOCAL_WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    rows, labels = rows_and_labels()
    make = Maker(Path(output_dir) / "out", TINY.but(batch_size=4, dropout=0.0))
    with pytest.raises(ConfigurationError, match="2 processes were launched, but this one knows of 1"):
        cross_review_scores(make, rows, labels)
    runs.make_trainer(make.case)
    # Each process has a folder of its own, as on two machines.
    cache_dir = Path(output_dir) / f"cache-{rank}"
    settings = {"folds": 3, "fingerprint": "x", "cache_dir": cache_dir}
    scores = [cross_review_scores(make, rows, labels, **settings) for _ in range(2)]
    torch.save({"scores": scores, "trainings": len(make.trained_on)}, Path(output_dir, f"{rank}.pt"))


def test_processes_take_part_and_agree(tmp_path):
    context = process_context("runs")
    with own_port() as port:
        processes = [
            context.Process(
                target=runpy.run_path, args=(__file__, {"PROCESS": (rank, 2, port, str(tmp_path))}, "process")
            )
            for rank in range(2)
        ]
        for process in processes:
            process.start()
        assert [exit_code_of(process) for process in processes] == [0, 0]
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    for scores in (*one["scores"], *other["scores"]):
        assert np.array_equal(scores, one["scores"][0])
    # Only the first process keeps files; what it finds there spares all of them the training.
    assert one["trainings"] == other["trainings"] == 3
    assert not (tmp_path / "cache-1").exists()
    # One process with batches twice as large trains the same models.
    rows, labels = rows_and_labels()
    alone = cross_review_scores(Maker(tmp_path, TINY.but(batch_size=8, dropout=0.0)), rows, labels, folds=3)
    assert one["scores"][0] == pytest.approx(alone, rel=1e-3)


if __name__ == "process":
    _in_process(*PROCESS)  # noqa: F821 (handed over by `runpy`)
