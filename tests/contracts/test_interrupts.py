"""A training that is ended by a signal, a kill while it saves or a full disk goes on as if it had not been."""

import json
import os
import resource
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from runs import Case, assert_same_weights, launch, make_trainer, train
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from hf_ext import EarlyStoppingThresholdCallback, newest_whole_checkpoint, what_is_missing

SIGNALS = {signal.SIGTERM: ("TrainingTerminated", 143), signal.SIGINT: ("TrainingInterrupted", 130)}


class SignalAt(TrainerCallback):
    """Sends this process a signal in an event, when so many steps are made; on one rank only."""

    def __init__(self, event: str, step: int, number: int, times: int = 1):
        self.step, self.number, self.times = step, number, times
        # As in a terminal, also where the tests run in the background.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        setattr(self, event, self._send)

    def _send(self, args, state, control, **kwargs):
        if state.global_step == self.step and args.process_index == args.world_size - 1:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


def case_of(folder: Path, **changes) -> Case:
    # 8 steps an epoch, 16 in all.
    return Case(output_dir=str(folder), rows=64, batch_size=2, accumulation=4, dropout=0.1, save_steps=5).but(**changes)


EVERY_EPOCH = {"eval_strategy": "epoch"}


@pytest.mark.parametrize(
    ("event", "made", "saved", "number", "world_size", "arguments"),
    [
        ("on_substep_end", 5, 6, signal.SIGTERM, 1, {}),
        ("on_pre_optimizer_step", 5, 6, signal.SIGINT, 1, {}),
        ("on_evaluate", 6, 6, signal.SIGTERM, 1, {"eval_strategy": "steps", "eval_steps": 3}),
        ("on_evaluate", 8, 8, signal.SIGINT, 1, EVERY_EPOCH),
        ("on_step_end", 8, 8, signal.SIGTERM, 1, EVERY_EPOCH),
        ("on_save", 5, 5, signal.SIGTERM, 1, {}),
        ("on_substep_end", 5, 6, signal.SIGTERM, 2, {}),
        ("on_step_begin", 9, 10, signal.SIGINT, 2, EVERY_EPOCH),
    ],
)
def test_a_signal_ends_after_the_step_with_a_checkpoint(tmp_path, event, made, saved, number, world_size, arguments):
    case = case_of(tmp_path / "whole", batch_size=2 // world_size, arguments=arguments)
    whole = train(case, world_size)
    case = case.but(output_dir=str(tmp_path / "ended"))
    reports = launch(case.but(callbacks=(partial(SignalAt, event, made, number),)), world_size)
    kind, status = SIGNALS[number]
    for report in reports:
        assert report["error"].startswith(
            f"{kind}: {signal.Signals(number).name} has ended the training after step {saved}"
        )
        assert f"checkpoint-{saved} is saved" in report["error"]
        assert "--resume_from_checkpoint true" in report["error"]
        assert report["status"] == status
    assert get_last_checkpoint(case.output_dir).endswith(f"checkpoint-{saved}")
    resumed = train(case.but(resume=True), world_size)
    assert resumed["steps"] == whole["steps"] == 16
    assert_same_weights(whole, resumed)
    assert_same_evaluations(tmp_path / "whole", tmp_path / "ended")


def assert_same_evaluations(one: Path, other: Path) -> None:
    logs = [torch.load(path / "reports" / "0.pt", weights_only=False)["logs"] for path in (one, other)]
    assert logs[0][-1]["loss"] == logs[1][-1]["loss"]


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    ended = case_of(tmp_path, callbacks=(partial(SignalAt, "on_substep_end", 6, signal.SIGINT, 2),))
    # A plain KeyboardInterrupt is nobody's report.
    assert launch(ended) == [None]
    assert get_last_checkpoint(str(tmp_path)).endswith("checkpoint-5")


def test_a_signal_in_the_last_step_leaves_a_run_that_is_over(tmp_path):
    whole = train(case_of(tmp_path / "whole"))
    case = case_of(tmp_path / "ended")
    (report,) = launch(case.but(callbacks=(partial(SignalAt, "on_step_end", 16, signal.SIGTERM),)))
    assert "after step 16 of 16" in report["error"]
    resumed = train(case.but(resume=True))
    assert resumed["batches"] == []
    assert_same_weights(whole, resumed)


def test_without_checkpoints_a_signal_does_what_it_did_before(tmp_path):
    ended = case_of(tmp_path, save_steps=0, callbacks=(partial(SignalAt, "on_step_end", 3, signal.SIGTERM),))
    assert launch(ended) == [None]


@pytest.fixture
def terminal():
    """Ctrl-C as in a terminal, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_handlers_are_there_while_it_trains_and_not_afterwards(tmp_path, terminal):
    before = [signal.getsignal(number) for number in SIGNALS]
    seen = []

    class Seen(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append([signal.getsignal(number) for number in SIGNALS])

    trainer = make_trainer(case_of(tmp_path, epochs=1))
    trainer.add_callback(Seen())
    trainer.train()
    assert all(now != then for now, then in zip(seen[0], before, strict=True))
    assert [signal.getsignal(number) for number in SIGNALS] == before
    trainer = make_trainer(case_of(tmp_path, epochs=1, callbacks=(partial(Failing, 2),)))
    with pytest.raises(RuntimeError, match="in step 2"):
        trainer.train()
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_signal_that_is_ignored_stays_ignored(tmp_path, terminal):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    trainer = make_trainer(case_of(tmp_path, epochs=1))
    trainer.add_callback(SendSelf())
    trainer.train()
    assert trainer.state.global_step == 8


class SendSelf(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)


class Failing(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise RuntimeError(f"in step {self.step}")


def test_the_checkpoint_of_an_epochs_last_step_holds_its_evaluation(tmp_path):
    train(case_of(tmp_path, save_steps=8, epochs=1, arguments=EVERY_EPOCH))
    history = json.loads((tmp_path / "checkpoint-8/trainer_state.json").read_text())["log_history"]
    assert [log["step"] for log in history if "eval_loss" in log] == [8]


# ---- Runs that are over ----


def test_a_run_of_max_steps_makes_no_more_when_it_is_resumed(tmp_path):
    case = case_of(tmp_path, arguments={"max_steps": 13})
    whole = train(case)
    resumed = train(case.but(resume=True))
    assert whole["steps"] == resumed["steps"] == 13
    assert_same_weights(whole, resumed)


def test_a_run_that_stopped_early_makes_no_more_when_it_is_resumed(tmp_path):
    stopping = partial(EarlyStoppingThresholdCallback, metric="loss", patience=1, threshold=10.0)
    case = case_of(tmp_path, callbacks=(stopping,), arguments={"eval_strategy": "steps", "eval_steps": 5})
    whole = train(case)
    resumed = train(case.but(resume=True))
    assert whole["steps"] == resumed["steps"] < 16
    assert_same_weights(whole, resumed)


# ---- While it saves ----


class KillBeforeFile:
    """Ends the process, as by a power cut, when a checkpoint's file is to be written."""

    def __init__(self, name: str, step: int):
        self.name, self.step = name, step

    def __call__(self, case: Case) -> dict:
        import transformers.trainer as module

        plain_save, plain_json = torch.save, module.TrainerState.save_to_json

        def save(content, path, *args, **kwargs):
            self._kill_at(str(path))
            return plain_save(content, path, *args, **kwargs)

        def save_to_json(state, path):
            self._kill_at(str(path))
            return plain_json(state, path)

        torch.save, module.TrainerState.save_to_json = save, save_to_json
        return {}

    def _kill_at(self, path: str) -> None:
        if f"checkpoint-{self.step}/" in path and path.endswith(self.name):
            # Half of it is there.
            Path(path).write_bytes(b"PK")
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "trainer_state.json"])
def test_killed_while_it_saves(tmp_path, name):
    best = {"eval_strategy": "steps", "eval_steps": 5, "load_best_model_at_end": True, "save_total_limit": 1}
    whole = train(case_of(tmp_path / "whole", arguments=best))
    case = case_of(tmp_path / "killed", arguments=best)
    assert launch(case.but(settings=KillBeforeFile(name, 10))) == [None]
    assert {path.name for path in (tmp_path / "killed").glob("*point-*")} == {"checkpoint-5"}
    assert (tmp_path / "killed/.partial/checkpoint-10").is_dir()
    resumed = train(case.but(resume=True))
    assert_same_weights(whole, resumed)
    assert not (tmp_path / "killed/.partial").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt"])
def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, name):
    whole = train(case_of(tmp_path / "whole"))
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "whole/checkpoint-10").iterdir()}
    # All but the file in question, and what is larger, is written.
    limit = sizes[name] - 1000
    assert limit > 200_000, "what the runs report and print would not be written either"
    case = case_of(tmp_path / "full")
    (report,) = launch(case.but(callbacks=(partial(FullDisk, 7, limit),)))
    assert report["error"].startswith("StorageError: ")
    for said in ("checkpoint-10 could not be written", "checkpoint-5 stays", "free", "--resume_from_checkpoint true"):
        assert said in report["error"]
    assert {path.name for path in (tmp_path / "full").iterdir()} == {"checkpoint-5", "reports"}
    assert what_is_missing(tmp_path / "full/checkpoint-5") is None
    assert_same_weights(whole, train(case.but(resume=True)))


class FullDisk(TrainerCallback):
    """From a step on no file can grow beyond a limit."""

    def __init__(self, step: int, limit: int):
        self.step, self.limit = step, limit

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.limit))


# ---- Processes ----


def test_another_number_of_processes_is_refused(tmp_path):
    train(case_of(tmp_path, epochs=1))
    for report in launch(case_of(tmp_path, resume=True), 2):
        assert "ConfigurationError" in report["error"]
        assert "was saved by 1 process, but this run has 2 processes" in report["error"]
    checkpoint, left_out = newest_whole_checkpoint(tmp_path)
    assert checkpoint.name == "checkpoint-8"
    assert not left_out
