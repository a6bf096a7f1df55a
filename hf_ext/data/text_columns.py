"""Columns of texts, from a list or from Arrow, a chunk of bounded size at a time."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_ext.errors import DataError

Texts = Sequence[str] | pa.Array | pa.ChunkedArray

# Puts the two texts of a pair into one: a code point that Unicode reserves never to be a character.
PAIR_SEPARATOR = "\uffff"
ROWS_A_CHUNK, BYTES_A_CHUNK = 20_000, 1 << 22


def normalize_text(text: str) -> str:
    """The form in which texts are compared: lower case, white space joined to single blanks."""
    return " ".join(text.lower().split())


def checked_texts(texts: Texts) -> Texts:
    """
    The texts as they are.

    Raises:
        DataError: If a row is not a string.
    """
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


def text_lengths(texts: Texts) -> np.ndarray:
    """Bytes (Arrow) or characters of each text: what a chunk's size is measured by."""
    if isinstance(texts, (pa.Array, pa.ChunkedArray)):
        return pc.binary_length(texts).to_numpy().astype(np.int64)
    return np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))


def spans(lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut rows into chunks of bounded rows and bytes, of one row at least."""
    ends = np.cumsum(lengths)
    start = 0
    while start < len(ends):
        limit = (ends[start - 1] if start else 0) + BYTES_A_CHUNK
        stop = min(start + ROWS_A_CHUNK, int(np.searchsorted(ends, limit, side="right")))
        yield start, max(stop, start + 1)
        start = max(stop, start + 1)


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


def normalized_chunks(texts: Texts) -> Iterator[tuple[int, list[bytes]]]:
    """Chunk by chunk: its first row, and its texts as [`normalized_bytes`]."""
    for start, stop in spans(text_lengths(texts)):
        chunk = texts[start:stop]
        yield start, normalized_bytes(chunk.to_pylist() if isinstance(chunk, (pa.Array, pa.ChunkedArray)) else chunk)


def normalized_bytes(texts: Sequence[str]) -> list[bytes]:
    """Texts as they are compared, in UTF-8."""
    return [normalize_text(text).encode("utf-8", "surrogatepass") for text in texts]
