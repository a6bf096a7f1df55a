"""A run on several tasks: from their rows to one trainer, and from its model to each task's results."""

from pathlib import Path
from typing import Any

from transformers import DataCollatorWithPadding, PreTrainedModel, TrainerState

from hf_ext.assembly import build_trainer, technique_callbacks, trainer_settings
from hf_ext.evaluation.predictions import Predictions
from hf_ext.experiments.loaded_tasks import LoadedTask, naming_task
from hf_ext.experiments.trained_parts import is_finished, train_into
from hf_ext.models.multitask import MultiTaskModel
from hf_ext.output_dir import GROUPS, check_output_dir
from hf_ext.preparation import quiet_arguments
from hf_ext.results import PREFIXES, predict_splits
from hf_ext.trainers.multitask import MultiTaskTrainer

TASKS, BASELINES = GROUPS
# Task -> predictions by split, and metrics by split without a prefix.
TaskResults = dict[str, tuple[dict[str, Predictions], dict[str, dict[str, float]]]]


def check_task_folders(settings: dict[str, Any], held: str | None) -> Path:
    """
    See that a run may write to its folders, those of its tasks among them.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        held (`str`, *optional*): The checkpoint, or the folder, of the run that is continued.

    Returns:
        `Path`: The run's folder.

    Raises:
        ConfigurationError: If a folder holds another run or the model that is to be loaded, or is not writable.
    """
    overwrite = settings["run"].overwrite
    output_dir = check_output_dir(
        settings["training"].output_dir, overwrite, held, settings["model"].model_name_or_path
    )
    if held is None:
        for name in settings["multitask"].tasks:
            for group in GROUPS:
                check_output_dir(str(output_dir / group / name), overwrite)
    return output_dir


def build_multitask_trainer(
    settings: dict[str, Any], models: dict[str, PreTrainedModel], tasks: dict[str, LoadedTask]
) -> MultiTaskTrainer:
    """
    The trainer of all tasks. Nothing is written.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        models (`dict[str, PreTrainedModel]`): From [`build_task_models`]; they become parts of one.
        tasks (`dict[str, LoadedTask]`): The same tasks.
    """
    multiple = 8 if settings["training"].fp16 else None
    tokenizers = {name: task.tokenizer for name, task in tasks.items()}
    return MultiTaskTrainer(
        models=models,
        datasets={name: task.encoded for name, task in tasks.items()},
        args=settings["training"],
        processing_classes=tokenizers,
        data_collators={
            name: DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple)
            for name, tokenizer in tokenizers.items()
        },
        compute_metrics={name: task.compute_metrics for name, task in tasks.items()},
        callbacks=[*technique_callbacks(settings), *settings["early_stopping"].callbacks()],
        **settings["multitask"].trainer_settings(),
        **trainer_settings(settings, with_loss=False),
    )


# ---- Training, and what comes of it ----


def train_tasks(trainer: MultiTaskTrainer, output_dir: Path, checkpoint: str | None, resume: bool) -> None:
    """
    Train all tasks together into the run's folder, unless an earlier call finished it.

    Args:
        trainer ([`MultiTaskTrainer`]): It holds the trained model afterwards.
        output_dir (`Path`): The run's folder.
        checkpoint (`str`, *optional*): Where to go on.
        resume (`bool`): Whether what is in the folder already may be taken.
    """
    if resume and is_finished(output_dir):
        trainer.model.load_state_dict(MultiTaskModel.from_pretrained(output_dir).state_dict())
        trainer.state = TrainerState.load_from_json(str(output_dir / "trainer_state.json"))
        return
    train_into(trainer, output_dir, checkpoint)


def export_tasks(
    settings: dict[str, Any], tasks: dict[str, LoadedTask], trainer: MultiTaskTrainer, output_dir: Path
) -> TaskResults:
    """
    Write each task's plain model to `output_dir/tasks/<task>`, with its metrics.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        tasks (`dict[str, LoadedTask]`): The tasks.
        trainer ([`MultiTaskTrainer`]): After training.
        output_dir (`Path`): The run's folder.

    Returns:
        `dict`: Task -> predictions and metrics, as [`predict_splits`].
    """
    found = {}
    for name, task in tasks.items():
        folder = output_dir / TASKS / name
        trainer.export_task(name, folder, task.tokenizer)
        found[name] = predict_task(settings, task, trainer.model.task_model(name), folder)
    return found


def predict_task(
    settings: dict[str, Any], task: LoadedTask, model: PreTrainedModel, folder: Path
) -> tuple[dict[str, Predictions], dict[str, dict[str, float]]]:
    """
    What a task's plain model says of its validation and test rows; the metrics are written to a folder.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        task ([`LoadedTask`]): The task.
        model ([`~transformers.PreTrainedModel`]): Its model, trained with others or alone.
        folder (`Path`): Where that model is.

    Returns:
        `tuple`: As [`predict_splits`].
    """
    own = quiet_arguments(settings["training"], str(folder))
    own.disable_tqdm = settings["training"].disable_tqdm
    trainer = build_trainer(
        model, task.tokenizer, {}, own, trainer_settings(settings, with_loss=False), task.compute_metrics
    )
    with naming_task(task.name):
        return predict_splits(
            trainer, task.given, {split: rows for split, rows in task.encoded.items() if split in PREFIXES}
        )
