"""A Trainer that an accident does not ruin: what is not finite, memory that is too small, trackers, secrets."""

import math
import time
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list, gather_object
from accelerate.utils.memory import clear_device_cache
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_ext.checkpoints import newest_whole_checkpoint
from hf_ext.hub.push import check_strategy
from hf_ext.inspection import parameter_counts
from hf_ext.launching import check_joined
from hf_ext.lost_process import LostProcessError, is_lost_process, lost_process
from hf_ext.models.adapter_files import adapter_saved
from hf_ext.optimizers import coalesce_grads_
from hf_ext.pickles import refused_pickles
from hf_ext.precision import check_precision
from hf_ext.tracker_guard import guard_trackers
from hf_ext.trainers.batch_parts import BatchParts, batch_parts, batch_rows, is_out_of_memory
from hf_ext.trainers.batch_rows import rows_of_step
from hf_ext.trainers.nonfinite import NonFiniteError, NonFiniteGuard, RollBack
from hf_ext.trainers.pushing import push_finished_model, without_token
from hf_ext.trainers.resumable import ResumableTrainer
from hf_ext.trainers.step_statistics import StepStatistics


class SafeTrainer(ResumableTrainer):
    """
    The part of [`ExtendedTrainer`] that watches over a run, apart from the techniques.

    Args:
        nonfinite, nonfinite_budget, roll_back_factor, tracker_timeout: See [`ExtendedTrainer`].
        args, kwargs: As [`~transformers.Trainer`].
    """

    def __init__(
        self,
        *args,
        nonfinite: str,
        nonfinite_budget: int,
        roll_back_factor: float,
        tracker_timeout: float,
        **kwargs,
    ):
        self.nonfinite = NonFiniteGuard(nonfinite, nonfinite_budget, roll_back_factor)
        self.batch_parts, self.statistics = BatchParts(), StepStatistics()
        self._checkpoints: list[str] = []
        self._rolled_back_to: str | None = None
        given = kwargs.get("args", args[1] if len(args) > 1 else None)
        if given is not None:
            check_joined()
            # The library makes the repository at once.
            check_strategy(given)
            check_precision(given)
        super().__init__(*args, **kwargs)
        self.trackers = guard_trackers(self, tracker_timeout)
        # It would put the mean of earlier losses in the place of one that is not finite.
        self.args.logging_nan_inf_filter = False

    # ---- Steps ----

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        started = time.perf_counter()
        batches, targets = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.statistics.loaded(batches, time.perf_counter() - started)
        self.nonfinite.begin(batches)
        return batches, targets

    def training_step(self, model, inputs, num_items_in_batch=None):
        if not self.is_in_train:
            return super().training_step(model, inputs, num_items_in_batch)
        while True:
            try:
                loss = self._step_in_parts(model, inputs, num_items_in_batch)
                break
            except Exception as error:
                if not is_out_of_memory(error) or self.args.world_size > 1:
                    raise
                self.batch_parts.double(error, max(map(batch_rows, self.nonfinite.batches)), self.state)
            # Outside of the handler, which holds what did not fit. A part of the gradient may be there already.
            clear_device_cache()
            model.zero_grad()
            self.forget_step()
            for place in range(len(self.nonfinite.losses)):
                self.nonfinite.losses[place] = self._step_in_parts(
                    model, self.nonfinite.batches[place], num_items_in_batch
                )
        self.nonfinite.losses.append(loss)
        return loss

    def _step_in_parts(self, model, inputs, num_items_in_batch):
        if self.batch_parts.count == 1:
            return self._step_of_part(model, inputs, num_items_in_batch)
        count = min(self.batch_parts.count, batch_rows(inputs))
        # Each is weighed by its share of the step's targets, as micro-batches are.
        losses = [self._step_of_part(model, part, num_items_in_batch) for part in batch_parts(inputs, count)]
        return torch.stack(losses).sum()

    def _step_of_part(self, model, inputs, num_items_in_batch):
        loss = super().training_step(model, inputs, num_items_in_batch)
        # Here, where memory may run out without harm, and before the next part is added.
        coalesce_grads_(model.parameters())
        return loss

    def forget_step(self) -> None:
        """Forget what the micro-batches of the present step have added to sums of yours: they are computed again."""

    def _get_grad_norm(self, model, grad_norm=None):
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # The last that happens before the callbacks and the optimizer.
        if self.nonfinite.is_met(grad_norm, self.accelerator):
            self.nonfinite.meet(
                model,
                self.state,
                lambda: gather_object(rows_of_step(self, self.nonfinite.batches)),
                self.args.output_dir,
            )
        return grad_norm

    # ---- The run ----

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        # Nothing of an earlier training counts in this one.
        self.nonfinite.met, self.nonfinite.factor, self.batch_parts.count = 0, 1.0, 1
        self._checkpoints, self._rolled_back_to = [], None
        self.statistics = StepStatistics(self.args.world_size)
        while True:
            try:
                with refused_pickles(f"The checkpoint {resume_from_checkpoint}"):
                    return super().train(resume_from_checkpoint, *args, **kwargs)
            except RollBack:
                self.undo_techniques()
                resume_from_checkpoint = self._last_checkpoint()
            except RuntimeError as error:
                if not is_lost_process(error) or isinstance(error, LostProcessError):
                    raise
                step, last = self.state.global_step, self.state.max_steps
                # Before the first step is planned, the last one is 0.
                where = f"after the last step, {last}" if 0 < last <= step else f"in step {step + 1}"
                raise lost_process(error, where, *newest_whole_checkpoint(Path(self.args.output_dir))) from error
            finally:
                for tracker in self.trackers:
                    tracker.finish()

    def undo_techniques(self) -> None:
        """Leave the model as it was before training: after a roll-back the training begins again."""

    def _last_checkpoint(self) -> str:
        """The last one of this run from which a step can be made: not one that was tried and failed at once."""
        step = self.state.global_step
        while self._checkpoints:
            path = self._checkpoints[-1]
            failed = path == self._rolled_back_to and path.endswith(f"{PREFIX_CHECKPOINT_DIR}-{step}")
            if Path(path).is_dir() and not failed:
                self._rolled_back_to = path
                return path
            self._checkpoints.pop()
        tried = "" if self._rolled_back_to is None else f" but {self._rolled_back_to}, whose model fails at once too"
        raise NonFiniteError(
            f"The loss or a gradient in step {step + 1} is not finite, and this run has saved no checkpoint to roll "
            f"back to{tried} (save_strategy={self.args.save_strategy.value}). Save more often (save_steps), keep more "
            "of them (save_total_limit), or lower the learning rate."
        )

    def _finalize_training(self, *args, **kwargs):
        if self.args.load_best_model_at_end and self.args.world_size > 1:
            # A machine with a disk of its own knows of none, and would not take part in what follows.
            best = broadcast_object_list([self.state.best_model_checkpoint])[0]
            self.state.best_model_checkpoint = self.state.best_model_checkpoint or best
        self._leave_out_nonfinite()
        return super()._finalize_training(*args, **kwargs)

    def _load_best_model(self):
        super()._load_best_model()
        if self.args.world_size == 1 or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return
        # The library warns and goes on with other weights where a machine has a disk of its own.
        weights = Path(self.state.best_model_checkpoint).glob("*.safetensors")
        if not all(gather_object([any(weights)])):
            for value in self.model.state_dict().values():
                torch.distributed.broadcast(value, src=0)

    def _save_checkpoint(self, model, trial):
        with self.statistics.paused():
            super()._save_checkpoint(model, trial)
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        self._checkpoints.append(str(Path(self._get_output_dir(trial)) / name))

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            if str(checkpoint) not in self._checkpoints:
                self._checkpoints = [str(checkpoint)]
            self.nonfinite.resume(self.state, self.optimizer, self.lr_scheduler)
            self.batch_parts.resume(self.state)

    def evaluation_loop(self, *args, **kwargs):
        with self.statistics.paused():
            return super().evaluation_loop(*args, **kwargs)

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        total = self._total_loss_scalar
        super()._maybe_log_save_evaluate(*args, **kwargs)
        if not math.isfinite(self._total_loss_scalar):
            # A step that was left out shows in its own log, not in all that follow.
            self._total_loss_scalar = total
            self._leave_out_nonfinite()

    def _leave_out_nonfinite(self) -> None:
        if not math.isfinite(self._tr_loss.item()):
            self._tr_loss.zero_()

    def log(self, logs, start_time=None):
        if "loss" in logs:
            parts = self.nonfinite.metrics(), self.batch_parts.metrics(), self.statistics.take()
            for own in (*parts, parameter_counts(self.model)):
                logs.update(own)
        super().log(logs, start_time)

    # ---- Hub ----

    def _save(self, output_dir=None, state_dict=None):
        folder = self.args.output_dir if output_dir is None else output_dir
        with without_token(self.args), adapter_saved(self.model, folder, self.args.should_save):
            super()._save(output_dir, state_dict)

    def _push_from_checkpoint(self, checkpoint_folder):
        """Nothing is published before the model is finished."""

    def push_to_hub(
        self, commit_message="End of training", blocking=True, token=None, revision=None, private=None, **kwargs
    ):
        """
        Save the model to `args.output_dir` and push what belongs to it, in one commit.

        Args:
            commit_message (`str`, *optional*, defaults to `"End of training"`): Of the commit.
            blocking (`bool`, *optional*, defaults to `True`): Whether to wait for the upload.
            token, revision, private: As [`~transformers.Trainer.push_to_hub`]; by default those of `args`.
            kwargs: Of [`~transformers.Trainer.create_model_card`]. Without them a `README.md` that is there stays,
                unless the library wrote it.

        Returns:
            `str`: The address of the commit; a `Future` of it with `blocking=False`, and `None` on other processes
            than the first.

        Raises:
            ConfigurationError: If the folder holds what must not be published; nothing is sent.
            PushError: If the Hub does not take it; the model stays in the folder.
        """
        return push_finished_model(self, commit_message, blocking, token, revision, private, **kwargs)
