"""What a distillation cannot do, said before anything is written."""

import math
from numbers import Real
from typing import Any

from torch import nn
from torch.utils.data import IterableDataset
from transformers import PreTrainedConfig, TrainingArguments

from hf_ext.data.augmentation.collator import AugmentingCollator
from hf_ext.data.difficulty import TEXTS, column_names
from hf_ext.data.distillation_collator import KEEP_TEXTS, TEACHER_LOGITS
from hf_ext.errors import ConfigurationError, DataError, nearest
from hf_ext.losses import HIDDEN_LOSSES, SOFT_LOSSES
from hf_ext.models.teacher import Teacher, label_names_of, problem_type_of
from hf_ext.problem_types import REGRESSION
from hf_ext.schedules import INTERPOLATIONS

SOURCES = ("cached", "online")


def has_logits(dataset: Any) -> bool:
    """Whether training rows come with the column `teacher_logits`, as far as they tell."""
    return dataset is not None and TEACHER_LOGITS in _known_columns(dataset)


def check_settings(settings: dict[str, Any], source: str) -> None:
    """
    See that all numbers and choices are valid.

    Args:
        settings (`dict[str, Any]`): Of the loss, by the names of [`DistillationTrainer`]'s arguments.
        source (`str`): `teacher_logits`.

    Raises:
        ConfigurationError: With the name, the value and what is valid.
    """
    for name in ("temperature", "final_temperature", "alpha", "final_alpha", "hidden_states_weight"):
        value = settings[name]
        number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        if name.endswith("temperature"):
            valid, fits = "a number above 0, such as 4.0", number and value > 0
        elif name.endswith("alpha"):
            valid, fits = "a number from 0 (labels alone) to 1 (teacher alone)", number and 0 <= value <= 1
        else:
            valid, fits = "a number of at least 0", number and value >= 0
        if not fits:
            raise ConfigurationError(f"{name} is {value!r}; it must be {valid}.")
    choices = {
        "distillation_loss": SOFT_LOSSES,
        "distillation_schedule": INTERPOLATIONS,
        "hidden_states_loss": HIDDEN_LOSSES,
        "teacher_logits": SOURCES,
    }
    for name, valid in choices.items():
        value = {**settings, "teacher_logits": source}[name]
        if value not in valid:
            raise ConfigurationError(f"{name} is {value!r}; valid are {', '.join(valid)}.{nearest(str(value), valid)}")


def check_student(student: Any, teacher: Any, args: TrainingArguments | None, kwargs: dict[str, Any]) -> None:
    """
    See that there is a student, and nothing that does not go with it.

    Args:
        student (`Any`): `student_model`.
        teacher (`Any`): `teacher_model`.
        args ([`~transformers.TrainingArguments`], *optional*): `label_smoothing_factor` is looked at.
        kwargs (`dict[str, Any]`): What else the trainer is given.

    Raises:
        ConfigurationError: With what to do.
    """
    for name, instead in {
        "model": "pass the model to train as student_model",
        "model_init": "make a new student and a new trainer for each run",
        "compute_loss_func": "the loss is set by distillation_loss and alpha",
    }.items():
        if kwargs.get(name) is not None:
            raise ConfigurationError(f"DistillationTrainer takes no {name}: {instead}.")
    if not isinstance(student, nn.Module) or not hasattr(student, "config"):
        raise ConfigurationError(
            f"student_model is {'missing' if student is None else f'a {type(student).__name__}'}; it must be a "
            "sequence classifier (PreTrainedModel)."
        )
    if any(member is student for member in (teacher if isinstance(teacher, (list, tuple)) else [teacher])):
        raise ConfigurationError("student_model and teacher_model are one object; a teacher is another model.")
    smoothing = 0.0 if args is None else args.label_smoothing_factor
    if smoothing and problem_type_of(student.config) == REGRESSION:
        raise ConfigurationError(
            f"label_smoothing_factor is {smoothing}, but the student is a model of regression; smoothing is defined "
            "for classes only. Set it to 0."
        )


def check_data(dataset: Any, teacher: Any, source: str, hidden_states_weight: float, collator: Any) -> None:
    """
    See that the teacher's logits can be had the way they are asked for.

    Args:
        dataset (`Any`): `train_dataset`.
        teacher (`Any`): `teacher_model`.
        source (`str`): `teacher_logits`.
        hidden_states_weight (`float`): Of the trainer.
        collator (`Any`): `data_collator`.

    Raises:
        ConfigurationError: With what to do.
        DataError: If the data set is empty.
    """
    given, streamed = has_logits(dataset), isinstance(dataset, IterableDataset)
    # A stream that does not tell its columns may have it; the collator will see.
    untold = streamed and not _known_columns(dataset) and source == "cached"
    if teacher is None and not given and not untold:
        raise ConfigurationError(
            "There is nothing to learn from: pass teacher_model, or a train_dataset with the column 'teacher_logits'."
        )
    if source == "online" and given:
        raise ConfigurationError(
            "train_dataset has the column 'teacher_logits', and teacher_logits='online' asks for others. Leave one of "
            "the two out."
        )
    if hidden_states_weight > 0 and source != "online":
        raise ConfigurationError(
            f"hidden_states_weight is {hidden_states_weight}, but hidden states are not kept on disk; set "
            "teacher_logits='online' (and leave out a column 'teacher_logits'), or the weight to 0."
        )
    if source == "cached" and isinstance(collator, AugmentingCollator):
        raise ConfigurationError(
            "The AugmentingCollator edits the texts anew in every epoch, so logits that were made before would be of "
            "other texts. Store copies (DataAugmenter.augment_dataset with augmentation_factor) and have them "
            "labelled, or set teacher_logits='online'."
        )
    if dataset is None or given or teacher is None:
        return
    if streamed and source == "cached":
        raise ConfigurationError(
            "The teacher's logits of a stream cannot be made before it is read. Set teacher_logits='online', or add "
            "the column 'teacher_logits' to it."
        )
    columns = _known_columns(dataset)
    if columns and TEXTS[0] not in columns:
        raise ConfigurationError(
            f"train_dataset has no column 'text' for the teacher; it has {', '.join(columns)}. {KEEP_TEXTS}"
        )


def load_teacher(teacher: Any, tokenizer: Any, student_config: PreTrainedConfig, max_length: int | None) -> Teacher:
    """
    The teacher that a trainer is given; see [`Teacher.load`].

    Raises:
        ConfigurationError: If it does not fit the student.
    """
    if not isinstance(teacher, Teacher):
        return Teacher.load(teacher, tokenizer, student_config=student_config, max_length=max_length)
    if tokenizer is not None or max_length is not None:
        raise ConfigurationError(
            "teacher_model is a Teacher, which has its tokenizer and length: leave out teacher_tokenizer and "
            "teacher_max_length, or pass the model itself."
        )
    asked = (problem_type_of(student_config), label_names_of(student_config, "student"))
    if (teacher.problem_type, teacher.label_names) != asked:
        raise ConfigurationError(
            f"The teacher was loaded for a student of {teacher.problem_type} with the classes "
            f"{', '.join(teacher.label_names)}; this one is of {asked[0]} with {', '.join(asked[1])}. Load it with "
            "Teacher.load(..., student_config=student_model.config)."
        )
    return teacher


# ---- Inside ----


def _known_columns(dataset: Any) -> list[str]:
    if isinstance(dataset, IterableDataset):
        return list(getattr(dataset, "column_names", None) or ())
    if len(dataset) == 0:
        raise DataError("train_dataset has no rows.")
    return column_names(dataset)
