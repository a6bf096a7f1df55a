"""Trackers that can neither stop a run nor slow it down."""

import copy
import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from transformers import Trainer
from transformers.integrations import get_reporting_integration_callbacks

logger = logging.getLogger(__name__)

EVENTS = ("on_train_begin", "on_log", "on_evaluate", "on_predict", "on_save", "on_train_end")


def guard_trackers(trainer: Trainer, timeout: float) -> list["TrackerGuard"]:
    """
    Let a tracker that fails, hangs or is slow end its own work, not the run's.

    The events of a tracker are handled one after the other in a thread of its own. Training does not wait for it; at
    its end, and outside of it, what is left is waited for, `timeout` at most. After an exception, or an event that
    takes longer than `timeout`, the tracker hears of nothing more, which is said once.

    Args:
        trainer ([`~transformers.Trainer`]): Whose trackers (`report_to`) are guarded.
        timeout (`float`): Seconds.

    Returns:
        `list[TrackerGuard]`: One a tracker.
    """
    kinds, guards = tuple(get_reporting_integration_callbacks(trainer.args.report_to)), []
    for callback in trainer.callback_handler.callbacks:
        if kinds and isinstance(callback, kinds):
            guard = TrackerGuard(type(callback).__name__.removesuffix("Callback"), timeout)
            for event in EVENTS:
                setattr(callback, event, guard.wrap(getattr(callback, event)))
            guards.append(guard)
    return guards


class TrackerGuard:
    """
    Handles the events of one tracker in a thread, as long as it works.

    Args:
        name (`str`): Of the tracker, for what is said.
        timeout (`float`): Seconds that one event may take, and that the end of a training waits.

    Attributes:
        broken (`bool`): Whether the tracker is left out.
    """

    def __init__(self, name: str, timeout: float):
        self.name, self.timeout, self.broken = name, timeout, False
        self._training = False
        self._tasks: deque[Callable[[], Any]] = deque()
        # When the event that is being handled began, if one is; and what an event failed with.
        self._began: float | None = None
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def wrap(self, event: Callable[..., Any]) -> Callable[..., None]:
        """A callback's event, handled in the tracker's thread with the state of now."""
        name = event.__name__

        @functools.wraps(event)
        def guarded(args, state, control, **kwargs):
            if name == "on_train_begin":
                self._training = True
            if self.broken:
                return
            now = {key: dict(value) if isinstance(value, dict) else value for key, value in kwargs.items()}
            self._add(functools.partial(event, args, copy.copy(state), copy.copy(control), **now))
            if name == "on_train_end" or not self._training:
                self.finish()
            else:
                self._look()

        return guarded

    def finish(self) -> None:
        """Wait until all events so far are handled, `timeout` at most; what comes next is waited for too."""
        self._training = False
        if self._thread is None or self.broken:
            return
        with self._changed:
            done = self._changed.wait_for(
                lambda: self._error is not None or not (self._tasks or self._began), self.timeout
            )
        if not done:
            self._give_up(f"it has not answered for {self.timeout:g} seconds")
        self._look()

    def _add(self, task: Callable[[], Any]) -> None:
        with self._changed:
            self._tasks.append(task)
            self._changed.notify_all()
        if self._thread is None:
            # A daemon: one that hangs must not keep the program from ending.
            self._thread = threading.Thread(target=self._work, name=f"tracker {self.name}", daemon=True)
            self._thread.start()

    def _look(self) -> None:
        if self.broken:
            return
        with self._changed:
            error, began = self._error, self._began
        if error is not None:
            self._give_up(f"{type(error).__name__}: {error}")
        elif began is not None and time.monotonic() - began > self.timeout:
            self._give_up(f"it has not answered for {self.timeout:g} seconds")

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._tasks)
                task, self._began = self._tasks.popleft(), time.monotonic()
            error = None
            try:
                task()
            except BaseException as raised:  # the training says it
                error = raised
            with self._changed:
                self._error, self._began = error, None
                self._changed.notify_all()
            if error is not None:
                return

    def _give_up(self, reason: str) -> None:
        self.broken = True
        with self._changed:
            self._tasks.clear()
        logger.warning("The tracker %s is left out from here on: %s. The training goes on.", self.name, reason)
