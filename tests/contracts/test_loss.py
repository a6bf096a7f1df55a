"""The loss and the gradient of a step don't depend on how its rows are spread over micro-batches and processes."""

import pytest
import torch
from runs import ON_GPU, Case, assert_same_weights, launch, make_rows, train

from hf_ext.trainers.base import count_targets

PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")


@pytest.fixture
def case(tmp_path):
    return Case(output_dir=str(tmp_path))


def assert_equal_training(one, other):
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
    assert one["eval_loss"] == pytest.approx(other["eval_loss"], rel=1e-4)


@pytest.mark.parametrize("problem_type", PROBLEMS)
@pytest.mark.parametrize("model", ["bert", "textcnn"])
def test_one_batch_equals_accumulation_equals_two_processes(case, model, problem_type):
    case = case.but(model=model, problem_type=problem_type)
    assert_equal_training(train(case), train(case.but(batch_size=4, accumulation=4)))
    case = case.but(sparse=False)
    whole = train(case)
    assert_equal_training(whole, train(case.but(batch_size=4, accumulation=4)))
    assert_equal_training(whole, train(case.but(batch_size=8), world_size=2))
    assert_equal_training(whole, train(case.but(batch_size=4, accumulation=2), world_size=2))


def test_uneven_micro_batches_count_by_their_rows(case):
    # 22 rows: the second step has 6 rows, as micro-batches of 4 and 2.
    whole = train(case.but(rows=22))
    assert_equal_training(whole, train(case.but(rows=22, batch_size=4, accumulation=4)))


def test_eval_loss_counts_each_row_once(case):
    # 22 rows in batches of 4: the last round of two processes has 6 rows of its own and 2 that are repeated.
    one, two = train(case.but(rows=22, epochs=1)), train(case.but(rows=22, epochs=1, batch_size=8), world_size=2)
    assert one["logs"][0]["loss"] == pytest.approx(two["logs"][0]["loss"], rel=1e-5)
    untrained = case.but(rows=22, epochs=1, arguments={"learning_rate": 1e-12})
    assert train(untrained)["eval_loss"] == pytest.approx(train(untrained, world_size=2)["eval_loss"], rel=1e-6)


def test_the_plain_trainer_is_off_by_the_steps_and_the_processes(case):
    """What is mended. If this fails, the library has mended it, and `ExtendedTrainer` can drop its own scaling."""
    plain = case.but(trainer="plain")
    whole = train(plain)
    assert train(plain.but(batch_size=4, accumulation=4))["loss"][0] == pytest.approx(4 * whole["loss"][0], rel=1e-3)
    assert train(plain.but(batch_size=8), world_size=2)["loss"][0] == pytest.approx(2 * whole["loss"][0], rel=1e-3)


@pytest.mark.skipif(ON_GPU, reason="the default on a CPU alone")
def test_sparse_rows_are_the_default_and_give_the_dense_gradient(case):
    case = case.but(model="textcnn")
    sparse, dense = train(case), train(case.but(sparse=False))
    assert sparse["optimizer"] == "SparseAdamW"
    assert dense["optimizer"] == "AdamW"
    # The first step starts from the same weights.
    assert sparse["loss"][0] == pytest.approx(dense["loss"][0], rel=1e-6)
    assert sparse["grad_norm"][0] == pytest.approx(dense["grad_norm"][0], rel=1e-5)


@pytest.mark.parametrize("model", ["bert", "textcnn"])
def test_several_processes_take_dense_gradients(case, model):
    # DDP damages the memory of a CPU's processes when it adds up sparse ones.
    case = case.but(model=model, batch_size=8, epochs=1)
    assert train(case, world_size=2)["optimizer"] == "AdamW"
    for report in launch(case.but(sparse=True), world_size=2):
        assert report["error"].startswith("ValueError: sparse_embeddings=True needs an AdamW optimizer")
        assert "torch_compile=False, 2 processes. Leave sparse_embeddings out" in report["error"]


@pytest.mark.parametrize("model", ["bert", "textcnn"])
def test_two_processes_train_the_weights_of_one(case, model):
    case = case.but(model=model, epochs=3, sparse=False)
    one, two = train(case), train(case.but(batch_size=8), world_size=2)
    assert_same_weights(one, two, rtol=1e-3, atol=2e-5)


def half_unlabelled(case):
    rows = [{**row, "labels": row["labels"] if place % 8 < 4 else -100} for place, row in enumerate(make_rows(case))]
    return {"train_dataset": rows}


def test_rows_without_a_label_are_no_targets():
    nan = float("nan")
    assert count_targets({"labels": torch.tensor([0, -100, 2])}) == 2
    assert count_targets({"labels": torch.tensor([[0.0, 1.0], [nan, nan], [1.0, 1.0]])}) == 4
    assert count_targets({"labels": torch.tensor([0.5, nan])}) == 1
    assert count_targets({"labels": torch.empty(0, 3)}) == 0


@pytest.mark.parametrize("batches", [(4, 4), (8, 2)])
def test_a_micro_batch_without_a_target_adds_nothing(case, batches):
    whole = train(case.but(settings=half_unlabelled, batch_size=16, sparse=False))
    size, count = batches
    parts = train(case.but(settings=half_unlabelled, batch_size=size, accumulation=count, sparse=False))
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    # AdamW's first steps are as large for the smallest gradients.
    assert_same_weights(parts, whole, rtol=1e-4, atol=1e-5)
