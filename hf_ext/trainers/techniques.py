"""A Trainer that asks its callbacks: for learning rates, for the order of the rows, for metrics."""

import torch
from torch.utils.data import IterableDataset, SequentialSampler
from transformers import TrainerCallback
from transformers.trainer_utils import has_length

from hf_ext.callbacks.base import ExtensionCallback, require_unchanged
from hf_ext.data.sampling import LengthGroupedSampler
from hf_ext.lr_schedules import OWN_SCHEDULES
from hf_ext.optimizers import SparseAdamW, clip_mixed_grad_norm_, large_embeddings
from hf_ext.trainers.launched import refuse_sharding
from hf_ext.trainers.parameter_groups import scaled_groups, trainable_groups
from hf_ext.trainers.rank_rows import stream_dataloader
from hf_ext.trainers.safe import SafeTrainer


class _EpochTeller(TrainerCallback):
    """Tells the collator which epoch begins: what it makes of a row may depend on it."""

    def __init__(self, collator):
        self.collator = collator

    def on_epoch_begin(self, args, state, control, **kwargs):
        # Of a run that goes on inside an epoch it is a fraction.
        self.collator.set_epoch(int(state.epoch))


class TechniqueTrainer(SafeTrainer):
    """
    The part of [`ExtendedTrainer`] that techniques shape: the optimizer, the order of the rows, the logs.

    Args:
        sparse_embeddings: See [`ExtendedTrainer`].
        args, kwargs: As [`SafeTrainer`].
    """

    def __init__(self, *args, sparse_embeddings: bool | None, **kwargs):
        super().__init__(*args, **kwargs)
        self.sparse_embeddings = sparse_embeddings
        self._made_optimizer = False
        self._sparse_modules = []
        self._group_rates = {}
        if hasattr(self.data_collator, "set_epoch"):
            self.add_callback(_EpochTeller(self.data_collator))

    # ---- Callbacks ----

    def _extension_callbacks(self) -> list[ExtensionCallback]:
        return [callback for callback in self.callback_handler.callbacks if isinstance(callback, ExtensionCallback)]

    def _freezes_parameters(self) -> bool:
        return any(callback.freezes_parameters for callback in self._extension_callbacks())

    def _ask(self, question: str, *arguments):
        """The one answer to `question` among the callbacks, or `None`."""
        answers = [
            (type(callback).__name__, answer)
            for callback in self._extension_callbacks()
            if (answer := getattr(callback, question)(*arguments)) is not None
        ]
        if len(answers) > 1:
            names = " and ".join(name for name, _ in answers)
            raise ValueError(f"{names} both answer {question}; a run can follow one of them.")
        return answers[0][1] if answers else None

    def train(self, *args, **kwargs):
        if self._freezes_parameters():
            refuse_sharding(self)
        for callback in self._extension_callbacks():
            callback.asked = True
        self._expect_unused_parameters()
        try:
            return super().train(*args, **kwargs)
        finally:
            # The model may go on to an optimizer that refuses sparse gradients.
            for module in self._sparse_modules:
                module.sparse = False
            self.undo_techniques()

    def undo_techniques(self) -> None:
        for callback in self._extension_callbacks():
            callback.release()

    def _expect_unused_parameters(self) -> None:
        if self._freezes_parameters() and self.args.ddp_find_unused_parameters is None:
            # The library leaves it out under activation checkpointing.
            self.accelerator.ddp_handler.find_unused_parameters = True

    def _hp_search_setup(self, trial):
        super()._hp_search_setup(trial)
        # A trial has an accelerator of its own.
        self._expect_unused_parameters()

    def log(self, logs, start_time=None):
        if "loss" in logs:
            logs.update(self._group_rates)
            for callback in self._extension_callbacks():
                metrics = callback.metrics()
                clash = sorted(set(logs) & set(metrics))
                if clash:
                    raise ValueError(
                        f"{type(callback).__name__} reports {', '.join(clash)}, which this log already holds."
                    )
                logs.update(metrics)
        super().log(logs, start_time)

    # ---- Optimizer ----

    def create_optimizer(self, model=None):
        scales = self.learning_rate_scales()
        own = self.optimizer is None and self.optimizer_cls_and_kwargs is None
        if scales is not None and not own and not self._made_optimizer:
            raise ValueError(
                "A callback gives the layers learning rates of their own, but the Trainer was given its optimizer "
                "(optimizers= or optimizer_cls_and_kwargs=), whose groups are made. Leave one of the two out."
            )
        if own:
            self._made_optimizer = True
            self.optimizer_cls_and_kwargs = self._extended_optimizer(self.model if model is None else model, scales)
        try:
            optimizer = super().create_optimizer(model)
        finally:
            if own:
                self.optimizer_cls_and_kwargs = None
        for module in self._sparse_modules:
            module.sparse = True
        if self.is_in_train:
            # Before a checkpoint's optimizer is loaded: it brings its rates along, and may have other groups.
            rates = {name: self.args.learning_rate * scale for name, scale in (scales or {}).items()}
            require_unchanged(self.state, "hf_ext.learning_rates_by_layer", rates)
        return optimizer

    def _extended_optimizer(self, model, scales):
        """Class and arguments of the optimizer, with what the techniques ask of them."""
        optimizer_cls, kwargs = self.get_optimizer_cls_and_kwargs(self.args, model)
        # Those of an earlier trial of a search are another model's.
        self._sparse_modules, self._group_rates = [], {}
        if self._wants_sparse_embeddings(optimizer_cls):
            self._sparse_modules = large_embeddings(model)
            if self._sparse_modules:
                optimizer_cls = SparseAdamW
        if scales is not None:
            decayed = set(self.get_decay_parameter_names(model))
            groups = scaled_groups(model, scales, decayed, self.args.learning_rate, self.args.weight_decay)
            kwargs = {**kwargs, "params": groups}
        return optimizer_cls, kwargs

    def learning_rate_scales(self) -> dict[str, float] | None:
        """What a callback answers to [`ExtensionCallback.learning_rate_scales`], if one does."""
        return self._ask("learning_rate_scales", trainable_groups(self.model), self.args)

    def _wants_sparse_embeddings(self, optimizer_cls) -> bool:
        supported = (
            optimizer_cls is torch.optim.AdamW
            and self.args.device.type == "cpu"
            and not self.args.torch_compile
            # DDP of torch 2.13 damages the memory of processes on CPUs when it adds up sparse gradients: they crash,
            # once in some thousands of steps.
            and self.args.world_size == 1
        )
        if self.sparse_embeddings and not supported:
            raise ValueError(
                "sparse_embeddings=True needs an AdamW optimizer (optim=adamw_torch or adamw_torch_fused) and one "
                "process on a CPU, without torch_compile; this run has "
                f"optim={self.args.optim.value}, device={self.args.device}, torch_compile={self.args.torch_compile}, "
                f"{self.args.world_size} processes. Leave sparse_embeddings out to have it chosen."
            )
        return supported and self.sparse_embeddings is not False

    def create_scheduler(self, num_training_steps, optimizer=None):
        own = OWN_SCHEDULES.get(self.args.lr_scheduler_type.value)
        if own is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        self.lr_scheduler = own(
            optimizer or self.optimizer, num_training_steps, **(self.args.lr_scheduler_kwargs or {})
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def _clip_grad_norm(self, model):
        if self._sparse_modules:
            return clip_mixed_grad_norm_(model.parameters(), self.args.max_grad_norm)
        return super()._clip_grad_norm(model)

    def _get_grad_norm(self, model, grad_norm=None):
        if self._sparse_modules and grad_norm is None:
            grad_norm = clip_mixed_grad_norm_(model.parameters(), float("inf"))
        return super()._get_grad_norm(model, grad_norm=grad_norm)

    def _get_learning_rate(self) -> float:
        groups = self.optimizer.param_groups
        if "layer_group" not in groups[0]:
            return super()._get_learning_rate()
        # Asked for after the optimizer's step and before the scheduler's: the rates that the step was made with.
        self._group_rates = {f"learning_rate/{group['layer_group']}": float(group["lr"]) for group in groups}
        return max(self._group_rates.values())

    # ---- Rows ----

    def get_train_dataloader(self):
        dataloader = super().get_train_dataloader()
        batch_sampler = getattr(dataloader, "batch_sampler", None)
        while hasattr(batch_sampler, "batch_sampler"):
            batch_sampler = batch_sampler.batch_sampler
        if hasattr(getattr(batch_sampler, "sampler", None), "set_epoch") and hasattr(dataloader, "set_sampler"):
            # Otherwise a resume inside an epoch cannot reach the sampler through the sharding wrapper, and the
            # rest of that epoch comes in the first epoch's order.
            dataloader.set_sampler(batch_sampler.sampler)
        return dataloader

    def _get_train_sampler(self, train_dataset=None):
        dataset = self.train_dataset if train_dataset is None else train_dataset
        # The callbacks get the data with all columns; `train_dataset` here has lost those the model does not take.
        sampler = self._ask("train_sampler", self.train_dataset, self.args)
        if sampler is not None:
            return sampler
        if self.args.train_sampling_strategy == "group_by_length" and has_length(dataset):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return LengthGroupedSampler(
                self._lengths(self.train_dataset), self._train_batch_size * self.args.world_size, seed
            )
        return super()._get_train_sampler(train_dataset)

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        needed = getattr(self.data_collator, "needed_columns", ())
        self._signature_columns = list(dict.fromkeys([*self._signature_columns, *needed]))

    def _lengths(self, dataset) -> list[int]:
        column = self.args.length_column_name
        if column in getattr(dataset, "column_names", ()):
            return list(dataset[column][:])
        name = self.processing_class.model_input_names[0] if self.processing_class is not None else "input_ids"
        return [len(row[name]) for row in dataset]

    def _get_dataloader(self, *args, is_training=False, **kwargs):
        dataset = args[0] if args else kwargs["dataset"]
        if isinstance(dataset, IterableDataset) and self.args.world_size > 1:
            collate = self._get_collator_with_removed_columns(self.data_collator, description="training")
            return stream_dataloader(dataset, collate, self._train_batch_size, self.accelerator, self.args, is_training)
        drop_last = self.args.dataloader_drop_last
        # Meant for training: an evaluation without its last rows is of another data set.
        self.args.dataloader_drop_last = drop_last and is_training
        try:
            return super()._get_dataloader(*args, is_training=is_training, **kwargs)
        finally:
            self.args.dataloader_drop_last = drop_last

    def _get_eval_sampler(self, eval_dataset):
        if self.args.train_sampling_strategy == "group_by_length":
            return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None
        return super()._get_eval_sampler(eval_dataset)
