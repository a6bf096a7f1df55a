"""Several processes train on each row once, also where the rows do not divide by them, and on streams."""

from functools import partial

import pytest
from runs import Case, assert_same_weights, collate, launch, make_model, make_rows, make_trainer, train
from torch.utils.data import DataLoader, IterableDataset

from hf_ext import ConfigurationError, ExtendedTrainer, GradualUnfreezingCallback
from hf_ext.trainers.rank_rows import RankCollator, RankRows

EXACT = {"rtol": 1e-4, "atol": 2e-6}


class Rows(IterableDataset):
    """A stream in another order in each epoch; it tells its length if it is to."""

    def __init__(self, case):
        self.rows, self.epoch = make_rows(case), 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        turn = 5 * self.epoch % len(self.rows)
        return iter(self.rows[turn:] + self.rows[:turn])


class CountedRows(Rows):
    def __len__(self):
        return len(self.rows)


def stream(case, kind=CountedRows):
    return {"train_dataset": kind(case), "eval_dataset": make_rows(case)}


@pytest.fixture
def case(tmp_path):
    return Case(output_dir=str(tmp_path), epochs=3, sparse=False)


# 35 rows: the last 3 are those of the first process; 43: 8 and 3.
@pytest.mark.parametrize(("rows", "accumulation"), [(35, 1), (43, 2)])
def test_rows_that_do_not_divide_count_once(case, rows, accumulation):
    case = case.but(rows=rows, accumulation=accumulation)
    one, two = train(case), train(case.but(batch_size=8), world_size=2)
    assert one["steps"] == two["steps"]
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)
    assert_same_weights(one, two, **EXACT)


def test_a_stream_is_dealt_out(case):
    case = case.but(rows=35, settings=stream)
    one = train(case)
    reports = launch(case.but(batch_size=8), world_size=2)
    assert_same_weights(one, reports[0], **EXACT)
    # What each process got, step by step, are the rows of one process; only a process without rows has one of another.
    for step, whole in enumerate(one["batches"]):
        mine, other = (report["batches"][step] for report in reports)
        assert sorted(mine + (other if len(whole) > 8 else [])) == sorted(whole)


def test_a_stream_without_a_length(case):
    case = case.but(rows=35, settings=partial(stream, kind=Rows), arguments={"max_steps": 7})
    assert_same_weights(train(case), train(case.but(batch_size=8), world_size=2), **EXACT)


# In the middle of the second epoch, and behind its last batch, of which the second process has no row.
@pytest.mark.parametrize(("world_size", "step"), [(1, 4), (2, 5), (2, 6)])
def test_a_stream_resumes_where_it_was(case, world_size, step):
    arguments = {"save_total_limit": 1, "max_steps": 8}
    case = case.but(rows=35, settings=stream, batch_size=16 // world_size, dropout=0.1, arguments=arguments)
    whole = train(case.but(output_dir=case.output_dir + "/whole"), world_size)
    killed = case.but(kill_at_step=step, save_steps=step - 1)
    launch(killed, world_size)
    resumed = train(killed.but(kill_at_step=0, resume=True), world_size)
    assert resumed["batches"] == whole["batches"][step - 1 :]
    assert_same_weights(whole, resumed)


def test_two_workers_of_a_loader_leave_the_marks_in_place():
    rows = [{"input_ids": [1], "labels": number} for number in range(5)]
    loader = DataLoader(RankRows(Listed(rows), 4, 2, 1), batch_size=4, collate_fn=RankCollator(collate), num_workers=1)
    batches = list(loader)
    assert [batch["labels"].tolist() for batch in batches] == [[4]]
    assert [int(batch["hf_ext_own_rows"]) for batch in batches] == [1]


class Listed(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def evaluate_stream(case, arguments, callbacks):
    trainer = ExtendedTrainer(
        model=make_model(case), args=arguments, train_dataset=make_rows(case), data_collator=collate
    )
    trainer.evaluate(CountedRows(case))
    raise AssertionError("it was evaluated")


def test_a_stream_to_evaluate_is_refused(case):
    reports = launch(case.but(trainer=evaluate_stream), world_size=2)
    for report in reports:
        assert report["error"].startswith("ConfigurationError: The rows to evaluate are a stream, and there are 2")


# ---- Sharded models ----


def test_fsdp_that_would_be_ignored_is_refused(case, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigurationError, match="The launcher asks for FSDP, which the device cpu does not do"):
        make_trainer(case)


@pytest.mark.parametrize("kind", ["fsdp", "deepspeed"])
def test_freezing_is_refused_where_parameters_are_sharded(case, kind):
    trainer = make_trainer(case.but(callbacks=(GradualUnfreezingCallback,)))
    # What the Trainer finds out of accelerate's state, where there are GPUs.
    setattr(trainer, f"is_{kind}_enabled", True)
    with pytest.raises(ConfigurationError, match="Layers that are frozen for a time do not go with"):
        trainer.train()
