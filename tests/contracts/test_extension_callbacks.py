"""What a callback answers takes effect, or raises."""

from pathlib import Path

import pytest
import torch
from runs import Case, launch, make_trainer, train
from torch.utils.data import Sampler

from hf_ext import DistillationTrainer, ExtendedTrainer, ExtensionCallback, MultiTaskTrainer, layer_groups


class HeadOnly(ExtensionCallback):
    def learning_rate_scales(self, groups, args):
        return {group: 1.0 if group == "head" else 0.0 for group in groups}


class Reversed(Sampler):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter(range(self.length - 1, -1, -1))


class LastRowsFirst(ExtensionCallback):
    def train_sampler(self, dataset, args):
        return Reversed(len(dataset))


class Count(ExtensionCallback):
    def __init__(self):
        self.steps = 0

    def on_step_end(self, args, state, control, **kwargs):
        self.steps += 1

    def metrics(self):
        return {"steps_counted": self.steps}


class ClashingName(ExtensionCallback):
    def metrics(self):
        return {"loss": 0.0}


@pytest.fixture
def case(tmp_path):
    return Case(output_dir=str(tmp_path))


@pytest.mark.parametrize("sparse", [None, False])
@pytest.mark.parametrize("model", ["bert", "textcnn"])
def test_learning_rate_scales_decide_what_moves(case, model, sparse):
    case = case.but(model=model, sparse=sparse, callbacks=(HeadOnly,))
    trainer = make_trainer(case)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    head = layer_groups(trainer.model)["head"]
    after = train(case)
    moved = {name for name, value in after["weights"].items() if not torch.equal(value, before[name])}
    assert moved == set(head)
    # Linear decay over 4 steps from 1e-3; the log shows the rate that the step was made with.
    assert [log["learning_rate/head"] for log in after["logs"]] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    assert all(log["learning_rate/embeddings"] == 0 for log in after["logs"])
    assert all(log["learning_rate"] == log["learning_rate/head"] for log in after["logs"])


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_sampler_decides_the_order(case, world_size):
    report = train(case.but(callbacks=(LastRowsFirst,), batch_size=4, rows=16, epochs=1), world_size)
    plain = train(case.but(batch_size=4, rows=16, epochs=1), 1)
    expected = [row for batch in plain["batches"] for row in batch][::-1]
    # Batches are dealt to the processes in turn.
    assert report["batches"][0] == expected[:4]
    assert report["batches"][1] == expected[4 * world_size : 4 * world_size + 4]


def test_metrics_reach_the_log_history(case):
    logs = train(case.but(callbacks=(Count,)))["logs"]
    assert [log["steps_counted"] for log in logs] == [1, 2, 3, 4]


def test_metrics_and_group_rates_reach_tensorboard(case):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(case.but(callbacks=(Count, HeadOnly), arguments={"report_to": "tensorboard"}))
    # The evaluation after training opens a file of its own beside the first.
    folder = next(Path(case.output_dir).rglob("events.out.tfevents.*")).parent
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    assert [event.value for event in accumulator.Scalars("train/steps_counted")] == [1, 2, 3, 4]
    rates = [event.value for event in accumulator.Scalars("train/learning_rate/head")]
    assert rates == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])


def test_a_metric_that_hides_another_raises(case):
    (report,) = launch(case.but(callbacks=(ClashingName,)))
    assert "ClashingName reports loss, which this log already holds" in report["error"]


@pytest.mark.parametrize("callback", [HeadOnly, LastRowsFirst, Count])
def test_a_plain_trainer_does_not_ignore_it(case, callback):
    (report,) = launch(case.but(trainer="plain", callbacks=(callback,)))
    assert f"{callback.__name__} answers" in report["error"]
    assert "hf_ext.ExtendedTrainer" in report["error"]


@pytest.mark.parametrize("callback", [HeadOnly, LastRowsFirst])
def test_two_answers_to_one_question_raise(case, callback):
    other = type("Other", (callback,), {})
    with pytest.raises(ValueError, match=f"{callback.__name__} and Other both answer"):
        make_trainer(case.but(callbacks=(callback, other))).train()


@pytest.mark.skipif(torch.cuda.is_available(), reason="on GPUs they find each other")
def test_processes_that_would_train_separate_models_raise(case):
    reports = launch(case.but(use_cpu=False), world_size=2)
    for report in reports:
        assert "2 processes were launched, but each sees a world of 1" in report["error"]
        assert "--use_cpu" in report["error"]


def test_every_trainer_is_covered():
    import inspect

    import transformers

    import hf_ext

    trainers = {
        value for value in vars(hf_ext).values() if inspect.isclass(value) and issubclass(value, transformers.Trainer)
    }
    # The last two in test_distillation.py and test_multitask.py.
    assert trainers == {ExtendedTrainer, DistillationTrainer, MultiTaskTrainer}
