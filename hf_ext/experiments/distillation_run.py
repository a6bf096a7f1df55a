"""The parts of a distillation, each of which a later call takes up where an earlier one was stopped."""

import dataclasses
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, DatasetDict
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerState,
)

from hf_ext.arguments import ModelArguments
from hf_ext.assembly import build_model, build_trainer, technique_callbacks, tokenize_splits, trainer_settings
from hf_ext.checks import learning_settings
from hf_ext.data.distillation_collator import add_logits_column
from hf_ext.data.loading import TextData
from hf_ext.data.teacher_logits import TeacherLogits, teacher_logits
from hf_ext.data.transfer_set import TransferSet, build_transfer_set, read_unlabelled
from hf_ext.errors import ConfigurationError
from hf_ext.experiments.teacher_and_control import (
    TeacherArguments,
    control_training_arguments,
    is_classifier,
    teacher_model_arguments,
    teacher_training_arguments,
)
from hf_ext.experiments.trained_parts import StopAt, is_finished, train_into, train_once
from hf_ext.models.adapter_files import find_adapter
from hf_ext.models.building import load_classifier
from hf_ext.models.teacher import Precision, Teacher
from hf_ext.models.teacher_embeddings import teacher_word_vectors
from hf_ext.results import PREFIXES
from hf_ext.trainers.base import ExtendedTrainer
from hf_ext.trainers.distillation import DistillationTrainer

CONTROL, TEACHER, DISTILLED = "control", "teacher", "distilled"


def teacher_is_ready(settings: dict[str, Any]) -> bool:
    """
    Whether all teachers are classifiers; a single encoder can be made one by [`fine_tune_teacher`].

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.

    Raises:
        ConfigurationError: If one of several is no classifier.
    """
    names = settings["teacher"].teacher_name_or_path
    bare = [name for name in names if not is_classifier(name, settings["model"])]
    if bare and len(names) > 1:
        raise ConfigurationError(
            f"teacher_name_or_path: {', '.join(bare)} is no classifier yet, and of several teachers none is fine-tuned "
            "here. Fine-tune each with run_classification.py, and pass their output_dirs."
        )
    return not bare


def fine_tune_teacher(settings: dict[str, Any], data: TextData, compute_metrics, output_dir: Path, resume: bool) -> str:
    """
    Fine-tune the encoder that is to be the teacher on the training rows, into `output_dir/teacher`.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        data ([`TextData`]): The rows.
        compute_metrics (`Callable`): The Trainer's.
        output_dir (`Path`): The run's folder.
        resume (`bool`): Whether what is in it already is taken, or continued.

    Returns:
        `str`: A sentence for the reader of the results.
    """
    teacher_args: TeacherArguments = settings["teacher"]
    name, folder = teacher_args.teacher_name_or_path[0], output_dir / TEACHER
    own = teacher_training_arguments(settings["training"], teacher_args, folder, "validation" in data.splits)
    model_args = teacher_model_arguments(name, settings["model"])
    data_args = dataclasses.replace(settings["data"], max_seq_length=teacher_args.teacher_max_seq_length)

    def make_trainer() -> ExtendedTrainer:
        model, tokenizer, _ = build_model(model_args, settings["textcnn"], data_args, own, data.task, [])
        encoded = tokenize_splits(tokenizer, data_args, own, data.splits)
        return build_trainer(
            model, tokenizer, encoded, own, trainer_settings(settings, with_loss=False), compute_metrics
        )

    fields = ("teacher_name_or_path", "teacher_max_seq_length", "teacher_num_train_epochs", "teacher_learning_rate")
    depends_on = {field: getattr(teacher_args, field) for field in (*fields, "teacher_batch_size")}
    made = train_once(folder, make_trainer, {**depends_on, "data": data.fingerprint(), "seed": own.seed}, resume)
    when = "was fine-tuned" if made else "had been fine-tuned by an earlier call"
    return f"The teacher {name} {when} on the training rows, into {folder}."


def load_teachers(settings: dict[str, Any], folder: Path | None = None, *, student_config: PreTrainedConfig) -> Teacher:
    """
    The teachers that were named, or the one in a folder of the run.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        folder (`Path`, *optional*): Where [`fine_tune_teacher`] left it.
        student_config ([`~transformers.PreTrainedConfig`]): Its classes are what the teacher is asked for.
    """
    teacher = Teacher.load(
        [str(folder)] if folder is not None else settings["teacher"].teacher_name_or_path,
        student_config=student_config,
        max_length=settings["teacher"].teacher_max_seq_length,
        trust_remote_code=settings["model"].trust_remote_code,
    )
    return teacher.to(settings["training"].device)


def make_transfer_set(settings: dict[str, Any], data: TextData) -> TransferSet:
    """
    The texts that the student learns from.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        data ([`TextData`]): Its validation and test texts stay out of what is added to the training rows.
    """
    data_args, augmentation, wanted = settings["data"], settings["augmentation"], settings["distillation"]
    unlabelled, said = [], []
    if wanted.unlabelled_files:
        unlabelled, said = read_unlabelled(wanted.unlabelled_files, data_args)
    stored = augmentation.augmentation_enabled and not augmentation.augmentation_on_the_fly
    transfer = build_transfer_set(
        data.splits["train"],
        unlabelled=unlabelled,
        augmenter=augmentation.augmenter(settings["training"].seed) if stored else None,
        factor=augmentation.augmentation_factor if stored else 0,
        held_out=[text for split in PREFIXES if split in data.splits for text in data.texts(split)],
        problem_type=data.task.problem_type,
        num_labels=len(data.task.label_names),
        num_proc=data_args.preprocessing_num_workers,
    )
    return dataclasses.replace(transfer, notes=said + transfer.notes)


def with_rows(data: TextData, rows: Dataset) -> TextData:
    """The data with other training rows."""
    return dataclasses.replace(data, splits=DatasetDict({**data.splits, "train": rows}))


def label_transfer_set(
    settings: dict[str, Any], transfer: TransferSet, rows: Dataset, teacher: Teacher
) -> tuple[Dataset, list[str]]:
    """
    The transfer set with the column `teacher_logits`; as it is for a teacher that answers online.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        transfer ([`TransferSet`]): From [`make_transfer_set`].
        rows ([`~datasets.Dataset`]): The same, tokenised for the student.
        teacher ([`Teacher`]): Is asked only for texts that it has not answered before.

    Returns:
        `tuple`: The rows, and sentences for the reader of the results.
    """
    if settings["teacher"].teacher_logits == "online":
        return rows, ["The teacher answers in every step (online)."]
    answers = ask(settings, teacher, transfer.texts())
    said = (
        f"The teacher was asked for {answers.labelled:,} texts; the answers to {answers.cached:,} were known from an "
        "earlier run."
    )
    return add_logits_column(rows, answers.logits), [said, *answers.notes]


def ask(settings: dict[str, Any], teacher: Teacher, texts: list, precision: Precision = "auto") -> TeacherLogits:
    """What a teacher says of texts; see [`teacher_logits`]."""
    return teacher_logits(
        texts,
        teacher,
        cache_dir=settings["teacher"].teacher_cache_dir,
        precision=precision,
        progress=not settings["training"].disable_tqdm,
    )


def build_student_trainer(
    settings: dict[str, Any],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: dict[str, Dataset],
    teacher: Teacher,
    compute_metrics,
) -> DistillationTrainer:
    """
    The trainer of the student. It holds the teacher only if that answers online.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        model ([`~transformers.PreTrainedModel`]): The student.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The student's.
        encoded (`dict[str, Dataset]`): The tokenised splits; `train` as from [`label_transfer_set`].
        teacher ([`Teacher`]): Who answers online.
        compute_metrics (`Callable`): The Trainer's.
    """
    own = {
        **settings["distillation"].trainer_settings(),
        "teacher_model": teacher if settings["teacher"].teacher_logits == "online" else None,
        "teacher_logits": settings["teacher"].teacher_logits,
    }
    return build_trainer(
        model,
        tokenizer,
        encoded,
        settings["training"],
        trainer_settings(settings),
        compute_metrics,
        [*technique_callbacks(settings), *settings["early_stopping"].callbacks()],
        settings["augmentation"].augmenter_on_the_fly(settings["training"].seed),
        lambda model, **others: DistillationTrainer(student_model=model, **own, **others),
    )


def train_student(
    settings: dict[str, Any], trainer: DistillationTrainer, output_dir: Path, checkpoint: str | None, resume: bool
) -> None:
    """
    Train the student into the run's folder, unless an earlier call finished it.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        trainer ([`DistillationTrainer`]): From [`build_student_trainer`]; it holds the trained model afterwards.
        output_dir (`Path`): The run's folder.
        checkpoint (`str`, *optional*): Where to go on.
        resume (`bool`): Whether what is in the folder already may be taken.
    """
    if resume and is_finished(output_dir):
        trained = load_part(settings, output_dir)
        if settings["peft"].wanted:
            # It may have been merged.
            trainer.model = trainer.model_wrapped = trained.to(trainer.args.device)
        else:
            trainer.model.load_state_dict(trained.state_dict())
        trainer.state = TrainerState.load_from_json(str(output_dir / "trainer_state.json"))
        return
    train_into(trainer, output_dir, checkpoint)


def load_part(settings: dict[str, Any], folder: Path) -> PreTrainedModel:
    """
    The model that a folder of the run holds.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        folder (`Path`): The run's own, or that of the control.

    Returns:
        [`~transformers.PreTrainedModel`], or what PEFT wraps around one if only an adapter was saved.
    """
    trusted = settings["model"].trust_remote_code
    if find_adapter(str(folder)) is not None:
        return load_classifier(ModelArguments(str(folder), trust_remote_code=trusted), merge=False)[0]
    return AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=trusted)


def start_embeddings_from_teacher(
    settings: dict[str, Any], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, teacher: Teacher
) -> None:
    """
    Give every word of a TextCNN the vector that the teacher's body has for it.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        model ([`TextCNNForSequenceClassification`]): The student.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The student's.
        teacher ([`Teacher`]): Its first member is asked.
    """
    member, vocabulary = teacher.members[0], tokenizer.get_vocab()
    words = sorted(vocabulary, key=vocabulary.get)
    special = set(tokenizer.all_special_tokens) - {tokenizer.pad_token}
    shown = PartialState().is_main_process and not settings["training"].disable_tqdm
    vectors = teacher_word_vectors(
        member.model,
        member.tokenizer,
        words,
        model.config.embed_size,
        padding=tokenizer.pad_token,
        special_tokens=special,
        progress=shown,
    )
    model.encoder.embeddings.set_word_vectors(vectors)


def train_control(
    settings: dict[str, Any],
    data: TextData,
    transfer: TransferSet,
    student: TrainerState,
    compute_metrics,
    output_dir: Path,
    resume: bool,
) -> None:
    """
    Train the student without a teacher into `output_dir/control`: on the labelled rows of the transfer set, for as many
    steps with the same schedules and techniques, from a random start of the embeddings that would come from the
    teacher. Nothing ends its training early: it makes the student's steps.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        data ([`TextData`]): The validation rows.
        transfer ([`TransferSet`]): Its texts make the student's word list, its labelled rows are trained on.
        student ([`~transformers.TrainerState`]): Of the trained student: how many steps were planned, and made.
        compute_metrics (`Callable`): The Trainer's.
        output_dir (`Path`): The run's folder.
        resume (`bool`): Whether a control that is in `output_dir` already is taken, or continued.
    """
    folder = output_dir / CONTROL
    own = control_training_arguments(settings["training"], folder, student.max_steps)

    def make_trainer() -> ExtendedTrainer:
        model, tokenizer, _ = build_model(
            settings["model"],
            settings["textcnn"],
            settings["data"],
            own,
            data.task,
            transfer.texts(),
            settings["peft"],
        )
        encoded = tokenize_splits(tokenizer, settings["data"], own, with_rows(data, transfer.labelled()).splits)
        callbacks = [*technique_callbacks(settings), StopAt(student.global_step)]
        augmenter = settings["augmentation"].augmenter_on_the_fly(own.seed)
        return build_trainer(
            model, tokenizer, encoded, own, trainer_settings(settings), compute_metrics, callbacks, augmenter
        )

    parts = ("model", "textcnn", "peft", "loss", "distillation", "augmentation")
    depends_on = {name: vars(settings[name]) for name in parts}
    depends_on |= {"data": data.fingerprint(), "steps": student.global_step}
    depends_on["training"] = learning_settings(settings["training"])
    train_once(folder, make_trainer, depends_on, resume, student.global_step)
