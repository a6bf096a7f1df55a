"""MultiTaskTrainer: one encoder, a head for each task."""

import inspect
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
from transformers.trainer_utils import align_special_tokens

from hf_ext.data.task_data import (
    LABEL_COLUMNS,
    TASK_ID,
    TaskCollator,
    check_rows,
    infer_problem_type,
)
from hf_ext.data.task_sampling import TaskBatchSampler
from hf_ext.layers import layer_groups
from hf_ext.models.multitask import MultiTaskModel, check_task_names
from hf_ext.models.sharing import check_classifiers, decide_sharing
from hf_ext.task_weighting import normalized_weights
from hf_ext.trainers.task_evaluation import TaskEvaluationTrainer
from hf_ext.trainers.task_inputs import (
    check_known,
    check_run,
    check_settings,
    default_collator,
    metrics_by_task,
    one_a_task,
    train_and_eval_rows,
)
from hf_ext.trainers.task_losses import TaskLosses

logger = logging.getLogger(__name__)

# At an encoder's rate of 2e-5, a thousand steps of AdamW would move a log variance by 0.02.
LOG_VARIANCE_LEARNING_RATE = 0.01


class MultiTaskTrainer(TaskEvaluationTrainer):
    r"""
    Trains one encoder with a head for each of several tasks.

    Every batch is of one task. Tasks of one or several labels, of numbers and of text pairs go side by side, each with
    its own collator and metrics; a text pair is a matter of how the rows were tokenised. The loss of an optimizer step
    is the mean over its rows, each weighted by its task. A head whose task has no batch in a step is left alone: it
    does not even decay.

    After training, [`~MultiTaskTrainer.export_task`] writes a task's plain model. What the Trainer saves is a
    [`MultiTaskModel`], with the encoder once.

    Args:
        models (`Mapping[str, PreTrainedModel]`):
            Task -> sequence classifier. They become parts of one [`MultiTaskModel`].
        datasets (`Mapping[str, Dataset | Mapping[str, Dataset]]`):
            Task -> tokenised training rows, or its splits `train` and, optionally, `validation`.
        loss_weights (`Mapping[str, float]`, *optional*):
            Task -> weight of its loss; scaled to a mean of 1. Equal by default. Other weightings multiply them.
        args ([`~transformers.TrainingArguments`], *optional*):
            As the Trainer's. `train_sampling_strategy` is the order of a task's own rows.
        eval_datasets (`Mapping[str, Dataset]`, *optional*):
            Task -> rows to evaluate on, in place of the splits `validation`.
        processing_classes (`PreTrainedTokenizerBase` or `Mapping[str, PreTrainedTokenizerBase]`, *optional*):
            The tokenizer of all tasks, or one a task.
        data_collators (`Callable` or `Mapping[str, Callable]`, *optional*):
            The collator of all tasks, or one a task. By default, padding with the task's tokenizer;
            without one, rows have to be of one length.
        compute_metrics (`Mapping[str, Callable]`, *optional*):
            Task -> metrics as the Trainer's; by default those of [`build_compute_metrics`] for the kind of task.
        share_encoder (`bool` or `"auto"`, *optional*, defaults to `"auto"`):
            `"auto"` shares the encoder where the models' classes, configurations, parameter shapes and vocabularies
            allow it, and says in `notes` where they don't; `True` raises then. Heads are never shared.
        sampling (`str`, *optional*, defaults to `"proportional"`):
            Each task's share of the batches: `"proportional"`, `"sqrt"`, `"temperature"`, `"uniform"` or
            `"annealed"`; see [`sampling_exponent`]. An epoch has as many batches as all rows fill.
        sampling_temperature (`float`, *optional*):
            For `sampling="temperature"`.
        weighting (`str`, *optional*, defaults to `"fixed"`):
            `"fixed"`; `"uncertainty"`, learned at a rate of 0.01 that follows the schedule (see
            [`uncertainty_weighted`]); `"dwa"`, by how fast each loss falls from epoch to epoch (see
            [`dynamic_weight_average`]), from the third epoch on.
        kwargs:
            As [`ExtendedTrainer`]: `callbacks`, `optimizers`, `sparse_embeddings` ...

    Attributes:
        notes (`list[str]`): What a reader of the results has to know.

    Raises:
        ConfigurationError: If tasks are missing somewhere, or settings do not exist or fit together.
        DataError: If a task has no rows, or a label that its head does not have.

    Example:

    ```python
    >>> from hf_ext import MultiTaskTrainer
    >>> trainer = MultiTaskTrainer(
    ...     models={"sst2": sst2_model, "mrpc": mrpc_model},
    ...     datasets={"sst2": sst2_splits, "mrpc": mrpc_splits},
    ...     loss_weights={"sst2": 0.7, "mrpc": 0.3},
    ...     processing_classes=tokenizer,
    ... )
    >>> trainer.train()
    >>> trainer.export_task("mrpc", "mrpc_model")
    ```
    """

    def __init__(
        self,
        models: Mapping[str, PreTrainedModel],
        datasets: Mapping[str, Any],
        loss_weights: Mapping[str, float] | None = None,
        *,
        args: TrainingArguments | None = None,
        eval_datasets: Mapping[str, Any] | None = None,
        processing_classes: Any = None,
        data_collators: Any = None,
        compute_metrics: Mapping[str, Callable] | None = None,
        share_encoder: bool | Literal["auto"] = "auto",
        sampling: Literal["proportional", "sqrt", "temperature", "uniform", "annealed"] = "proportional",
        sampling_temperature: float | None = None,
        weighting: Literal["fixed", "uncertainty", "dwa"] = "fixed",
        **kwargs,
    ):
        args = TrainingArguments(output_dir="tmp_trainer") if args is None else args
        check_task_names(models)
        check_classifiers(models)
        self.tasks = list(models)
        weights = normalized_weights(loss_weights, self.tasks)
        check_settings(args, sampling, sampling_temperature, weighting, kwargs)
        self.sampling, self.sampling_temperature, self.weighting = sampling, sampling_temperature, weighting
        self.processing_classes = one_a_task("processing_classes", processing_classes, self.tasks)
        self._train_rows, evaluated = train_and_eval_rows(datasets, eval_datasets, self.tasks)
        self.problem_types = {task: self._checked_task(task, models[task], evaluated) for task in self.tasks}
        self.task_compute_metrics = metrics_by_task(compute_metrics, self.problem_types)
        collators = one_a_task("data_collators", data_collators, self.tasks)
        collators = {
            task: collators[task] or default_collator(task, self.processing_classes[task], self._train_rows[task])
            for task in self.tasks
        }
        share, self.notes = decide_sharing(models, self.processing_classes, share_encoder)
        # Only now: joining the models changes them.
        model = MultiTaskModel.from_models(models, share, learn_weights=weighting == "uncertainty")
        self._columns = {task: _columns_of(model.task_model(task), collators[task]) for task in self.tasks}
        self._keeps_columns = not args.remove_unused_columns
        tokenizers = list(self.processing_classes.values())
        super().__init__(
            model=model,
            args=args,
            train_dataset=self._task_dataset(self._train_rows),
            eval_dataset={task: self._task_dataset({task: rows}) for task, rows in evaluated.items()} or None,
            data_collator=TaskCollator({number: collators[task] for number, task in enumerate(self.tasks)}),
            processing_class=tokenizers[0] if all(item is tokenizers[0] for item in tokenizers) else None,
            **kwargs,
        )
        # What a run that is continued must not change: the order of the tasks gives them their ids.
        settings = {
            "tasks": self.tasks,
            "loss_weights": weights,
            "weighting": weighting,
            "sampling": sampling,
            "sampling_temperature": sampling_temperature,
            "share_encoder": share,
        }
        self.task_losses = TaskLosses(weights, weighting, settings)
        self.add_callback(self.task_losses)
        for note in self.notes if self.is_world_process_zero() else ():
            logger.warning(note)

    # ---- Tasks ----

    def _checked_task(self, task: str, model: PreTrainedModel, evaluated: Mapping[str, Any]) -> str:
        """The kind of task, after looking at its rows."""
        config = model.config
        check_rows(task, "training", self._train_rows[task])
        if config.problem_type is None:
            config.problem_type = infer_problem_type(self._train_rows[task], config.num_labels)
        check_rows(task, "training", self._train_rows[task], config.problem_type, config.num_labels)
        if task in evaluated:
            check_rows(task, "validation", evaluated[task], config.problem_type, config.num_labels)
        return config.problem_type

    def _set_signature_columns_if_needed(self):
        if self._signature_columns is None:
            # Which of them a task takes, its part of the dataset knows.
            self._signature_columns = sorted({TASK_ID, *(name for names in self._columns.values() for name in names)})
        super()._set_signature_columns_if_needed()

    # ---- Training ----

    def train(self, *args, **kwargs):
        share = self.model.config.share_encoder or len(self.tasks) == 1
        check_run(self.args, self._extension_callbacks(), share)
        for task, tokenizer in self.processing_classes.items():
            if isinstance(tokenizer, PreTrainedTokenizerBase):
                # As the Trainer does for the model as a whole.
                align_special_tokens(self.model.task_model(task), tokenizer)
        return super().train(*args, **kwargs)

    def _freezes_parameters(self) -> bool:
        # To DDP, an idle head is what a frozen one is.
        return True

    def _get_train_sampler(self, train_dataset=None):
        batch_size = self._train_batch_size * self.args.world_size
        strategy = self.args.train_sampling_strategy
        lengths = None
        if strategy == "group_by_length":
            lengths = [self._lengths(rows) for rows in self._train_rows.values()]
        return TaskBatchSampler(
            [len(rows) for rows in self._train_rows.values()],
            batch_size,
            self.args.seed if self.args.data_seed is None else self.args.data_seed,
            self.sampling,
            self.sampling_temperature,
            self._num_epochs(batch_size),
            lengths,
            shuffle=strategy != "sequential",
        )

    def _num_epochs(self, batch_size: int) -> int:
        if self.args.max_steps <= 0:
            return math.ceil(self.args.num_train_epochs)
        batches = sum(-(-len(rows) // batch_size) for rows in self._train_rows.values())
        return -(-self.args.max_steps // -(-batches // self.args.gradient_accumulation_steps))

    def batch_loss(self, model, inputs) -> tuple[torch.Tensor, object]:
        outputs = model(**inputs)
        if not model.training:
            return outputs.loss, outputs
        task = int(inputs[TASK_ID][0])
        if self.is_in_train:
            self.task_losses.add(task, outputs.task_loss, len(inputs[TASK_ID]))
        return outputs.loss * self.task_losses.weights[task], outputs

    def learning_rate_scales(self) -> dict[str, float] | None:
        scales = super().learning_rate_scales()
        own = self._made_optimizer or (self.optimizer is None and self.optimizer_cls_and_kwargs is None)
        if self.weighting != "uncertainty" or not own or not self.args.learning_rate:
            return scales
        if scales is None:
            trainable = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
            scales = {group: 1.0 for group, names in layer_groups(self.model).items() if trainable.intersection(names)}
        scale = LOG_VARIANCE_LEARNING_RATE / self.args.learning_rate
        return {**scales, **{f"log_variances.{task}": scale for task in self.tasks}}

    def _get_learning_rate(self) -> float:
        rate = super()._get_learning_rate()
        if self.weighting != "uncertainty":
            return rate
        learned = set(map(id, self.model.log_variances.parameters()))
        groups = [group for group in self.optimizer.param_groups if not learned.issuperset(map(id, group["params"]))]
        return max(float(group["lr"]) for group in groups)

    def get_decay_parameter_names(self, model) -> list[str]:
        names = super().get_decay_parameter_names(model)
        return [name for name in names if not name.startswith("log_variances.")]

    def count_targets(self, inputs) -> int:
        """The rows: labels are one, several or none a row, by the kind of task."""
        return len(inputs[TASK_ID])

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        if self.accelerator.sync_gradients:
            self.task_losses.settle(self.accelerator.reduce)
        return loss

    def forget_step(self) -> None:
        self.task_losses.forget_step()

    # ---- Files ----

    def export_task(self, task: str, output_dir: str, processing_class: Any = None) -> None:
        """
        Write a task's model as a plain directory that `AutoModelForSequenceClassification` loads.

        Args:
            task (`str`): Name of the task.
            output_dir (`str`): Where to.
            processing_class (`PreTrainedTokenizerBase`, *optional*): Saved beside it; by default the task's own.
        """
        check_known("export_task", [task], self.tasks)
        if not self.args.should_save:
            return
        self.model.task_model(task).save_pretrained(output_dir)
        processing_class = processing_class or self.processing_classes[task]
        if processing_class is not None:
            processing_class.save_pretrained(output_dir)

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        if self.processing_class is None and self.args.should_save:
            # The tasks have different ones.
            for task, tokenizer in self.processing_classes.items():
                if tokenizer is not None:
                    tokenizer.save_pretrained(Path(output_dir or self.args.output_dir) / "processing_classes" / task)


def _columns_of(model: PreTrainedModel, collator: Callable) -> set[str]:
    """The columns that a task's model and its collator take."""
    inputs = inspect.signature(model.forward).parameters
    return {*inputs, *LABEL_COLUMNS, "label_ids", *getattr(collator, "needed_columns", ())}
