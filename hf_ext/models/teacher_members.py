"""One member of a teacher: a classifier with its tokenizer, found and checked."""

import copy
import hashlib
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import MODEL_MAPPING, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from transformers.data.data_collator import pad_without_fast_tokenizer_warning

from hf_ext.arguments import ModelArguments
from hf_ext.data.tokenization import tokenizer_settings
from hf_ext.errors import ConfigurationError, DataError
from hf_ext.models.adapter_files import find_adapter
from hf_ext.models.building import LONGEST_TEXT, load_classifier, load_config, load_tokenizer, longest_input
from hf_ext.pickles import refused_pickles
from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

Texts = list[str] | list[tuple[str, str]]
Encoded = list[dict[str, list[int]]]
# So many rows in succession that look like probabilities are no accident.
ROWS_TO_TELL = {SINGLE_LABEL: 4, MULTI_LABEL: 8}
# How far a row of probabilities may be from a sum of 1, in float32 and in shorter formats.
SUM_TOLERANCE, SHORT_SUM_TOLERANCE = 1e-3, 1e-2
# What a configuration holds that does not change what the model answers, or is not the same after saving.
VOLATILE = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}
NO_HEAD = (
    "has no trained head, and a new one would answer at random. Fine-tune it first "
    "(recipes/run_classification.py) and pass that output_dir."
)


@dataclass
class Member:
    """
    A classifier that never trains, with its tokenizer.

    Args:
        name (`str`): For messages.
        model ([`PreTrainedModel`]): Put into evaluation mode and frozen.
        tokenizer ([`PreTrainedTokenizerBase`]): Its own.
        max_length (`int`): Longer texts are cut, in tokens.
        order (`list[int]`, *optional*): Which of its outputs is each of the student's classes.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    order: list[int] | None = None

    def __post_init__(self):
        self.model.eval().requires_grad_(False)
        # In another format than the weights', when one was asked for.
        self.running = self.model
        self._accepted = set(inspect.signature(self.model.forward).parameters)
        # Successive rows so far that look like probabilities.
        self._alike = 0

    def to(self, device: torch.device | str, dtype: torch.dtype | None) -> None:
        """See [`Teacher.to`]."""
        self.model.to(device)
        if dtype in (None, self.model.dtype):
            self.running = self.model
        elif self.running.dtype != dtype:
            self.running = copy.deepcopy(self.model).to(dtype)
        self.running.to(device)

    def tokenize(self, texts: Texts) -> Encoded:
        """What the model takes of each text, cut to `max_length` and not padded."""
        pairs = bool(texts) and not isinstance(texts[0], str)
        columns = ([first for first, _ in texts], [second for _, second in texts]) if pairs else (list(texts),)
        encoded = self.tokenizer(*columns, truncation=True, padding=False, max_length=self.max_length)
        names = [name for name in encoded if name in self._accepted]
        return [dict(zip(names, row, strict=True)) for row in zip(*(encoded[name] for name in names), strict=True)]

    def pad(self, rows: Encoded) -> dict[str, Tensor]:
        """Tensors of shape (rows, tokens of the longest)."""
        padded = pad_without_fast_tokenizer_warning(self.tokenizer, rows, padding=True, return_tensors="pt")
        # Tensors of empty lists are floats.
        return {name: tensor.long() for name, tensor in padded.items()}

    def forward(self, batch: dict[str, Tensor], output_hidden_states: bool = False) -> Any:
        """The model's output, in inference mode."""
        model = self.running.eval()
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        extra = {"output_hidden_states": True} if output_hidden_states else {}
        with torch.inference_mode():
            return model(**batch, **extra)

    def checked(self, output: Any, batch: dict[str, Tensor], problem_type: str) -> Tensor:
        """
        The logits of an output of shape (rows, classes), float32, in the student's order.

        Raises:
            DataError: If one is not a finite number, with the text.
            ConfigurationError: If they are probabilities, or of another shape.
        """
        logits, classes = getattr(output, "logits", None), self.model.config.num_labels
        rows = len(batch["input_ids"])
        if logits is None or tuple(logits.shape) != (rows, classes):
            given = "none" if logits is None else f"of the shape {tuple(logits.shape)}"
            raise ConfigurationError(
                f"The logits of the teacher {self.name} ({type(self.model).__name__}) are {given} for {rows} texts and "
                f"{classes} classes. A teacher must be a sequence classifier."
            )
        with torch.inference_mode():
            tolerance = SUM_TOLERANCE if logits.dtype == torch.float32 else SHORT_SUM_TOLERANCE
            logits = logits.float()
            finite = logits.isfinite().all(dim=1)
            if not finite.all():
                row = int((~finite).nonzero()[0])
                text = self.tokenizer.decode(batch["input_ids"][row], skip_special_tokens=True)[:200]
                raise DataError(
                    f"The teacher {self.name} answers {logits[row].tolist()} to the text {text!r}, which are not all "
                    "finite numbers. Look at its weights, or run it in float32."
                )
            self._refuse_probabilities(logits, problem_type, tolerance)
            return logits if self.order is None else logits[:, self.order]

    def _refuse_probabilities(self, logits: Tensor, problem_type: str, tolerance: float) -> None:
        if problem_type == REGRESSION:
            return
        alike = bool(((logits >= 0) & (logits <= 1)).all())
        if alike and problem_type == SINGLE_LABEL:
            alike = bool(((logits.sum(dim=1) - 1).abs() < tolerance).all())
        self._alike = self._alike + len(logits) if alike else 0
        if self._alike >= ROWS_TO_TELL[problem_type]:
            raise ConfigurationError(
                f"The outputs of the teacher {self.name} are probabilities already (such as "
                f"{[round(value, 3) for value in logits[0].tolist()[:5]]}), but a teacher must return logits. Take "
                "the softmax or sigmoid out of its forward."
            )

    def fingerprint(self) -> str:
        """SHA-256 of class, configuration, weights, tokenizer and `max_length`."""
        digest = hashlib.sha256(type(self.model).__name__.encode())
        config = {name: value for name, value in self.model.config.to_dict().items() if name not in VOLATILE}
        digest.update(json.dumps(config, sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            # Every shorter format is exact in float32.
            values = tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else None)
            digest.update(f"{name} {tuple(values.shape)}".encode())
            digest.update(values.contiguous().reshape(-1).numpy())
        digest.update(tokenizer_settings(self.tokenizer).encode())
        digest.update(str(self.max_length).encode())
        return digest.hexdigest()


def name_of(model: Any) -> str:
    """
    How messages call a teacher.

    Raises:
        ConfigurationError: If it is nothing that can be one.
    """
    if isinstance(model, PreTrainedModel):
        return model.name_or_path or type(model).__name__
    if isinstance(model, (str, Path)):
        return str(model)
    raise ConfigurationError(
        f"teacher_model is a {type(model).__name__}; it must be a PreTrainedModel, a directory, a name on the Hub, or "
        "a list of those."
    )


def load_member(model: Any, tokenizer: Any, max_length: int | None, trust_remote_code: bool) -> Member:
    """
    A classifier with its tokenizer; see [`Teacher.load`] for the arguments and what is refused.

    Returns:
        [`Member`]: Answering in the order of its own classes.
    """
    name = name_of(model)
    loaded = _load_model(model, name, trust_remote_code)
    own = _load_tokenizer(loaded, tokenizer, name, trust_remote_code)
    return Member(name, loaded, own, _greatest_length(loaded, own, max_length, name))


# ---- Inside ----


def _load_model(model: Any, name: str, trust_remote_code: bool) -> PreTrainedModel:
    if isinstance(model, PreTrainedModel):
        if type(model) is MODEL_MAPPING.get(type(model.config), None):
            raise ConfigurationError(f"The teacher {name} is a {type(model).__name__}, which {NO_HEAD}")
        return model
    model_args = ModelArguments(model_name_or_path=name, trust_remote_code=trust_remote_code)
    if find_adapter(name) is not None:
        return load_classifier(model_args)[0]
    config = load_config(model_args)
    try:
        with refused_pickles(f"The teacher {name}"):
            loaded, info = AutoModelForSequenceClassification.from_pretrained(
                name, config=config, dtype="auto", output_loading_info=True, trust_remote_code=trust_remote_code
            )
    except ConfigurationError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigurationError(f"The teacher {name} could not be loaded: {error}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ConfigurationError(f"The teacher {name} has no weights for {', '.join(missing[:4])}: it {NO_HEAD}")
    return loaded


def _load_tokenizer(model: PreTrainedModel, given: Any, name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    if isinstance(given, PreTrainedTokenizerBase):
        # Its own state of padding and truncation, so that the caller's stays as it is.
        tokenizer = copy.deepcopy(given)
    else:
        source = str(given) if given is not None else model.name_or_path
        if not source:
            raise ConfigurationError(
                f"The teacher {name} does not say where it is from, so its tokenizer cannot be found. Pass it as "
                "teacher_tokenizer=."
            )
        try:
            tokenizer = load_tokenizer(
                source, ModelArguments(model_name_or_path=source, trust_remote_code=trust_remote_code)
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"{error} Pass the teacher's own as teacher_tokenizer=.") from error
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise ConfigurationError(
            f"The tokenizer of the teacher {name} knows no word: its files are missing. Pass teacher_tokenizer=."
        )
    rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    if rows is not None and max(tokenizer.get_vocab().values()) >= rows:
        raise ConfigurationError(
            f"The tokenizer has {len(tokenizer)} tokens, but the teacher {name} knows {rows}: it is another model's. "
            "Pass the teacher's own as teacher_tokenizer=."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return tokenizer


def _greatest_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: int | None, name: str) -> int:
    positions = longest_input(model.config) or LONGEST_TEXT
    if asked is None:
        return min(tokenizer.model_max_length, positions, LONGEST_TEXT)
    least = 1 + tokenizer.num_special_tokens_to_add(pair=True)
    if not isinstance(asked, int) or isinstance(asked, bool) or not least <= asked <= positions:
        raise ConfigurationError(
            f"teacher_max_length is {asked!r}; the teacher {name} takes from {least} to {positions:,} tokens."
        )
    return asked
