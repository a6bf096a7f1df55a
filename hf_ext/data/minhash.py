"""How similar texts are, by their shingles: MinHash to find similar ones, and exact similarities."""

import math

import numpy as np
from tqdm.auto import tqdm

from hf_ext.data.text_columns import Texts, normalized_bytes, spans, take_texts, text_lengths

SHINGLE = 5
# Fills up texts shorter than a shingle: a byte that UTF-8 never has.
PADDING = b"\xff"
# Longer texts are compared by their beginning, so that memory stays bounded.
LONGEST = 1 << 22
# Share of the pairs just at the threshold that may be missed, and the most MinHash values a text.
MISSED, MOST_HASHES = 0.005, 128


def band_keys(texts: Texts, rows: np.ndarray, threshold: float, seed: int, progress: bool) -> np.ndarray:
    """A hash of each band of MinHash values of each row: shape (bands, rows), uint64."""
    from rensa import RMinHash

    bands, width = _bands(threshold)
    keys = np.zeros((bands, len(rows)), dtype=np.uint64)
    lengths = np.minimum(text_lengths(texts)[rows], LONGEST)
    with tqdm(total=len(rows), desc="Comparing texts", unit="row", disable=not progress, unit_scale=True) as bar:
        for start, stop in spans(lengths):
            flat, offsets = _shingles(normalized_bytes(take_texts(texts, rows[start:stop])))
            hashes = RMinHash.digest_matrix_from_flat_token_hashes(
                _mixed(flat), offsets.astype(np.uint64), bands * width, seed
            )
            values = np.array(hashes.to_rows(), dtype=np.uint32).astype(np.uint64).reshape(-1, bands, width)
            for column in range(width):
                keys[:, start:stop] = _mixed(keys[:, start:stop] ^ values[:, :, column].T)
            bar.update(stop - start)
    return keys


def similarities(texts: Texts, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """
    Exact similarities of pairs of rows, as [`near_duplicate_pairs`] defines them.

    Args:
        texts (`Sequence[str]`, `pyarrow.Array` or `pyarrow.ChunkedArray`): As for [`exact_duplicates`].
        first (`np.ndarray`): One row of each pair.
        second (`np.ndarray`): The other row.

    Returns:
        `np.ndarray` of shape (pairs,), float64.
    """
    lengths = text_lengths(texts)
    jaccard = np.empty(len(first))
    for start, stop in spans(np.minimum(lengths[first], LONGEST) + np.minimum(lengths[second], LONGEST)):
        jaccard[start:stop] = _jaccard(texts, first[start:stop], second[start:stop])
    return jaccard


# ---- Inside ----


def _shingles(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """All shingles as 40-bit numbers (so without collisions), and where each text's begin and end: (flat, offsets)."""
    texts = [text[:LONGEST] if len(text) >= SHINGLE else text.ljust(SHINGLE, PADDING) for text in texts]
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    data = np.frombuffer(b"".join(texts), dtype=np.uint8)
    two = (data[:-1].astype(np.uint16) << 8) | data[1:]
    four = (two[:-2].astype(np.uint32) << 16) | two[2:]
    five = (four[:-1].astype(np.uint64) << np.uint64(8)) | data[4:]
    # Runs that reach into the next text are left out.
    inside = np.ones(len(data), dtype=bool)
    for back in range(1, SHINGLE):
        inside[np.cumsum(lengths) - back] = False
    offsets = np.concatenate([[0], np.cumsum(lengths - SHINGLE + 1)])
    return five[inside[: len(five)]], offsets


def _bands(threshold: float) -> tuple[int, int]:
    """Bands and values a band: as selective as `MOST_HASHES` values allow."""
    best = (1, 1)
    for width in range(1, 9):
        agree = threshold**width
        bands = 1 if agree >= 1 else math.ceil(math.log(MISSED) / math.log1p(-agree))
        if bands * width <= MOST_HASHES or width == 1:
            best = (bands, width)
    return best


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Spread the bits of uint64 numbers one to one (the finaliser of SplitMix64)."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _jaccard(texts: Texts, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    rows = np.union1d(first, second)
    flat, offsets = _shingles(normalized_bytes(take_texts(texts, rows)))
    sets = []
    for ends in (np.searchsorted(rows, first), np.searchsorted(rows, second)):
        counts = np.diff(offsets)[ends]
        pair = np.repeat(np.arange(len(ends), dtype=np.uint64), counts)
        inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        # A shingle has 40 bits, which leaves 24 for the pair.
        sets.append(_distinct((pair << np.uint64(40)) | flat[np.repeat(offsets[ends], counts) + inside]))
    pairs = np.arange(len(first) + 1, dtype=np.uint64) << np.uint64(40)
    union = _distinct(np.concatenate(sets))
    sizes = [np.diff(np.searchsorted(values, pairs)) for values in (*sets, union)]
    return (sizes[0] + sizes[1] - sizes[2]) / sizes[2]


def _distinct(values: np.ndarray) -> np.ndarray:
    # np.unique builds a hash table first, which is several times slower here.
    values = np.sort(values)
    return values[np.append(True, values[1:] != values[:-1])]
