"""A process that dies ends the others, soon and with a message that helps."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from runs import Case, launch
from transformers import TrainerCallback

from hf_ext import DataError
from hf_ext.errors import readable_errors
from hf_ext.lost_process import LostProcessError, lost_process


class Dies(TrainerCallback):
    """In the fifth step of process 1 only."""

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == 4 and args.process_index == 1:
            self.end()

    def end(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Fails(Dies):
    def end(self):
        raise DataError("rows.json, row 7: the label is nan")


class Hangs(TrainerCallback):
    """In the fifth step of process 1, until the other one has reported."""

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == 4 and args.process_index == 1:
            said, end = Path(args.output_dir) / "reports" / "0.pt", time.monotonic() + 100
            while not said.exists() and time.monotonic() < end:
                time.sleep(0.1)


@pytest.fixture
def case(tmp_path):
    return Case(output_dir=str(tmp_path), batch_size=8, epochs=6, save_steps=2)


@pytest.mark.parametrize("ends", [Dies, Fails])
def test_the_others_end_too(case, ends):
    started = time.monotonic()
    first, second = launch(replace(case, callbacks=(ends,)), world_size=2)
    assert time.monotonic() - started < 60
    said = first["error"]
    assert said.startswith("LostProcessError: Process 0 of 2 (counted from 0) has lost process 1 in step "), second
    if ends is Dies:
        assert second is None
    else:
        assert second["error"] == "DataError: rows.json, row 7: the label is nan"
    assert f"Go on from {case.output_dir}/checkpoint-4 with the same command and --resume_from_checkpoint true." in said


def test_one_that_hangs_is_noticed_after_the_timeout(case):
    # The library does not hand it on to gloo.
    first, _ = launch(case.but(callbacks=(Hangs,), arguments={"ddp_timeout": 12}), world_size=2)
    assert first["error"].startswith("LostProcessError: Process 0 of 2 (counted from 0) has lost process 1 in step ")
    assert "Timed out waiting 12000ms" in first["error"]


# ---- What a recipe shows ----


def test_a_lost_process_is_one_message(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as ended, readable_errors("run.py"):
        raise RuntimeError("[pair.cc:537] Read error [127.0.0.1]:1: Connection reset by peer")
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("run.py: error: Process 0 of 2 (counted from 0) has lost process 1: ")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert "has lost another process in step 7: " in str(lost_process(RuntimeError("broken pipe"), "in step 7"))


def test_other_errors_stay_what_they_are(monkeypatch):
    broken = RuntimeError("Connection reset by peer")
    with pytest.raises(RuntimeError, match="Connection") as raised, readable_errors("run.py"):
        # Of one process: a download, say.
        raise broken
    assert not isinstance(raised.value, LostProcessError)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="shapes"), readable_errors("run.py"):
        raise RuntimeError("shapes do not fit")


def test_other_processes_say_who_they_are(monkeypatch, capsys):
    monkeypatch.setattr("hf_ext.errors.PATIENCE_S", 0.0)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit), readable_errors("run.py"):
        raise DataError("row 7 is bad")
    assert capsys.readouterr().err == "run.py (process 1): error: row 7 is bad\n"


def test_a_checkpoint_that_is_whole_elsewhere_is_named(tmp_path):
    missing = {tmp_path / "checkpoint-8": "the random states of 1 of 2 processes are missing"}
    said = str(lost_process(RuntimeError("Connection closed by peer"), "after the last step, 8", None, missing))
    assert f"{tmp_path}/checkpoint-8 is not whole on this machine: the random states of 1 of 2 processes" in said
    assert "after the last step, 8: it has ended" in said and "begin again" in said
