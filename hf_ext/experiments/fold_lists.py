"""Which process trains which fold: a list of one's own, or one that several machines share."""

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Protocol

# Signs of life in the time after which a machine without one is taken for dead.
BEATS = 5
# Stands in the list behind the folds: whoever takes it writes the results of all.
RESULTS = -1


class FoldList(Protocol):
    """Hands out folds, each to one process at a time."""

    interval: float | None

    def take(self) -> int | None:
        """A fold that nobody has; `None` if there is none, or none at the moment."""

    def finish(self, number: int) -> None:
        """Say that a fold that was taken is finished."""

    def release(self, number: int) -> None:
        """Give back a fold that was taken."""

    def beat(self) -> list[int]:
        """Show that this process lives; the folds that it has lost to others, which took it for dead."""

    def open(self) -> int:
        """How many folds are not finished."""

    def take_results(self) -> bool:
        """Whether it falls to this process to write the results of all folds; waits until that is known."""

    def finish_results(self) -> None:
        """Say that they are written."""


class OwnFolds:
    """
    The folds of one process, in their order.

    Args:
        numbers (`Iterable[int]`): Those that are to be trained.
    """

    interval = None

    def __init__(self, numbers: Iterable[int]):
        self._left, self._held = list(numbers), set()

    def take(self) -> int | None:
        if not self._left:
            return None
        number = self._left.pop(0)
        self._held.add(number)
        return number

    def finish(self, number: int) -> None:
        self._held.remove(number)

    def release(self, number: int) -> None:
        self._held.remove(number)
        self._left.insert(0, number)

    def beat(self) -> list[int]:
        return []

    def open(self) -> int:
        return len(self._left) + len(self._held)

    def take_results(self) -> bool:
        return True

    def finish_results(self) -> None:
        """Nobody waits for them."""


class SharedFolds:
    """
    A list of folds in a storage of Optuna, from which processes on several machines take.

    A claim of a fold is a trial. The storage puts trials into one order that all processes see alike, whatever the
    backend (the lines of a journal, the rows that a database inserts under a lock), so of several claims of a fold the
    first counts, and a process whose claim is not the first withdraws it before it trains anything. A process renews
    its claims several times in `timeout`; a claim that did not change for that long, by the clock of the process that
    looks at it, is declared failed, and the fold is claimed anew. So clocks need not agree, and a fold is trained by
    two processes at once only if one of them was stopped for longer than `timeout` and then woke up: it learns from
    its next renewal that the fold is lost.

    Args:
        storage (`optuna.storages.BaseStorage`): From [`open_storage`].
        name (`str`): What all processes of a cross-validation call the list.
        numbers (`Iterable[int]`): All folds.
        timeout (`float`): Seconds without a renewal after which a claim is void.
    """

    def __init__(self, storage: Any, name: str, numbers: Iterable[int], timeout: float):
        self.numbers, self.timeout, self.interval = list(numbers), timeout, timeout / BEATS
        self._storage = storage
        self._study = _study_id(self._storage, name)
        self._own: dict[int, int] = {}
        self._seen: dict[int, tuple[int, float]] = {}
        self._beats = 0

    def take(self) -> int | None:
        claims = self._claims()
        for number in self.numbers:
            if number not in self._own and not claims.get(number) and self._claim(number):
                return number
        return None

    def finish(self, number: int) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        # If it was lost a moment ago, whoever claims the fold now finds it finished.
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(self._own.pop(number), TrialState.COMPLETE, [0.0])

    def release(self, number: int) -> None:
        if number in self._own:
            self._fail(self._own.pop(number))

    def beat(self) -> list[int]:
        from optuna.exceptions import UpdateFinishedTrialError

        self._beats += 1
        lost = []
        for number, trial in self._own.items():
            try:
                self._storage.set_trial_user_attr(trial, "beat", self._beats)
            except UpdateFinishedTrialError:
                lost.append(number)
        for number in lost:
            del self._own[number]
        # Looked at here too, so that a death is noticed while this process trains.
        self._claims()
        return lost

    def open(self) -> int:
        claims = self._claims()
        return sum(not _is_complete(claims.get(number)) for number in self.numbers)

    def take_results(self) -> bool:
        while True:
            first = self._claims().get(RESULTS)
            if _is_complete(first):
                return False
            if first is None and self._claim(RESULTS):
                return True
            time.sleep(self.interval)

    def finish_results(self) -> None:
        self.finish(RESULTS)

    # ---- Inside ----

    def _claims(self) -> dict[int, Any]:
        """The claim of each fold that counts: a finished one, or the first that is alive."""
        found: dict[int, Any] = {}
        for trial in sorted(
            self._storage.get_all_trials(self._study, deepcopy=False), key=lambda trial: trial._trial_id
        ):
            number = trial.user_attrs.get("fold")
            if trial.state.name == "COMPLETE" and not _is_complete(found.get(number)):
                found[number] = trial
            elif trial.state.name == "RUNNING":
                if not self._is_alive(trial):
                    self._fail(trial._trial_id)
                else:
                    found.setdefault(number, trial)
        return found

    def _claim(self, number: int) -> bool:
        from optuna.trial import TrialState, create_trial

        mine = self._storage.create_new_trial(
            self._study, create_trial(state=TrialState.RUNNING, user_attrs={"fold": number, "beat": 0})
        )
        self._own[number] = mine
        first = self._claims().get(number)
        if first is not None and first._trial_id == mine:
            return True
        self.release(number)
        return False

    def _is_alive(self, trial: Any) -> bool:
        if trial._trial_id in self._own.values():
            return True
        beat, now = trial.user_attrs.get("beat", 0), time.monotonic()
        if self._seen.get(trial._trial_id, (None,))[0] != beat:
            self._seen[trial._trial_id] = (beat, now)
        return now - self._seen[trial._trial_id][1] < self.timeout

    def _fail(self, trial: int) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(trial, TrialState.FAIL)


# ---- Inside ----


def _study_id(storage: Any, name: str) -> int:
    from optuna.exceptions import DuplicatedStudyError
    from optuna.study import StudyDirection

    try:
        return storage.create_new_study([StudyDirection.MINIMIZE], name)
    except DuplicatedStudyError:
        return storage.get_study_id_from_name(name)


def _is_complete(trial: Any) -> bool:
    return trial is not None and trial.state.name == "COMPLETE"
