"""What can be wrong with a distillation, found before anything is trained or written."""

import copy
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_ext.assembly import build_model
from hf_ext.data.distillation_collator import add_logits_column
from hf_ext.data.loading import TextData
from hf_ext.data.transfer_set import TransferSet
from hf_ext.errors import ConfigurationError
from hf_ext.experiments.rehearsing import begin_training
from hf_ext.experiments.teacher_and_control import teacher_model_arguments
from hf_ext.models.teacher import Teacher
from hf_ext.output_dir import PARTS, check_output_dir, check_writable
from hf_ext.trainers.base import ExtendedTrainer

# Texts that a teacher is asked on trial; so many that probabilities are told from logits.
TRIAL_TEXTS = 32


def check_folders(settings: dict[str, Any], held: str | None) -> Path:
    """
    See that a distillation may write to its folders and replaces no model that it is to load.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        held (`str`, *optional*): The checkpoint, or the folder, of the run that is continued.

    Returns:
        `Path`: The run's folder.

    Raises:
        ConfigurationError: If a folder holds another run or a model that is to be loaded, or is not writable.
    """
    training_args, overwrite = settings["training"], settings["run"].overwrite
    for model in (settings["model"].model_name_or_path, *settings["teacher"].teacher_name_or_path):
        output_dir = check_output_dir(training_args.output_dir, overwrite, held, model)
    if held is None:
        for part in PARTS:
            check_output_dir(str(output_dir / part), overwrite)
    if settings["teacher"].teacher_cache_dir is not None:
        check_writable(Path(settings["teacher"].teacher_cache_dir), "teacher_cache_dir")
    return output_dir


def untrained_teacher(settings: dict[str, Any], data: TextData, student_config: PreTrainedConfig) -> Teacher:
    """
    The encoder that is to be fine-tuned, with a new head: what fits together, or not, is known from it.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        data ([`TextData`]): Its classes.
        student_config ([`~transformers.PreTrainedConfig`]): The student's.
    """
    name, length = settings["teacher"].teacher_name_or_path[0], settings["teacher"].teacher_max_seq_length
    model, tokenizer, _ = build_model(
        teacher_model_arguments(name, settings["model"]),
        settings["textcnn"],
        dataclasses.replace(settings["data"], max_seq_length=length),
        settings["training"],
        data.task,
        [],
    )
    return Teacher.load(model, tokenizer, student_config=student_config, max_length=length)


def check_teacher(
    settings: dict[str, Any], teacher: Teacher, trained: bool, model: PreTrainedModel, transfer: TransferSet
) -> None:
    """
    Ask a teacher about the first texts, and see that the student's word vectors can be had from it.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        teacher ([`Teacher`]): As it is, or with a new head.
        trained (`bool`): Which of the two.
        model ([`~transformers.PreTrainedModel`]): The student.
        transfer ([`TransferSet`]): The texts.

    Raises:
        DataError: If its answers are not finite.
        ConfigurationError: If they are probabilities, or it is too narrow for the word vectors.
    """
    if trained:
        # A new head says nothing yet, and may by chance look as if it gave probabilities.
        teacher.logits(teacher.collate(transfer.texts()[:TRIAL_TEXTS]))
    if settings["distillation"].student_embeddings != "teacher":
        return
    name, config = teacher.members[0].name, teacher.members[0].model.config
    hidden, width = getattr(config, "hidden_size", None), model.config.embed_size
    if hidden is None:
        raise ConfigurationError(
            f"student_embeddings=teacher: the teacher {name} ({config.model_type}) has no hidden states to make word "
            "vectors of; that takes a transformer. Leave student_embeddings out."
        )
    if width > hidden:
        raise ConfigurationError(
            f"student_embeddings=teacher: embed_size is {width}, but the hidden states of the teacher {name} have "
            f"{hidden} dimensions, and no more can be had from them. Pass --embed_size {hidden} or less."
        )
    words = model.config.vocab_size
    if width > words:
        raise ConfigurationError(
            f"student_embeddings=teacher: embed_size is {width}, but there are only {words} words to make the vectors "
            "of. Pass a smaller --embed_size."
        )


def rehearse(
    make_trainer: Callable[..., ExtendedTrainer],
    settings: dict[str, Any],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: dict[str, Dataset],
    **others: Any,
) -> None:
    """
    Go as far as to the first step of the student's training, where every technique has looked at its settings.

    Args:
        make_trainer (`Callable`): [`build_student_trainer`].
        settings (`dict[str, Any]`): Section -> dataclass.
        model ([`~transformers.PreTrainedModel`]): The student; a copy of it is used.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The student's.
        encoded (`dict[str, Dataset]`): The tokenised splits, without the teacher's logits.
        others: What else `make_trainer` takes.

    Raises:
        UsageError: With what a technique or the trainer says.
    """
    rows = encoded["train"]
    if settings["teacher"].teacher_logits == "cached":
        rows = add_logits_column(rows, np.zeros((len(rows), model.config.num_labels), dtype=np.float32))
    own = copy.deepcopy(settings["training"])
    own.report_to, own.push_to_hub, own.disable_tqdm = [], False, True
    with tempfile.TemporaryDirectory() as folder:
        own.output_dir = folder
        trainer = make_trainer(
            {**settings, "training": own},
            copy.deepcopy(model),
            tokenizer,
            {**encoded, "train": rows},
            **others,
        )
        begin_training(trainer)
