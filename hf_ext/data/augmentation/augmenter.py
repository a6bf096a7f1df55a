"""More training texts: edited copies of the ones there are (EDA), natively, by nlpaug or by a function of one's own."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetDict, Features, Value
from datasets.utils import tqdm

from hf_ext.data.augmentation.backends import check_backend, edit_by_function, edit_by_nlpaug
from hf_ext.data.augmentation.checks import check_columns, check_count, check_share, check_techniques, check_texts
from hf_ext.data.augmentation.function_words import NEGATIONS, STOP_WORDS
from hf_ext.data.augmentation.synonyms import APOSTROPHES, SynonymTable, check_word, table_of_words, wordnet_synonyms
from hf_ext.data.augmentation.text_edits import TECHNIQUES, edit_texts, row_keys
from hf_ext.data.augmentation.word_spans import WordIndex, index_words
from hf_ext.errors import ConfigurationError, DataError
from hf_ext.version import __version__

# Further tries at a copy that equals the text or another copy of it, or is empty.
RETRIES = 5
ROWS_AT_ONCE = 1000


class DataAugmenter:
    """
    Adds edited copies of training rows, by Easy Data Augmentation (Wei & Zou 2019) or a backend of your choice.

    The native backend edits a copy with one technique. A row's first one is drawn, its further copies take the next
    ones in turn, so that n copies hold n / 4 of each of four techniques on average, as in the paper. With n =
    max(1, round(augmentation_prob * words)): `synonym_replacement` replaces n words by a synonym in the same case,
    `random_insertion` puts a synonym of n words between any two words, `random_swap` exchanges n pairs of words,
    `random_deletion` deletes each word with this probability, at least one and never all. Stop words, negations and
    `protected` words are never touched, and every character outside the edits stays what it is. Synonyms are the
    single words that share a synset of WordNet 3.0 with a word as it is written. A technique that finds nothing to
    edit (a text of one word, no word with a known synonym) leaves the text as it is.

    All randomness is a pure function of (seed, row, copy): the result depends neither on batches nor on processes nor
    on what was augmented before.

    Args:
        augmentation_prob (`float`, *optional*, defaults to `0.1`):
            Share of the words to edit; 0 edits none. The paper takes 0.05 for up to 2,000 rows.
        techniques (`Sequence[str]`, *optional*, defaults to all four): Which ones to use.
        seed (`int`, *optional*, defaults to `42`): Another seed gives other copies.
        protected (`Sequence[str]`, *optional*): Further words that are never touched, in any case of letters.
        synonyms (`dict[str, list[str]]`, *optional*): A table to use in place of WordNet.
        backend (`str` or `Callable`, *optional*, defaults to `"native"`):
            `"nlpaug"`, with an `augmenter`, or a function `(text: str, rng: random.Random) -> str`. With these,
            `augmentation_prob`, `techniques`, `protected` and `synonyms` have no effect and are refused.
        augmenter (`nlpaug.base_augmenter.Augmenter`, *optional*):
            Any augmenter or flow of nlpaug 1.1.11, for `backend="nlpaug"`. Each text is augmented with `random` and
            NumPy freshly seeded, and their states are put back. (A PyTorch model inside it is not seeded.)

    Attributes:
        dropped (`int`): Copies that the last `augment_dataset` left out, see there.

    Raises:
        ConfigurationError: If an argument is out of range, unknown or without effect.

    Example:

        >>> augmenter = DataAugmenter(techniques=["random_swap"])
        >>> augmenter.augment(["the film is slow but the acting is superb"])
        ['the film is slow but the superb is acting']
    """

    def __init__(
        self,
        augmentation_prob: float = 0.1,
        techniques: Sequence[str] = TECHNIQUES,
        seed: int = 42,
        protected: Iterable[str] = (),
        synonyms: Mapping[str, Sequence[str]] | None = None,
        backend: str | Callable[[str, random.Random], str] = "native",
        augmenter: Any = None,
    ):
        check_share("augmentation_prob", augmentation_prob)
        check_techniques("techniques", techniques)
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise ConfigurationError(f"seed is {seed!r}; it must be a whole number.")
        if isinstance(protected, str) or not isinstance(protected, Iterable):
            raise ConfigurationError(f"protected is {protected!r}; it must be a list of words.")
        protected = list(protected)
        for word in protected:
            check_word("protected", word)
        self.augmentation_prob, self.techniques, self.seed = augmentation_prob, tuple(techniques), seed
        # Sorted, so that a set gives the same fingerprint in every run.
        self.protected, self.synonyms = tuple(sorted(protected)), synonyms
        self.backend, self.augmenter = backend, augmenter
        self._table = None if synonyms is None else table_of_words(synonyms)
        self.dropped = 0
        unused = {
            "augmentation_prob": augmentation_prob != 0.1,
            "techniques": self.techniques != TECHNIQUES,
            "protected": bool(protected),
            "synonyms": synonyms is not None,
        }
        check_backend(backend, augmenter, [name for name, is_given in unused.items() if is_given])

    # What a pickle holds is also what `datasets` takes a fingerprint of.
    def __getstate__(self) -> dict[str, Any]:
        names = ("augmentation_prob", "techniques", "seed", "protected", "synonyms", "backend", "augmenter")
        return {"version": __version__, "settings": {name: getattr(self, name) for name in names}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["settings"])

    @cached_property
    def _untouchable(self) -> WordIndex:
        words = {*STOP_WORDS, *NEGATIONS, *(word.lower() for word in self.protected)}
        words = {word.replace(APOSTROPHES[1], APOSTROPHES[0]) for word in words}
        words |= {word.replace(*APOSTROPHES) for word in words}
        return index_words(sorted(words))

    def _synonyms(self) -> SynonymTable:
        return wordnet_synonyms() if self._table is None else self._table

    # ---- Texts ----

    def augment(
        self, texts: Sequence[str], rows: Sequence[int] | None = None, copy: int = 0, column: int = 0
    ) -> list[str]:
        """
        Edit each text once: the pure function that all else is made of.

        Args:
            texts (`Sequence[str]`): Texts.
            rows (`Sequence[int]`, *optional*): Each text's number in the data, 0, 1, 2 ... by default.
            copy (`int`, *optional*, defaults to `0`): Which copy of the rows; on the fly, the epoch.
            column (`int`, *optional*, defaults to `0`): Which of a row's texts these are: 1 for the second of pairs.

        Returns:
            `list[str]`: As many texts; those that offer nothing to edit as they are.

        Raises:
            DataError: If a text is no string or holds half a character.
        """
        if isinstance(texts, str):
            raise DataError(f"texts is the single text {texts[:40]!r}; it must be a list of texts.")
        texts = list(texts)
        rows = np.arange(len(texts)) if rows is None else np.asarray(rows, dtype=np.int64)
        if len(rows) != len(texts):
            raise DataError(f"There are {len(texts)} texts but {len(rows)} rows; each text needs its row's number.")
        check_texts("texts", texts, rows)
        return self._edit(texts, rows, copy, 0, column)

    def _edit(self, texts: Sequence[str], rows: np.ndarray, copy: int, attempt: int, column: int) -> list[str]:
        keys = row_keys(self.seed, rows, copy, attempt, column)
        if self.backend == "nlpaug":
            return edit_by_nlpaug(self.augmenter, texts, keys, rows)
        if self.backend != "native":
            return edit_by_function(self.backend, texts, keys, rows)
        if self.augmentation_prob == 0:
            return list(texts)
        # No copy has the number -1.
        first = row_keys(self.seed, rows, copy=-1) % np.uint64(len(self.techniques))
        turns = (first.astype(np.int64) + copy + attempt) % len(self.techniques)
        edited: list[str] = []
        for turn, technique in enumerate(self.techniques):
            chosen = np.flatnonzero(turns == turn)
            table = self._synonyms() if technique in TECHNIQUES[:2] else None
            part = texts if len(chosen) == len(texts) else [texts[i] for i in chosen.tolist()]
            edited += edit_texts(part, technique, keys[chosen], self.augmentation_prob, self._untouchable, table)
        if len(self.techniques) == 1:
            return edited
        places = np.argsort(np.argsort(turns, kind="stable")).tolist()
        return [edited[place] for place in places]

    # ---- Data ----

    def augment_dataset(
        self,
        data: Any,
        text_column: str | Sequence[str] = "text",
        augmentation_factor: int = 1,
        num_proc: int | None = None,
    ) -> Any:
        """
        Add copies of every row: each original, unchanged and in its place, is followed by its copies.

        A copy that equals its original or a copy before it, or of which a backend left nothing, is tried five times
        more, each time with the next technique; one that still does is left out and counted in `dropped`. Two columns
        are added: `source_idx` (the row of the original in `data`, from 0) and `is_augmented`. Split by `source_idx`
        whatever is split afterwards: copies on both sides of a split make a score meaningless.

        Args:
            data (`list[dict]`, `pandas.DataFrame`, [`~datasets.Dataset`] or [`~datasets.DatasetDict`]):
                Training rows. Of a `DatasetDict` the split `train` is augmented, the others come back as they are.
            text_column (`str` or `Sequence[str]`, *optional*, defaults to `"text"`):
                The column of the text; several (a pair's) are edited together, each with draws of its own.
            augmentation_factor (`int`, *optional*, defaults to `1`): Copies of each row.
            num_proc (`int`, *optional*): Processes, for a `Dataset` or `DatasetDict`.

        Returns:
            The same kind as `data`, which is not changed. A `Dataset` comes from its cache if it was made before.

        Raises:
            DataError: No rows, no such column, a text that is no string (with its row), rows that are augmented
                already, a split other than `train`.
            ConfigurationError: If `augmentation_factor` or `num_proc` is no whole number of at least 1.
        """
        check_count("augmentation_factor", augmentation_factor)
        columns = [text_column] if isinstance(text_column, str) else list(text_column)
        if not columns or len(set(columns)) < len(columns):
            raise ConfigurationError(f"text_column is {text_column!r}; it must be a column or several different ones.")
        if num_proc is not None:
            check_count("num_proc", num_proc)
        if isinstance(data, DatasetDict):
            if "train" not in data:
                raise DataError(
                    f"There is no split 'train' but {', '.join(map(repr, data))}; only training rows are augmented."
                )
            augmented = self._augment_arrow(data["train"], columns, augmentation_factor, num_proc)
            return DatasetDict({name: augmented if name == "train" else split for name, split in data.items()})
        if isinstance(data, Dataset):
            parts = [] if data.split is None else str(data.split).split("+")
            if not all(part.startswith("train") for part in parts):
                raise DataError(
                    f"data is the split {str(data.split)!r}; only training rows are augmented. If these are, pass "
                    'DatasetDict({"train": data}).'
                )
            return self._augment_arrow(data, columns, augmentation_factor, num_proc)
        if num_proc not in (None, 1):
            raise ConfigurationError(f"num_proc is {num_proc}, which needs a Dataset; data is a {type(data).__name__}.")
        if isinstance(data, list):
            return self._augment_list(data, columns, augmentation_factor)
        # A DataFrame without importing pandas for everybody else.
        if type(data).__module__.partition(".")[0] == "pandas" and type(data).__name__ == "DataFrame":
            return self._augment_frame(data, columns, augmentation_factor)
        raise DataError(
            f"data is a {type(data).__name__}; it must be a list of dicts, a pandas DataFrame, a Dataset or a "
            "DatasetDict."
        )

    def _augment_arrow(self, data: Dataset, columns: list[str], factor: int, num_proc: int | None) -> Dataset:
        check_columns(data.column_names, columns, len(data))
        added = {"source_idx": Value("int64"), "is_augmented": Value("bool")}
        result = data.with_format("arrow").map(
            _augment_table,
            with_indices=True,
            batched=True,
            batch_size=ROWS_AT_ONCE,
            num_proc=num_proc,
            features=Features({**data.features, **added}),
            fn_kwargs={"augmenter": self, "columns": columns, "factor": factor},
            desc="Augmenting",
        )
        self.dropped = len(data) * (1 + factor) - len(result)
        shown, every = data.format["columns"], set(data.format["columns"]) == set(data.column_names)
        return result.with_format(
            data.format["type"],
            columns=None if every else shown,
            output_all_columns=data.format["output_all_columns"],
            **data.format["format_kwargs"],
        )

    def _augment_list(self, data: list[dict[str, Any]], columns: list[str], factor: int) -> list[dict[str, Any]]:
        for index, row in enumerate(data):
            if not isinstance(row, Mapping):
                raise DataError(f"Row {index + 1} is a {type(row).__name__}; a row must be a dict with a text.")
            check_columns(list(row), columns, len(data), f"Row {index + 1}")
        check_columns(columns, columns, len(data))
        sources, copied, texts = self._expand_all([[row[name] for row in data] for name in columns], factor)
        rows = []
        for source, is_copy, *edited in zip(sources, copied, *texts, strict=True):
            row = {**data[source], "source_idx": source, "is_augmented": is_copy}
            rows.append({**row, **dict(zip(columns, edited, strict=True))} if is_copy else row)
        return rows

    def _augment_frame(self, data: Any, columns: list[str], factor: int) -> Any:
        check_columns(list(data.columns), columns, len(data))
        sources, copied, texts = self._expand_all([data[name].tolist() for name in columns], factor)
        result = data.iloc[sources].reset_index(drop=True)
        for name, edited in zip(columns, texts, strict=True):
            result[name] = np.array(edited, dtype=object)
            # Categories know the original texts only.
            if data[name].dtype != "category":
                result[name] = result[name].astype(data[name].dtype)
        return result.assign(source_idx=np.array(sources, dtype=np.int64), is_augmented=np.array(copied, dtype=bool))

    def _expand_all(self, columns: list[list[str]], factor: int) -> tuple[list[int], list[bool], list[list[str]]]:
        total = len(columns[0])
        sources, copied, texts = [], [], [[] for _ in columns]
        with tqdm(total=total, desc="Augmenting", unit=" rows", disable=total <= ROWS_AT_ONCE) as progress:
            for begin in range(0, total, ROWS_AT_ONCE):
                rows = np.arange(begin, min(begin + ROWS_AT_ONCE, total))
                part = [column[begin : begin + ROWS_AT_ONCE] for column in columns]
                places, are_copies, edited = self._expand(part, rows, factor)
                sources += rows[places].tolist()
                copied += are_copies
                for whole, new in zip(texts, edited, strict=True):
                    whole += new
                progress.update(len(rows))
        self.dropped = total * (1 + factor) - len(sources)
        return sources, copied, texts

    def _expand(
        self, columns: list[list[str]], rows: np.ndarray, factor: int
    ) -> tuple[list[int], list[bool], list[list[str]]]:
        """For each row and each copy of it: its place in `rows`, whether it is a copy, and its texts, by column."""
        for number, column in enumerate(columns):
            check_texts(f"text {number + 1}" if len(columns) > 1 else "the text", column, rows)
        # A row's versions so far, the original first; dicts keep their order.
        versions = [{texts: None} for texts in zip(*columns, strict=True)]
        for copy in range(factor):
            pending = np.arange(len(rows))
            for attempt in range(1 + RETRIES):
                if not len(pending):
                    break
                edited = [
                    self._edit([column[i] for i in pending], rows[pending], copy, attempt, number)
                    for number, column in enumerate(columns)
                ]
                unusable = []
                for place, texts in zip(pending.tolist(), zip(*edited, strict=True), strict=True):
                    if texts in versions[place] or _is_emptied(texts, next(iter(versions[place]))):
                        unusable.append(place)
                    else:
                        versions[place][texts] = None
                pending = np.array(unusable, dtype=np.int64)
        places = [place for place, texts in enumerate(versions) for _ in texts]
        are_copies = [number > 0 for texts in versions for number in range(len(texts))]
        return places, are_copies, [list(column) for column in zip(*(t for v in versions for t in v), strict=True)]


def _is_emptied(texts: tuple[str, ...], originals: tuple[str, ...]) -> bool:
    """Whether a backend deleted all of a text: what is left teaches only that an empty text has this label."""
    return any(not text.strip() and bool(old.strip()) for text, old in zip(texts, originals, strict=True))


def _augment_table(
    table: pa.Table, indices: list[int], augmenter: DataAugmenter, columns: list[str], factor: int
) -> pa.Table:
    rows = np.asarray(indices)
    places, are_copies, texts = augmenter._expand([table[name].to_pylist() for name in columns], rows, factor)
    result = table.take(pa.array(places))
    for name, column in zip(columns, texts, strict=True):
        number = table.column_names.index(name)
        result = result.set_column(
            number, table.schema.field(number), pa.array(column, type=table.schema.types[number])
        )
    result = result.append_column("source_idx", pa.array(rows[places], type=pa.int64()))
    return result.append_column("is_augmented", pa.array(are_copies))
