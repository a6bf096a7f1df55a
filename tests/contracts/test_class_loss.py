"""Weighted, focal and smoothed losses through what the package promises: resume, accumulation, processes."""

import pytest
import torch
import torch.nn.functional as F
from rare_class import RareClass, rare_last
from runs import Case, assert_same_weights, collate, launch, make_model, train
from sklearn.utils.class_weight import compute_class_weight

SINGLE, MULTI = "single_label_classification", "multi_label_classification"


BALANCED, GIVEN = {"class_weights": "balanced"}, {"class_weights": {"LABEL_2": 5.0, "LABEL_0": 0.5}}
LOSSES = {
    "balanced": (BALANCED, 0.0),
    "given": (GIVEN, 0.0),
    "focal": ({"focal_gamma": 2.0}, 0.0),
    "smoothed": ({}, 0.2),
    "all": ({**BALANCED, "focal_gamma": 1.5}, 0.1),
}
each_loss = pytest.mark.parametrize("name", LOSSES)
each_problem = pytest.mark.parametrize("problem_type", [SINGLE, MULTI])


@pytest.fixture
def make_case(tmp_path):
    def make(name, problem_type, folder="run", **changes) -> Case:
        settings, smoothing = LOSSES[name]
        return Case(
            output_dir=str(tmp_path / folder),
            problem_type=problem_type,
            settings=RareClass(**settings),
            arguments={"label_smoothing_factor": smoothing},
            **changes,
        )

    return make


def row_weights(case: Case, class_weights) -> torch.Tensor:
    """A weight a row (single label), or a row and class, by scikit-learn and by hand; their mean is 1."""
    labels = torch.tensor([row["labels"] for row in rare_last(case)])
    columns = labels.unsqueeze(1) if labels.ndim == 1 else labels.int()
    weights = []
    for index, column in enumerate(columns.T):
        kinds = sorted(set(column.tolist()))
        if class_weights == "balanced":
            of_kind = compute_class_weight("balanced", classes=torch.tensor(kinds).numpy(), y=column.numpy())
        elif labels.ndim == 1:
            of_kind = [class_weights.get(f"LABEL_{kind}", 1.0) for kind in kinds]
        else:
            of_kind = [1.0, class_weights.get(f"LABEL_{index}", 1.0)]
        of_row = torch.tensor([of_kind[kinds.index(value)] for value in column.tolist()])
        weights.append(of_row / of_row.mean())
    return torch.stack(weights, dim=1).squeeze(1)


def first_loss(name, case: Case) -> float:
    """The first step's loss over all rows at once, written out with probabilities."""
    settings, smoothing = LOSSES[name]
    batch, gamma = collate(rare_last(case)), settings.get("focal_gamma", 0.0)
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = make_model(case)(**batch).logits
    if case.problem_type == SINGLE:
        target = F.one_hot(labels, 3) * (1 - smoothing) + smoothing / 3
        p = logits.softmax(dim=1)
        losses = -(target * (1 - p) ** gamma * p.log()).sum(dim=1)
    else:
        target = labels * (1 - smoothing) + smoothing / 2
        p = logits.sigmoid()
        losses = -target * (1 - p) ** gamma * p.log() - (1 - target) * p**gamma * (1 - p).log()
    if "class_weights" in settings:
        losses = losses * row_weights(case, settings["class_weights"])
    return losses.mean().item()


def assert_equal_training(one, other):
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
    assert one["eval_loss"] == pytest.approx(other["eval_loss"], rel=1e-4)
    assert_same_weights(one, other, rtol=1e-3, atol=2e-5)


@each_problem
@each_loss
def test_one_batch_equals_accumulation_equals_two_processes(make_case, name, problem_type):
    case = make_case(name, problem_type, sparse=False)
    whole = train(case)
    assert_equal_training(whole, train(case.but(batch_size=4, accumulation=4)))
    assert_equal_training(whole, train(case.but(batch_size=8), world_size=2))
    assert_equal_training(whole, train(case.but(batch_size=4, accumulation=2), world_size=2))


@each_problem
@each_loss
def test_the_first_loss_is_the_formula(make_case, name, problem_type):
    case = make_case(name, problem_type, rows=22, batch_size=32, epochs=1)
    expected = pytest.approx(first_loss(name, case), rel=1e-5)
    assert train(case)["loss"][0] == expected
    # Micro-batches of 8, 8 and 6 rows.
    assert train(case.but(batch_size=8, accumulation=3))["loss"][0] == expected


@each_problem
@each_loss
def test_evaluations_have_the_plain_loss(make_case, name, problem_type):
    case = make_case(name, problem_type, epochs=1)
    report = train(case.but(arguments={**case.arguments, "learning_rate": 1e-12}))
    batch = collate(rare_last(case))
    with torch.no_grad():
        plain = make_model(case)(**batch).loss.item()
    assert report["eval_loss"] == pytest.approx(plain, rel=1e-5)
    assert report["loss"][0] != pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("world_size", [1, 2])
@each_problem
def test_killed_and_resumed_is_uninterrupted(make_case, problem_type, world_size):
    setup = {"dropout": 0.1, "batch_size": 8 // world_size, "rows": 64, "save_steps": 11, "sampling": "random"}
    case = make_case("all", problem_type, **setup)
    whole = train(case, world_size)
    killed = make_case("all", problem_type, "killed", **setup)
    assert launch(killed.but(kill_at_step=13), world_size) == [None] * world_size
    resumed = train(killed.but(resume=True), world_size)
    assert resumed["digests"] == whole["digests"][-len(resumed["digests"]) :]
    assert_same_weights(whole, resumed)


def test_a_resumed_run_keeps_its_loss(make_case):
    case = make_case("balanced", SINGLE, rows=64, save_steps=3)
    assert launch(case.but(kill_at_step=5)) == [None]
    for other in ({"class_weights": [1, 1, 2]}, {"focal_gamma": 2.0}, {}):
        (report,) = launch(case.but(resume=True, settings=RareClass(**other)))
        assert "step 3 was made with another class_loss" in report["error"]


def test_compiled_is_the_same(make_case):
    case = make_case("all", SINGLE, model="textcnn", sparse=False)
    compiled = case.but(arguments={**case.arguments, "torch_compile": True, "torch_compile_backend": "aot_eager"})
    assert_equal_training(train(case), train(compiled))
