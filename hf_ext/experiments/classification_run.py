"""One training of a classifier, from rows to a trainer: what a recipe does once, and k-fold and search many times."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from hf_ext.assembly import (
    build_model,
    build_trainer,
    find_learning_rate,
    technique_images,
    tokenize_splits,
    trainer_settings,
)
from hf_ext.data.loading import TextData
from hf_ext.evaluation.report import Image
from hf_ext.experiments.cartography import DataMap
from hf_ext.experiments.lr_finder import LRFinder
from hf_ext.preparation import augment_training_rows, curriculum_callbacks
from hf_ext.trainers.base import ExtendedTrainer


@dataclass
class BuiltClassifier:
    """
    A fresh model and the rows that it is for.

    Args:
        data ([`TextData`]): The rows, with the stored copies of the training texts.
        model ([`~transformers.PreTrainedModel`]): Not trained yet.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): Its own; `model_max_length` cuts the texts.
        samples (`list[tuple[str, str]]`): Some texts before and after augmentation.
        notes (`list[str]`): What a reader of the results has to know.
    """

    data: TextData
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    samples: list[tuple[str, str]]
    notes: list[str]


@dataclass
class ClassifierTraining:
    """
    A trainer, ready to train, with what its techniques have to show afterwards.

    Args:
        trainer ([`ExtendedTrainer`]): Holds the model and the techniques.
        encoded (`dict[str, Dataset]`): The tokenised splits.
        callbacks (`list[TrainerCallback]`): The techniques.
        finder ([`LRFinder`], *optional*): The range test that was made, if one was asked for.
        finder_method (`str`): Which of its suggestions was taken.
        data_map ([`DataMap`], *optional*): What the curriculum's scores are from.
        notes (`list[str]`): What a reader of the results has to know.
    """

    trainer: ExtendedTrainer
    encoded: dict[str, Dataset]
    callbacks: list[TrainerCallback]
    finder: LRFinder | None
    finder_method: str
    data_map: DataMap | None
    notes: list[str]

    def images(self, output_dir: Path) -> list[Image]:
        """Draw what the techniques did, after training."""
        return technique_images(output_dir, self.callbacks, self.finder, self.finder_method, self.data_map)


def build_classifier(settings: dict[str, Any], given: TextData) -> BuiltClassifier:
    """
    Make a fresh model for rows, whose training texts are augmented if that was asked for. Nothing is written.

    Args:
        settings (`dict[str, Any]`): Section of [`TRAINING_SETTINGS`] -> dataclass.
        given ([`TextData`]): The rows as they were loaded; only `train` is augmented.

    Returns:
        [`BuiltClassifier`]
    """
    data_args, training_args = settings["data"], settings["training"]
    data, added, samples = augment_training_rows(
        settings["augmentation"], given, training_args.seed, data_args.preprocessing_num_workers
    )
    texts = data.texts("train") if "train" in data.splits else []
    texts = texts if data.stream is None else data.stream.texts()
    model, tokenizer, built = build_model(
        settings["model"], settings["textcnn"], data_args, training_args, data.task, texts, settings["peft"]
    )
    return BuiltClassifier(data, model, tokenizer, samples, added + built)


def assemble_training(
    settings: dict[str, Any],
    built: BuiltClassifier,
    compute_metrics,
    arguments: dict[str, Any],
    checkpoint: str | None = None,
    more_callbacks: Sequence[TrainerCallback] = (),
) -> ClassifierTraining:
    """
    A trainer of a fresh model, with all techniques that were asked for. Scores and learning rates that take training
    runs of their own are found here, from the training rows. Nothing is written.

    Args:
        settings (`dict[str, Any]`): Section of [`TRAINING_SETTINGS`] -> dataclass. A learning rate that was to be
            found is set in it.
        built ([`BuiltClassifier`]): From [`build_classifier`].
        compute_metrics (`Callable`): The Trainer's.
        arguments (`dict[str, Any]`): Section -> resolved values: what kept scores depend on besides the rows.
        checkpoint (`str`, *optional*): Where the training goes on.
        more_callbacks (`Sequence[TrainerCallback]`, *optional*): Beside the techniques.

    Returns:
        [`ClassifierTraining`]
    """
    model_args, cnn_args, data_args = settings["model"], settings["textcnn"], settings["data"]
    training_args, run_args, finder_args = settings["training"], settings["run"], settings["lr_finder"]
    own = trainer_settings(settings)
    texts = built.data.texts("train") if "train" in built.data.splits else []
    encoded = tokenize_splits(built.tokenizer, data_args, training_args, built.data.splits)
    rates = settings["learning_rates"].callbacks()

    def fresh_trainer(rows, args):
        model, tokenizer, _ = build_model(
            model_args, cnn_args, data_args, args, built.data.task, texts, settings["peft"]
        )
        # Its scores need no plain model.
        unmerged = {**own, "merge_adapter": False}
        return build_trainer(model, tokenizer, {"train": rows}, args, unmerged, callbacks=rates)

    curriculum, data_map = curriculum_callbacks(
        settings["curriculum"], fresh_trainer, encoded.get("train"), training_args, arguments
    )
    if built.data.stream is not None:
        encoded["train"] = built.data.stream
    callbacks = [
        *settings["unfreezing"].callbacks(run_args.allow_changed_unfreezing),
        *rates,
        *curriculum,
        *settings["early_stopping"].callbacks(),
        *settings["monitors"].callbacks(),
    ]
    trainer = build_trainer(
        built.model,
        built.tokenizer,
        encoded,
        training_args,
        own,
        compute_metrics,
        [*callbacks, *more_callbacks],
        settings["augmentation"].augmenter_on_the_fly(training_args.seed),
    )
    finder, notes = None, trainer.loss_notes()
    if finder_args.find_learning_rate and training_args.do_train:
        finder, note = find_learning_rate(trainer, finder_args, checkpoint)
        notes.append(note)
    return ClassifierTraining(trainer, encoded, callbacks, finder, finder_args.lr_finder_method, data_map, notes)
