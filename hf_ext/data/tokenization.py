"""Texts -> token ids with their lengths."""

from datasets import Dataset
from transformers import PreTrainedTokenizerBase


def tokenize_dataset(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int,
    pad_to_max_length: bool = False,
    num_proc: int | None = None,
    load_from_cache_file: bool = True,
    description: str = "Tokenising",
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

    Returns:
        [`~datasets.Dataset`]: Only model inputs, `length` and `labels`.
    """

    def encode(rows):
        texts = (rows["text"], rows["text_pair"]) if "text_pair" in rows else (rows["text"],)
        encoded = tokenizer(
            *texts, truncation=True, max_length=max_seq_length, padding="max_length" if pad_to_max_length else False
        )
        encoded["length"] = [sum(mask) for mask in encoded["attention_mask"]]
        if "label" in rows:
            encoded["labels"] = rows["label"]
        return dict(encoded)

    return dataset.map(
        encode,
        batched=True,
        num_proc=num_proc,
        remove_columns=dataset.column_names,
        load_from_cache_file=load_from_cache_file,
        desc=description,
    )
