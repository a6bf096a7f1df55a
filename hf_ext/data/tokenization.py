"""Texts -> token ids with their lengths."""

import json

import transformers
from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from hf_ext.errors import DataError, nearest


def tokenize_dataset(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int,
    pad_to_max_length: bool = False,
    num_proc: int | None = None,
    load_from_cache_file: bool = True,
    description: str = "Tokenising",
    keep_columns: tuple[str, ...] = (),
) -> Dataset:
    """
    Add what the model takes (`input_ids` ...), `length` in tokens, and rename `label` to `labels`.

    Args:
        dataset ([`~datasets.Dataset`]): With the columns `text`, `text_pair` (pairs) and `label` (if labelled).
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The model's tokenizer.
        max_seq_length (`int`): Longer texts are cut, of a pair the longer one first.
        pad_to_max_length (`bool`, *optional*, defaults to `False`): Pad all rows to `max_seq_length`.
        num_proc (`int`, *optional*): Processes.
        load_from_cache_file (`bool`, *optional*, defaults to `True`): Reuse what an earlier run tokenised.
        description (`str`, *optional*): Title of the progress bar.
        keep_columns (`tuple[str, ...]`, *optional*):
            Columns to take along as they are, such as a difficulty or `source_idx`.

    Returns:
        [`~datasets.Dataset`]: Only model inputs, `length`, `labels` and what is to be kept.

    Raises:
        DataError: If a column to be kept is missing, or has the name of one that is made here.
    """
    missing = [name for name in keep_columns if name not in dataset.column_names]
    if missing:
        raise DataError(
            f"keep_columns: there is no column {missing[0]!r} among {', '.join(dataset.column_names)}."
            f"{nearest(missing[0], dataset.column_names)}"
        )
    made = {*tokenizer.model_input_names, "length", "labels"} & set(keep_columns)
    if made:
        raise DataError(f"keep_columns: {', '.join(sorted(made))} would be overwritten by the tokeniser; rename it.")

    def encode(rows):
        texts = (rows["text"], rows["text_pair"]) if "text_pair" in rows else (rows["text"],)
        encoded = tokenizer(
            *texts, truncation=True, max_length=max_seq_length, padding="max_length" if pad_to_max_length else False
        )
        encoded["length"] = [sum(mask) for mask in encoded["attention_mask"]]
        if "label" in rows:
            encoded["labels"] = rows["label"]
        return dict(encoded)

    settings = (max_seq_length, pad_to_max_length, keep_columns, transformers.__version__)
    # `datasets` would pickle the whole tokenizer to find it, which takes longer than to tokenise some thousand rows.
    fingerprint = Hasher.hash((dataset._fingerprint, encode.__code__, tokenizer_settings(tokenizer), settings))
    return dataset.map(
        encode,
        new_fingerprint=fingerprint,
        batched=True,
        num_proc=num_proc,
        remove_columns=[name for name in dataset.column_names if name not in keep_columns],
        load_from_cache_file=load_from_cache_file,
        desc=description,
    )


def tokenizer_settings(tokenizer: PreTrainedTokenizerBase) -> str:
    """
    All that decides the ids of a text, as JSON.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): What calls leave in it, their padding and truncation, is
            no part of it.
    """
    settings = {
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "sides": (tokenizer.padding_side, tokenizer.truncation_side),
        "inputs": tokenizer.model_input_names,
    }
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        settings["vocabulary"] = tokenizer.get_vocab()
    else:
        parts = json.loads(backend.to_str())
        settings["backend"] = {name: part for name, part in parts.items() if name not in ("padding", "truncation")}
    return json.dumps(settings, sort_keys=True, default=str)
