"""From arguments (and, for the TextCNN, the training texts) to a model and its tokenizer."""

import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from hf_ext.arguments import ModelArguments
from hf_ext.data.labels import Task, task_of_config
from hf_ext.errors import ConfigurationError
from hf_ext.models.adapter_files import find_adapter
from hf_ext.models.adapters import is_adapted, is_mergeable, merge_adapter
from hf_ext.models.configuration_textcnn import TextCNNConfig
from hf_ext.models.modeling_textcnn import TextCNNForSequenceClassification
from hf_ext.models.word_tokenizer import build_word_tokenizer, load_word_vectors
from hf_ext.pickles import refused_pickles

logger = logging.getLogger(__name__)

# Models whose first position is not 0, so that as many fewer tokens fit.
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")
# Tokenizers that know no bound name 10**30.
LONGEST_TEXT = 100_000
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass
class TextCNNArguments:
    """The TextCNN (Kim 2014), for `--model_type textcnn`."""

    _argument_group_name = "textcnn"

    vocab_size: int = field(
        default=30522, metadata={"help": "Upper bound of the word list; with --tokenizer_name, its size."}
    )
    embed_size: int | None = field(
        default=None, metadata={"help": "Width of a word's vector; by default 300, or that of word_vectors."}
    )
    num_filters: int = field(default=100, metadata={"help": "Filters of each width."})
    filter_sizes: list[int] = field(default_factory=lambda: [3, 4, 5], metadata={"help": "Widths in words."})
    dropout_prob: float = field(default=0.5, metadata={"help": "Dropout before the classifier."})
    variant: Literal["rand", "static", "non-static", "multichannel"] = field(
        default="rand", metadata={"help": "Word vectors: random, given and fixed, given and trained, or both."}
    )
    max_norm: float | None = field(default=None, metadata={"help": "Bound of each class's weight vector (Kim: 3)."})
    word_vectors: str | None = field(
        default=None, metadata={"help": "File of word vectors: .txt, .vec, .npy or .safetensors."}
    )
    min_word_frequency: int = field(default=1, metadata={"help": "Words seen less often in training are unknown."})

    def __post_init__(self):
        if self.variant == "rand" and self.word_vectors is not None:
            raise ConfigurationError(
                f"word_vectors={self.word_vectors} has no effect with variant=rand; choose static, non-static or "
                "multichannel."
            )
        if self.variant != "rand" and self.word_vectors is None:
            raise ConfigurationError(
                f"variant={self.variant} needs --word_vectors FILE; without vectors choose variant=rand."
            )


def build_textcnn(model_args: ModelArguments, cnn_args: TextCNNArguments, task: Task, texts: list, max_length: int):
    """
    A TextCNN and its tokenizer.

    Args:
        model_args ([`ModelArguments`]): `tokenizer_name` takes a pretrained tokenizer; by default one is built.
        cnn_args ([`TextCNNArguments`]): The architecture.
        task ([`Task`]): Classes and kind of task.
        texts (`list`): The training texts, strings or pairs, for the word list.
        max_length (`int`): The tokenizer's longest text.

    Returns:
        `tuple`: The model, the tokenizer, and sentences that a reader of the results has to know.
    """
    notes = []
    if model_args.tokenizer_name is not None:
        tokenizer = load_tokenizer(model_args.tokenizer_name, model_args)
    else:
        words = (text for row in texts for text in ((row,) if isinstance(row, str) else row))
        tokenizer = build_word_tokenizer(
            words, cnn_args.vocab_size, cnn_args.min_word_frequency, model_max_length=max_length
        )
        notes.append(f"The word list has the {len(tokenizer):,} commonest words of the training texts.")
    vectors, embed_size = None, cnn_args.embed_size or 300
    if cnn_args.word_vectors is not None:
        try:
            vectors, found = load_word_vectors(cnn_args.word_vectors, tokenizer)
        except (ValueError, OSError) as error:
            raise ConfigurationError(str(error)) from error
        if cnn_args.embed_size is not None and cnn_args.embed_size != vectors.shape[1]:
            raise ConfigurationError(
                f"embed_size is {cnn_args.embed_size}, but the vectors of {cnn_args.word_vectors} have "
                f"{vectors.shape[1]} dimensions. Leave embed_size out."
            )
        embed_size = vectors.shape[1]
        notes.append(
            f"{found:,} of {len(tokenizer):,} words have a vector of {embed_size} dimensions from "
            f"{Path(cnn_args.word_vectors).name}; the others start random."
        )
    try:
        config = TextCNNConfig(
            # With a pretrained tokenizer the ids decide; padding them to `vocab_size` would only add unused rows.
            vocab_size=len(tokenizer),
            embed_size=embed_size,
            num_filters=cnn_args.num_filters,
            filter_sizes=cnn_args.filter_sizes,
            dropout_prob=cnn_args.dropout_prob,
            variant=cnn_args.variant,
            max_norm=cnn_args.max_norm,
            pad_token_id=tokenizer.pad_token_id,
            **_label_config(task),
        )
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    model = TextCNNForSequenceClassification(config)
    if vectors is not None:
        model.encoder.embeddings.set_word_vectors(vectors)
    return model, tokenizer, notes


def load_pretrained(model_args: ModelArguments, task: Task, use_cpu: bool):
    """
    A pretrained model with a head for `task`, and its tokenizer. Of a saved adapter: the adapter on its base model.

    Args:
        model_args ([`ModelArguments`]): What to load, and what it should be like.
        task ([`Task`]): Classes and kind of task.
        use_cpu (`bool`): Decides the attention kernel when none is asked for.

    Returns:
        `tuple`: The model and the tokenizer.

    Raises:
        ConfigurationError: If a directory has no weights, or the model is not what the arguments say.
    """
    model, tokenizer, _ = load_with_new_parameters(model_args, task, use_cpu)
    return model, tokenizer


def load_with_new_parameters(model_args: ModelArguments, task: Task, use_cpu: bool):
    """
    [`load_pretrained`], and the names of the parameters that the pretrained weights did not have.

    Args:
        model_args, task, use_cpu: As [`load_pretrained`].

    Returns:
        `tuple`: The model, the tokenizer and a sorted list.
    """
    config = load_config(model_args)
    adapter = find_adapter(model_args.model_name_or_path, **_found_by(model_args))
    overrides = _checked_overrides(model_args, config)
    for name, value in {**overrides, **_label_config(task)}.items():
        setattr(config, name, value)
    name, kwargs = model_args.model_name_or_path, _hub_kwargs(model_args)
    if adapter is not None:
        name, kwargs = adapter.base, {**kwargs, "revision": adapter.base_revision or "main"}
    attention = model_args.attn_implementation or ("eager" if use_cpu else None)
    tokenizer = load_tokenizer(model_args.tokenizer_name or model_args.model_name_or_path, model_args)
    try:
        with refused_pickles(name):
            model, info = AutoModelForSequenceClassification.from_pretrained(
                name,
                config=config,
                ignore_mismatched_sizes=model_args.ignore_mismatched_sizes,
                dtype="float32",
                output_loading_info=True,
                **({"attn_implementation": attention} if attention else {}),
                **kwargs,
            )
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error) and "mismatch" not in str(error):
            raise
        raise ConfigurationError(
            f"{model_args.model_name_or_path} has a head of another number of classes than the data's "
            f"{len(task.label_names)}. Pass --ignore_mismatched_sizes to start a new head."
        ) from error
    except ConfigurationError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigurationError(f"{model_args.model_name_or_path} could not be loaded: {error}") from error
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest_input(config) or LONGEST_TEXT, LONGEST_TEXT)
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        # What the library makes up when the files are missing.
        raise ConfigurationError(
            f"The tokenizer of {model_args.model_name_or_path} knows no word: its files are missing. Add "
            "tokenizer.json to the directory, or pass --tokenizer_name."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    # A head of another size is a new one.
    new = sorted({*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])})
    return (model if adapter is None else adapter.put_on(model, new)), tokenizer, new


def load_classifier(model_args: ModelArguments, merge: bool = True):
    """
    A saved classifier as it is, and its tokenizer.

    Args:
        model_args ([`ModelArguments`]): What to load.
        merge (`bool`, *optional*, defaults to `True`): Whether an adapter is worked into the weights of its base model,
            where its method can be.

    Returns:
        `tuple`: The model, with its own classes, and the tokenizer.

    Raises:
        ConfigurationError: As [`load_pretrained`].
    """
    model, tokenizer = load_pretrained(model_args, task_of_config(load_config(model_args)), use_cpu=True)
    if merge and is_adapted(model) and is_mergeable(model.active_peft_config):
        model = merge_adapter(model)
        model.name_or_path = model_args.model_name_or_path
    return model, tokenizer


def load_config(model_args: ModelArguments):
    """
    The configuration of a pretrained model.

    Raises:
        ConfigurationError: If a directory is none of a model, or has no weights.
    """
    name = model_args.model_name_or_path
    folder = Path(name)
    if name.endswith((".pth", ".pt", ".bin", ".ckpt")):
        raise ConfigurationError(
            f"{name} is a single file of weights, which does not say what model it belongs to. Pass the directory that "
            "save_pretrained (or a recipe's output_dir) wrote: config.json, model.safetensors and the tokenizer."
        )
    adapter = find_adapter(name, **_found_by(model_args))
    if adapter is not None:
        base = replace(model_args, model_name_or_path=adapter.base, model_revision=adapter.base_revision or "main")
        config = adapter.complete(load_config(base))
        if not adapter.classifier and model_args.num_labels is not None:
            config.num_labels = model_args.num_labels
        return config
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigurationError(f"{folder} has no config.json: it is not the directory of a saved model.")
        if not any((folder / weights).is_file() for weights in WEIGHTS):
            raise ConfigurationError(f"{folder} has no weights: none of {', '.join(WEIGHTS)} is in it.")
    elif folder.exists() or name.startswith(("/", ".", "~")):
        raise ConfigurationError(
            f"{name}: there is no directory of that name. Pass the directory that save_pretrained (or a recipe's "
            "output_dir) wrote, or the name of a model on the Hub."
        )
    if model_args.trust_remote_code:
        logger.warning("trust_remote_code is on: Python files that come with %s are run on this machine.", name)
    try:
        return AutoConfig.from_pretrained(model_args.config_name or name, **_hub_kwargs(model_args))
    except (OSError, ValueError, json.JSONDecodeError) as error:
        no_folder = "" if folder.is_dir() else f" There is no folder {folder} on this machine either."
        raise ConfigurationError(f"{name} could not be loaded: {error}{no_folder}") from error


def longest_input(config) -> int | None:
    """Tokens that a model with positions takes at most; `None` for any number."""
    longest = getattr(config, "max_position_embeddings", None)
    if longest is None or config.model_type not in OFFSET_POSITIONS:
        return longest or None
    # RoBERTa-like models count positions from behind the padding's id.
    return longest - (config.pad_token_id or 0) - 1


def load_tokenizer(name: str, model_args: ModelArguments):
    """The tokenizer in a directory or on the Hub."""
    try:
        return AutoTokenizer.from_pretrained(name, **_hub_kwargs(model_args))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"The tokenizer of {name} could not be loaded: {error}") from error


# ---- Inside ----


def _hub_kwargs(model_args: ModelArguments) -> dict:
    return {
        "cache_dir": model_args.cache_dir,
        "revision": model_args.model_revision,
        "token": model_args.token,
        "trust_remote_code": model_args.trust_remote_code,
    }


def _found_by(model_args: ModelArguments) -> dict:
    return {"revision": model_args.model_revision, "token": model_args.token, "cache_dir": model_args.cache_dir}


def _label_config(task: Task) -> dict:
    return {
        "num_labels": len(task.label_names),
        "id2label": dict(enumerate(task.label_names)),
        "label2id": {name: index for index, name in enumerate(task.label_names)},
        "problem_type": task.problem_type,
    }


def _checked_overrides(model_args: ModelArguments, config) -> dict:
    """Settings for the pretrained configuration; sizes that the weights decide are compared, not set."""
    for name in ("hidden_size", "num_attention_heads"):
        given, has = getattr(model_args, name), getattr(config, name, None)
        if given is not None and given != has:
            raise ConfigurationError(
                f"{name} is {given}, but {model_args.model_name_or_path} has {has}. Leave it out: the weights decide."
            )
    overrides = {}
    layers, has = model_args.num_hidden_layers, getattr(config, "num_hidden_layers", None)
    if layers is not None:
        if has is None or not 1 <= layers <= has:
            raise ConfigurationError(f"num_layers is {layers}, but {model_args.model_name_or_path} has {has} layers.")
        overrides["num_hidden_layers"] = layers
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        value = getattr(model_args, name)
        if value is not None:
            if not hasattr(config, name):
                raise ConfigurationError(
                    f"{name} is given, but a {config.model_type} model has no such setting. Its dropouts: "
                    f"{', '.join(key for key in config.to_dict() if 'drop' in key) or 'none'}."
                )
            overrides[name] = value
    return overrides
