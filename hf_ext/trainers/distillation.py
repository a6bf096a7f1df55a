"""DistillationTrainer: a student that learns from a teacher's logits as well as from labels."""

import gc
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import IterableDataset
from transformers import PreTrainedModel, TrainingArguments

from hf_ext.callbacks.base import require_unchanged
from hf_ext.data.distillation_collator import (
    TEACHER_INPUTS,
    TEACHER_LOGITS,
    DistillationCollator,
    add_logits_column,
    logits_column,
    text_column,
)
from hf_ext.data.teacher_logits import TeacherLogits, teacher_logits
from hf_ext.errors import ConfigurationError
from hf_ext.losses import hard_target_loss, labelled_rows, mixed_loss, soft_target_loss
from hf_ext.models.hidden_states import HiddenStateMatching
from hf_ext.models.teacher import Teacher, problem_type_of
from hf_ext.schedules import interpolate
from hf_ext.trainers.base import ExtendedTrainer
from hf_ext.trainers.distillation_checks import check_data, check_settings, check_student, has_logits, load_teacher


class DistillationTrainer(ExtendedTrainer):
    r"""
    An [`ExtendedTrainer`] whose model, the student, learns from a teacher's logits as well as from the labels.

    The loss of a row is $\alpha \cdot soft + (1 - \alpha) \cdot hard$: `alpha` weighs the **soft** term (other recipes
    write it the other way round). Rows without a label (-100, or NaN for several labels or a value) have the soft term
    alone, in full. The loss of a step is the mean over its rows, however they are spread over micro-batches and
    processes. See [`soft_target_loss`], also for what a high temperature does.

    An evaluation is that of the student alone: `eval_loss` is the plain loss of the rows that have a label, neither
    smoothed nor distilled. Checkpoints hold the student and nothing of the teacher.

    The teacher's logits are, in this order:

    - the column `teacher_logits` of `train_dataset`, if there is one; `teacher_model` is not looked at then;
    - by default (`teacher_logits="cached"`) made once, before training begins, from the columns `text` and `text_pair`
      of `train_dataset`, and kept on disk; the trainer then lets go of the teacher (a model that was passed stays in
      memory as long as the caller holds it);
    - with `teacher_logits="online"` made for each batch. This is for texts that are made anew in every epoch
      ([`AugmentingCollator`], whose edited texts the teacher then sees too), for streams, and for hidden states.

    In any case the teacher reads the texts with its own tokenizer, and its classes are matched by name.

    The logs show, as means over the rows (of all processes) since the last log, `distillation/soft_loss`,
    `distillation/hard_loss` (of the labelled rows), `distillation/temperature`, `distillation/alpha` and, if used,
    `distillation/hidden_states_loss`.

    Args:
        student_model ([`~transformers.PreTrainedModel`]):
            The sequence classifier to train.
        teacher_model ([`~transformers.PreTrainedModel`], `str`, `Path`, a list of those, or [`Teacher`], *optional*):
            A fine-tuned classifier, or several whose probabilities are averaged; see [`Teacher.load`]. A model is put
            into evaluation mode and frozen, and stays so.
        temperature (`float`, *optional*, defaults to 4.0):
            By which logits are divided in the soft term; above 0.
        alpha (`float`, *optional*, defaults to 0.7):
            Weight of the soft term, in [0, 1].
        distillation_loss (`str`, *optional*, defaults to `"kl"`):
            The soft term, `"kl"` or `"mse"`; see [`soft_target_loss`].
        final_temperature (`float`, *optional*):
            Temperature at the end of training, reached from `temperature` on the way. By default it is constant.
        final_alpha (`float`, *optional*):
            Weight at the end of training. By default it is constant.
        distillation_schedule (`str`, *optional*, defaults to `"linear"`):
            The way there, `"linear"` or `"cosine"`; see [`interpolate`].
        teacher_tokenizer ([`~transformers.PreTrainedTokenizerBase`], `str`, `Path`, or a list, *optional*):
            By default the one beside the teacher.
        teacher_logits (`str`, *optional*, defaults to `"cached"`):
            `"cached"` or `"online"`.
        cache_dir (`str` or `Path`, *optional*):
            Where logits are kept; by default in the cache folder of Hugging Face.
        teacher_max_length (`int`, *optional*):
            In tokens; longer texts are cut for the teacher. By default what it can take.
        hidden_states_weight (`float`, *optional*, defaults to 0.0):
            Weight of a third term, the distance of the hidden states; above 0 it needs `teacher_logits="online"` and a
            transformer with the teacher's tokenizer as student. See [`HiddenStateMatching`].
        hidden_states_loss (`str`, *optional*, defaults to `"mse"`):
            `"mse"` (equal widths) or `"relations"`; see [`hidden_state_loss`].
        hidden_states_layers (`dict[int, int]`, *optional*):
            For each matched layer of the student the teacher's, counted from 1. By default all, evenly spread.
        args ([`~transformers.TrainingArguments`], *optional*):
            As [`~transformers.Trainer`]. `label_smoothing_factor` acts on the hard term, as do `class_weights` and
            `focal_gamma`.
        train_dataset ([`~datasets.Dataset`], a sequence of `dict` or an iterable data set, *optional*):
            Tokenised for the student, with the texts beside: `tokenize_dataset(..., keep_columns=("text",))`.
        kwargs:
            As [`ExtendedTrainer`], without `model`.

    Attributes:
        teacher ([`Teacher`], *optional*): As long as it is needed.
        labelling ([`TeacherLogits`], *optional*): What was made and what came from the disk, once it is known.

    Raises:
        ConfigurationError: At once, before anything is written, if settings, models and data do not fit together.
        DataError: If rows have no text, or logits that are not finite numbers, one a class.

    Example:

        >>> trainer = DistillationTrainer(student_model=small, teacher_model=large, temperature=4.0, alpha=0.7)
    """

    # In the hard term.
    uses_class_loss = True

    def __init__(
        self,
        student_model: PreTrainedModel | None = None,
        teacher_model: Any = None,
        temperature: float = 4.0,
        alpha: float = 0.7,
        *,
        distillation_loss: str = "kl",
        final_temperature: float | None = None,
        final_alpha: float | None = None,
        distillation_schedule: str = "linear",
        teacher_tokenizer: Any = None,
        teacher_logits: str = "cached",
        cache_dir: str | Path | None = None,
        teacher_max_length: int | None = None,
        hidden_states_weight: float = 0.0,
        hidden_states_loss: str = "mse",
        hidden_states_layers: dict[int, int] | None = None,
        args: TrainingArguments | None = None,
        train_dataset: Any = None,
        **kwargs,
    ):
        # What a resumed run has to have in common with the one it goes on with.
        self.distillation = {
            "temperature": temperature,
            "final_temperature": temperature if final_temperature is None else final_temperature,
            "alpha": alpha,
            "final_alpha": alpha if final_alpha is None else final_alpha,
            "distillation_schedule": distillation_schedule,
            "distillation_loss": distillation_loss,
            "hidden_states_weight": hidden_states_weight,
            "hidden_states_loss": hidden_states_loss,
            "hidden_states_layers": None,
        }
        check_settings(self.distillation, teacher_logits)
        check_student(student_model, teacher_model, args, kwargs)
        self.teacher_logits, self.cache_dir = teacher_logits, cache_dir
        self.problem_type, self.num_labels = problem_type_of(student_model.config), student_model.config.num_labels
        check_data(train_dataset, teacher_model, teacher_logits, hidden_states_weight, kwargs.get("data_collator"))
        self.teacher: Teacher | None = None
        self.labelling: TeacherLogits | None = None
        self.hidden_states: HiddenStateMatching | None = None
        if has_logits(train_dataset) and not isinstance(train_dataset, IterableDataset):
            logits_column(train_dataset, self.num_labels)
        if teacher_model is not None and not has_logits(train_dataset):
            self.teacher = load_teacher(teacher_model, teacher_tokenizer, student_model.config, teacher_max_length)
        # Not that of a column of logits, which does not say whose they are.
        self.distillation["teacher"] = None if self.teacher is None else self.teacher.fingerprint
        if hidden_states_weight > 0:
            tokenizer = kwargs.get("processing_class")
            self.hidden_states = HiddenStateMatching(
                hidden_states_loss, hidden_states_layers, student_model.config, tokenizer, self.teacher
            )
            self.distillation["hidden_states_layers"] = [list(pair) for pair in self.hidden_states.layers.items()]
        super().__init__(model=student_model, args=args, train_dataset=train_dataset, **kwargs)
        self._parts = self._no_parts()
        self._evaluated = torch.zeros(2)

    # ---- The teacher's logits ----

    def label_train_dataset(self) -> None:
        """
        Have the teacher answer all training texts, unless it has, and let go of it. `train()` begins with this; on
        several processes all have to call it.

        Raises:
            ConfigurationError: If there is no teacher.
        """
        labelled = isinstance(self.train_dataset, IterableDataset) or has_logits(self.train_dataset)
        if self.train_dataset is None or self.teacher_logits == "online" or labelled:
            return
        if self.teacher is None:
            raise ConfigurationError(
                "train_dataset has no column 'teacher_logits', and the teacher has left the memory after it answered "
                "the data set before. Make a new DistillationTrainer for other data."
            )
        texts = text_column(self.train_dataset)
        self.labelling = teacher_logits(
            texts, self.teacher.to(self.args.device), cache_dir=self.cache_dir, progress=not self.args.disable_tqdm
        )
        self.train_dataset = add_logits_column(self.train_dataset, self.labelling.logits)
        self.teacher = None
        gc.collect()

    def get_train_dataloader(self):
        self.label_train_dataset()
        if self.teacher is not None:
            self.teacher.to(self.args.device)
        return super().get_train_dataloader()

    def _get_dataloader(self, *args, is_training=False, **kwargs):
        if not is_training:
            return super()._get_dataloader(*args, is_training=False, **kwargs)
        plain, columns = self.data_collator, self._signature_columns
        self.data_collator = DistillationCollator(plain, self.num_labels, self.teacher)
        try:
            return super()._get_dataloader(*args, is_training=True, **kwargs)
        finally:
            # Rows of an evaluation keep no column for the teacher.
            self.data_collator, self._signature_columns = plain, columns
            self._set_signature_columns_if_needed()

    # ---- Loss ----

    def count_targets(self, inputs) -> int:
        return len(next(value for value in inputs.values() if isinstance(value, torch.Tensor)))

    def batch_loss(self, model, inputs):
        if not model.training:
            return self._task_loss(model, inputs)
        own = {name: inputs[name] for name in inputs if name not in ("labels", TEACHER_LOGITS, TEACHER_INPUTS)}
        matching, teacher_hidden = self.hidden_states, None
        if self.teacher is None:
            targets = inputs[TEACHER_LOGITS]
        else:
            targets = self.teacher.logits(inputs[TEACHER_INPUTS], output_hidden_states=matching is not None)
            targets, teacher_hidden = targets if matching is not None else (targets, None)
        outputs = model(**own, **({} if matching is None else {"output_hidden_states": True}))
        logits, settings = _logits(outputs), self.distillation
        temperature, alpha = self._scheduled("temperature"), self._scheduled("alpha")
        soft = soft_target_loss(logits, targets, self.problem_type, temperature, settings["distillation_loss"])
        labels, own_loss = inputs.get("labels"), self.class_loss
        if own_loss is None:
            hard, labelled = hard_target_loss(logits, labels, self.problem_type)
        else:
            hard, labelled = own_loss.rows(logits, labels)
        loss, hidden = mixed_loss(soft, hard, labelled, alpha), None
        if matching is not None:
            hidden = matching.loss(own, outputs["hidden_states"], inputs[TEACHER_INPUTS][0], teacher_hidden)
            loss = loss + settings["hidden_states_weight"] * hidden.mean()
        if not self.is_idle(model):
            self._parts.add(soft, hard, labelled, temperature, alpha, hidden)
        return loss, outputs

    def _scheduled(self, name: str) -> float:
        progress = self.state.global_step / max(1, self.state.max_steps)
        begin, end = self.distillation[name], self.distillation[f"final_{name}"]
        return interpolate(progress, begin, end, self.distillation["distillation_schedule"])

    def _no_parts(self) -> "_Parts":
        return _Parts(self.hidden_states is not None)

    def _init_training_state(self, *args, **kwargs):
        # Nothing of a range test, of an earlier training or of steps that were rolled back is logged.
        self._parts = self._no_parts()
        return super()._init_training_state(*args, **kwargs)

    def create_optimizer(self, model=None):
        optimizer = super().create_optimizer(model)
        if self.is_in_train:
            require_unchanged(self.state, "hf_ext.distillation", self.distillation)
        return optimizer

    def log(self, logs, start_time=None):
        if "loss" in logs:
            parts, self._parts = self._parts, self._no_parts()
            logs.update(parts.means(self.accelerator))
        super().log(logs, start_time)

    # ---- Evaluation ----

    def _task_loss(self, model, inputs):
        """The model's own loss; with rows without a label the sum of the others' over all rows."""
        loss, outputs = super().batch_loss(model, inputs)
        if not labelled_rows(inputs["labels"]).all():
            loss = hard_target_loss(_logits(outputs, 1), inputs["labels"], self.problem_type)[0].mean()
        return loss, outputs

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        labels = inputs.get("labels")
        if labels is not None:
            own = labelled_rows(labels)[: self._own_rows(inputs)]
            self._evaluated += torch.tensor([float(own.sum()), float(len(own))])
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    def evaluation_loop(self, *args, metric_key_prefix="eval", **kwargs):
        self._evaluated = torch.zeros(2)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        labelled, rows = self.accelerator.reduce(self._evaluated.to(self.args.device)).tolist()
        if labelled < rows:
            output.metrics[f"{metric_key_prefix}_loss"] *= rows / labelled if labelled else math.nan
        return output


class _Parts:
    """What the loss is made of, since the last log; `matches_hidden`: hidden states too."""

    def __init__(self, matches_hidden: bool):
        self.rows, self.temperature, self.alpha = 0, 0.0, 0.0
        self.sums = torch.zeros(5 if matches_hidden else 4)

    def add(self, soft, hard, labelled, temperature, alpha, hidden) -> None:
        rows = len(soft)
        self.rows += rows
        # Running means: a constant stays itself.
        self.temperature += (temperature - self.temperature) * (rows / self.rows)
        self.alpha += (alpha - self.alpha) * (rows / self.rows)
        values = [torch.ones_like(soft), soft, labelled, hard] + ([] if hidden is None else [hidden])
        # Left on the device: reading them here would wait for it in every step.
        sums = torch.stack([value.detach().float().sum() for value in values])
        self.sums = self.sums.to(sums.device) + sums

    def means(self, accelerator) -> dict[str, float]:
        # A process whose batches were all of others' rows takes part too.
        rows, soft, labelled, hard, *hidden = accelerator.reduce(self.sums.to(accelerator.device)).tolist()
        if not rows:
            return {}
        parts = {"soft_loss": soft / rows, "temperature": self.temperature, "alpha": self.alpha}
        if labelled:
            parts["hard_loss"] = hard / labelled
        if hidden:
            parts["hidden_states_loss"] = hidden[0] / rows
        return {f"distillation/{name}": value for name, value in parts.items()}


def _logits(outputs: Any, position: int = 0) -> torch.Tensor:
    return outputs["logits"] if isinstance(outputs, Mapping) else outputs[position]
