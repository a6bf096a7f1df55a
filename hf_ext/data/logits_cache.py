"""A folder of Arrow files with the logits that a teacher gave to texts."""

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_ext.errors import ConfigurationError, DataError

logger = logging.getLogger(__name__)

KEY = pa.binary(16)
# A file that is written for longer than this belongs to a process that was killed.
ABANDONED_S = 3600.0
LARGEST_HALF = float(np.finfo(np.float16).max)


def text_keys(texts: Sequence) -> pa.Array:
    """
    What texts are known by: 16 bytes of their BLAKE2 hash.

    Args:
        texts (`Sequence`): Strings, or pairs of them.

    Returns:
        `pyarrow.Array` of fixed-size binary(16).

    Raises:
        DataError: If one is neither a string nor a pair, or holds half a character, or only some are pairs.
    """
    keys, pairs = [], len(texts) > 0 and not isinstance(texts[0], str)
    for row, text in enumerate(texts):
        parts = tuple(text) if pairs and isinstance(text, (tuple, list)) else (text,)
        if len(parts) != 1 + pairs or not all(isinstance(part, str) for part in parts):
            raise DataError(
                f"Row {row + 1} is {str(text)[:80]!r} ({type(text).__name__}); all texts must be "
                f"{'pairs of strings, as the first row is' if pairs else 'strings'}."
            )
        digest = blake2b(digest_size=16)
        for part in parts:
            try:
                content = part.encode()
            except UnicodeEncodeError:
                raise DataError(f"Row {row + 1} holds half a character (a lone surrogate).") from None
            # The length keeps ("a", "bc") and ("ab", "c") apart.
            digest.update(len(content).to_bytes(8, "little") + content)
        keys.append(digest.digest())
    return pa.array(keys, KEY)


class LogitsCache:
    """
    Logits by the keys of their texts, in files that are whole or not there.

    A file is named by a digest of its contents, so that one that was cut short or altered is noticed. Processes that
    write at the same time write different files.

    Args:
        folder (`Path`): Of one teacher, format and greatest length.

    Raises:
        ConfigurationError: If the folder cannot be made.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob("*.tmp"):
                if time.time() - path.stat().st_mtime > ABANDONED_S:
                    path.unlink(missing_ok=True)
        except FileNotFoundError:
            # Another process was quicker.
            pass
        except OSError as error:
            raise ConfigurationError(f"cache_dir: {folder} cannot be used: {error.strerror}. Name another.") from error

    def whole_files(self) -> tuple[list[str], list[str]]:
        """
        Names of the files that are whole, in order, and sentences about those that were not and are removed.
        """
        names, notes = [], []
        for path in sorted(self.folder.glob("*.arrow")):
            try:
                damaged = _digest(path.read_bytes()) != path.stem
            except FileNotFoundError:
                continue
            if damaged:
                path.unlink(missing_ok=True)
                notes.append(f"{path} was cut short or altered: it is removed, and its texts are labelled again.")
                logger.warning(notes[-1])
            else:
                names.append(path.name)
        return names, notes

    def write(self, keys: pa.Array, logits: np.ndarray, exact: bool = False) -> str:
        """
        Keep the logits of some texts.

        Args:
            keys (`pyarrow.Array`): From [`text_keys`].
            logits (`np.ndarray` of shape (rows, classes)): float32.
            exact (`bool`, *optional*, defaults to `False`): Keep float32; else float16 where that holds the numbers.

        Returns:
            `str`: The name of the file.

        Raises:
            ConfigurationError: If it cannot be written.
        """
        short = not exact and bool((np.abs(logits) <= LARGEST_HALF).all())
        flat = pa.array(logits.astype(np.float16 if short else np.float32).reshape(-1))
        table = pa.table({"key": keys, "logits": pa.FixedSizeListArray.from_arrays(flat, logits.shape[1])})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        content = sink.getvalue().to_pybytes()
        name = f"{_digest(content)}.arrow"
        written = None
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".tmp", delete=False) as file:
                written = Path(file.name)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(written, self.folder / name)
        except OSError as error:
            if written is not None:
                written.unlink(missing_ok=True)
            raise ConfigurationError(f"cache_dir: {self.folder} cannot be written to: {error.strerror}.") from error
        return name

    def read(self, names: Iterable[str], keys: pa.Array, classes: int) -> tuple[np.ndarray, np.ndarray]:
        """
        The logits of some texts, as the files hold them; of a text in several files the first counts.

        Args:
            names (`Iterable[str]`): Files, as [`LogitsCache.write`] and [`LogitsCache.whole_files`] name them.
            keys (`pyarrow.Array`): From [`text_keys`].
            classes (`int`): How many logits a text has.

        Returns:
            `tuple`: float32 of shape (rows, classes), NaN where there are none; and which there are, of shape (rows,).

        Raises:
            ConfigurationError: If a file is not there.
        """
        logits = np.full((len(keys), classes), np.nan, dtype=np.float32)
        stored, values = [], []
        for name in names:
            try:
                content = (self.folder / name).read_bytes()
            except FileNotFoundError:
                raise ConfigurationError(
                    f"{self.folder / name} is gone. Nothing may be removed from cache_dir while it is used, and all "
                    "machines of a run must see the same one."
                ) from None
            table = pa.ipc.open_file(pa.BufferReader(content)).read_all().combine_chunks()
            stored.append(table["key"])
            flat = pc.list_flatten(table["logits"]).to_numpy()
            values.append(flat.astype(np.float32).reshape(len(table), classes))
        if not stored:
            return logits, np.zeros(len(keys), dtype=bool)
        together = pa.chunked_array([chunk for column in stored for chunk in column.chunks], KEY)
        places = pc.index_in(keys, value_set=together.combine_chunks()).to_numpy(zero_copy_only=False)
        found = ~np.isnan(places.astype(np.float64))
        logits[found] = np.concatenate(values)[places[found].astype(np.int64)]
        return logits, found


# ---- Inside ----


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]
