"""Experiment trackers: the settings of Weights & Biases and Trackio."""

import netrc
import os
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from transformers import TrainingArguments

from hf_ext.errors import ConfigurationError
from hf_ext.run_record import shown_command

WANDB_HOST = "api.wandb.ai"
# Trackers that are extras of this package, and how each is called.
EXTRAS = {"wandb": "Weights & Biases", "trackio": "Trackio", "tensorboard": "TensorBoard"}
# The library's `project`, where none is given.
NO_PROJECT = "huggingface"


@dataclass
class TrackingArguments:
    """Weights & Biases (`--report_to wandb`, or a section `wandb`), Trackio and TensorBoard (`--report_to`)."""

    _argument_group_name = "wandb"

    wandb_project: str | None = field(
        default=None, metadata={"help": "Project, Trackio's too; by default `project`, or WANDB_PROJECT."}
    )
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
            ConfigurationError: If a tracker is asked for by `report_to` and not installed.
        """
        trackers = training_args.report_to
        for name in EXTRAS:
            if name in trackers and find_spec(name) is None:
                raise ConfigurationError(
                    f"report_to={name}: {name} is not installed. {install(name)}, or name another tracker."
                )
        if "trackio" in trackers:
            self._set_up_trackio(training_args)
        if "wandb" in trackers:
            return self._set_up_wandb(training_args)
        missing = wandb_is_asked_for(vars(self)) and find_spec("wandb") is None
        return [f"Nothing is tracked by Weights & Biases: wandb is not installed ({install('wandb')})."] * missing

    def _set_up_trackio(self, training_args: TrainingArguments) -> None:
        if training_args.project == NO_PROJECT and self.wandb_project is not None:
            training_args.project = self.wandb_project
        if training_args.run_name is None:
            # Its callback would begin another run, under another name, for what is reported after the training.
            training_args.run_name = f"{Path(training_args.output_dir).name}-{time.strftime('%Y%m%d-%H%M%S')}"

    def _set_up_wandb(self, training_args: TrainingArguments) -> list[str]:
        project = None if training_args.project == NO_PROJECT else training_args.project
        given = {
            "WANDB_PROJECT": self.wandb_project or project,
            "WANDB_ENTITY": self.wandb_entity,
            "WANDB_TAGS": ",".join(self.wandb_tags) if self.wandb_tags else None,
            "WANDB_NOTES": self.wandb_notes,
            "WANDB_MODE": self.wandb_mode,
        }
        os.environ.update({name: value for name, value in given.items() if value is not None})
        # The client records the command line; all that is needed of it was read.
        sys.argv[1:] = shown_command(sys.argv[1:])
        os.environ.setdefault("WANDB_DIR", str(Path(training_args.output_dir).absolute()))
        # By default the end of the program waits for the network for as long as it takes.
        for name in ("WANDB_INIT_TIMEOUT", "WANDB_FINISH_TIMEOUT"):
            os.environ.setdefault(name, f"{self.tracker_timeout:g}")
        if os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled") or has_wandb_login():
            return []
        os.environ["WANDB_MODE"] = "offline"
        return [
            "Weights & Biases has no login here (wandb login, or WANDB_API_KEY): the run is kept offline in "
            f"{os.environ['WANDB_DIR']}/wandb. `wandb sync` with its folder uploads it later."
        ]


def install(tracker: str) -> str:
    """The command that installs a tracker."""
    return f"pip install 'hf_ext[{tracker}]'"


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
    named = given.split(",") if isinstance(given, str) else list(given)
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
