"""Whether the encoders of several sequence classifiers can be one."""

from collections.abc import Mapping

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from hf_ext.errors import ConfigurationError

# Settings of a head or of the run that made the model; all others are the encoder's.
HEAD_SETTINGS = {
    "num_labels", "id2label", "label2id", "problem_type", "architectures", "_name_or_path", "finetuning_task",
    "task_specific_params", "transformers_version", "dtype", "torch_dtype", "auto_map", "seq_classif_dropout",
}  # fmt: skip
HEAD_PREFIXES = ("classifier", "classif_", "summary_", "pooler_")
# What stands between the TextCNN's encoder and its classes.
TEXTCNN_HEAD_SETTINGS = {"dropout_prob", "max_norm"}


def encoder_of(model: PreTrainedModel) -> nn.Module | None:
    """A classifier without its head (`bert`, `roberta`, `encoder` ...), or `None` if it names no such part."""
    return model._modules.get(model.base_model_prefix)


def check_classifiers(models: Mapping[str, PreTrainedModel]) -> None:
    """
    See that models are sequence classifiers, each with a head of its own.

    Args:
        models (`Mapping[str, PreTrainedModel]`): Task -> model.

    Raises:
        ConfigurationError: With the task and the model.
    """
    owners: dict[int, str] = {}
    for task, model in models.items():
        if not _is_classifier(model):
            raise ConfigurationError(
                f"The model of the task {task!r} is a {type(model).__name__}, which is no sequence classifier that "
                "AutoModelForSequenceClassification knows. Load it with that class; merge PEFT adapters first."
            )
        encoder = encoder_of(model)
        if encoder is None:
            raise ConfigurationError(
                f"The {type(model).__name__} of the task {task!r} has no part named {model.base_model_prefix!r}, so "
                "its encoder cannot be told from its head."
            )
        shared = {id(module) for module in encoder.modules()} | {id(value) for value in encoder.parameters()}
        for part in (model, *model.modules(), *model.parameters()):
            if id(part) in shared:
                continue
            other = owners.setdefault(id(part), task)
            if other != task:
                raise ConfigurationError(
                    f"The tasks {other!r} and {task!r} have the same {type(part).__name__} outside their encoder. "
                    "Tasks never share a head, also with equal numbers of labels: make a model for each."
                )


def encoder_difference(
    models: Mapping[str, PreTrainedModel], tokenizers: Mapping[str, PreTrainedTokenizerBase | None] | None = None
) -> str | None:
    """
    Why the models' encoders cannot be one.

    Args:
        models (`Mapping[str, PreTrainedModel]`): Task -> sequence classifier.
        tokenizers (`Mapping[str, PreTrainedTokenizerBase]`, *optional*): Task -> tokenizer.

    Returns:
        `str`: The first difference from the first task's, in a sentence; `None` if there is none.
    """
    (first, model), *others = models.items()
    for task, other in others:
        difference = _difference(model, other)
        if difference is None and tokenizers is not None:
            difference = _vocabulary_difference(tokenizers[first], tokenizers[task])
        if difference is not None:
            return f"The encoders of {first!r} and {task!r} differ: {difference}."
    return None


def same_weights(encoder: nn.Module, other: nn.Module) -> bool:
    """Whether two encoders of one shape hold the same numbers."""
    if encoder is other:
        return True
    mine, theirs = encoder.state_dict(), other.state_dict()
    return all(torch.equal(value.cpu(), theirs[name].cpu()) for name, value in mine.items())


def decide_sharing(
    models: Mapping[str, PreTrainedModel],
    tokenizers: Mapping[str, PreTrainedTokenizerBase | None] | None = None,
    share_encoder: bool | str = "auto",
) -> tuple[bool, list[str]]:
    """
    Whether the tasks get one encoder.

    Args:
        models (`Mapping[str, PreTrainedModel]`): Task -> sequence classifier.
        tokenizers (`Mapping[str, PreTrainedTokenizerBase]`, *optional*): Task -> tokenizer.
        share_encoder (`bool` or `"auto"`, *optional*, defaults to `"auto"`): `"auto"` shares it where it can be.

    Returns:
        `tuple[bool, list[str]]`: The answer, and what a reader of the results has to know about it.

    Raises:
        ConfigurationError: With `share_encoder=True`, if the encoders differ, with the difference; if the encoder is
            not to be shared although models already hold the same one.
    """
    if share_encoder not in (True, False, "auto"):
        raise ConfigurationError(f"share_encoder is {share_encoder!r}; it must be True, False or 'auto'.")
    encoders = {task: encoder_of(model) for task, model in models.items()}
    if len(models) == 1:
        return share_encoder is not False, []
    difference = encoder_difference(models, tokenizers)
    if share_encoder is True and difference is not None:
        raise ConfigurationError(
            f"share_encoder=True, but one encoder cannot serve all tasks. {difference} Load all models from one "
            "checkpoint, with one tokenizer."
        )
    if share_encoder is False or difference is not None:
        reason = difference or "share_encoder is False."
        if len({id(encoder) for encoder in encoders.values()}) < len(encoders):
            raise ConfigurationError(f"Models of several tasks hold the same encoder, but not all can. {reason}")
        return False, [
            f"The tasks do not share an encoder. {reason} Nothing is transferred between them, and loss weights have "
            "next to no effect: AdamW takes steps of the same length whatever a separate model's loss is multiplied by."
        ]
    first, *others = models
    dropped = [task for task in others if not same_weights(encoders[first], encoders[task])]
    if not dropped:
        return True, []
    names = ", ".join(map(repr, dropped))
    return True, [f"The tasks share the encoder of {first!r}; other weights in the encoder of {names} are dropped."]


# ---- Inside ----


def _is_classifier(model: object) -> bool:
    known = AutoModelForSequenceClassification._model_mapping
    if not isinstance(model, PreTrainedModel) or type(model.config) not in known:
        return False
    classes = known[type(model.config)]
    return type(model) in (classes if isinstance(classes, (tuple, list)) else (classes,))


def _difference(model: PreTrainedModel, other: PreTrainedModel) -> str | None:
    mine, theirs = encoder_of(model), encoder_of(other)
    if type(mine) is not type(theirs):
        return f"{type(mine).__name__} and {type(theirs).__name__}"
    if mine is theirs:
        return None
    settings, other_settings = _encoder_settings(mine), _encoder_settings(theirs)
    for name in {**settings, **other_settings}:
        if settings.get(name) != other_settings.get(name):
            return f"{name} is {settings.get(name)} and {other_settings.get(name)}"
    shapes, other_shapes = _shapes(mine), _shapes(theirs)
    for name in {**shapes, **other_shapes}:
        if shapes.get(name) != other_shapes.get(name):
            return f"{name} is {shapes.get(name, 'missing')} and {other_shapes.get(name, 'missing')}"
    return None


def _encoder_settings(encoder: nn.Module) -> dict[str, object]:
    settings = encoder.config.to_dict()
    apart = HEAD_SETTINGS | (TEXTCNN_HEAD_SETTINGS if settings.get("model_type") == "textcnn" else set())
    return {name: value for name, value in settings.items() if name not in apart and not name.startswith(HEAD_PREFIXES)}


def _shapes(encoder: nn.Module) -> dict[str, str]:
    return {name: f"{tuple(value.shape)} of {value.dtype}" for name, value in encoder.state_dict().items()}


def _vocabulary_difference(tokenizer, other) -> str | None:
    if tokenizer is None or other is None or tokenizer is other:
        return None
    mine, theirs = tokenizer.get_vocab(), other.get_vocab()
    if mine == theirs:
        return None
    different = sum(theirs.get(token) != number for token, number in mine.items())
    return (
        f"their tokenizers' vocabularies, of {len(mine):,} and {len(theirs):,} tokens, give {different:,} tokens of "
        "the first another id or none"
    )
