"""A word-level tokenizer built from the training texts, and word vectors for its vocabulary."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

PAD_TOKEN, UNKNOWN_TOKEN, SEPARATOR_TOKEN = "<pad>", "<unk>", "<sep>"
# Words with inner apostrophes and hyphens stay whole, clitics as treebanks write them ("n't", "'s") too; other signs
# stand alone.
WORDS = Regex(r"\w+(?:['\u2019\-]\w+)*|['\u2019]\w+|[^\w\s]")


def build_word_tokenizer(
    texts: Iterable[str],
    max_vocab_size: int = 30522,
    min_frequency: int = 1,
    lowercase: bool = True,
    model_max_length: int = 512,
) -> PreTrainedTokenizerFast:
    """
    Count words and make a tokenizer of the commonest.

    The result is saved by `save_pretrained` and loads by `AutoTokenizer` without any code of this package. Id 0 is
    the padding, id 1 the unknown word; the rest is ordered by frequency, then alphabetically, so the same texts give
    the same ids. A pair of texts is joined by id 2.

    Args:
        texts (`Iterable[str]`): Training texts, and only those: words of other splits must stay unknown.
        max_vocab_size (`int`, *optional*, defaults to `30522`): Upper bound of the vocabulary.
        min_frequency (`int`, *optional*, defaults to `1`): Words seen less often are unknown.
        lowercase (`bool`, *optional*, defaults to `True`): Fold the case.
        model_max_length (`int`, *optional*, defaults to `512`): Longer texts are cut when truncation is asked for.

    Returns:
        [`~transformers.PreTrainedTokenizerFast`]
    """
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN_TOKEN))
    steps = [normalizers.NFC()] + ([normalizers.Lowercase()] if lowercase else [])
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(WORDS, behavior="removed", invert=True)

    trainer = trainers.WordLevelTrainer(
        vocab_size=max_vocab_size,
        min_frequency=min_frequency,
        special_tokens=[PAD_TOKEN, UNKNOWN_TOKEN, SEPARATOR_TOKEN],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair=f"$A {SEPARATOR_TOKEN} $B", special_tokens=[(SEPARATOR_TOKEN, 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        unk_token=UNKNOWN_TOKEN,
        sep_token=SEPARATOR_TOKEN,
        model_max_length=model_max_length,
        model_input_names=["input_ids", "attention_mask"],
    )


def load_word_vectors(
    path: str | Path, tokenizer: PreTrainedTokenizerFast, init_range: float = 0.25, seed: int = 0
) -> tuple[torch.Tensor, int]:
    """
    Word vectors for a tokenizer's vocabulary.

    Args:
        path (`str` or `Path`):
            `.txt` or `.vec`: a word and its numbers a line, as GloVe and word2vec write them (a first line "count
            width" is skipped). `.npy` or `.safetensors`: a matrix whose words are listed one a line in a file of the
            same name ending in `.words.txt`, or whose rows are the tokenizer's own ids.
        tokenizer ([`~transformers.PreTrainedTokenizerFast`]): Its vocabulary decides the rows.
        init_range (`float`, *optional*, defaults to `0.25`):
            Words without a vector are uniform in `[-init_range, init_range]` (Kim 2014 matches the variance).
        seed (`int`, *optional*, defaults to `0`): Of those random vectors.

    Returns:
        `tuple[torch.Tensor, int]`: float32 of shape (len(tokenizer), width), and how many words were found.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not of these forms, with the line at fault.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"word_vectors: there is no file {path}.")
    vocabulary = tokenizer.get_vocab()
    if path.suffix in (".txt", ".vec"):
        found = _read_text_vectors(path, vocabulary)
    elif path.suffix in (".npy", ".safetensors"):
        found = _read_matrix(path, vocabulary)
    else:
        raise ValueError(f"word_vectors: {path} ends in {path.suffix!r}; valid are .txt, .vec, .npy and .safetensors.")
    broken = [word for word, index in vocabulary.items() if index in found and not np.isfinite(found[index]).all()]
    if broken:
        raise ValueError(f"word_vectors: the vector of {broken[0]!r} in {path} holds numbers that are not finite.")
    if not found:
        raise ValueError(
            f"word_vectors: {path} holds a vector for none of the {len(vocabulary)} words of the vocabulary."
        )
    width = len(next(iter(found.values())))
    generator = np.random.default_rng(seed)
    matrix = generator.uniform(-init_range, init_range, (len(tokenizer), width)).astype(np.float32)
    for index, vector in found.items():
        matrix[index] = vector
    if tokenizer.pad_token_id is not None:
        matrix[tokenizer.pad_token_id] = 0.0
    return torch.from_numpy(matrix), len(found)


def _read_text_vectors(path: Path, vocabulary: dict[str, int]) -> dict[int, np.ndarray]:
    found, width = {}, None
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            parts = line.rstrip().split(" ")
            if number == 1 and len(parts) == 2:
                continue
            width = width or len(parts) - 1
            # A few words of GloVe's lists hold spaces, so the numbers are counted from the right.
            word, numbers = " ".join(parts[:-width]), parts[-width:]
            if not word or (_is_number(parts[:-width][-1]) and len(parts) > width + 1):
                raise ValueError(
                    f"word_vectors: {path}, line {number}: {len(parts) - 1} numbers, the lines before have {width}."
                )
            if word in vocabulary:
                try:
                    found[vocabulary[word]] = np.array(numbers, dtype=np.float32)
                except ValueError:
                    raise ValueError(
                        f"word_vectors: {path}, line {number}: not all of {numbers[:3]} ... are numbers."
                    ) from None
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_matrix(path: Path, vocabulary: dict[str, int]) -> dict[int, np.ndarray]:
    try:
        tensors = {"": np.load(path, allow_pickle=False)} if path.suffix == ".npy" else load_file(path)
    except (ValueError, EOFError, SafetensorError) as error:
        raise ValueError(f"word_vectors: {path} cannot be read: {error}.") from error
    if len(tensors) != 1:
        raise ValueError(f"word_vectors: {path} holds the tensors {sorted(tensors)}; it must hold exactly one.")
    matrix = next(iter(tensors.values()))
    if matrix.ndim != 2:
        raise ValueError(f"word_vectors: {path} has shape {matrix.shape}; it must be (words, width).")
    words_file = path.with_suffix(".words.txt")
    if words_file.is_file():
        words = words_file.read_text(encoding="utf-8").splitlines()
    elif len(matrix) == len(vocabulary):
        words = sorted(vocabulary, key=vocabulary.get)
    else:
        raise ValueError(
            f"word_vectors: {path} has {len(matrix)} rows, the vocabulary {len(vocabulary)} words. "
            f"List the words of the rows, one a line, in {words_file}."
        )
    if len(words) != len(matrix):
        raise ValueError(f"word_vectors: {words_file} lists {len(words)} words for {len(matrix)} rows of {path}.")
    return {vocabulary[word]: row for word, row in zip(words, matrix, strict=True) if word in vocabulary}
