"""A student's first word vectors, out of its teacher."""

import copy
import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.data.data_collator import pad_without_fast_tokenizer_warning

from hf_ext.errors import ConfigurationError
from hf_ext.models.teacher import Precision, resolve_dtype
from hf_ext.models.word_tokenizer import PAD_TOKEN, SEPARATOR_TOKEN, UNKNOWN_TOKEN

# The standard deviation of what the TextCNN starts from, uniform in +-0.25.
START_SCALE = 0.25 / math.sqrt(3)
# A longer word is no word.
LONGEST_WORD = 64
BATCH_TOKENS = 1024
# How subword vocabularies mark that a piece goes on with a word, or begins one.
MARKS = ("##", "\u0120", "\u2581")


def teacher_word_vectors(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: Sequence[str],
    width: int,
    *,
    scale: float = START_SCALE,
    precision: Precision = "auto",
    padding: str | None = PAD_TOKEN,
    special_tokens: Collection[str] = (UNKNOWN_TOKEN, SEPARATOR_TOKEN),
    progress: bool = True,
) -> Tensor:
    """
    Word vectors for a student, from what its teacher makes of each word alone.

    A word goes through the teacher's body by itself; the mean of the last hidden states over its tokens, without the
    special ones, is reduced by principal components and scaled. The idea is that of model2vec (Minish Lab 2024), there
    as a model of its own, here as a start.

    Args:
        model ([`PreTrainedModel`]): The teacher, or its body; it is not changed.
        tokenizer ([`PreTrainedTokenizerBase`]): The teacher's.
        vocabulary (`Sequence[str]`):
            The student's tokens in the order of their ids. If they are the teacher's own vocabulary each is taken by
            its id; otherwise as a word, without the marks of subwords (`##`).
        width (`int`): Of a vector; at most the teacher's hidden size.
        scale (`float`, *optional*, defaults to 0.144):
            Standard deviation of all entries; by default that of the TextCNN's own start (uniform in +-0.25).
        precision (`str`, *optional*, defaults to `"auto"`): As in [`teacher_logits`].
        padding (`str`, *optional*, defaults to `"<pad>"`): The student's padding, whose vector is zero.
        special_tokens (`Collection[str]`, *optional*):
            The student's other special tokens, whose vector is the mean (the origin, as the components are centred).
        progress (`bool`, *optional*, defaults to `True`): Show a progress bar.

    Returns:
        `Tensor` of shape (len(vocabulary), width), float32, on the CPU.

    Raises:
        ConfigurationError: If `width` is greater than the teacher's hidden size or the number of words, `scale` is not
            positive, or the model has no hidden states.
    """
    if not isinstance(scale, (int, float)) or not 0 < scale < math.inf:
        raise ConfigurationError(f"scale is {scale!r}; it must be a positive number.")
    special = {*special_tokens, *([] if padding is None else [padding])}
    rows = [row for row, word in enumerate(vocabulary) if word not in special]
    largest = min(getattr(model.config, "hidden_size", len(rows)), len(rows))
    if not isinstance(width, int) or isinstance(width, bool) or not 1 <= width <= largest:
        raise ConfigurationError(
            f"The student's embeddings are {width!r} wide; from this teacher they can have 1 to {largest:,} dimensions "
            f"(its hidden size, and no more than the {len(rows):,} words)."
        )
    states, known = hidden_means(model, tokenizer, [vocabulary[row] for row in rows], precision, progress)
    places = np.array(rows)[known]
    if len(places) < width:
        raise ConfigurationError(f"The teacher knows {len(places):,} of the words, too few for {width} dimensions.")
    reduced = principal_components(states[known], width)
    vectors = np.zeros((len(vocabulary), width), dtype=np.float32)
    scaled = reduced * (scale / reduced.std())
    others = [row for row, word in enumerate(vocabulary) if word != padding]
    vectors[others] = scaled.mean(axis=0)
    vectors[places] = scaled
    return torch.from_numpy(vectors)


def hidden_means(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    words: Sequence[str],
    precision: Precision = "auto",
    progress: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """
    The mean last hidden state of each word alone, over its tokens that are not special.

    Args:
        model, tokenizer, precision, progress: See [`teacher_word_vectors`].
        words (`Sequence[str]`): Words or tokens.

    Returns:
        `tuple`: float32 of shape (words, hidden size); and which words have any such token, of shape (words,).

    Raises:
        ConfigurationError: If the model has no hidden states.
    """
    body = model.base_model
    dtype, was_training = resolve_dtype(precision, body.device), body.training
    running = body.eval() if body.dtype == dtype else copy.deepcopy(body).to(dtype).eval()
    encoded = _encode(tokenizer, words)
    known = np.array([0 in row["special_tokens_mask"] for row in encoded])
    means = None
    try:
        with tqdm(total=len(words), desc="Word vectors", unit=" words", disable=not progress) as bar:
            for batch in _batches([len(row["input_ids"]) for row in encoded]):
                found = _mean_states(running, tokenizer, [encoded[row] for row in batch])
                means = np.zeros((len(words), found.shape[1]), dtype=np.float32) if means is None else means
                means[batch] = found
                bar.update(len(batch))
    finally:
        body.train(was_training)
    return means, known


def principal_components(values: np.ndarray, width: int) -> np.ndarray:
    """
    Values projected on their first principal components, each with a fixed sign.

    Args:
        values (`np.ndarray` of shape (rows, dimensions)): At least `width` of both.
        width (`int`): How many components.

    Returns:
        `np.ndarray` of shape (rows, width), float64, centred.
    """
    from sklearn.decomposition import PCA

    return PCA(width, svd_solver="covariance_eigh").fit_transform(values.astype(np.float64))


# ---- Inside ----


def _encode(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> list[dict[str, list[int]]]:
    settings = {"truncation": True, "max_length": LONGEST_WORD, "return_special_tokens_mask": True}
    own = tokenizer.get_vocab()
    if not set(words) <= set(own) or not set(own) - set(words) <= set(tokenizer.all_special_tokens):
        encoded = tokenizer([_as_word(word) for word in words], **settings)
        return [{name: encoded[name][row] for name in encoded} for row in range(len(words))]
    # The teacher's own tokens: its frame of special ones around each.
    frame = tokenizer("a", **settings)
    inner = [place for place, special in enumerate(frame["special_tokens_mask"]) if not special]
    before, after = frame["input_ids"][: inner[0]], frame["input_ids"][inner[-1] + 1 :]
    mask = [1] * len(before) + [0] + [1] * len(after)
    return [{"input_ids": [*before, own[word], *after], "special_tokens_mask": mask} for word in words]


def _as_word(token: str) -> str:
    word = token
    for mark in MARKS:
        word = word.removeprefix(mark)
    return word or token


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    """Rows of about equal lengths, the longest first."""
    order, position = np.argsort([-length for length in lengths], kind="stable").tolist(), 0
    while position < len(order):
        size = max(1, BATCH_TOKENS // max(1, lengths[order[position]]))
        yield order[position : position + size]
        position += size


def _mean_states(body: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[dict]) -> np.ndarray:
    inputs = [{name: values for name, values in row.items() if name != "special_tokens_mask"} for row in rows]
    batch = pad_without_fast_tokenizer_warning(tokenizer, inputs, padding=True, return_tensors="pt")
    ordinary = torch.zeros(batch["input_ids"].shape)
    width = ordinary.shape[1]
    for index, row in enumerate(rows):
        start = width - len(row["input_ids"]) if tokenizer.padding_side == "left" else 0
        mask = 1.0 - torch.tensor(row["special_tokens_mask"], dtype=torch.float32)
        ordinary[index, start : start + len(mask)] = mask
    with torch.inference_mode():
        output = body(**{name: tensor.long().to(body.device) for name, tensor in batch.items()})
        states = getattr(output, "last_hidden_state", None)
        if states is None:
            raise ConfigurationError(
                f"A {type(body).__name__} gives no hidden state for each token; word vectors need a transformer."
            )
        weights = ordinary.to(states.device).unsqueeze(-1)
        return ((states.float() * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)).cpu().numpy()
