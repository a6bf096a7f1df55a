"""ExtendedTrainer: a `Trainer` whose loss is right under accumulation and DDP, and that asks its callbacks."""

import logging
import warnings
from collections.abc import Mapping

import torch
from accelerate import DistributedType

from hf_ext.callbacks.base import require_unchanged
from hf_ext.losses import labelled_rows
from hf_ext.problem_types import UNLABELLED
from hf_ext.trainers.class_loss import is_sequence_classifier, make_class_loss
from hf_ext.trainers.launched import join_processes
from hf_ext.trainers.merging import check_merging, merge_trained
from hf_ext.trainers.nonfinite import BUDGET, FACTOR
from hf_ext.trainers.rank_rows import leave_own_rows, rows_of_rank
from hf_ext.trainers.techniques import TechniqueTrainer

logger = logging.getLogger(__name__)


class ExtendedTrainer(TechniqueTrainer):
    r"""
    A [`~transformers.Trainer`] that composes techniques and mends what would falsify them.

    - The loss of an optimizer step is the mean over all of its targets, however they are spread over micro-batches
      and processes. (The plain Trainer multiplies the loss and the gradient of most classification models by the
      number of accumulation steps and of processes: transformers#47688.)
    - [`ExtensionCallback`]s shape the optimizer's groups, the order of the rows and the logs.
    - The order of the rows survives a resume in the middle of an epoch, also on several processes. What fills the last
      batch of an epoch up, so that all processes have one, does not count. Of a stream (`IterableDataset`) each process
      trains on its own part of the rows, in the batches of one process.
    - `train_sampling_strategy="group_by_length"` sorts training batches only; predictions keep the data's order.
    - A `data_collator` with `set_epoch` is told the epoch, and gets the columns that it names in `needed_columns`
      (see [`AugmentingCollator`]).
    - A launch of several processes that would train separate models raises.
    - A loss or gradient that is not finite never reaches the weights, and shows in the logs (`logging_nan_inf_filter`
      is off).
    - When memory is too small for a micro-batch (one process), it is computed in parts from there on; the step stays.
    - Every log has examples and tokens a second, the share of padding, that of waiting for data, and peak memory
      (`performance/...`), and how many parameters are trained.
    - Class weights, focal loss and label smoothing (of several labels too) shape the loss of training batches.
      Evaluations report the plain loss, so that runs with different settings can be compared by it.
    - SIGTERM and Ctrl-C end the training after the current step, with a checkpoint; every `checkpoint-<step>` is whole
      or not there, and a run that is resumed ends with the same weights (see [`ResumableTrainer`]).
    - `push_to_hub` pushes the finished model and nothing else, after a look at what is published ([`plan_push`]);
      no token is written to `training_args.bin`.

    Args:
        sparse_embeddings (`bool`, *optional*):
            Update only the embedding rows that a batch contains (see [`SparseAdamW`]). By default on where it saves
            time: AdamW in one process on a CPU, without `torch_compile`, for embeddings of at least 2,048 rows.
        class_weights (`str`, `list` or `dict`, *optional*):
            `"balanced"`, a weight a class, or class name -> weight (others 1), scaled to a mean of 1 over the training
            rows; see [`resolve_class_weights`]. The loss of a step stays a mean over its rows.
        focal_gamma (`float`, *optional*, defaults to 0.0):
            Lets rows that are right already count less; see [`hard_target_loss`].
        merge_adapter (`bool`, *optional*, defaults to `False`):
            When training ends, work the adapter of the model (PEFT; see [`add_adapter`]) into its weights: `model` is a
            plain one then, and saved as such. Checkpoints hold the adapter alone.
        nonfinite (`str`, *optional*, defaults to `"raise"`):
            What to do when a loss or gradient is NaN or infinite, before the optimizer steps: `"raise"`
            [`NonFiniteError`]; `"skip"` the step; `"roll_back"` to the last checkpoint, with a lower learning rate.
            In each case the batch's rows are written to `output_dir/nonfinite_step_<step>.json`.
        nonfinite_budget (`int`, *optional*, defaults to 10):
            Steps that may be skipped or rolled back from before [`NonFiniteError`] is raised.
        roll_back_factor (`float`, *optional*, defaults to 0.5):
            Of the learning rate, at every roll-back.
        tracker_timeout (`float`, *optional*, defaults to 60):
            Seconds that a tracker (`report_to`) may take for an event; one that takes longer, or fails, is left out
            from there on (see [`guard_trackers`]).
        args, kwargs:
            As [`~transformers.Trainer`].

    Attributes:
        class_loss ([`ClassLoss`], *optional*): The loss of training batches, where it is not the model's own.

    A subclass with a loss of its own overrides [`~ExtendedTrainer.batch_loss`], and
    [`~ExtendedTrainer.count_targets`] where that is a mean over something else than the labels. If it makes use of
    `class_loss`, it sets `uses_class_loss`; otherwise class weights and focal loss are refused.

    Raises:
        ConfigurationError: If class weights, focal loss or smoothing do not fit the model or the data.
    """

    # The loss that `compute_loss` returns is a mean over micro-batches still to be divided by their number.
    loss_is_scaled_for_ga = False
    uses_class_loss = False

    def __init__(
        self,
        *args,
        sparse_embeddings: bool | None = None,
        class_weights: str | list[float] | dict[str, float] | None = None,
        focal_gamma: float = 0.0,
        merge_adapter: bool = False,
        nonfinite: str = "raise",
        nonfinite_budget: int = BUDGET,
        roll_back_factor: float = FACTOR,
        tracker_timeout: float = 60.0,
        **kwargs,
    ):
        with warnings.catch_warnings():
            # Here it is compatible.
            warnings.filterwarnings("ignore", "Label smoothing is not compatible with multi-label")
            super().__init__(
                *args,
                sparse_embeddings=sparse_embeddings,
                nonfinite=nonfinite,
                nonfinite_budget=nonfinite_budget,
                roll_back_factor=roll_back_factor,
                tracker_timeout=tracker_timeout,
                **kwargs,
            )
        self.class_loss = make_class_loss(
            self.model, self.args, self.train_dataset, class_weights, focal_gamma, self._foreign_loss()
        )
        if self.class_loss is not None or (self.train_dataset is None and is_sequence_classifier(self.model)):
            # It takes the labels away from the model, and smooths the loss of evaluations too.
            self.label_smoother = None
        # Classification heads accept `num_items_in_batch` and ignore it; the Trainer then skips its own scaling.
        self.model_accepts_loss_kwargs = False
        if merge_adapter:
            check_merging(self.model)
        self.merge_adapter, self._merge_note = merge_adapter, None
        self._idle_batches: set[int] = set()
        join_processes(self)

    # ---- Loss ----

    def batch_loss(self, model, inputs) -> tuple[torch.Tensor, object]:
        """
        The mean loss over one micro-batch, and the model's outputs. Override this for a loss of your own.

        Args:
            model (`torch.nn.Module`): The (wrapped) model.
            inputs (`dict[str, torch.Tensor]`): The batch on the model's device.

        Returns:
            `tuple[torch.Tensor, Any]`: A scalar and what the model returned.
        """
        if self.class_loss is None or not model.training or "labels" not in inputs:
            return super().compute_loss(model, inputs, return_outputs=True)
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]
        return self.class_loss(logits, inputs["labels"]), outputs

    def _foreign_loss(self) -> str | None:
        """What takes the place of a loss that `class_loss` could be part of."""
        if self.compute_loss_func is not None:
            return "compute_loss_func"
        own = type(self).batch_loss is not ExtendedTrainer.batch_loss and not self.uses_class_loss
        return f"{type(self).__name__}.batch_loss" if own else None

    def loss_notes(self) -> list[str]:
        """What a reader of the results has to know of the loss."""
        return [] if self.class_loss is None else self.class_loss.notes()

    def count_targets(self, inputs) -> int:
        """
        How many targets the mean of [`~ExtendedTrainer.batch_loss`] is a mean over, up to a factor that is the same
        for all batches. Override it together with `batch_loss` where these are not the labels.

        Args:
            inputs (`dict[str, torch.Tensor]`): The batch.
        """
        return count_targets(inputs)

    def is_idle(self, model) -> bool:
        """Whether the micro-batch whose loss comes next is of rows that another process counts."""
        return model.training and len(self.nonfinite.losses) in self._idle_batches

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        targets = 0 if self.is_idle(model) else self.count_targets(inputs)
        loss, outputs = self.batch_loss(model, inputs)
        if num_items_in_batch is not None:
            if targets == 0:
                # The mean over nothing.
                loss = torch.nan_to_num(loss)
            # This batch's share of the step's targets. Averaging over processes and dividing by the accumulation
            # steps, as happens next, then gives the mean over all targets, also when micro-batches are uneven.
            share = targets * self.accelerator.num_processes / num_items_in_batch
            loss = loss * (share * self.current_gradient_accumulation_steps)
        return (loss, outputs) if return_outputs else loss

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        # What fills the last batches up, so that all processes have equally many, counts in none.
        self._idle_batches = leave_own_rows(batches, self.accelerator)
        own = [batch for place, batch in enumerate(batches) if place not in self._idle_batches]
        targets = sum(self.count_targets(batch) for batch in own)
        if self.args.world_size > 1:
            targets = self.accelerator.reduce(torch.tensor(float(targets), device=device)).item()
        return batches, targets or None

    def _get_num_items_in_batch(self, batch_samples, device):
        return None

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        loss, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        rows, kept = len(next(iter(inputs.values()))), self._own_rows(inputs)
        if loss is not None and 0 < kept < rows:
            # The last batch was filled up with rows from the beginning; they count in no other number either.
            own = {name: value[:kept] if len(value) == rows else value for name, value in inputs.items()}
            loss, _, _ = super().prediction_step(self.model, own, True, ignore_keys)
        return loss, logits, labels

    def _own_rows(self, inputs) -> int:
        """How many rows of an evaluation batch are not repeated only to give all processes equal batches."""
        rows, state = len(next(iter(inputs.values()))), self.accelerator.gradient_state
        data_parallel = self.accelerator.distributed_type in (DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
        if not data_parallel or not state.end_of_dataloader or state.remainder <= 0:
            return rows
        return rows_of_rank(state.remainder, rows, self.args.process_index)

    def _finalize_training(self, *args, **kwargs):
        if self.args.world_size > 1:
            # What came since the last log is this process's own; the rest of train_loss is that of all.
            self._tr_loss = self.accelerator.reduce(self._tr_loss, reduction="mean")
        return super()._finalize_training(*args, **kwargs)

    # ---- The run ----

    def create_optimizer(self, model=None):
        optimizer = super().create_optimizer(model)
        if self.is_in_train:
            settings = {} if self.class_loss is None else self.class_loss.settings
            require_unchanged(self.state, "hf_ext.class_loss", settings)
        return optimizer

    def train(self, *args, **kwargs):
        if self.merge_adapter:
            check_merging(self.model)
        output = super().train(*args, **kwargs)
        if self.merge_adapter:
            self._merge_note = merge_trained(self)
        return output

    def merge_notes(self) -> list[str]:
        """What a reader of the results has to know of a merged adapter."""
        return [] if self._merge_note is None else [self._merge_note]

    def log(self, logs, start_time=None):
        super().log(logs, start_time)
        logger.info("step %d: %s", self.state.global_step, logs)


def count_targets(inputs: dict[str, torch.Tensor]) -> int:
    """
    How many targets a batch's mean loss is a mean over, up to a factor that is the same for all batches.

    Args:
        inputs (`dict[str, torch.Tensor]`): A batch; integer labels of -100 are no targets, nor are rows with a NaN.
            Without labels, its rows.

    Returns:
        `int`
    """
    labels = inputs.get("labels")
    if labels is None:
        return len(next(value for value in inputs.values() if isinstance(value, torch.Tensor)))
    if labels.is_floating_point():
        return int(labelled_rows(labels).sum()) * (labels.numel() // max(1, len(labels)))
    return int(labels.ne(UNLABELLED).sum())
