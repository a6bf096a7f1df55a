"""A Trainer that may end at any moment, and goes on as if it had not."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import Trainer
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from hf_ext.checkpoints import (
    PARTIAL,
    STATE,
    check_resumable,
    clear_partial,
    discard,
    newest_whole_checkpoint,
    put_in_place,
    rotate_checkpoints,
    storage_errors,
)
from hf_ext.errors import ConfigurationError
from hf_ext.launching import check_same_checkpoint, wait_for_everyone
from hf_ext.trainers.interrupts import Interrupts, interruption

logger = logging.getLogger(__name__)


class ResumableTrainer(Trainer):
    """
    The part of [`ExtendedTrainer`] that concerns the end of a run before its end.

    - A folder `checkpoint-<step>` is whole: it is written under another name, and removed under another one.
    - `resume_from_checkpoint=True` takes the newest whole one; one of another number of processes is refused.
    - SIGTERM and Ctrl-C end the training after the current step, with a checkpoint, on all processes together
      ([`TrainingTerminated`], [`TrainingInterrupted`]); a second Ctrl-C at once. Not with `save_strategy="no"` or
      `save_only_model`, where there would be nothing to go on from.
    - When the disk is full, the checkpoint before stays ([`StorageError`]).
    - A run that had ended, by its last step or early, is not trained any further by a resume.

    Args:
        args, kwargs: As [`~transformers.Trainer`].
    """

    def __init__(self, *args, **kwargs):
        self._interrupts = Interrupts()
        self._is_saving, self._met_step = False, -1
        self._last_saved: Path | None = None
        super().__init__(*args, **kwargs)

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        if resume_from_checkpoint is True:
            resume_from_checkpoint = self._newest_checkpoint()
        if resume_from_checkpoint:
            check_resumable(Path(resume_from_checkpoint), self.args.world_size)
        check_same_checkpoint(resume_from_checkpoint or None)
        self._met_step, self._last_saved = -1, Path(resume_from_checkpoint) if resume_from_checkpoint else None
        goes_on_from_checkpoints = self.args.save_strategy != SaveStrategy.NO and not self.args.save_only_model
        with self._interrupts.watching(goes_on_from_checkpoints):
            result = super().train(resume_from_checkpoint, *args, **kwargs)
            if number := self._interrupts.agreed(self.accelerator):
                self._interrupt(number, self._last_saved)
        return result

    def _interrupt(self, number: int, checkpoint: Path | None) -> None:
        self._interrupts.received = 0
        error = interruption(number, self.state.global_step, self.state.max_steps, checkpoint)
        if self.is_world_process_zero():
            logger.warning("%s", error)
        raise error

    def _newest_checkpoint(self) -> str:
        folder = Path(self.args.output_dir)
        path, left_out = newest_whole_checkpoint(folder)
        for other, reason in left_out.items():
            logger.warning("%s is left out: %s.", other, reason)
        if path is None:
            raise ConfigurationError(f"resume_from_checkpoint=True, but {folder} holds no whole checkpoint-<step>.")
        return str(path)

    # ---- Steps ----

    def _run_epoch(self, model, *args, trial=None, **kwargs):
        if self._met_step < 0 and self.args.should_save:
            # Not before: until training begins, the folder may be another run's.
            for name in clear_partial(Path(self.args.output_dir)):
                logger.warning("%s/%s, which was not whole, is removed.", self.args.output_dir, name)
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        if self.control.should_training_stop:
            # The checkpoint was that of the end; the Trainer would make one step more.
            return
        super()._run_epoch(model, *args, trial=trial, **kwargs)
        self._end_if_interrupted(model, trial)

    def _maybe_log_save_evaluate(self, tr_loss, grad_norm, model, trial, *args, **kwargs):
        is_step, self._met_step = self.state.global_step != self._met_step, self.state.global_step
        epoch_ends = self.control.should_training_stop or self.control.should_epoch_stop or self.state.epoch % 1 == 0
        by_epoch = IntervalStrategy.EPOCH in (self.args.eval_strategy, self.args.logging_strategy)
        # What is done once an epoch belongs into the checkpoint of its last step: a resume begins with the next one.
        waits = is_step and epoch_ends and by_epoch and self.control.should_save
        if waits:
            self.control.should_save = False
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        if waits:
            self.control.should_save = True
        if is_step and not epoch_ends:
            self._end_if_interrupted(model, trial)

    def _end_if_interrupted(self, model, trial) -> None:
        # A training that is over is brought to its end.
        if self.control.should_training_stop or not (number := self._interrupts.agreed(self.accelerator)):
            return
        path = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        if self._last_saved != path:
            self._save_checkpoint(model, trial)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        self._interrupt(number, path)

    def _init_training_state(self, max_steps, per_epoch, epochs, resume_from_checkpoint, trial):
        found = super()._init_training_state(max_steps, per_epoch, epochs, resume_from_checkpoint, trial)
        if resume_from_checkpoint is not None and self.state.best_model_checkpoint is None:
            named = TrainerState.load_from_json(os.path.join(resume_from_checkpoint, STATE)).best_model_checkpoint
            best = Path(resume_from_checkpoint).parent / Path(named or "").name
            if named and best.is_dir():
                # The folder was moved, or is named from another place.
                self.state.best_model_checkpoint = str(best)
        return found

    # ---- Checkpoints ----

    def _get_output_dir(self, trial):
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, PARTIAL) if self._is_saving else folder

    @contextmanager
    def _saving(self, staged: Path, final: Path) -> Iterator[None]:
        self._is_saving = True
        try:
            with storage_errors(final):
                yield
        except BaseException:
            if self.args.should_save:
                discard(staged)
            raise
        finally:
            self._is_saving = False

    def _save_checkpoint(self, model, trial):
        folder, name = self._get_output_dir(trial), f"checkpoint-{self.state.global_step}"
        staged, final = Path(folder) / PARTIAL / name, os.path.join(folder, name)
        with self._saving(staged, Path(final)):
            super()._save_checkpoint(model, trial)
            best = self.state.best_model_checkpoint
            if best is not None and Path(best) == staged:
                self.state.best_model_checkpoint = final
                if self.args.should_save:
                    self.state.save_to_json(str(staged / STATE))
            # Every process adds its part.
            wait_for_everyone()
            if self.args.should_save:
                put_in_place(staged, Path(final))
            wait_for_everyone()
            if self.accelerator.is_local_main_process and staged.is_dir():
                # On a machine that does not share the first one's folder.
                put_in_place(staged, Path(final))
        self._last_saved = Path(final)
        if self.args.should_save:
            best = self.state.best_model_checkpoint
            kept = {Path(final)} | ({Path(best)} if best is not None else set())
            rotate_checkpoints(Path(folder), self.args.save_total_limit, kept)

    def save_model(self, output_dir=None, _internal_call=False):
        if self._is_saving:
            super().save_model(output_dir, _internal_call)
            return
        with storage_errors(Path(output_dir or self.args.output_dir) / "model.safetensors"):
            super().save_model(output_dir, _internal_call)
