"""The texts on which a student learns from its teacher: labelled, unlabelled and edited ones, each once."""

import gzip
import io
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value

from hf_ext.arguments import DataArguments
from hf_ext.data.augmentation import DataAugmenter
from hf_ext.data.columns import LABEL_COLUMNS, find_columns, read_texts
from hf_ext.data.logits_cache import text_keys
from hf_ext.data.reading import read_table
from hf_ext.data.text_columns import PAIR_SEPARATOR, normalize_text
from hf_ext.errors import ConfigurationError, DataError
from hf_ext.problem_types import MULTI_LABEL, SINGLE_LABEL

TRAIN, UNLABELLED, AUGMENTED = "train", "unlabelled", "augmented"
# The label of a row without one, which losses leave out.
NO_CLASS = -100


@dataclass
class TransferSet:
    """
    What a student learns from.

    Args:
        dataset ([`~datasets.Dataset`]):
            Columns `text`, `text_pair` (pairs only), `label` and `source` (`"train"`, `"unlabelled"` or
            `"augmented"`), in this order of sources. The label of a row without one is -100 (single label), a list of
            NaN (multi-label) or NaN (regression).
        counts (`dict[str, int]`):
            Rows of each source, and what was left out: `repeated`, `held_out`; `contradictory` are rows that stay.
        notes (`list[str]`): What a reader of the results has to know, in sentences.
    """

    dataset: Dataset
    counts: dict[str, int]
    notes: list[str] = field(default_factory=list)

    def texts(self) -> list:
        """All texts: strings, or tuples of two."""
        return _texts_of(self.dataset)

    def labelled(self) -> Dataset:
        """The rows with a label."""
        labels = self.dataset.with_format(None)["label"][:]
        return self.dataset.select([row for row, label in enumerate(labels) if _is_label(label)])


def build_transfer_set(
    train: Dataset,
    *,
    unlabelled: Dataset | Sequence | None = None,
    augmenter: DataAugmenter | None = None,
    factor: int = 0,
    held_out: Iterable = (),
    problem_type: str,
    num_labels: int,
    num_proc: int | None = None,
) -> TransferSet:
    """
    Put together the texts that a teacher is asked about (Hinton et al. 2015, section 2: the transfer set).

    Equal texts are used once, training rows before unlabelled before edited ones. Training rows with equal texts but
    different labels all stay. An unlabelled or edited text that equals a held-out one, but for case and white space,
    is left out; the training rows are taken as they are.

    Args:
        train ([`~datasets.Dataset`]): With `text`, `text_pair` (pairs) and `label`, as [`load_text_data`] gives it.
        unlabelled ([`~datasets.Dataset`] or `Sequence`, *optional*): Further texts or pairs; see [`read_unlabelled`].
        augmenter ([`DataAugmenter`], *optional*): Edits the texts; an edited training text keeps its label.
        factor (`int`, *optional*, defaults to 0): Edited copies of each training and unlabelled text.
        held_out (`Iterable`, *optional*): The texts or pairs of validation and test.
        problem_type (`str`): As in a model's configuration.
        num_labels (`int`): Classes.
        num_proc (`int`, *optional*): Processes for the edits.

    Returns:
        [`TransferSet`]

    Raises:
        DataError: If a column is missing, the rows have edited copies already, or some are pairs and others are not.
        ConfigurationError: If `factor` does not fit `augmenter`.
    """
    _check_factor(augmenter, factor)
    names = _check_train(train, problem_type, num_labels)
    texts = _texts_of(train)
    labels = train.with_format(None)["label"][:]
    held = _normalized(held_out, names, "held_out")
    further = _texts_of(unlabelled) if isinstance(unlabelled, Dataset) else list(unlabelled or ())
    _normalized(further[:1], names, UNLABELLED)
    kept, repeated, contradictory = _distinct_labelled(texts, labels)
    texts, labels = [texts[row] for row in kept], [labels[row] for row in kept]
    first, excluded = _new_texts(texts, further, held)
    sources = [TRAIN] * len(texts) + [UNLABELLED] * len(first)
    nothing = {SINGLE_LABEL: NO_CLASS, MULTI_LABEL: [math.nan] * num_labels}.get(problem_type, math.nan)
    texts, labels = texts + first, labels + [nothing] * len(first)
    repeated_further = len(further) - len(first) - excluded
    copies, sources_of_copies, dropped = _edited(texts, names, augmenter, factor, num_proc)
    keys = {key: row for row, key in reversed(list(enumerate(_key_list(copies))))}
    new, excluded_copies = _new_texts(texts, copies, held)
    chosen = [keys[key] for key in _key_list(new)]
    labels = labels + [labels[sources_of_copies[row]] for row in chosen]
    sources = sources + [AUGMENTED] * len(new)
    repeated_copies = len(copies) - len(new) - excluded_copies + dropped
    counts = {source: sources.count(source) for source in (TRAIN, UNLABELLED, AUGMENTED)}
    counts |= {
        "repeated": repeated + repeated_further + repeated_copies,
        "contradictory": contradictory,
        "held_out": excluded + excluded_copies,
    }
    dataset = _dataset(texts + new, labels, sources, names, problem_type)
    return TransferSet(dataset, counts, _notes(counts, excluded, repeated, repeated_further, repeated_copies))


def read_unlabelled(files: str | Path | Sequence[str | Path], data_args: DataArguments) -> tuple[list, list[str]]:
    """
    Texts of files whose labels, if any, are not looked at.

    Args:
        files (`str`, `Path` or a list of them):
            As for [`read_table`]; or `.txt`, a text a line (blank lines are none), also with `.gz` behind it.
        data_args ([`DataArguments`]): Which columns hold the texts, as in the training file.

    Returns:
        `tuple`: Strings, or pairs; and sentences about columns of labels that are ignored.

    Raises:
        DataError: If a file is missing, empty or broken, has no column of texts, or a text is no string; with the
            place. If one file holds pairs and another does not.
    """
    texts, notes = [], []
    for path in [files] if isinstance(files, (str, Path)) else files:
        if Path(path).name.endswith((".txt", ".txt.gz")) and not Path(path).is_dir():
            rows = _lines_of(Path(path))
            _check_kind(rows, texts, path)
            texts += rows
            continue
        table = read_table(path)
        columns = find_columns(table, data_args, labelled=False)
        found = read_texts(table, columns, data_args)
        rows = list(zip(found["text"], found["text_pair"], strict=True)) if "text_pair" in found else found["text"]
        _check_kind(rows, texts, path)
        texts += rows
        labelled = [name for name in {*columns["label"], *LABEL_COLUMNS} if name in table.columns]
        if labelled:
            notes.append(
                f"The column {', '.join(sorted(labelled))} of {table.source} is not used: its rows count as unlabelled."
            )
    return texts, notes


# ---- Inside ----


def _lines_of(path: Path) -> list[str]:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None
    try:
        # Unlike `splitlines`, which also breaks at characters such as U+2028.
        lines = io.StringIO(content.decode("utf-8-sig"), newline=None).read().split("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not UTF-8: byte {error.start} (line {line}). Convert it, for example with iconv -f cp1252 -t "
            "utf-8."
        ) from None
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise DataError(f"{path} holds no text; it must hold one a line.")
    return texts


def _check_kind(rows: list, before: list, path: str | Path) -> None:
    if before and isinstance(rows[0], str) != isinstance(before[0], str):
        raise DataError(
            f"{path} holds {_kind(rows[0])}, but the files before it {_kind(before[0])}. Name the columns with "
            "--text_column_names and --text_pair_column_name."
        )


def _check_factor(augmenter: DataAugmenter | None, factor: int) -> None:
    if not isinstance(factor, int) or isinstance(factor, bool) or factor < 0:
        raise ConfigurationError(f"factor is {factor!r}; it must be a whole number of edited copies, or 0.")
    if factor and augmenter is None:
        raise ConfigurationError(f"factor is {factor}, but there is no augmenter. Pass DataAugmenter().")
    if augmenter is not None and not factor:
        raise ConfigurationError(
            "An augmenter has no effect with factor=0. Pass the number of copies, or none of both."
        )


def _check_train(train: Dataset, problem_type: str, num_labels: int) -> list[str]:
    for name in ("text", "label"):
        if name not in train.column_names:
            raise DataError(f"The training rows have no column {name!r}; they have {', '.join(train.column_names)}.")
    if "is_augmented" in train.column_names:
        raise DataError(
            "The training rows hold edited copies already. Pass the rows without them; augmenter and factor make them."
        )
    if len(train) == 0:
        raise DataError("There are no training rows.")
    if problem_type == MULTI_LABEL:
        for row, label in enumerate(train.with_format(None)["label"]):
            if len(label) != num_labels:
                raise DataError(f"Training row {row + 1} has {len(label)} labels; there are {num_labels} classes.")
    return [name for name in ("text", "text_pair") if name in train.column_names]


def _texts_of(dataset: Dataset) -> list:
    if "text" not in dataset.column_names:
        raise DataError(f"The rows have no column 'text'; they have {', '.join(dataset.column_names)}.")
    plain = dataset.with_format(None)
    if "text_pair" in plain.column_names:
        return list(zip(plain["text"][:], plain["text_pair"][:], strict=True))
    return plain["text"][:]


def _is_label(label: Any) -> bool:
    first = label[0] if isinstance(label, list) else label
    return first != NO_CLASS and not math.isnan(first)


def _kind(text: Any) -> str:
    return "single texts" if isinstance(text, str) else "pairs of texts"


def _normalized(texts: Iterable, names: list[str], what: str) -> set[str]:
    """Texts as they are compared; all must be of the training rows' kind."""
    found = set()
    for row, text in enumerate(texts):
        if isinstance(text, str) != (len(names) == 1):
            raise DataError(
                f"{what}: row {row + 1} is one of {_kind(text)}, but the training rows are "
                f"{'single texts' if len(names) == 1 else 'pairs of texts'}."
            )
        found.add(_comparable(text))
    return found


def _comparable(text: Any) -> str:
    return normalize_text(text) if isinstance(text, str) else PAIR_SEPARATOR.join(map(normalize_text, text))


def _key_list(texts: list) -> list[bytes]:
    return text_keys(texts).to_pylist()


def _distinct_labelled(texts: list, labels: list) -> tuple[list[int], int, int]:
    """Rows whose text has not had that label before; how many had; and rows whose text has another label as well."""
    kept, seen = [], {}
    for row, (key, label) in enumerate(zip(_key_list(texts), labels, strict=True)):
        marks = seen.setdefault(key, [])
        if str(label) not in marks:
            marks.append(str(label))
            kept.append(row)
    contradictory = sum(len(marks) for marks in seen.values() if len(marks) > 1)
    return kept, len(texts) - len(kept), contradictory


def _new_texts(known: list, texts: list, held: set[str]) -> tuple[list, int]:
    """Those that are neither known nor held out, once each; and how many were held out."""
    seen, new, excluded = set(_key_list(known)), [], 0
    for key, text in zip(_key_list(texts), texts, strict=True):
        if held and _comparable(text) in held:
            excluded += 1
        elif key not in seen:
            seen.add(key)
            new.append(text)
    return new, excluded


def _edited(
    texts: list, names: list[str], augmenter: DataAugmenter | None, factor: int, num_proc: int | None
) -> tuple[list, np.ndarray, int]:
    """Edited copies, the rows they are of, and how many the augmenter left out."""
    if augmenter is None:
        return [], np.zeros(0, dtype=np.int64), 0
    columns = {"text": texts} if len(names) == 1 else dict(zip(names, zip(*texts, strict=True), strict=True))
    data = Dataset.from_dict({name: list(column) for name, column in columns.items()})
    result = augmenter.augment_dataset(data, names, factor, num_proc)
    copies = result.filter(lambda flags: flags, input_columns="is_augmented", batched=True, desc="Selecting copies")
    return _texts_of(copies), np.array(copies["source_idx"][:], dtype=np.int64), augmenter.dropped


def _dataset(texts: list, labels: list, sources: list[str], names: list[str], problem_type: str) -> Dataset:
    kind = {SINGLE_LABEL: Value("int64"), MULTI_LABEL: List(Value("float32"))}.get(problem_type, Value("float32"))
    columns = [texts] if len(names) == 1 else [list(side) for side in zip(*texts, strict=True)]
    features = {**dict.fromkeys(names, Value("string")), "label": kind, "source": Value("string")}
    rows = {**dict(zip(names, columns, strict=True)), "label": labels, "source": sources}
    return Dataset.from_dict(rows, features=Features(features))


def _notes(counts: dict[str, int], excluded: int, repeated: int, further: int, copies: int) -> list[str]:
    parts = [f"{counts[TRAIN]:,} training texts"]
    parts += [f"{counts[UNLABELLED]:,} unlabelled ones"] if counts[UNLABELLED] else []
    parts += [f"{counts[AUGMENTED]:,} edited copies"] if counts[AUGMENTED] else []
    notes = [f"The student learns from {' and '.join([', '.join(parts[:-1]), parts[-1]] if parts[1:] else parts)}."]
    again = [(repeated, "training rows"), (further, "unlabelled texts"), (copies, "edited copies")]
    for count, what in again:
        if count:
            notes.append(f"{count:,} {what} repeat a text (of the same label) and are left out.")
    if counts["contradictory"]:
        notes.append(
            f"{counts['contradictory']:,} training rows have a text that occurs with another label as well; all stay."
        )
    if counts["held_out"]:
        notes.append(
            f"{excluded:,} unlabelled texts and {counts['held_out'] - excluded:,} edited copies equal a text of "
            "validation or test and are left out."
        )
    return notes
