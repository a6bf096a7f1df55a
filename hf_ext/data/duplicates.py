"""Texts -> which of them are repeats or near repeats of which: exact hashes, MinHash, exact similarities."""

from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
from tqdm.auto import tqdm

from hf_ext.data.minhash import band_keys, similarities
from hf_ext.data.text_columns import Texts, checked_texts, normalized_chunks
from hf_ext.errors import ConfigurationError

# Below, finding nearly all pairs would take more MinHash values a text than there are, and without bound towards 0.
LEAST_THRESHOLD = 0.05
# A text is compared with the first of its bucket and with this many neighbours in it.
NEIGHBOURS = 3


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
    texts = checked_texts(texts)
    digests = np.empty((len(texts), 2), dtype=np.uint64)
    for start, chunk in normalized_chunks(texts):
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
    texts = checked_texts(texts)
    first = exact_duplicates(texts)
    rows = np.arange(len(first))
    unique = rows[first == rows]
    keys = band_keys(texts, unique, threshold, seed, progress)
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


# ---- Inside ----


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
