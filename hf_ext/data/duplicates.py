"""Texts -> which of them are repeats or near repeats of which: exact hashes, MinHash, exact similarities."""

import math
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm.auto import tqdm

from hf_ext.errors import ConfigurationError, DataError

Texts = Sequence[str] | pa.Array | pa.ChunkedArray

# Puts the two texts of a pair into one: a code point that Unicode reserves never to be a character.
PAIR_SEPARATOR = "\uffff"
SHINGLE = 5
# Fills up texts shorter than a shingle: a byte that UTF-8 never has.
PADDING = b"\xff"
# Longer texts are compared by their beginning, so that memory stays bounded.
LONGEST = 1 << 22
ROWS_A_CHUNK, BYTES_A_CHUNK = 20_000, 1 << 22
# Share of the pairs just at the threshold that may be missed, and the most MinHash values a text.
MISSED, MOST_HASHES = 0.005, 128
# Below, that share would take more values a text than this, and without bound towards 0.
LEAST_THRESHOLD = 0.05
# A text is compared with the first of its bucket and with this many neighbours in it.
NEIGHBOURS = 3


def normalize_text(text: str) -> str:
    """The form in which texts are compared: lower case, white space joined to single blanks."""
    return " ".join(text.lower().split())


def exact_duplicates(texts: Texts) -> np.ndarray:
    """
    Which texts are equal, but for case and white space.

    Args:
        texts (`Sequence[str]`, `pyarrow.Array` or `pyarrow.ChunkedArray`):
            A memory-mapped column (`dataset.data.column("text")`) is read a chunk at a time. Join the two texts of a
            pair by `PAIR_SEPARATOR`.

    Returns:
        `np.ndarray` of shape (rows,), int64: Index of the first row with the same normalised text, so its own if none
        before has it.

    Raises:
        DataError: If a row is not a string.
    """
    texts = _checked(texts)
    digests = np.empty((len(texts), 2), dtype=np.uint64)
    for start, chunk in _normalized_chunks(texts):
        joined = b"".join(blake2b(text, digest_size=16).digest() for text in chunk)
        digests[start : start + len(chunk)] = np.frombuffer(joined, dtype=np.uint64).reshape(-1, 2)
    return first_equal(digests[:, 0], digests[:, 1])


def first_equal(*columns: np.ndarray) -> np.ndarray:
    """Index of the first row that has the same values in all columns, of shape (rows,), int64."""
    # Stable: equal rows stay in their order.
    order = np.lexsort(columns)
    begins = _group_begins(tuple(column[order] for column in columns))
    first = np.empty(len(order), dtype=np.int64)
    first[order] = order[begins]
    return first


def near_duplicates(texts: Texts, threshold: float = 0.8, seed: int = 0, progress: bool = False) -> np.ndarray:
    """
    Clusters of texts that differ little.

    Texts whose similarity is at least `threshold` are in one cluster, and so are those that a chain of such texts
    connects (single linkage). See [`near_duplicate_pairs`] for the similarity and how it is found.

    Args:
        texts (`Sequence[str]`, `pyarrow.Array` or `pyarrow.ChunkedArray`): As for [`exact_duplicates`].
        threshold (`float`, *optional*, defaults to 0.8): Least similarity of two texts that are linked, in [0.05, 1].
        seed (`int`, *optional*, defaults to 0): Seed of the MinHash values.
        progress (`bool`, *optional*, defaults to `False`): Show progress bars.

    Returns:
        `np.ndarray` of shape (rows,), int64: Index of the first row of the text's cluster.

    Raises:
        DataError: If a row is not a string.
        ConfigurationError: If `threshold` is not in [0.05, 1].
    """
    first, second, _ = near_duplicate_pairs(texts, threshold, seed, progress)
    return link_clusters(len(texts), first, second)


def near_duplicate_pairs(
    texts: Texts, threshold: float = 0.8, seed: int = 0, progress: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Links between texts that differ little: enough of them to connect every cluster, not every similar pair.

    Two texts are as similar as the sets of their shingles (all runs of five bytes of the UTF-8 of the normalised text;
    a shorter text is its only shingle): intersection over union (Jaccard). MinHash (Broder 1997) proposes the pairs,
    by buckets of texts that agree in all values of a band; each proposed pair is then compared exactly, so that a link
    is never wrong. Bands are chosen so that a pair just at the threshold is missed with a probability of 0.5 %, more
    similar ones more rarely. In a bucket each text is compared with the first and three neighbours, so that time and
    memory are linear in the rows also when all are alike. Of texts longer than 4 MiB the beginning counts.

    Args:
        texts (`Sequence[str]`, `pyarrow.Array` or `pyarrow.ChunkedArray`): As for [`exact_duplicates`].
        threshold (`float`, *optional*, defaults to 0.8): Least similarity of two texts that are linked, in [0.05, 1].
        seed (`int`, *optional*, defaults to 0): Seed of the MinHash values.
        progress (`bool`, *optional*, defaults to `False`): Show progress bars.

    Returns:
        `tuple` of three `np.ndarray` of shape (links,): the earlier row, the later row (int64) and their similarity
        (float64), sorted by rows. Of exact duplicates each is linked to the first.

    Raises:
        DataError: If a row is not a string.
        ConfigurationError: If `threshold` is not in [0.05, 1].
    """
    check_threshold(threshold, "The threshold of near duplicates")
    texts = _checked(texts)
    first = exact_duplicates(texts)
    rows = np.arange(len(first))
    unique = rows[first == rows]
    keys = _band_keys(texts, unique, threshold, seed, progress)
    one, other, similarity = _verified_links(texts, unique, keys, threshold, progress)
    repeats = rows[first != rows]
    first = np.concatenate([unique[one], first[repeats]])
    second = np.concatenate([unique[other], repeats])
    similarity = np.concatenate([similarity, np.ones(len(repeats))])
    order = np.lexsort((second, first))
    return first[order], second[order], similarity[order]


def check_threshold(threshold: float, name: str = "near_duplicate_threshold") -> None:
    """Raises a [`ConfigurationError`] for a similarity that texts cannot be compared by."""
    number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
    if not number or not LEAST_THRESHOLD <= threshold <= 1:
        raise ConfigurationError(
            f"{name} is {threshold!r}; it must be at least {LEAST_THRESHOLD:g} (of texts with little in common) and at "
            "most 1 (of equal ones)."
        )


def link_clusters(rows: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """
    Connected components of the links, each named by its first row.

    Args:
        rows (`int`): Number of rows.
        first (`np.ndarray`): One end of each link.
        second (`np.ndarray`): The other end.

    Returns:
        `np.ndarray` of shape (rows,), int64: Index of the first row of the row's cluster.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = coo_matrix((np.ones(len(first), dtype=np.int8), (first, second)), shape=(rows, rows))
    _, component = connected_components(links, directed=False)
    _, leaders = np.unique(component, return_index=True)
    return leaders[component].astype(np.int64)


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
    lengths = _lengths(texts)
    jaccard = np.empty(len(first))
    for start, stop in _spans(np.minimum(lengths[first], LONGEST) + np.minimum(lengths[second], LONGEST)):
        jaccard[start:stop] = _jaccard(texts, first[start:stop], second[start:stop])
    return jaccard


def take_texts(texts: Texts, rows: np.ndarray) -> list[str]:
    """The texts of rows in rising order."""
    if isinstance(texts, pa.ChunkedArray):
        # Not the column's own take, which joins all chunks first.
        ends = np.cumsum([len(chunk) for chunk in texts.chunks])
        parts = np.split(rows, np.searchsorted(rows, ends[:-1]))
        begins = np.concatenate([[0], ends[:-1]])
        return [
            text
            for chunk, part, begin in zip(texts.chunks, parts, begins, strict=True)
            if len(part)
            for text in chunk.take(pa.array(part - begin)).to_pylist()
        ]
    if isinstance(texts, pa.Array):
        return texts.take(pa.array(rows)).to_pylist()
    return [texts[row] for row in rows.tolist()]


# ---- Reading texts ----


def _checked(texts: Texts) -> Texts:
    if isinstance(texts, (pa.Array, pa.ChunkedArray)):
        if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
            raise DataError(f"The texts are a column of {texts.type}; they must be strings.")
        wrong = pc.index(pc.is_null(texts), True).as_py() if texts.null_count else -1
    else:
        wrong = next((row for row, text in enumerate(texts) if not isinstance(text, str)), -1)
    if wrong >= 0:
        value = None if isinstance(texts, (pa.Array, pa.ChunkedArray)) else texts[wrong]
        raise DataError(f"Row {wrong + 1} of the texts is {value!r}; it must be a string. Remove or mend the row.")
    return texts


def _lengths(texts: Texts) -> np.ndarray:
    """Bytes (Arrow) or characters of each text: what a chunk's size is measured by."""
    if isinstance(texts, (pa.Array, pa.ChunkedArray)):
        return pc.binary_length(texts).to_numpy().astype(np.int64)
    return np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))


def _spans(lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut rows into chunks of bounded rows and bytes, of one row at least."""
    ends = np.cumsum(lengths)
    start = 0
    while start < len(ends):
        limit = (ends[start - 1] if start else 0) + BYTES_A_CHUNK
        stop = min(start + ROWS_A_CHUNK, int(np.searchsorted(ends, limit, side="right")))
        yield start, max(stop, start + 1)
        start = max(stop, start + 1)


def _normalized_chunks(texts: Texts) -> Iterator[tuple[int, list[bytes]]]:
    for start, stop in _spans(_lengths(texts)):
        chunk = texts[start:stop]
        yield start, _encoded(chunk.to_pylist() if isinstance(chunk, (pa.Array, pa.ChunkedArray)) else chunk)


def _encoded(texts: Sequence[str]) -> list[bytes]:
    return [normalize_text(text).encode("utf-8", "surrogatepass") for text in texts]


# ---- Shingles, MinHash, links ----


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


def _band_keys(texts: Texts, rows: np.ndarray, threshold: float, seed: int, progress: bool) -> np.ndarray:
    """A hash of each band of MinHash values of each row: shape (bands, rows), uint64."""
    from rensa import RMinHash

    bands, width = _bands(threshold)
    keys = np.zeros((bands, len(rows)), dtype=np.uint64)
    lengths = np.minimum(_lengths(texts)[rows], LONGEST)
    with tqdm(total=len(rows), desc="Comparing texts", unit="row", disable=not progress, unit_scale=True) as bar:
        for start, stop in _spans(lengths):
            flat, offsets = _shingles(_encoded(take_texts(texts, rows[start:stop])))
            hashes = RMinHash.digest_matrix_from_flat_token_hashes(
                _mixed(flat), offsets.astype(np.uint64), bands * width, seed
            )
            values = np.array(hashes.to_rows(), dtype=np.uint32).astype(np.uint64).reshape(-1, bands, width)
            for column in range(width):
                keys[:, start:stop] = _mixed(keys[:, start:stop] ^ values[:, :, column].T)
            bar.update(stop - start)
    return keys


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Spread the bits of uint64 numbers one to one (the finaliser of SplitMix64)."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _verified_links(
    texts: Texts, rows: np.ndarray, keys: np.ndarray, threshold: float, progress: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Links between positions in `rows`, band by band: what an earlier band connected is not compared again."""
    first, second, similarity = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    cluster = np.arange(len(rows))
    for band in tqdm(keys, desc="Linking texts", unit="band", disable=not progress):
        for one, other in _candidates(band):
            apart = cluster[one] != cluster[other]
            one, other = one[apart], other[apart]
            jaccard = similarities(texts, rows[one], rows[other])
            linked = jaccard >= threshold
            if linked.any():
                first.append(one[linked])
                second.append(other[linked])
                similarity.append(jaccard[linked])
                cluster = link_clusters(len(rows), np.concatenate(first), np.concatenate(second))
    return np.concatenate(first), np.concatenate(second), np.concatenate(similarity)


def _candidates(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (earlier, later) in one bucket: each member with the first, then with the nearest neighbours."""
    order = np.argsort(keys, kind="stable")
    begins = _group_begins((keys[order],))
    later = np.flatnonzero(begins != np.arange(len(order)))
    begins = begins[later]
    yield order[begins], order[later]
    for back in range(1, NEIGHBOURS + 1):
        # The first has been compared already.
        inside = later - back > begins
        yield order[later[inside] - back], order[later[inside]]


def _group_begins(columns: tuple[np.ndarray, ...]) -> np.ndarray:
    """For sorted columns: the place at which each row's group of equal rows begins."""
    places = np.arange(len(columns[0]))
    new = np.zeros(len(places), dtype=bool)
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return np.maximum.accumulate(np.where(new, places, 0))


def _jaccard(texts: Texts, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    rows = np.union1d(first, second)
    flat, offsets = _shingles(_encoded(take_texts(texts, rows)))
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
