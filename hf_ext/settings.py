"""What a run that trains can be told, section by section: the dataclasses of all techniques in one place."""

from collections.abc import Callable
from typing import Any

from hf_ext.arguments import DataArguments, ModelArguments, RecipeTrainingArguments, RunArguments
from hf_ext.callbacks.curriculum import CurriculumArguments
from hf_ext.callbacks.early_stopping import EarlyStoppingArguments
from hf_ext.callbacks.learning_rates import LearningRateArguments
from hf_ext.callbacks.monitors import MonitorArguments
from hf_ext.callbacks.unfreezing import UnfreezingArguments
from hf_ext.configuration import parse_arguments
from hf_ext.data.augmentation import AugmentationArguments
from hf_ext.data.preflight import PreflightArguments
from hf_ext.data.preprocessing import PreprocessingArguments
from hf_ext.evaluation.calibrating import CalibrationArguments
from hf_ext.experiments.kfold_arguments import KFoldArguments
from hf_ext.experiments.lr_finder import LRFinderArguments
from hf_ext.experiments.search_arguments import SearchArguments
from hf_ext.experiments.teacher_and_control import TeacherArguments
from hf_ext.export.arguments import ExportArguments
from hf_ext.models.building import TextCNNArguments
from hf_ext.models.peft_arguments import PeftArguments
from hf_ext.tracking import TrackingArguments
from hf_ext.trainers.class_loss import LossArguments
from hf_ext.trainers.distillation_arguments import DistillationArguments
from hf_ext.trainers.multitask_arguments import MultiTaskArguments
from hf_ext.trainers.nonfinite import NonFiniteArguments

# Section of run.json -> dataclass. A recipe takes those it needs; the others may stand in its files all the same.
TRAINING_SETTINGS = {
    "model": ModelArguments,
    "textcnn": TextCNNArguments,
    "peft": PeftArguments,
    "data": DataArguments,
    "augmentation": AugmentationArguments,
    "preflight": PreflightArguments,
    "training": RecipeTrainingArguments,
    "loss": LossArguments,
    "curriculum": CurriculumArguments,
    "unfreezing": UnfreezingArguments,
    "learning_rates": LearningRateArguments,
    "lr_finder": LRFinderArguments,
    "early_stopping": EarlyStoppingArguments,
    "calibration": CalibrationArguments,
    "health": NonFiniteArguments,
    "monitors": MonitorArguments,
    "run": RunArguments,
    "tracking": TrackingArguments,
}
DISTILLATION_SETTINGS = {
    **{name: kind for name, kind in TRAINING_SETTINGS.items() if name != "lr_finder"},
    "teacher": TeacherArguments,
    "distillation": DistillationArguments,
}
MULTITASK_SETTINGS = {**TRAINING_SETTINGS, "multitask": MultiTaskArguments}
KFOLD_SETTINGS = {**TRAINING_SETTINGS, "kfold": KFoldArguments}
SEARCH_SETTINGS = {**TRAINING_SETTINGS, "search": SearchArguments}
ALL_SETTINGS = {
    **TRAINING_SETTINGS,
    **DISTILLATION_SETTINGS,
    **MULTITASK_SETTINGS,
    **KFOLD_SETTINGS,
    **SEARCH_SETTINGS,
    "preprocessing": PreprocessingArguments,
    "export": ExportArguments,
}


def parse_settings(
    kinds: dict[str, type],
    argv: list[str],
    description: str,
    complete: Callable[[dict[str, Any]], dict[str, Any]],
    file_flags: tuple[str, ...] = ("--args",),
) -> dict[str, Any]:
    """
    The settings of a run, from its command line and configuration files; see [`parse_arguments`].

    Args:
        kinds (`dict[str, type]`): Section -> dataclass. Files may hold the settings of other recipes as well.
        argv (`list[str]`): The arguments without the program's name.
        description (`str`): What `--help` opens with.
        complete (`Callable`): From the values that were given to all that follow from them.
        file_flags (`tuple[str, ...]`, *optional*, defaults to `("--args",)`): Flags that name a configuration file.

    Returns:
        `dict[str, Any]`: Section -> an instance of its dataclass.

    Raises:
        ConfigurationError: As [`parse_arguments`].
    """
    parsed = parse_arguments(kinds.values(), argv, description, file_flags, complete, ALL_SETTINGS.values())
    return dict(zip(kinds, parsed, strict=True))
