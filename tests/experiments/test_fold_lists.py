"""Lists of folds: each is had by one process at a time, whatever the storage and whoever dies."""

import os
import time
from types import SimpleNamespace

import pytest
from starting import exit_code_of, process_context

from hf_ext import OwnFolds, SharedFolds, open_storage
from hf_ext.experiments import fold_lists

# The URL of an empty database of a server, if there is one to test with: postgresql+psycopg2://...
DATABASE = "HF_EXT_TEST_DATABASE"


@pytest.fixture(params=["folds.log", "folds.db", DATABASE])
def storage(request, tmp_path):
    if request.param != DATABASE:
        yield str(tmp_path / request.param)
        return
    if DATABASE not in os.environ:
        pytest.skip(f"{DATABASE} names no database")
    yield os.environ[DATABASE]
    opened = open_storage(os.environ[DATABASE])
    for study in opened.get_all_studies():
        opened.delete_study(study._study_id)


@pytest.fixture
def clock(monkeypatch):
    """What this process takes for the time; it stands still unless a test moves it on."""
    now = [0.0]
    monkeypatch.setattr(fold_lists, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
    return now


def shared(storage, timeout=60.0, name="a list", numbers=range(3)):
    return SharedFolds(open_storage(storage), name, numbers, timeout)


def test_a_list_of_ones_own():
    folds = OwnFolds([4, 2])
    assert folds.open() == 2
    assert (folds.take(), folds.take(), folds.take()) == (4, 2, None)
    folds.release(2)
    assert folds.take() == 2
    folds.finish(2)
    assert folds.open() == 1 and folds.take_results() and folds.beat() == []


def test_two_take_different_folds(storage):
    one, other = shared(storage), shared(storage)
    assert [one.take(), other.take(), one.take(), other.take()] == [0, 1, 2, None]
    one.release(2)
    assert other.take() == 2 and one.take() is None
    for folds, number in ((one, 0), (other, 1), (other, 2)):
        assert one.open() == 3 - number
        folds.finish(number)
    assert one.open() == other.open() == 0
    # Another list in the same storage.
    assert shared(storage, name="another").take() == 0


def test_one_of_them_writes_the_results(storage):
    one, other = shared(storage, 2.5), shared(storage, 2.5)
    assert one.take_results()
    one.finish_results()
    assert not other.take_results()


def test_who_shows_no_life_loses_its_fold(storage, clock):
    # Only the time that has passed since the last change counts, not any clock.
    one, other = shared(storage, 2.0), shared(storage, 2.0)
    assert one.take() == 0
    assert other.take() == 1
    for _ in range(4):
        clock[0] += 0.7
        assert one.beat() == other.beat() == []
    assert [other.take(), other.take()] == [2, None]
    for _ in range(4):
        clock[0] += 0.7
        other.beat()
    assert other.take() == 0
    # It wakes up.
    assert one.beat() == [0]
    assert one.take() is None
    one.release(0)
    other.finish(0)
    assert one.open() == 2


def test_the_first_claim_counts(storage):
    """A claim that another process sees before it has looked whether its own is the first."""
    one, other = shared(storage), shared(storage)
    plain = one._claims

    def late():
        one._claims = plain
        # Made after one's claim, before one looks.
        assert not other._claim(0)
        return plain()

    one._claims = late
    assert one._claim(0)
    assert other.take() == 1


def _take_all(storage, numbers, record):
    folds = shared(storage, numbers=numbers)
    while (number := folds.take()) is not None:
        with open(record, "a") as file:
            file.write(f"{number}\n")
        folds.finish(number)


def test_processes_that_race_take_each_fold_once(storage, tmp_path):
    context, numbers = process_context(), list(range(20))
    processes = [context.Process(target=_take_all, args=(storage, numbers, str(tmp_path / "record"))) for _ in range(3)]
    for process in processes:
        process.start()
    assert [exit_code_of(process) for process in processes] == [0, 0, 0]
    assert sorted(map(int, (tmp_path / "record").read_text().split())) == numbers


def _take_and_wait(storage, ready):
    folds = shared(storage)
    ready.put(folds.take())
    while True:
        time.sleep(0.3)
        folds.beat()


def test_a_killed_process_is_succeeded(storage, clock):
    context = process_context()
    ready = context.Queue()
    process = context.Process(target=_take_and_wait, args=(storage, ready))
    process.start()
    assert ready.get(timeout=300) == 0
    folds = shared(storage, 2.0)
    assert folds.take() == 1

    def beats():
        trials = folds._storage.get_all_trials(folds._study)
        return next(trial.user_attrs.get("beat", 0) for trial in trials if trial.user_attrs["fold"] == 0)

    for _ in range(4):
        # As long as it lives, its fold is its own.
        before, end = beats(), time.monotonic() + 60
        while beats() == before:
            assert time.monotonic() < end
            time.sleep(0.05)
        clock[0] += 1.9
        folds.beat()
    assert [folds.take(), folds.take()] == [2, None]
    process.kill()
    exit_code_of(process)
    folds.beat()
    clock[0] += 1.9
    assert folds.take() is None
    clock[0] += 0.2
    assert folds.take() == 0
