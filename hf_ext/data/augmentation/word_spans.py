"""A batch of texts as one byte array, where its words are, and which words they are."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# No UTF-8 text holds this byte.
SEPARATOR = b"\xff"
# Words of more bytes are in no list, so that their hash need not be exact.
LONGEST_LISTED = 64
LETTER, GLUE, MARK, POINT, FOLLOWING = 1, 2, 4, 8, 16


def _byte_class(byte: int) -> int:
    character = chr(byte)
    if byte >= 0x80:
        # Characters that begin with these bytes are punctuation, symbols and emoji, nearly all others letters.
        marks = byte in (0xC2, 0xE2) or byte >= 0xF0
        return FOLLOWING if byte < 0xC0 else 0 if marks else GLUE
    if character.isalpha():
        return LETTER
    if character in ".:":
        return POINT
    if character in "'-":
        return MARK
    return GLUE if character.isdigit() or character in "_@#/\\&<>=" else 0


_CLASSES = np.array([_byte_class(byte) for byte in range(256)], dtype=np.uint8)
_MASKS = np.array([(1 << 8 * length) - 1 for length in range(9)], dtype=np.uint64)
# Makes ASCII letters small and maps the other bytes of a word to different ones.
_LOWER = np.uint64(0x2020202020202020)


@dataclass(frozen=True)
class Words:
    """
    The words of a batch of texts.

    A word is a run of the letters a to z, in which single apostrophes (`'` or U+2019) and hyphens may stand. A run that
    touches a digit, a letter of another kind, an apostrophe, a hyphen or one of `_@#/\\&<>=`, that follows a point or
    a colon, or that is followed by one and more without a space, is a part of something else (`3rd`, `naïve`, `'s`,
    `-lrb-`, `#tag`, `site.com`) and no word.

    Args:
        bytes (`np.ndarray` of shape (bytes,), uint8): All texts, each between two separators, and 8 bytes more.
        starts, ends (`np.ndarray` of shape (words,)): Where each word begins and ends in `bytes`.
        text (`np.ndarray` of shape (words,)): Which text a word is in.
        position (`np.ndarray` of shape (words,)): Its number in that text, from 0.
        counts (`np.ndarray` of shape (texts,)): Words of each text.
    """

    bytes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    text: np.ndarray
    position: np.ndarray
    counts: np.ndarray


def find_words(texts: list[str]) -> Words:
    """The [`Words`] of some texts; a `UnicodeEncodeError` if one holds half a character."""
    letters = np.frombuffer(SEPARATOR.join([b"", *map(str.encode, texts), bytes(8)]), dtype=np.uint8)
    inside = _in_words(letters)
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    next_bytes = letters.take(ends)
    behind = _CLASSES.take(next_bytes)
    glued = (_classes_before(letters, starts) & (GLUE | MARK | POINT)) | (behind & (GLUE | MARK))
    points = np.flatnonzero(behind & POINT)
    glued[points] |= _CLASSES[letters[ends[points] + 1]] & (LETTER | GLUE)
    # Of the apostrophe that is three bytes long, the first is any mark's.
    marks = np.flatnonzero(next_bytes == 0xE2)
    glued[marks] |= (letters[ends[marks] + 1] == 0x80) & (letters[ends[marks] + 2] == 0x99)
    words = np.flatnonzero(glued == 0)
    starts, ends = starts.take(words), ends.take(words)
    first = np.searchsorted(starts, np.flatnonzero(letters == SEPARATOR[0]))
    counts = np.diff(first)
    text = np.repeat(np.arange(len(texts)), counts)
    return Words(letters, starts, ends, text, np.arange(len(words)) - first.take(text), counts)


def _in_words(letters: np.ndarray) -> np.ndarray:
    """Which bytes are letters a to z, or an apostrophe or a hyphen between two of them."""
    inside = ((letters | 0x20) - np.uint8(ord("a"))) < 26
    between = (letters[1:-1] == ord("'")) | (letters[1:-1] == ord("-"))
    between &= inside[:-2]
    between &= inside[2:]
    apostrophes = _typographic_apostrophes(letters)
    inner = apostrophes[inside[apostrophes - 3] & inside[apostrophes + 1]]
    inside[1:-1] |= between
    for offset in range(3):
        inside[inner - offset] = True
    return inside


def _typographic_apostrophes(letters: np.ndarray) -> np.ndarray:
    """The places of the last of the three bytes of each U+2019."""
    last = np.flatnonzero(letters == 0x99)
    return last[(letters[last - 1] == 0x80) & (letters[last - 2] == 0xE2)]


def _classes_before(letters: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The classes of the characters before some places, of longer characters by their first byte."""
    classes = _CLASSES.take(letters.take(starts - 1))
    longer = np.flatnonzero(classes == FOLLOWING)
    places = starts[longer] - 1
    apostrophes = (letters[places] == 0x99) & (letters[places - 1] == 0x80) & (letters[places - 2] == 0xE2)
    for _ in range(3):
        places -= _CLASSES[letters[places]] == FOLLOWING
    classes[longer] = np.where(apostrophes, MARK, _CLASSES[letters[places]])
    return classes


def split_texts(joined: np.ndarray) -> list[str]:
    """The texts of a byte array in which each stands between two separators."""
    return list(map(bytes.decode, joined.tobytes().split(SEPARATOR)[1:-1]))


def mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele 2014): every bit of the result depends on every bit of the `uint64` value."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def hash_words(letters: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """
    A number for each word that is the same however its ASCII letters are written.

    Args:
        letters (`np.ndarray` of shape (bytes,), uint8): With 8 bytes behind the last word.
        starts, ends (`np.ndarray` of shape (words,)): Where the words are.

    Returns:
        `np.ndarray` of shape (words,), uint64: Of words longer than 64 bytes, from their length and first 64 bytes.
    """
    eights = np.ndarray(max(len(letters) - 7, 0), dtype="<u8", buffer=letters, strides=(1,))
    lengths = ends - starts
    part = (eights[starts] | _LOWER) & _MASKS.take(lengths, mode="clip")
    hashes = mix(part ^ lengths.astype(np.uint64))
    for offset in range(8, LONGEST_LISTED, 8):
        longer = np.flatnonzero(lengths > offset)
        if not len(longer):
            break
        part = (eights[starts[longer] + offset] | _LOWER) & _MASKS.take(lengths[longer] - offset, mode="clip")
        hashes[longer] = mix(hashes[longer] ^ part)
    return hashes


def hash_strings(words: Iterable[str]) -> np.ndarray:
    """[`hash_words`] of strings."""
    encoded = [word.encode() for word in words]
    ends = np.cumsum([len(word) for word in encoded], dtype=np.int64)
    starts = ends - np.array([len(word) for word in encoded], dtype=np.int64)
    return hash_words(np.frombuffer(b"".join([*encoded, bytes(8)]), dtype=np.uint8), starts, ends)


@dataclass(frozen=True)
class WordIndex:
    """
    Numbers of known words, for lookups of many words at once.

    Args:
        hashes (`np.ndarray`, uint64): The words' hashes, ascending, and zeros behind them.
        buckets (`np.ndarray`, int64): For each value of a hash's high bits, where the hashes with them begin.
        shift (`int`): 64 minus the number of those bits.
        probes (`int`): The most words that share these bits.
    """

    hashes: np.ndarray
    buckets: np.ndarray
    shift: int
    probes: int

    @classmethod
    def of(cls, hashes: np.ndarray) -> "WordIndex":
        """The index of some words, from their hashes in ascending order: each word's number is its place there."""
        # Many more buckets than words, as far as they fit into a processor's cache.
        bits = max(10, min(len(hashes).bit_length() + 5, 18))
        bounds = np.arange(2**bits, dtype=np.uint64) << np.uint64(64 - bits)
        buckets = np.searchsorted(hashes, bounds)
        probes = int(np.diff(buckets, append=len(hashes)).max())
        return cls(np.append(hashes, np.zeros(probes + 1, dtype=np.uint64)), buckets, 64 - bits, probes)

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """The number of each word from its hash, -1 for an unknown one."""
        places = self.buckets.take((hashes >> np.uint64(self.shift)).view(np.int64))
        found = np.where(self.hashes.take(places) == hashes, places, -1)
        for probe in range(1, self.probes):
            found = np.where(self.hashes.take(places + probe) == hashes, places + probe, found)
        return found

    def holds(self, hashes: np.ndarray) -> np.ndarray:
        """Whether each word is known, from its hash."""
        places = self.buckets.take((hashes >> np.uint64(self.shift)).view(np.int64))
        found = self.hashes.take(places) == hashes
        for probe in range(1, self.probes):
            found |= self.hashes.take(places + probe) == hashes
        return found


def index_words(words: Iterable[str]) -> WordIndex:
    """The [`WordIndex`] of some words, however their ASCII letters are written."""
    return WordIndex.of(np.unique(hash_strings(words)))


def flat_ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`range(start, start + length)` of each pair, one behind the other."""
    filled = np.flatnonzero(lengths)
    starts, lengths = starts[filled], lengths[filled]
    ends = np.cumsum(lengths)
    # The sum of steps of one, and of jumps from the end of a range to the start of the next.
    steps = np.ones(ends[-1] if len(ends) else 0, dtype=np.int64)
    steps[ends[:-1]] = starts[1:] - (starts + lengths)[:-1] + 1
    steps[:1] = starts[:1]
    return np.cumsum(steps, out=steps)
