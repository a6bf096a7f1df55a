"""The trials of a study as a list that several processes share and that outlives them."""

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime
from typing import Any

import psutil

HEARTBEAT_S = 60
# A process of another machine that has not been heard of for so long has died.
SILENCE_S = 600
# How often a trial is begun whose process dies each time, as it does where memory ends.
ATTEMPTS = 3
# By how much two readings of when a process began may differ.
CLOCK_S = 5


class TrialQueue:
    """
    Trials 1 to `size` of a study, each to be run once, whichever process it is that runs it.

    All of them stand in the study before the first is run, so that processes take them from one list. A trial whose
    process has died (on the same machine: at once; on another: after ten minutes of silence) is run again with the same
    parameters; after three deaths it counts as failed. What is planned twice, by processes that begin at the same time,
    is dropped when its turn comes.

    Args:
        study (`optuna.Study`): From [`open_study`].
        size (`int`): How many trials.
        sampler (`Callable[[int], optuna.samplers.BaseSampler]`): Of each trial, by its number from 0: what it draws is
            then the same in whichever process, and after a restart.
        fixed (`Callable[[int], dict]`): The parameters of each trial that are not drawn.
        lock (context manager, *optional*): Held while a trial is taken; see [`claim_lock`].
    """

    def __init__(
        self,
        study: Any,
        size: int,
        sampler: Callable[[int], Any],
        fixed: Callable[[int], dict[str, Any]],
        lock: AbstractContextManager | None = None,
    ) -> None:
        self.study, self.size, self.sampler, self.fixed = study, size, sampler, fixed
        self.lock = nullcontext() if lock is None else lock

    def plan(self) -> bool:
        """
        Release trials whose process has died, and put those into the study that are still to be run.

        Returns:
            `bool`: Whether any is waiting.
        """
        slots = self._slots()
        dead = [
            (slot, trial)
            for slot, trials in slots.items()
            for trial in trials
            if trial.state.name == "RUNNING" and not _is_alive(trial)
        ]
        for slot, trial in dead:
            self._release(slot, trial, slots[slot])
        slots = self._slots() if dead else slots
        missing = [slot for slot in range(self.size) if all(map(_is_abandoned, slots.get(slot, [])))]
        for slot in missing:
            begun = [{**trial.system_attrs.get("fixed_params", {}), **trial.params} for trial in slots.get(slot, [])]
            self.study.enqueue_trial(begun[-1] if begun else self.fixed(slot), user_attrs={"slot": slot})
        return bool(missing) or any(trial.state.name == "WAITING" for trials in slots.values() for trial in trials)

    def claim(self) -> Any | None:
        """
        The next trial, which no other process has.

        Returns:
            `optuna.Trial` with the user attribute `slot`, its number from 0; `None` if there is none left.
        """
        with self.lock:
            return self._claim()

    def finish(self, trial: Any, value: float) -> None:
        """A trial has its value."""
        self.study.tell(trial, value)

    def prune(self, trial: Any, reason: str) -> None:
        """A trial was ended early."""
        trial.set_user_attr("reason", reason)
        self.study.tell(trial, state=_state("PRUNED"))

    def fail(self, trial: Any, reason: str) -> None:
        """A trial has failed, and would again."""
        trial.set_user_attr("reason", reason)
        self.study.tell(trial, state=_state("FAIL"))

    def give_back(self, trial: Any) -> None:
        """A trial was interrupted, and is to be run again."""
        trial.set_user_attr("interrupted", True)
        self.study.tell(trial, state=_state("FAIL"))

    def planned(self) -> int:
        """How many trials the study was made for so far."""
        return max(self._slots(), default=-1) + 1

    def trials(self) -> dict[int, list[Any]]:
        """Trial, from 0 -> all attempts at it, the one that counts last."""
        order = {"WAITING": 0, "RUNNING": 1}
        return {
            slot: sorted(trials, key=lambda trial: (not _is_abandoned(trial), order.get(trial.state.name, 2)))
            for slot, trials in sorted(self._slots().items())
        }

    # ---- Inside ----

    def _claim(self) -> Any | None:
        from optuna.samplers import RandomSampler

        while self.plan():
            self.study.sampler = RandomSampler()
            trial = self.study.ask()
            slot = trial.user_attrs.get("slot")
            if slot is None or self._is_taken(slot, trial.number):
                trial.set_user_attr("dropped", True)
                self.study.tell(trial, state=_state("FAIL"))
                continue
            trial.set_user_attr("worker", _this_process())
            self.study.sampler = self.sampler(slot)
            return trial
        return None

    def _slots(self) -> dict[int, list[Any]]:
        slots: dict[int, list[Any]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if "slot" in trial.user_attrs and "dropped" not in trial.user_attrs:
                slots.setdefault(trial.user_attrs["slot"], []).append(trial)
        return slots

    def _is_taken(self, slot: int, number: int) -> bool:
        trials = {trial.number: trial for trial in self._slots()[slot]}
        begun = (trials[number].datetime_start, number)
        return any(
            other.state.name != "WAITING"
            and not _is_abandoned(other)
            and (other.state.is_finished() or (other.datetime_start, other.number) < begun)
            for other in trials.values()
            if other.number != number
        )

    def _release(self, slot: int, trial: Any, trials: list[Any]) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import create_trial

        try:
            self.study.tell(trial.number, state=_state("FAIL"))
        except (ValueError, UpdateFinishedTrialError):
            return  # Another process was faster.
        deaths = 1 + sum(_is_abandoned(other) and "interrupted" not in other.user_attrs for other in trials)
        if deaths >= ATTEMPTS:
            reason = f"the process that ran it has ended {deaths} times without a word, as it does where memory ends"
            self.study.add_trial(
                create_trial(
                    state=_state("FAIL"),
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs={"slot": slot, "reason": reason},
                )
            )


@contextmanager
def heartbeat(trial: Any):
    """Shows other machines, for as long as it lasts, that a trial's process is alive."""
    ended = threading.Event()

    def beat():
        while not ended.wait(HEARTBEAT_S):
            # A storage that is busy now is asked again in a minute.
            with suppress(Exception):
                trial.set_user_attr("alive", time.time())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": psutil.Process().create_time()}


def _is_alive(trial: Any) -> bool:
    worker = trial.user_attrs.get("worker")
    if worker is not None and worker["host"] == socket.gethostname():
        try:
            process = psutil.Process(worker["pid"])
            ended = process.status() == psutil.STATUS_ZOMBIE
            return not ended and abs(process.create_time() - worker["since"]) < CLOCK_S
        except psutil.NoSuchProcess:
            return False
    begun = trial.datetime_start or datetime.now()
    return time.time() - max(begun.timestamp(), trial.user_attrs.get("alive", 0.0)) < SILENCE_S


def _is_abandoned(trial: Any) -> bool:
    """Whether a trial ended without a result, by no fault of its parameters."""
    return trial.state.name == "FAIL" and "reason" not in trial.user_attrs
