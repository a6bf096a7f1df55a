"""What happens to the data between loading and training: preflight, augmentation, difficulty."""

import copy
import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from hf_ext.arguments import RecipeTrainingArguments
from hf_ext.callbacks.curriculum import CurriculumArguments, check_epochs
from hf_ext.data.augmentation import AugmentationArguments
from hf_ext.data.loading import TextData
from hf_ext.data.preflight import PreflightArguments, PreflightReport, preflight
from hf_ext.experiments.cartography import DataMap, cartography_scores
from hf_ext.experiments.cross_review import cross_review_scores
from hf_ext.launching import local_main_process_first
from hf_ext.trainers.base import ExtendedTrainer

# Pairs of texts that a report shows.
SAMPLES = 10


def check_data(
    preflight_args: PreflightArguments, data: TextData, tokenizer: PreTrainedTokenizerBase
) -> PreflightReport | None:
    """
    The preflight of a run, on the main process; all processes get its result.

    Args:
        preflight_args ([`PreflightArguments`]): Whether to look, and whether to stop.
        data ([`TextData`]): As it was loaded, without augmented copies.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The model's; its `model_max_length` cuts the texts.

    Returns:
        [`PreflightReport`], or `None` with `preflight="off"`.
    """
    if preflight_args.preflight == "off":
        return None
    report = None
    if PartialState().is_main_process:
        report = preflight(
            {split: rows.add_column("file_row", data.file_rows[split]) for split, rows in data.splits.items()},
            data.task,
            tokenizer=tokenizer,
            max_seq_length=tokenizer.model_max_length,
            near_duplicate_threshold=preflight_args.near_duplicate_threshold,
            files={split: Path(file).name for split, file in data.files.items()},
        )
    return broadcast_object_list([report])[0]


def augment_training_rows(
    augmentation: AugmentationArguments, data: TextData, seed: int, num_proc: int | None = None
) -> tuple[TextData, list[str], list[tuple[str, str]]]:
    """
    Add edited copies of the training rows, or say what will be done to them on the fly.

    Args:
        augmentation ([`AugmentationArguments`]): What was asked for.
        data ([`TextData`]): Split already: only `train` is augmented.
        seed (`int`): Of the edits.
        num_proc (`int`, *optional*): Processes.

    Returns:
        `tuple`: The data to train on, sentences for the reader of the results, and some texts before and after.
    """
    augmenter = augmentation.augmenter(seed)
    if augmenter is None or "train" not in data.splits:
        return data, [], []
    train = data.splits["train"]
    names = [name for name in ("text", "text_pair") if name in train.column_names]
    techniques = f"{', '.join(augmenter.techniques)}; share of words {augmenter.augmentation_prob:g}"
    if augmentation.augmentation_on_the_fly:
        before = train["text"][:SAMPLES]
        samples = list(zip(before, augmenter.augment(before), strict=True))
        return data, [f"The training texts are augmented anew in every epoch ({techniques})."], samples
    # One process fills the cache that the others read.
    with local_main_process_first():
        augmented = augmenter.augment_dataset(train, names, augmentation.augmentation_factor, num_proc)
    added = len(augmented) - len(train)
    dropped = f" {augmenter.dropped:,} more would have equalled their text." if augmenter.dropped else ""
    samples = []
    for row in augmented.select(range(min(len(augmented), SAMPLES * (1 + augmentation.augmentation_factor)))):
        if not row["is_augmented"]:
            before = row["text"]
        else:
            samples.append((before, row["text"]))
    splits = copy.copy(data.splits)
    splits["train"] = augmented
    note = (
        f"{added:,} edited copies of the {len(train):,} training rows are trained on as well ({techniques}).{dropped}"
    )
    return dataclasses.replace(data, splits=splits), [note], samples[:SAMPLES]


def curriculum_callbacks(
    curriculum: CurriculumArguments,
    make_trainer: Callable[[Dataset, RecipeTrainingArguments], ExtendedTrainer],
    rows: Dataset | None,
    training_args: RecipeTrainingArguments,
    arguments: dict,
) -> tuple[list[TrainerCallback], DataMap | None]:
    """
    The curriculum of a run, with the scores that take training runs of their own.

    Args:
        curriculum ([`CurriculumArguments`]): What was asked for.
        make_trainer (`Callable`): From training rows and arguments to a trainer of a fresh model.
        rows ([`~datasets.Dataset`], *optional*): The tokenised training rows, if the run trains.
        training_args ([`RecipeTrainingArguments`]): The run's; the scoring runs train in the same way.
        arguments (`dict`): The resolved arguments by section: what cached scores depend on besides the rows.

    Returns:
        `tuple`: The callback, if any, and the data map, if cartography drew one.
    """
    if rows is None:
        return [], None
    if curriculum.curriculum is not None and curriculum.curriculum_mode != "none":
        # Before the training runs that scores may take.
        check_epochs(len(rows), training_args)
    if not curriculum.needs_scores:
        return curriculum.callbacks(), None
    labels, seed, fingerprint = rows["labels"][:], training_args.seed, scores_fingerprint(arguments)
    with tempfile.TemporaryDirectory() as folder:
        quiet = quiet_arguments(training_args, folder)
        if curriculum.curriculum == "cartography":
            found = cartography_scores(
                lambda part: make_trainer(part, quiet), rows, labels, seed=seed, fingerprint=fingerprint
            )
            return curriculum.callbacks(found.difficulty), found
        scores = cross_review_scores(
            lambda part: make_trainer(part, quiet), rows, labels, seed=seed, fingerprint=fingerprint
        )
    return curriculum.callbacks(scores), None


def quiet_arguments(training_args: RecipeTrainingArguments, output_dir: str) -> RecipeTrainingArguments:
    """
    The arguments of a run that only serves another: it trains the same, but evaluates, saves and reports nothing.

    Args:
        training_args ([`RecipeTrainingArguments`]): Of the run that it serves.
        output_dir (`str`): A folder of its own.
    """
    quiet = copy.deepcopy(training_args)
    quiet.output_dir, quiet.report_to, quiet.push_to_hub = output_dir, [], False
    quiet.eval_strategy, quiet.save_strategy = IntervalStrategy.NO, SaveStrategy.NO
    quiet.logging_strategy = IntervalStrategy.NO
    quiet.load_best_model_at_end, quiet.disable_tqdm = False, True
    return quiet


def scores_fingerprint(arguments: dict) -> str:
    """
    Of the settings that scores of training runs depend on, besides the rows.

    Args:
        arguments (`dict`): The resolved arguments by section.
    """
    sections = ("model", "textcnn", "training", "loss", "learning_rates", "peft")
    parts = {section: arguments[section] for section in sections}
    elsewhere = {"output_dir", "run_name", "resume_from_checkpoint", "report_to", "disable_tqdm", "logging_steps"}
    parts["training"] = {name: value for name, value in parts["training"].items() if name not in elsewhere}
    if arguments["model"]["model_name_or_path"] is not None:
        # A model that was trained again has the same name.
        files = sorted(Path(arguments["model"]["model_name_or_path"]).glob("*.safetensors"))
        parts["weights"] = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
