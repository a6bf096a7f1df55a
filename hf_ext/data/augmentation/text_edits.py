"""The four edits of EDA on many texts at once: a pure function of the texts and their keys."""

from dataclasses import dataclass

import numpy as np

from hf_ext.data.augmentation.synonyms import SynonymTable
from hf_ext.data.augmentation.word_spans import (
    WordIndex,
    Words,
    find_words,
    flat_ranges,
    hash_words,
    mix,
    split_texts,
)

TECHNIQUES = ("synonym_replacement", "random_insertion", "random_swap", "random_deletion")
# Texts and bytes that are edited together: what fits into a processor's cache, with the calls' cost spread.
BATCH_TEXTS, BATCH_CHARACTERS = 4096, 2**19
GOLDEN = 0x9E3779B97F4A7C15
# Streams of random numbers.
WHICH_WORD, WHICH_SYNONYM, WHICH_PLACE = range(3)


@dataclass(frozen=True)
class Edits:
    """
    What stands where in place of what: non-overlapping, in the order of the texts.

    Args:
        starts, ends (`np.ndarray` of shape (edits,)): The bytes that go.
        sources, lengths (`np.ndarray` of shape (edits,)): The bytes that come, in the texts' bytes followed by `new`.
        new (`np.ndarray` of shape (bytes,), uint8): Bytes that no text holds.
    """

    starts: np.ndarray
    ends: np.ndarray
    sources: np.ndarray
    lengths: np.ndarray
    new: np.ndarray


def row_keys(seed: int, rows: np.ndarray, copy: int, attempt: int = 0, column: int = 0) -> np.ndarray:
    """
    The key of each row, from which all of its random numbers follow.

    Args:
        seed (`int`): Of the whole augmentation.
        rows (`np.ndarray` of shape (rows,), int64): Numbers of the rows.
        copy, attempt, column (`int`): Which copy of the row, which try at it, and which of the row's texts.

    Returns:
        `np.ndarray` of shape (rows,), uint64
    """
    key = np.array([seed % 2**64], dtype=np.uint64)
    for part in (copy, attempt, column):
        key = mix(key + np.uint64((part + 1) * GOLDEN % 2**64))
    return mix(key + mix(np.asarray(rows, dtype=np.int64).astype(np.uint64)))


def draws(keys: np.ndarray, stream: int, positions: np.ndarray) -> np.ndarray:
    """64 random bits for each pair of a row's key and a word's position, by SplitMix64 as a counter-based generator."""
    counters = positions.astype(np.uint64) + np.uint64((stream << 40) + 1)
    return mix(keys + counters * np.uint64(GOLDEN))


def edit_texts(
    texts: list[str],
    technique: str,
    keys: np.ndarray,
    share: float,
    untouchable: WordIndex,
    synonyms: SynonymTable | None,
) -> list[str]:
    """
    Edit every text once with one technique (Wei & Zou 2019, section 2).

    With n = max(1, round(share * words)): `"synonym_replacement"` replaces n words, `"random_insertion"` inserts a
    synonym of n words between any two words, `"random_swap"` exchanges n pairs of words, `"random_deletion"` deletes
    each word with probability `share`, but at least one and never all. Fewer where a text has fewer words to offer; a
    text that offers none comes back as it is. Bytes outside the edits stay what they are.

    Args:
        texts (`list[str]`): Texts without lone surrogates.
        technique (`str`): One of `TECHNIQUES`.
        keys (`np.ndarray` of shape (texts,), uint64): From [`row_keys`].
        share (`float`): Share of the words to edit, above 0 and at most 1.
        untouchable ([`WordIndex`]): Words that are never touched.
        synonyms ([`SynonymTable`], *optional*): For the first two techniques.

    Returns:
        `list[str]`: The edited texts.
    """
    edited: list[str] = []
    lengths = np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)))
    begin = 0
    while begin < len(texts):
        before = lengths[begin - 1] if begin else 0
        end = int(np.searchsorted(lengths, before + BATCH_CHARACTERS))
        end = min(max(end, begin + 1), begin + BATCH_TEXTS, len(texts))
        words = find_words(texts[begin:end])
        edits = _EDITS[technique](words, keys[begin:end], share, untouchable, synonyms)
        edited += split_texts(apply_edits(words.bytes, edits))
        begin = end
    return edited


def apply_edits(letters: np.ndarray, edits: Edits) -> np.ndarray:
    """The bytes after the edits: what stands between them and what they bring, gathered in one pass."""
    if not edits.lengths.any():
        kept = np.ones(len(letters), dtype=bool)
        kept[flat_ranges(edits.starts, edits.ends - edits.starts)] = False
        return letters[kept]
    starts = np.empty(2 * len(edits.starts) + 1, dtype=np.int64)
    ends = np.empty_like(starts)
    starts[0], ends[-1] = 0, len(letters)
    starts[2::2], ends[:-1:2] = edits.ends, edits.starts
    starts[1::2], ends[1::2] = edits.sources, edits.sources + edits.lengths
    source = np.concatenate([letters, edits.new]) if len(edits.new) else letters
    return source[flat_ranges(starts, ends - starts)]


# ---- Which words ----


def _edit_counts(words: Words, share: float) -> np.ndarray:
    return np.maximum(1, np.rint(share * words.counts)).astype(np.int64)


def _touchable(words: Words, untouchable: WordIndex, chosen: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Those of the chosen words (of all by default) that may be edited, and their hashes."""
    starts, ends = (words.starts, words.ends) if chosen is None else (words.starts[chosen], words.ends[chosen])
    hashes = hash_words(words.bytes, starts, ends)
    kept = np.flatnonzero(~untouchable.holds(hashes))
    return kept if chosen is None else chosen[kept], hashes[kept]


def _choose_with_synonyms(
    words: Words, keys: np.ndarray, share: float, untouchable: WordIndex, synonyms: SynonymTable
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the words to take a synonym of, ascending, and for each the synonym's number in the table."""
    candidates, hashes = _touchable(words, untouchable)
    entries = synonyms.index.find(hashes)
    known = np.flatnonzero(entries >= 0)
    candidates, entries = candidates[known], entries[known]
    counts = _edit_counts(words, share)
    chosen = _marked(_smallest(_draw16(words, keys, candidates), words.text[candidates], counts), len(candidates))
    candidates, entries = candidates[chosen], entries[chosen]
    bits = draws(keys[words.text[candidates]], WHICH_SYNONYM, words.position[candidates])
    first = synonyms.first[entries]
    return candidates, first + _scaled(bits, synonyms.first[entries + 1] - first)


def _smallest(drawn: np.ndarray, text: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """
    Choose words of each text: those with the smallest draws, of equal ones the first.

    Args:
        drawn (`np.ndarray` of shape (words,), uint16): A draw for each word.
        text (`np.ndarray` of shape (words,)): Its text, ascending, below 65,536.
        counts (`np.ndarray` of shape (texts,)): How many of each text, or all if it has fewer.

    Returns:
        `np.ndarray`: Which words, by text and, inside a text, in the order of their draws.
    """
    # Sorting 16 bits at a time takes linear time.
    by_draw = np.argsort(drawn, kind="stable")
    order = by_draw[np.argsort(text.astype(np.uint16)[by_draw], kind="stable")]
    available = np.bincount(text, minlength=len(counts))
    # `text` is ascending, so it is also the text of the ordered candidates.
    rank = np.arange(len(text)) - (np.cumsum(available) - available)[text]
    return order[rank < counts[text]]


def _marked(chosen: np.ndarray, total: int) -> np.ndarray:
    """Some numbers below `total` in ascending order."""
    marks = np.zeros(total, dtype=bool)
    marks[chosen] = True
    return np.flatnonzero(marks)


def _draw16(words: Words, keys: np.ndarray, chosen: np.ndarray | slice) -> np.ndarray:
    bits = draws(keys[words.text[chosen]], WHICH_WORD, words.position[chosen])
    return (bits >> np.uint64(48)).astype(np.uint16)


def _scaled(bits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """A whole number below each count from 64 random bits."""
    return (((bits >> np.uint64(32)) * counts.astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


# ---- The techniques ----


def _replace(words: Words, keys: np.ndarray, share: float, untouchable: WordIndex, synonyms: SynonymTable) -> Edits:
    replaced, choice = _choose_with_synonyms(words, keys, share, untouchable, synonyms)
    new = synonyms.letters[flat_ranges(synonyms.starts[choice], synonyms.lengths[choice])]
    lengths = synonyms.lengths[choice]
    new = _with_case(new, lengths, _all_upper(words, replaced), _first_upper(words, replaced))
    sources = len(words.bytes) + np.cumsum(lengths) - lengths
    return Edits(words.starts[replaced], words.ends[replaced], sources, lengths, new)


def _insert(words: Words, keys: np.ndarray, share: float, untouchable: WordIndex, synonyms: SynonymTable) -> Edits:
    models, choice = _choose_with_synonyms(words, keys, share, untouchable, synonyms)
    text = words.text[models]
    counts = words.counts[text]
    boundary = _scaled(draws(keys[text], WHICH_PLACE, words.position[models]), counts + 1)
    # Before a word with a space behind, or after the last word with a space before.
    at_end = boundary == counts
    neighbour = models - words.position[models] + boundary - at_end
    places = np.where(at_end, words.ends[neighbour], words.starts[neighbour])
    order = np.argsort(places, kind="stable")
    places, at_end, choice, models = places[order], at_end[order], choice[order], models[order]
    lengths = synonyms.lengths[choice] + 1
    new = synonyms.letters[flat_ranges(synonyms.starts[choice] - at_end, lengths)]
    new = _with_case(new, lengths, _all_upper(words, models), np.zeros(len(models), dtype=bool))
    return Edits(places, places, len(words.bytes) + np.cumsum(lengths) - lengths, lengths, new)


def _swap(words: Words, keys: np.ndarray, share: float, untouchable: WordIndex, synonyms: SynonymTable | None) -> Edits:
    candidates, _ = _touchable(words, untouchable)
    text = words.text[candidates]
    pairs = np.minimum(_edit_counts(words, share), np.bincount(text, minlength=len(words.counts)) // 2)
    chosen = candidates[_smallest(_draw16(words, keys, candidates), text, 2 * pairs)]
    partner = np.full(len(words.starts), -1)
    partner[chosen[::2]], partner[chosen[1::2]] = chosen[1::2], chosen[::2]
    swapped = np.flatnonzero(partner >= 0)
    sources = words.starts[partner[swapped]]
    lengths = words.ends[partner[swapped]] - sources
    return Edits(words.starts[swapped], words.ends[swapped], sources, lengths, words.bytes[:0])


def _delete(
    words: Words, keys: np.ndarray, share: float, untouchable: WordIndex, synonyms: SynonymTable | None
) -> Edits:
    drawn = _draw16(words, keys, slice(None))
    # Looking up only the few words below the share saves a third of the time.
    hit, _ = _touchable(words, untouchable, np.flatnonzero(drawn < round(share * 2**16)))
    hits = np.bincount(words.text[hit], minlength=len(words.counts))
    # Where that is no word or every one: the words with the smallest draws, as many as may go.
    counts = np.minimum(np.maximum(hits, 1), words.counts - 1)
    other = counts != hits
    rest, _ = _touchable(words, untouchable, np.flatnonzero(other[words.text]))
    rest = rest[_smallest(drawn[rest], words.text[rest], counts)]
    deleted = _marked(np.concatenate([hit[~other[words.text[hit]]], rest]), len(words.starts))
    starts, ends = _with_blank(words, words.starts[deleted], words.ends[deleted])
    none = np.zeros(len(deleted), dtype=np.int64)
    return Edits(starts, ends, none, none, words.bytes[:0])


def _with_blank(words: Words, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Add the space or tab before each deleted word, or, where there is none, the one behind it.

    Of words that are deleted in a row with single blanks between them, all take the blank on the same side, so that
    none is taken twice.
    """
    before, behind = words.bytes[starts - 1], words.bytes[ends]
    before, behind = (before == ord(" ")) | (before == ord("\t")), (behind == ord(" ")) | (behind == ord("\t"))
    joined = np.zeros(len(starts), dtype=bool)
    joined[1:] = before[1:] & (starts[1:] == ends[:-1] + 1)
    heads = np.maximum.accumulate(np.where(joined, 0, np.arange(len(starts))))
    before = before[heads] if len(heads) else before
    return starts - before, ends + (behind & ~before)


# ---- Case ----


def _first_upper(words: Words, chosen: np.ndarray) -> np.ndarray:
    return words.bytes[words.starts[chosen]] <= ord("Z")


def _all_upper(words: Words, chosen: np.ndarray) -> np.ndarray:
    """Whether a word of several letters is in capitals throughout."""
    starts, lengths = words.starts[chosen], words.ends[chosen] - words.starts[chosen]
    letters = words.bytes[flat_ranges(starts, lengths)]
    small = (letters >= ord("a")) & (letters <= ord("z"))
    offsets = np.cumsum(lengths) - lengths
    smalls = np.add.reduceat(small, offsets, dtype=np.int64) if len(chosen) else offsets
    return (smalls == 0) & (lengths > 1)


def _with_case(new: np.ndarray, lengths: np.ndarray, capitals: np.ndarray, capitalised: np.ndarray) -> np.ndarray:
    """Raise all ASCII letters of the words in capitals, and the first of the capitalised."""
    raised = np.repeat(capitals, lengths)
    raised[(np.cumsum(lengths) - lengths)[capitalised]] = True
    small = (new >= ord("a")) & (new <= ord("z"))
    return new - np.uint8(32) * (raised & small)


_EDITS = dict(zip(TECHNIQUES, (_replace, _insert, _swap, _delete), strict=True))
