"""What a training loss on classes is made of: class weights, focus, smoothing; from settings and training rows."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset
from transformers import TrainingArguments

from hf_ext.class_weights import BALANCED, check_class_weights, resolve_class_weights
from hf_ext.data.difficulty import column, column_names
from hf_ext.data.task_data import LABEL_COLUMNS, infer_problem_type
from hf_ext.errors import ConfigurationError, first_few
from hf_ext.losses import hard_target_loss
from hf_ext.problem_types import MULTI_LABEL, REGRESSION


@dataclass
class LossArguments:
    """
    A training loss in which rare classes, or rows that are still wrong, count more. `label_smoothing_factor` stands in
    the section `training`.

    Raises:
        ConfigurationError: If a value is out of range.
    """

    _argument_group_name = "loss"

    class_weights: list[float] | dict | str | None = field(
        default=None,
        metadata={"help": "balanced, or a weight a class: '{\"spam\": 5}' (others 1), or a list in the order of ids."},
    )
    focal_gamma: float = field(
        default=0.0, metadata={"help": "Focal loss (Lin 2017): rows count by (1 - p)^gamma; 2 there. 0: off."}
    )

    def __post_init__(self):
        if isinstance(self.class_weights, str) and self.class_weights != BALANCED:
            try:
                self.class_weights = json.loads(self.class_weights)
            except json.JSONDecodeError:
                raise ConfigurationError(
                    f"class_weights is {self.class_weights!r}; it must be balanced, an object of class names and "
                    "weights ('{\"spam\": 5}') or a list of weights."
                ) from None
        _check_gamma(self.focal_gamma)

    def check(self, problem_type: str, label_names: Sequence[str], label_smoothing: float = 0.0) -> None:
        """
        See, before anything is trained, that the loss fits the data.

        Args:
            problem_type (`str`): Of the data.
            label_names (`Sequence[str]`): The classes in the order of their ids.
            label_smoothing (`float`, *optional*, defaults to 0.0): `label_smoothing_factor`.

        Raises:
            ConfigurationError: For classes that do not exist, or a regression.
        """
        if problem_type == REGRESSION:
            _refuse_regression(_asked(self.class_weights, self.focal_gamma, label_smoothing))
        elif self.class_weights is not None:
            check_class_weights(self.class_weights, label_names)

    def trainer_settings(self) -> dict[str, Any]:
        """The arguments of [`ExtendedTrainer`] that stand here."""
        return dict(vars(self))


class ClassLoss:
    """
    The loss of training batches, if it is another than the model's own; see [`hard_target_loss`].

    The mean is over the rows (and the classes), not over their weights: torch's `CrossEntropyLoss(weight)` divides by
    the weights that happen to be in a batch, so that a batch of one class cancels them, and micro-batches do not add up
    to the whole. Since the mean weight of all training rows is 1, both are the same number on all of them.

    Args:
        problem_type (`str`): Of the model.
        label_names (`list[str]`): Its classes.
        weights (`np.ndarray`, *optional*): From [`resolve_class_weights`].
        focal_gamma, label_smoothing (`float`): As [`hard_target_loss`].
    """

    def __init__(
        self,
        problem_type: str,
        label_names: list[str],
        weights: np.ndarray | None,
        focal_gamma: float,
        label_smoothing: float,
    ):
        self.problem_type, self.label_names = problem_type, label_names
        self.weights = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.focal_gamma, self.label_smoothing = focal_gamma, label_smoothing

    def rows(self, logits: torch.Tensor, labels: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The losses of the rows, and which have a label; see [`hard_target_loss`]."""
        return hard_target_loss(logits, labels, self.problem_type, self.label_smoothing, self.weights, self.focal_gamma)

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean over the rows that have a label; 0 where none has."""
        losses, labelled = self.rows(logits, labels)
        return losses.sum() / labelled.sum().clamp(min=1)

    @property
    def settings(self) -> dict[str, Any]:
        """What a run that is continued must not change. Smoothing is left to the Trainer's arguments."""
        if self.weights is None and not self.focal_gamma:
            return {}
        weights = None if self.weights is None else self.weights.tolist()
        return {"class_weights": weights, "focal_gamma": self.focal_gamma}

    def notes(self) -> list[str]:
        """Sentences for the reader of the results."""
        parts = []
        if self.weights is not None:
            ratios = self.weights if self.weights.ndim == 1 else self.weights[1]
            shown = [f"{name} {weight:.3g}" for name, weight in zip(self.label_names, ratios.tolist(), strict=True)]
            where = "" if self.weights.ndim == 1 else " where the class is present"
            parts.append(f"class weights{where} (mean over the training rows 1): {first_few(shown, 20)}")
        if self.focal_gamma:
            parts.append(f"focal loss with gamma {self.focal_gamma:g}")
        if self.label_smoothing:
            parts.append(f"label smoothing {self.label_smoothing:g}")
        return [f"Trained with {'; '.join(parts)}. eval_loss and test_loss are the plain loss, without them."]


def make_class_loss(
    model: Any,
    args: TrainingArguments,
    rows: Any,
    class_weights: Any = None,
    focal_gamma: float = 0.0,
    foreign_loss: str | None = None,
) -> ClassLoss | None:
    """
    The loss that a trainer's settings ask for; `None` where the model's own is it.

    Args:
        model (`PreTrainedModel`): Its configuration tells the kind of task and the classes.
        args ([`~transformers.TrainingArguments`]): `label_smoothing_factor`.
        rows (`Any`): The training rows, whose labels are counted for class weights; `None` if there are none.
        class_weights (`Any`, *optional*): As [`check_class_weights`].
        focal_gamma (`float`, *optional*, defaults to 0.0): 0 for none.
        foreign_loss (`str`, *optional*): What computes the loss in place of this one.

    Raises:
        ConfigurationError: If they do not fit the task, or the labels cannot be counted.
    """
    _check_gamma(focal_gamma)
    smoothing, config = args.label_smoothing_factor, getattr(model, "config", None)
    asked = _asked(class_weights, focal_gamma)
    if foreign_loss is not None or not is_sequence_classifier(model):
        for name, value in asked.items():
            why = f"the loss is that of {foreign_loss}"
            if foreign_loss is None:
                why = f"{type(model).__name__} is no sequence classifier"
            raise ConfigurationError(f"{name} is {value}, but {why}, where it would have no effect. Leave it out.")
        return None
    asked = _asked(class_weights, focal_gamma, smoothing)
    if rows is None or not asked:
        return None
    problem_type = config.problem_type or _inferred(rows, config.num_labels, next(iter(asked)))
    if problem_type == REGRESSION:
        _refuse_regression(asked)
    names = [config.id2label[index] for index in range(config.num_labels)]
    weights = None
    if class_weights is not None:
        weights = resolve_class_weights(class_weights, _labels(rows, problem_type), names)
    return ClassLoss(problem_type, names, weights, focal_gamma, smoothing)


def is_sequence_classifier(model: Any) -> bool:
    """Whether a model predicts classes, or a number, for whole texts."""
    kind = getattr(getattr(model, "config", None), "problem_type", None)
    return "ForSequenceClassification" in type(model).__name__ or kind is not None


# ---- Inside ----


def _check_gamma(gamma: Any) -> None:
    number = isinstance(gamma, (int, float)) and not isinstance(gamma, bool) and math.isfinite(gamma)
    if not number or gamma < 0:
        raise ConfigurationError(f"focal_gamma is {gamma!r}; it must be a number of at least 0, such as 2.0.")


def _asked(class_weights: Any, focal_gamma: float, label_smoothing: float = 0.0) -> dict[str, Any]:
    """What differs from a plain loss."""
    numbers = {"focal_gamma": focal_gamma, "label_smoothing_factor": label_smoothing}
    asked = {name: value for name, value in numbers.items() if value}
    return asked if class_weights is None else {"class_weights": class_weights, **asked}


def _refuse_regression(asked: dict[str, Any]) -> None:
    for name, value in asked.items():
        raise ConfigurationError(
            f"{name} is {value}, but what is predicted is a number (regression); it is defined for classes only. Leave "
            "it out."
        )


def _inferred(rows: Any, num_labels: int, asked: str) -> str:
    if isinstance(rows, IterableDataset):
        raise ConfigurationError(
            f"{asked}: the model's configuration has no problem_type, and a stream of rows does not tell "
            f"it. Set model.config.problem_type to single_label_classification or {MULTI_LABEL}."
        )
    return infer_problem_type(rows, num_labels)


def _labels(rows: Any, problem_type: str) -> np.ndarray:
    if isinstance(rows, IterableDataset):
        raise ConfigurationError(
            "class_weights: the rows of a stream cannot be counted before they are read. Train on a data set that has "
            "a length, or leave class_weights out."
        )
    name = next((name for name in LABEL_COLUMNS if name in column_names(rows)), None)
    if name is None:
        raise ConfigurationError(
            f"class_weights: the training rows have no column 'labels' or 'label'; they have "
            f"{', '.join(column_names(rows))}."
        )
    return np.asarray(column(rows, name), dtype=np.float64 if problem_type == MULTI_LABEL else np.int64)
