"""Trainings of which a run has several: a later call takes the finished ones, and goes on with the one it was in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from hf_ext.checkpoints import newest_whole_checkpoint
from hf_ext.errors import ConfigurationError
from hf_ext.files import write_json
from hf_ext.launching import wait_for_everyone
from hf_ext.trainers.base import ExtendedTrainer

# Written into a folder when all that belongs there is.
FINISHED = "finished.json"


def is_finished(folder: Path) -> bool:
    """Whether [`save_finished`] has come to its end there, on the first process's disk; all have to call this."""
    return broadcast_object_list([(folder / FINISHED).is_file()])[0]


def save_finished(trainer: ExtendedTrainer, folder: Path) -> None:
    """
    Save a trained model and the state of its training, and, when all processes have, mark the folder as finished.

    Args:
        trainer ([`ExtendedTrainer`]): After training.
        folder (`Path`): Its output folder.
    """
    trainer.save_model()
    trainer.save_state()
    wait_for_everyone()
    if trainer.is_world_process_zero():
        write_json(folder / FINISHED, {"steps": trainer.state.global_step})
    wait_for_everyone()


def train_into(trainer: ExtendedTrainer, folder: Path, checkpoint: str | None) -> None:
    """
    Train the main model of a run into its folder, with the metrics of its training.

    Args:
        trainer ([`ExtendedTrainer`]): Before training.
        folder (`Path`): Its output folder.
        checkpoint (`str`, *optional*): Where to go on.
    """
    result = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_metrics("train", {**result.metrics, "train_samples": len(trainer.train_dataset)})
    save_finished(trainer, folder)


def train_once(
    folder: Path,
    make_trainer: Callable[[], ExtendedTrainer],
    settings: dict[str, Any],
    resume: bool,
    last_step: int | None = None,
) -> bool:
    """
    Train a model into a folder of its own, unless an earlier call finished it with the same settings.

    A call that was interrupted is continued at its last checkpoint.

    Args:
        folder (`Path`): Holds the model in `save_pretrained` form afterwards.
        make_trainer (`Callable`): Makes the trainer; not called when the model is there.
        settings (`dict`): JSON-able; what the model depends on.
        resume (`bool`): Whether what the folder holds may be used.
        last_step (`int`, *optional*): Where [`StopAt`] ends the training. It is not continued from a checkpoint of that
            step, because a trainer that goes on makes at least one more.

    Returns:
        `bool`: Whether it was trained now.

    Raises:
        ConfigurationError: If the folder holds what was begun with other settings, naming them.
    """
    begun = folder / "begun.json"
    settings = json.loads(json.dumps(settings, default=str))
    if resume and begun.is_file():
        before = json.loads(begun.read_text(encoding="utf-8"))
        changed = [name for name in settings if before.get(name) != settings[name]]
        if changed:
            raise ConfigurationError(
                f"{folder} was begun with other values of {', '.join(changed)}. Continue with the same, or begin anew "
                "with --overwrite."
            )
    if resume and is_finished(folder):
        return False
    wait_for_everyone()
    if PartialState().is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(begun, settings)
    trainer = make_trainer()
    trainer.train(resume_from_checkpoint=_last_checkpoint(folder, last_step) if resume else None)
    save_finished(trainer, folder)
    return True


class StopAt(TrainerCallback):
    """
    Ends a training at a step, whatever its schedules were made for.

    Args:
        step (`int`): The last optimizer step.
    """

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= self.step:
            control.should_training_stop = True


# ---- Inside ----


def _last_checkpoint(folder: Path, before: int | None) -> str | None:
    checkpoint, _ = newest_whole_checkpoint(folder, before)
    return None if checkpoint is None else str(checkpoint)
