"""From arguments and data to a trainer: what the recipes that train have in common."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset, DatasetDict
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    set_seed,
)

from hf_ext.arguments import DataArguments, ModelArguments, RecipeTrainingArguments
from hf_ext.callbacks.unfreezing import GradualUnfreezingCallback
from hf_ext.checks import found_learning_rate
from hf_ext.data.augmentation import DataAugmenter
from hf_ext.data.augmentation.collator import AugmentingCollator
from hf_ext.data.labels import Task
from hf_ext.data.text_stream import TextCollator, TextStream
from hf_ext.data.tokenization import tokenize_dataset
from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.report import Image
from hf_ext.experiments.cartography import DataMap
from hf_ext.experiments.lr_finder import LRFinder, LRFinderArguments, NoUsableSlopeError
from hf_ext.experiments.one_of_many import without_bars
from hf_ext.files import write_json
from hf_ext.inspection import parameter_counts
from hf_ext.models.adapters import add_adapter, is_adapted
from hf_ext.models.building import TextCNNArguments, build_textcnn, load_with_new_parameters
from hf_ext.models.peft_arguments import PeftArguments
from hf_ext.trainers.base import ExtendedTrainer

# Steps of the range tests that are tried one after the other, in multiples of what is asked for.
REPEATS = (1, 2, 4)


def build_model(
    model_args: ModelArguments,
    cnn_args: TextCNNArguments,
    data_args: DataArguments,
    training_args: RecipeTrainingArguments,
    task: Task,
    texts: list,
    peft_args: PeftArguments | None = None,
):
    """
    A model for the task, and its tokenizer. Nothing is written.

    Args:
        model_args ([`ModelArguments`]): Which model.
        cnn_args ([`TextCNNArguments`]): Its architecture, for `model_type="textcnn"`.
        data_args ([`DataArguments`]): `max_seq_length`.
        training_args ([`RecipeTrainingArguments`]): `seed` and `use_cpu`.
        task ([`Task`]): What is predicted.
        texts (`list`): The training texts, strings or pairs, for the TextCNN's word list.
        peft_args ([`PeftArguments`], *optional*): The adapter that is trained in place of the model's weights.

    Returns:
        `tuple`: The model, the tokenizer, and sentences that a reader of the results has to know.

    Raises:
        ConfigurationError: If the model cannot be had, or the adapter does not fit it.
    """
    set_seed(training_args.seed)
    notes: list[str] = []
    if model_args.model_type == "textcnn":
        model, tokenizer, notes = build_textcnn(model_args, cnn_args, task, texts, data_args.max_seq_length)
    else:
        model, tokenizer, new = load_with_new_parameters(model_args, task, training_args.use_cpu)
        if training_args.do_train:
            model, notes = _with_adapter(model, peft_args, new, model_args)
    tokenizer.model_max_length = min(data_args.max_seq_length, tokenizer.model_max_length)
    return model, tokenizer, notes


def tokenize_splits(
    tokenizer: PreTrainedTokenizerBase,
    data_args: DataArguments,
    training_args: RecipeTrainingArguments,
    splits: DatasetDict,
) -> dict[str, Dataset]:
    """
    All splits as token ids; the training rows keep their texts and numbers beside them.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): Its `model_max_length` cuts the texts.
        data_args ([`DataArguments`]): How texts are tokenised.
        training_args ([`RecipeTrainingArguments`]): For several processes, of which one fills the cache.
        splits ([`~datasets.DatasetDict`]): Texts and labels.

    Returns:
        `dict[str, Dataset]`
    """
    encoded = {}
    shown = nullcontext() if PartialState().is_main_process else without_bars()
    with shown, training_args.main_process_first(desc="tokenising"):
        for split, dataset in splits.items():
            kept = [name for name in dataset.column_names if name != "label"] if split == "train" else ()
            encoded[split] = tokenize_dataset(
                dataset,
                tokenizer,
                tokenizer.model_max_length,
                pad_to_max_length=data_args.pad_to_max_length,
                num_proc=data_args.preprocessing_num_workers,
                load_from_cache_file=not data_args.overwrite_cache,
                description=f"Tokenising {split}",
                keep_columns=tuple(kept),
            )
    return encoded


def trainer_settings(settings: dict[str, Any], with_loss: bool = True) -> dict[str, Any]:
    """
    What the sections of a run tell [`ExtendedTrainer`] beside the Trainer's own arguments.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass: `run`, `health`, `tracking`, `loss` and `peft`.
        with_loss (`bool`, *optional*, defaults to `True`): Whether class weights, focus and the merge of an adapter
            are part of it.

    Returns:
        `dict[str, Any]`: Keyword arguments.
    """
    of_the_task = {**settings["loss"].trainer_settings(), "merge_adapter": settings["peft"].peft_merge}
    return {
        "sparse_embeddings": {"auto": None, "on": True, "off": False}[settings["run"].sparse_embeddings],
        "tracker_timeout": settings["tracking"].tracker_timeout,
        **settings["health"].trainer_settings(),
        **(of_the_task if with_loss else {}),
    }


def technique_callbacks(settings: dict[str, Any]) -> list[TrainerCallback]:
    """
    The techniques of a run whose curriculum needs no scores, but for an early end; new callbacks each time.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
    """
    return [
        *settings["unfreezing"].callbacks(settings["run"].allow_changed_unfreezing),
        *settings["learning_rates"].callbacks(),
        *settings["curriculum"].callbacks(),
        *settings["monitors"].callbacks(),
    ]


def build_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: dict[str, Dataset | TextStream],
    training_args: RecipeTrainingArguments,
    own_settings: dict[str, Any],
    compute_metrics=None,
    callbacks: list[TrainerCallback] | None = None,
    augmenter: DataAugmenter | None = None,
    make_trainer: Callable[..., ExtendedTrainer] = ExtendedTrainer,
) -> ExtendedTrainer:
    """
    A trainer of a model on tokenised data. Nothing is written.

    Args:
        model ([`~transformers.PreTrainedModel`]): From [`build_model`].
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): From [`build_model`].
        encoded (`dict[str, Dataset]`): From [`tokenize_splits`]; `train` may be a [`TextStream`].
        training_args ([`RecipeTrainingArguments`]): How it is trained.
        own_settings (`dict[str, Any]`): What [`ExtendedTrainer`] takes beside the Trainer's, from [`trainer_settings`].
        compute_metrics (`Callable`, *optional*): As the Trainer's.
        callbacks (`list[TrainerCallback]`, *optional*): Techniques.
        augmenter ([`DataAugmenter`], *optional*): Makes a fresh copy of every training text in every epoch.
        make_trainer (`Callable`, *optional*, defaults to [`ExtendedTrainer`]): Takes a trainer's keyword arguments.

    Returns:
        [`ExtendedTrainer`]
    """
    collator = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8 if training_args.fp16 else None)
    train = encoded.get("train")
    if isinstance(train, TextStream):
        collator = TextCollator(tokenizer, collator, train.data_args.pad_to_max_length)
    if augmenter is not None and train is not None:
        collator = AugmentingCollator(tokenizer, augmenter, collator)
        train = train.add_column("row", range(len(train)))
    return make_trainer(
        model=model,
        args=training_args,
        train_dataset=train,
        eval_dataset=encoded.get("validation"),
        processing_class=tokenizer,
        data_collator=collator,
        compute_metrics=compute_metrics,
        callbacks=callbacks,
        **own_settings,
    )


def find_learning_rate(
    trainer: ExtendedTrainer, finder_args: LRFinderArguments, checkpoint: str | None = None
) -> tuple[LRFinder | None, str]:
    """
    Set the trainer's learning rate to what the finder suggests, or, for a run that is continued, suggested then.

    Where the loss never falls by more than its noise, as for models from scratch in few steps, the test is made again
    with two, then with four times as many steps.

    Args:
        trainer ([`ExtendedTrainer`]): Before training.
        finder_args ([`LRFinderArguments`]): The range test.
        checkpoint (`str`, *optional*): The checkpoint that the run continues from.

    Returns:
        `tuple`: The finder, unless the run is continued, and a sentence for the reader of the results.

    Raises:
        NoUsableSlopeError: If the loss falls at no rate of the range even so.
    """
    if checkpoint is not None:
        # On a machine with a disk of its own there is no record beside the checkpoint.
        found = found_learning_rate(checkpoint) if PartialState().is_main_process else None
        trainer.args.learning_rate = broadcast_object_list([found])[0]
        return None, f"The learning rate {trainer.args.learning_rate:.3g} was found when the run began."
    scales = trainer.learning_rate_scales()
    finder = LRFinder.from_trainer(trainer)
    for repeat in REPEATS:
        steps = repeat * finder_args.lr_finder_num_iter
        finder.range_test(
            start_lr=finder_args.lr_finder_start,
            end_lr=finder_args.lr_finder_end,
            num_iter=steps,
            mode=finder_args.lr_finder_mode,
        )
        try:
            # What is suggested is for the group with the largest rate.
            largest = max((scales or {}).values(), default=1.0)
            trainer.args.learning_rate = finder.suggestion(finder_args.lr_finder_method) / largest
            break
        except NoUsableSlopeError:
            if repeat == REPEATS[-1]:
                raise
    return finder, (
        f"The learning rate {trainer.args.learning_rate:.3g} is what the learning-rate finder suggests "
        f"({finder_args.lr_finder_method}; {steps} steps; {finder.stopped})."
    )


def write_range_test(output_dir: Path, finder: LRFinder, method: str) -> Image:
    """
    Write `lr_finder.json` and `lr_finder.png`.

    Args:
        output_dir (`Path`): Where to.
        finder ([`LRFinder`]): After its range test.
        method (`str`): The suggestion to mark.

    Returns:
        [`Image`]: For the report.
    """
    write_json(output_dir / "lr_finder.json", finder.as_dict())
    path = output_dir / "lr_finder.png"
    finder.plot(path, method)
    found = ", ".join(
        f"{name} {rate:.3g}" if rate else f"{name}: no usable slope" for name, rate in finder.suggestions().items()
    )
    return Image("Learning-rate range test", path, f"Suggestions: {found}. The test {finder.stopped}.")


def technique_images(
    output_dir: Path,
    callbacks: list[TrainerCallback],
    finder: LRFinder | None,
    method: str,
    data_map: DataMap | None = None,
) -> list[Image]:
    """
    Draw what the techniques of a run did.

    Args:
        output_dir (`Path`): Where the pictures are written.
        callbacks (`list[TrainerCallback]`): The run's callbacks, after training.
        finder ([`LRFinder`], *optional*): The run's range test.
        method (`str`): The suggestion that was taken.
        data_map ([`DataMap`], *optional*): What the curriculum's scores are from.

    Returns:
        `list[Image]`: For the report.
    """
    images = []
    for callback in callbacks:
        if isinstance(callback, GradualUnfreezingCallback):
            path = output_dir / "unfreezing.png"
            images.append(Image("Gradual unfreezing", path, callback.plot(path)))
    if data_map is not None:
        path = output_dir / "cartography.png"
        data_map.plot(path)
        about = f"How sure the model was of each training row's label over {data_map.epochs} epochs."
        images.append(Image("Dataset cartography", path, about))
    return images + ([write_range_test(output_dir, finder, method)] if finder is not None else [])


# ---- Inside ----


def _with_adapter(model, peft_args: PeftArguments | None, new: list[str], model_args: ModelArguments):
    """The model that is trained, with or without an adapter, and what a reader of the results has to know of it."""
    if is_adapted(model):
        raise ConfigurationError(
            f"{model_args.model_name_or_path} is a trained adapter, which is evaluated, exported and distilled from, "
            "but not trained on from here. Train on from a merged model (--peft_merge true when it is trained; "
            "hf_ext.merge_adapter), or go on with its own run (--resume_from_checkpoint)."
        )
    if peft_args is None or not peft_args.wanted:
        return model, []
    adapted = add_adapter(model, peft_args.config(), new)
    if model_args.model_revision != "main":
        adapted.peft_config["default"].revision = model_args.model_revision
    counts, whole = parameter_counts(adapted), adapted.peft_config["default"].modules_to_save
    share = counts["trainable_parameters"] / counts["parameters"]
    return adapted, [
        f"{peft_args.title()}: {counts['trainable_parameters']:,} of {counts['parameters']:,} parameters "
        f"({100 * share:.2f} %) are trained, of them whole: {', '.join(whole)}."
    ]
