"""Experiment trackers: the settings of Weights & Biases, and trackers that cannot stop a run."""

import functools
import logging
import netrc
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from transformers import Trainer, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from hf_ext.errors import ConfigurationError

logger = logging.getLogger(__name__)

WANDB_HOST = "api.wandb.ai"
INSTALL = "pip install 'hf_ext[wandb]'"
EVENTS = ("on_init_end", "on_train_begin", "on_log", "on_evaluate", "on_predict", "on_save", "on_train_end")


@dataclass
class TrackingArguments:
    """Weights & Biases (`--report_to wandb`, or a section `wandb`); Trackio and TensorBoard by `--report_to` alone."""

    _argument_group_name = "wandb"

    wandb_project: str | None = field(default=None, metadata={"help": "Project; by default WANDB_PROJECT."})
    wandb_entity: str | None = field(default=None, metadata={"help": "Team or user; by default the login's."})
    wandb_tags: list[str] | None = field(default=None, metadata={"help": "Tags of the run."})
    wandb_notes: str | None = field(default=None, metadata={"help": "Notes of the run."})
    wandb_mode: Literal["online", "offline", "disabled"] | None = field(
        default=None,
        metadata={"help": "online, offline or disabled; by default online with a login, and offline without one."},
    )
    tracker_timeout: float = field(
        default=60.0, metadata={"help": "Seconds that a tracker may take for one event before the run goes on without."}
    )

    def __post_init__(self):
        if not self.tracker_timeout > 0:
            raise ConfigurationError(f"tracker_timeout is {self.tracker_timeout}; it must be above 0 seconds.")

    def set_up(self, training_args: TrainingArguments) -> list[str]:
        """
        Let the trackers of a run know the settings, before its Trainer is made.

        Args:
            training_args ([`~transformers.TrainingArguments`]): `report_to` names the trackers.

        Returns:
            `list[str]`: What a reader has to know.

        Raises:
            ConfigurationError: If Weights & Biases is asked for by `report_to` and not installed.
        """
        if "wandb" not in training_args.report_to:
            missing = wandb_is_asked_for(vars(self)) and find_spec("wandb") is None
            return [f"Nothing is tracked by Weights & Biases: wandb is not installed ({INSTALL})."] if missing else []
        if find_spec("wandb") is None:
            raise ConfigurationError(f"report_to=wandb: wandb is not installed. {INSTALL}, or name another tracker.")
        given = {
            "WANDB_PROJECT": self.wandb_project,
            "WANDB_ENTITY": self.wandb_entity,
            "WANDB_TAGS": ",".join(self.wandb_tags) if self.wandb_tags else None,
            "WANDB_NOTES": self.wandb_notes,
            "WANDB_MODE": self.wandb_mode,
        }
        os.environ.update({name: value for name, value in given.items() if value is not None})
        os.environ.setdefault("WANDB_DIR", str(Path(training_args.output_dir).absolute()))
        if os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled") or has_wandb_login():
            return []
        os.environ["WANDB_MODE"] = "offline"
        return [
            "Weights & Biases has no login here (wandb login, or WANDB_API_KEY): the run is kept offline in "
            f"{os.environ['WANDB_DIR']}/wandb. `wandb sync` with its folder uploads it later."
        ]


def wandb_is_asked_for(values: dict[str, Any]) -> bool:
    """Whether any setting of the section `wandb` is given, and it is not `wandb_mode=disabled`."""
    names = ("wandb_project", "wandb_entity", "wandb_tags", "wandb_notes", "wandb_mode")
    return values.get("wandb_mode") != "disabled" and any(values.get(name) for name in names)


def with_wandb(values: dict[str, Any]) -> dict[str, Any]:
    """
    Let the section `wandb` be enough to track a run.

    Args:
        values (`dict[str, Any]`): Field names -> given values.

    Returns:
        `dict[str, Any]`: With `wandb` in `report_to` if its section is used, it is installed, and `report_to` is not
        `none`.
    """
    if not wandb_is_asked_for(values) or find_spec("wandb") is None:
        return values
    given = values.get("report_to") or []
    named = [given] if isinstance(given, str) else list(given)
    if {"none", "wandb", "all"} & set(named):
        return values
    return {**values, "report_to": [*named, "wandb"]}


def has_wandb_login() -> bool:
    """Whether a key for Weights & Biases is in the environment or was stored by `wandb login`."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", f"https://{WANDB_HOST}").split("//")[-1].split("/")[0].split(":")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def guard_trackers(trainer: Trainer, timeout: float) -> None:
    """
    Let a tracker that fails or hangs end its own work, not the run's.

    Each event of a tracker is handled in one thread of its own; the training waits for it, `timeout` at most. After an
    exception or a timeout that tracker hears of nothing more, which is said once.

    Args:
        trainer ([`~transformers.Trainer`]): Whose trackers (`report_to`) are guarded.
        timeout (`float`): Seconds.
    """
    kinds = tuple(get_reporting_integration_callbacks(trainer.args.report_to))
    for callback in trainer.callback_handler.callbacks:
        if kinds and isinstance(callback, kinds):
            guard = _Guard(type(callback).__name__.removesuffix("Callback"), timeout)
            for event in EVENTS:
                setattr(callback, event, guard.wrap(getattr(callback, event)))


class _Guard:
    """Handles the events of one tracker in a thread, as long as it works."""

    def __init__(self, name: str, timeout: float):
        self.name, self.timeout, self.broken = name, timeout, False
        self._tasks: queue.SimpleQueue[tuple[Callable, queue.SimpleQueue]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def wrap(self, event: Callable[..., Any]) -> Callable[..., None]:
        @functools.wraps(event)
        def guarded(*args, **kwargs):
            if not self.broken:
                self._call(functools.partial(event, *args, **kwargs))

        return guarded

    def _call(self, task: Callable[[], Any]) -> None:
        if self._thread is None:
            # A daemon: one that hangs must not keep the program from ending.
            self._thread = threading.Thread(target=self._work, name=f"tracker {self.name}", daemon=True)
            self._thread.start()
        answer: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._tasks.put((task, answer))
        try:
            error = answer.get(timeout=self.timeout)
        except queue.Empty:
            self._give_up(f"it has not answered for {self.timeout:g} seconds")
        else:
            if error is not None:
                self._give_up(f"{type(error).__name__}: {error}")

    def _work(self) -> None:
        while True:
            task, answer = self._tasks.get()
            try:
                task()
                answer.put(None)
            except BaseException as error:  # handed to the training, which says it
                answer.put(error)

    def _give_up(self, reason: str) -> None:
        self.broken = True
        logger.warning("The tracker %s is left out from here on: %s. The training goes on.", self.name, reason)
