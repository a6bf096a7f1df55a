"""The list of trials that processes share, with processes that really die."""

import os
import random
import signal
import sys
import time
import traceback
from collections import Counter

import optuna
import pytest

from hf_ext import TrialQueue, open_study
from hf_ext.experiments import search_queue
from hf_ext.experiments.search_queue import heartbeat
from hf_ext.experiments.shared_storage import claim_lock

SIZE = 6
GRID = [{"x": float(number)} for number in range(SIZE)]
STORAGES = pytest.mark.parametrize("file", ["study.db", "study.log"])


def make_queue(path, size=SIZE, method="grid"):
    study = open_study(str(path), "study", False, None)
    sampler = optuna.samplers.TPESampler if method == "tpe" else optuna.samplers.RandomSampler
    fixed = GRID.__getitem__ if method == "grid" else lambda slot: {}
    return TrialQueue(study, size, lambda slot: sampler(seed=slot), fixed, claim_lock(str(path)))


def draw(trial, method="grid"):
    if method == "grid":
        return trial.suggest_categorical("x", [point["x"] for point in GRID])
    return trial.suggest_float("x", 0, 5)


def work(queue, method="grid", before=lambda slot: None):
    """Run trials until none is left; the slots that were run here."""
    done = []
    while (trial := queue.claim()) is not None:
        x = draw(trial, method)
        before(trial.user_attrs["slot"])
        done.append(trial.user_attrs["slot"])
        queue.finish(trial, (x - 2) ** 2)
    return done


def values(queue):
    return {slot: attempts[-1].value for slot, attempts in queue.trials().items()}


def in_child(function):
    """Start a function in a process of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
    return pid


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@STORAGES
def test_each_is_run_once(tmp_path, file):
    queue = make_queue(tmp_path / file)
    assert work(queue) == list(range(SIZE))
    assert values(queue) == {slot: (slot - 2.0) ** 2 for slot in range(SIZE)}
    assert queue.claim() is None
    assert work(make_queue(tmp_path / file)) == []


@STORAGES
def test_processes_take_different_trials(tmp_path, file):
    def worker(number):
        generator = random.Random(number)
        done = work(make_queue(tmp_path / file), before=lambda slot: time.sleep(generator.uniform(0.02, 0.1)))
        (tmp_path / f"done-{number}").write_text(" ".join(map(str, done)))

    children = [in_child(lambda number=number: worker(number)) for number in range(4)]
    assert [wait(pid) for pid in children] == [0, 0, 0, 0]
    done = [(tmp_path / f"done-{number}").read_text().split() for number in range(4)]
    assert Counter(slot for slots in done for slot in slots) == {str(slot): 1 for slot in range(SIZE)}
    assert values(make_queue(tmp_path / file)) == {slot: (slot - 2.0) ** 2 for slot in range(SIZE)}


@STORAGES
@pytest.mark.parametrize("method", ["grid", "random", "tpe"])
def test_a_killed_search_goes_on_as_if_nothing_had_been(tmp_path, file, method):
    whole = make_queue(tmp_path / f"whole-{file}", method=method)
    work(whole, method)

    def killed():
        work(make_queue(tmp_path / file, method=method), method, lambda slot: die() if slot == 3 else None)

    assert wait(in_child(killed)) == -signal.SIGKILL
    queue = make_queue(tmp_path / file, method=method)
    assert work(queue, method) == [4, 5, 3]
    assert [len(attempts) for attempts in queue.trials().values()] == [1, 1, 1, 2, 1, 1]
    first, second = queue.trials()[3]
    assert first.params == second.params and first.state.name == "FAIL"
    if method != "tpe":
        # TPE learns from the trials before, of which there is one less for a while.
        assert values(queue) == values(whole)


def test_what_kills_its_process_each_time_is_left_in_the_end(tmp_path):
    path = tmp_path / "study.db"
    for _ in range(search_queue.ATTEMPTS):
        killed = in_child(lambda: work(make_queue(path), before=lambda slot: die() if slot == 1 else None))
        assert wait(killed) == -signal.SIGKILL
    queue = make_queue(path)
    work(queue)
    last = queue.trials()[1][-1]
    assert last.state.name == "FAIL"
    assert "has ended 3 times" in last.user_attrs["reason"] and "memory" in last.user_attrs["reason"]
    assert {slot for slot, value in values(queue).items() if value is not None} == {0, 2, 3, 4, 5}


def test_an_interrupted_trial_is_run_again_however_often(tmp_path):
    queue = make_queue(tmp_path / "study.db", size=1)
    for _ in range(search_queue.ATTEMPTS + 1):
        trial = queue.claim()
        draw(trial)
        queue.give_back(trial)
    assert work(queue) == [0]


def test_failed_and_pruned_trials_are_not_run_again(tmp_path):
    queue = make_queue(tmp_path / "study.db", size=3)
    for end in (queue.fail, queue.prune):
        trial = queue.claim()
        draw(trial)
        end(trial, "no good")
    assert work(queue) == [2]
    assert [attempts[-1].user_attrs.get("reason") for attempts in queue.trials().values()] == ["no good"] * 2 + [None]


def test_a_study_grows(tmp_path):
    assert work(make_queue(tmp_path / "study.db", size=2)) == [0, 1]
    queue = make_queue(tmp_path / "study.db", size=4)
    assert queue.planned() == 2
    assert work(queue) == [2, 3]
    assert queue.planned() == 4


def test_what_is_planned_twice_is_run_once(tmp_path):
    queue = make_queue(tmp_path / "study.db", size=2)
    queue.plan()
    for slot in range(2):
        queue.study.enqueue_trial(GRID[slot], user_attrs={"slot": slot})
    assert work(queue) == [0, 1]
    assert len(queue.study.trials) == 4
    assert [len(attempts) for attempts in queue.trials().values()] == [1, 1]


@pytest.mark.parametrize(("silent_s", "released"), [(5, False), (search_queue.SILENCE_S + 5, True)])
def test_a_process_of_another_machine(tmp_path, monkeypatch, silent_s, released):
    queue = make_queue(tmp_path / "study.db", size=1)
    trial = queue.claim()
    trial.set_user_attr("worker", {"host": "elsewhere", "pid": os.getpid(), "since": 0})
    now = time.time() + 10_000
    trial.set_user_attr("alive", now - silent_s)
    monkeypatch.setattr(search_queue.time, "time", lambda: now)
    assert (queue.claim() is not None) == released


def test_another_process_with_the_same_number(tmp_path):
    """After a restart of the machine the number may be another program's."""
    queue = make_queue(tmp_path / "study.db", size=1)
    trial = queue.claim()
    assert queue.claim() is None
    trial.set_user_attr("worker", {**trial.user_attrs["worker"], "since": 1.0})
    assert queue.claim() is not None


def test_the_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(search_queue, "HEARTBEAT_S", 0.02)
    queue = make_queue(tmp_path / "study.db", size=1)
    trial = queue.claim()
    before = time.time()
    with heartbeat(trial):
        time.sleep(0.5)
    alive = queue.study.trials[0].user_attrs["alive"]
    assert before < alive <= time.time()
    time.sleep(0.1)
    assert queue.study.trials[0].user_attrs["alive"] == alive
