"""A loss that is not finite, and memory that is too small, through accumulation, two processes and resume."""

import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from ailing import Ailing, Cramped, LeavesOutStepsTwoAndFour, Marked
from runs import Case, assert_same_weights, launch, train
from transformers import get_linear_schedule_with_warmup

from hf_ext import DiscriminativeLearningRateCallback, GradualUnfreezingCallback

CLOSE = {"rtol": 1e-4, "atol": 1e-6}


@pytest.fixture
def case(tmp_path):
    # Four steps of 16 rows; row 20 is in the second and the fourth.
    return Case(output_dir=str(tmp_path / "run"))


# ---- Skipping ----


@pytest.mark.parametrize("model", ["bert", "textcnn"])
def test_a_skipped_step_changes_nothing(case, model):
    reference = train(case.but(model=model, settings=Marked(), callbacks=(LeavesOutStepsTwoAndFour,)))
    skipped = train(case.but(model=model, settings=Ailing()))
    assert_same_weights(skipped, reference)
    assert [log.get("nonfinite_steps") for log in skipped["logs"]] == [None, 1, 1, 2]
    assert [math.isnan(loss) for loss in skipped["loss"]] == [False, True, False, True]
    assert skipped["moved"][1] == [] and skipped["moved"][2]


@pytest.mark.parametrize("processes", [1, 2])
def test_the_mean_of_a_training_leaves_it_out_too(case, processes):
    ailing = case.but(settings=Ailing(at_step=3), batch_size=16 // processes, arguments={"logging_strategy": "no"})
    report = train(ailing, world_size=processes)
    assert math.isfinite(report["train_loss"])


def test_one_bad_micro_batch_leaves_out_the_whole_step(case):
    whole = train(case.but(settings=Ailing()))
    parts = train(case.but(settings=Ailing(), batch_size=4, accumulation=4))
    assert_same_weights(parts, whole, **CLOSE)
    assert parts["logs"][-1]["nonfinite_steps"] == 2


def test_two_processes_leave_it_out_together(case):
    whole = train(case.but(settings=Ailing(), sparse=False))
    # Row 20 is the second process's: rows 16 to 19 and 24 to 27 are the first's.
    two = train(case.but(settings=Ailing(), batch_size=4, accumulation=2), world_size=2)
    assert_same_weights(two, whole, **CLOSE)
    assert two["logs"][-1]["nonfinite_steps"] == 2


def test_a_resumed_run_goes_on_with_the_count(case, tmp_path):
    ailing = case.but(settings=Ailing(), save_steps=1, dropout=0.1, sampling="random", epochs=3)
    whole = train(ailing.but(output_dir=str(tmp_path / "whole")))
    assert launch(ailing.but(kill_at_step=3)) == [None]
    resumed = train(ailing.but(resume=True))
    assert_same_weights(resumed, whole)
    assert resumed["logs"][-1]["nonfinite_steps"] == whole["logs"][-1]["nonfinite_steps"] == 3


def test_the_budget_is_one_for_a_run_and_its_resumption(case):
    ailing = case.but(settings=Ailing(nonfinite_budget=1), save_steps=1)
    assert launch(ailing.but(kill_at_step=3)) == [None]
    assert "more than nonfinite_budget=1 times" in launch(ailing.but(resume=True))[0]["error"]


def test_the_budget_ends_the_run(case):
    report = launch(case.but(settings=Ailing(nonfinite_budget=1)))[0]
    assert "NonFiniteError" in report["error"] and "more than nonfinite_budget=1 times" in report["error"]


# ---- Raising ----


def test_the_rows_are_named_and_written(case):
    report = launch(case.but(settings=Ailing(nonfinite="raise")))[0]
    assert "In step 2 the loss is not finite among the rows 17, 18, 19" in report["error"]
    found = json.loads((Path(case.output_dir) / "nonfinite_step_2.json").read_text())
    assert found["step"] == 2 and found["losses"] == ["nan"]
    assert [item["row"] for item in found["rows"]] == list(range(16, 32))
    rows = Ailing()(case)["train_dataset"]
    assert [item["text"] for item in found["rows"]] == [rows[item["row"]]["input_ids"] for item in found["rows"]]
    assert [item["label"] for item in found["rows"]] == [rows[item["row"]]["labels"] for item in found["rows"]]


@pytest.mark.parametrize("sampling", ["random", "group_by_length"])
@pytest.mark.parametrize("processes", [1, 2])
def test_the_rows_are_those_of_the_batch_in_any_order(case, sampling, processes):
    ailing = case.but(settings=Ailing(nonfinite="raise"), sampling=sampling, batch_size=4, accumulation=2)
    reports = launch(ailing, world_size=processes)
    assert all("NonFiniteError" in report["error"] for report in reports)
    (path,) = Path(case.output_dir).glob("nonfinite_step_*.json")
    found, rows = json.loads(path.read_text())["rows"], Ailing()(case)["train_dataset"]
    assert len(found) == 8 * processes and 20 in [item["row"] for item in found]
    assert [item["text"] for item in found] == [rows[item["row"]]["input_ids"] for item in found]


# ---- Rolling back ----


def halved_after(step, case):
    """The run that a roll-back should come to: from the checkpoint of `step` on half the rate, and no bad row."""

    def make(case, arguments, callbacks):
        from runs import collate, make_model

        from hf_ext import ExtendedTrainer

        model, rows = make_model(case), Marked()(case)["train_dataset"]
        optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate, weight_decay=0.0)
        total = case.epochs * -(-case.rows // case.batch_size)
        linear = get_linear_schedule_with_warmup(optimizer, 0, total).lr_lambdas[0]
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda done: linear(done) * (0.5 if done >= step else 1.0)
        )
        return ExtendedTrainer(
            model, arguments, collate, rows, rows, callbacks=callbacks, optimizers=(optimizer, scheduler)
        )

    return make


def test_rolled_back_to_the_last_checkpoint_with_half_the_rate(case, tmp_path):
    # The rate falls from 1e-3 linearly: 7.5e-4 in the second step, 3.75e-4 after the roll-back.
    own = {"arguments": {"learning_rate": 1e-3, "optim": "adamw_torch"}}
    ailing = Ailing(nonfinite="roll_back", heals_below=6e-4)
    rolled = train(case.but(settings=ailing, save_steps=1, sparse=False, **own))
    reference = make_reference(case.but(output_dir=str(tmp_path / "reference"), **own))
    assert_same_weights(rolled, reference)
    assert [log["learning_rate"] for log in rolled["logs"]] == pytest.approx([1e-3, 3.75e-4, 2.5e-4, 1.25e-4])
    assert [log.get("roll_back_learning_rate_factor") for log in rolled["logs"]] == [None, 0.5, 0.5, 0.5]


def make_reference(case):
    from runs import run

    torch.set_num_threads(1)
    return run(case.but(trainer=halved_after(1, case)))


def test_two_processes_roll_back_together(case):
    ailing = Ailing(nonfinite="roll_back", heals_below=6e-4)
    one = train(case.but(settings=ailing, save_steps=1, sparse=False))
    two = train(case.but(settings=ailing, save_steps=1, batch_size=8), world_size=2)
    assert_same_weights(one, two, **CLOSE)


def test_a_killed_run_goes_on_at_the_lower_rate(case, tmp_path):
    ailing = case.but(settings=Ailing(nonfinite="roll_back", heals_below=6e-4), save_steps=1, dropout=0.1)
    whole = train(ailing.but(output_dir=str(tmp_path / "whole")))
    assert launch(ailing.but(kill_at_step=3)) == [None]
    resumed = train(ailing.but(resume=True))
    assert_same_weights(resumed, whole)
    assert resumed["logs"][-1]["roll_back_learning_rate_factor"] == 0.5


@pytest.mark.parametrize("processes", [1, 2])
def test_a_checkpoint_that_fails_at_once_is_left_for_the_one_before(case, processes):
    # The third step's rate is 5e-4, halved 2.5e-4, which is not enough; then 1.25e-4, from the first checkpoint on.
    ailing = Ailing(nonfinite="roll_back", heals_below=2e-4, at_step=2)
    rolled = train(case.but(settings=ailing, save_steps=1, batch_size=16 // processes), world_size=processes)
    rates = [log["learning_rate"] for log in rolled["logs"]]
    assert rates == pytest.approx([1e-3, 7.5e-4 / 4, 5e-4 / 4, 2.5e-4 / 4])
    assert rolled["logs"][-1]["nonfinite_steps"] == 2


def test_a_model_that_cannot_be_rescued_ends_the_run(case):
    report = launch(case.but(settings=Ailing(nonfinite="roll_back", at_step=1), save_steps=1))[0]
    assert "but " in report["error"] and "checkpoint-1, whose model fails at once too" in report["error"]


def test_without_a_checkpoint_there_is_nothing_to_roll_back_to(case):
    report = launch(case.but(settings=Ailing(nonfinite="roll_back")))[0]
    assert "has saved no checkpoint to roll back to" in report["error"]


def test_rolled_back_inside_a_stage_of_unfreezing(case):
    # While the encoder is frozen, the groups that the checkpoint's rates are of have to be found again.
    unfreezing = partial(GradualUnfreezingCallback, unit="steps", interval=2)
    rates = partial(DiscriminativeLearningRateCallback, layerwise_lr_decay=2.0)
    # The embeddings' rate is an eighth of the head's, 1.1e-4 in the second step.
    ailing = Ailing(nonfinite="roll_back", heals_below=8e-5, at_step=1)
    rolled = train(case.but(settings=ailing, save_steps=1, epochs=4, callbacks=(unfreezing, rates)))
    assert [log.get("roll_back_learning_rate_factor") for log in rolled["logs"]][-1] == 0.5
    assert rolled["logs"][-1]["unfreezing/depth"] > rolled["logs"][0]["unfreezing/depth"]


# ---- Memory ----


@pytest.mark.parametrize("model", ["bert", "textcnn"])
def test_a_micro_batch_in_parts_makes_the_same_step(case, model):
    whole = train(case.but(model=model, rows=22))
    cramped = train(case.but(model=model, rows=22, settings=Cramped(fitting=5)))
    assert_same_weights(cramped, whole, **CLOSE)
    assert cramped["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert cramped["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-4)
    assert [log["batch_parts"] for log in cramped["logs"]] == [4, 4, 4, 4]
    assert [sum(batch) for batch in whole["batches"]] == [sum(batch) for batch in cramped["batches"]]


def test_the_micro_batches_before_it_are_computed_again(case):
    # In the second step; its first micro-batch of three fits, the others do not.
    whole = train(case.but(batch_size=6, accumulation=3))
    cramped = train(case.but(batch_size=6, accumulation=3, settings=Cramped(fitting=5, from_step=1)))
    assert_same_weights(cramped, whole, **CLOSE)
    assert [log.get("batch_parts") for log in cramped["logs"]] == [None, 2, 2, 2]


def test_a_resumed_run_keeps_the_parts(case, tmp_path):
    cramped = case.but(settings=Cramped(fitting=4, from_step=1), save_steps=1, dropout=0.1, sampling="random")
    whole = train(cramped.but(output_dir=str(tmp_path / "whole")))
    assert launch(cramped.but(kill_at_step=3)) == [None]
    resumed = train(cramped.but(resume=True))
    assert_same_weights(resumed, whole)
    assert resumed["logs"][-1]["batch_parts"] == 4


def test_a_row_that_does_not_fit_ends_the_run(case):
    report = launch(case.but(settings=Cramped(fitting=0)))[0]
    assert report["error"].startswith("OutOfMemoryError")
