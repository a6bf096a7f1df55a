"""Which words can stand for a word: WordNet 3.0's, or a user's own."""

import gzip
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from hf_ext.data.augmentation.word_spans import LONGEST_LISTED, WordIndex, flat_ranges, hash_strings, hash_words
from hf_ext.errors import ConfigurationError

# Lines of lower-case words that share a meaning; see benchmarks/synonym_table.py.
WORDNET_FILE = "wordnet_synonyms.txt.gz"
# The typewriter's and the typographer's.
APOSTROPHES = ("'", "\u2019")
WORD = re.compile(f"[A-Za-z]+(?:[{''.join(APOSTROPHES)}-][A-Za-z]+)*")


@dataclass(frozen=True)
class SynonymTable:
    """
    Synonyms, for lookups of many words at once.

    Args:
        index ([`WordIndex`]): The words that have synonyms; a word's number is its entry's.
        first (`np.ndarray` of shape (entries + 1,)): Where each entry's synonyms begin in `starts` and `lengths`.
        starts, lengths (`np.ndarray` of shape (synonyms,)): Where a synonym stands in `letters`.
        letters (`np.ndarray` of shape (bytes,), uint8): All synonyms, each between two spaces.
    """

    index: WordIndex
    first: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    letters: np.ndarray


@cache
def wordnet_synonyms() -> SynonymTable:
    """The table that comes with the package: lower-case single words that share a synset of WordNet 3.0."""
    content = files("hf_ext.data.augmentation").joinpath("resources", WORDNET_FILE).read_bytes()
    return table_of_synsets(gzip.decompress(content))


def table_of_synsets(lines: bytes) -> SynonymTable:
    """
    A table in which every word has the other words of its lines as synonyms.

    Args:
        lines (`bytes`): Lines of at least two lower-case words, separated by single spaces.
    """
    # A line break serves as the space before the next line's first word.
    letters = np.frombuffer(b" " + lines + bytes(8), dtype=np.uint8)
    ends = np.flatnonzero((letters == ord(" ")) | (letters == ord("\n")))
    starts, ends = ends[:-1] + 1, ends[1:]
    sizes = np.diff(np.flatnonzero(np.append(True, letters[ends] == ord("\n"))))
    hashes, word = np.unique(hash_words(letters, starts, ends), return_inverse=True)
    # Every ordered pair of places in a line.
    size = np.repeat(sizes, sizes)
    place = np.repeat(np.arange(len(starts)), size)
    other = flat_ranges(np.repeat(np.cumsum(sizes) - sizes, sizes), size)
    apart = place != other
    pairs = np.unique(word[place[apart]] * len(hashes) + word[other[apart]])
    owner, synonym = np.divmod(pairs, len(hashes))
    occurrence = np.empty(len(hashes), dtype=np.int64)
    occurrence[word] = np.arange(len(word))
    first = np.searchsorted(owner, np.arange(len(hashes) + 1))
    letters = np.where(letters == ord("\n"), np.uint8(ord(" ")), letters)
    chosen = occurrence[synonym]
    return SynonymTable(WordIndex.of(hashes), first, starts[chosen], (ends - starts)[chosen], letters)


def table_of_words(synonyms: Mapping[str, Iterable[str]]) -> SynonymTable:
    """
    A user's own table.

    Args:
        synonyms (`dict[str, list[str]]`): For each word what may stand for it: any text, also of several words.

    Raises:
        ConfigurationError: If a key is no word or twice there, or a synonym is empty or the word itself.
    """
    if not isinstance(synonyms, Mapping) or not synonyms:
        raise ConfigurationError(
            f'synonyms is {synonyms!r}; it must be a table such as {{"film": ["movie", "picture"]}}.'
        )
    keys, choices, seen = [], [], set()
    for word, others in synonyms.items():
        check_word("synonyms", word)
        if word.lower() in seen:
            raise ConfigurationError(f"synonyms: {word!r} is twice there; the case of letters makes no difference.")
        seen.add(word.lower())
        if isinstance(others, str) or not isinstance(others, Iterable) or not (others := list(others)):
            raise ConfigurationError(f"synonyms[{word!r}] is {others!r}; it must be a list of at least one string.")
        for other in others:
            if not isinstance(other, str) or not other.strip() or other.lower() == word.lower():
                raise ConfigurationError(f"synonyms[{word!r}] holds {other!r}; it must be another word than {word!r}.")
        keys.append(word)
        choices.append(others)
    order = np.argsort(hash_strings(keys))
    encoded = [other.encode() for entry in order for other in choices[entry]]
    lengths = np.array([len(other) for other in encoded])
    starts = np.cumsum(lengths + 1) - lengths
    first = np.append(0, np.cumsum([len(choices[entry]) for entry in order]))
    letters = np.frombuffer(b" ".join([b"", *encoded, b""]), dtype=np.uint8)
    return SynonymTable(WordIndex.of(hash_strings(keys)[order]), first, starts, lengths, letters)


def check_word(setting: str, word: object) -> None:
    """Refuse what can never be a word of a text."""
    if not isinstance(word, str) or not WORD.fullmatch(word) or len(word.encode()) > LONGEST_LISTED:
        raise ConfigurationError(
            f"{setting}: {word!r} is not a single word of the letters a to z (with inner hyphens or apostrophes, at "
            f"most {LONGEST_LISTED} bytes), so no text could hold it as a word."
        )
