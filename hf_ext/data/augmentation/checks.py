"""What an augmenter refuses."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_ext.data.augmentation.text_edits import TECHNIQUES
from hf_ext.errors import ConfigurationError, DataError, nearest

# What augmented data has besides: which row a row is a copy of, and whether it is one.
ADDED_COLUMNS = ("source_idx", "is_augmented")


def check_share(name: str, value: Any) -> None:
    """Raises a [`ConfigurationError`] for what is no share of the words."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigurationError(f"{name} is {value!r}; it must be a number from 0 to 1, the share of words to edit.")


def check_count(name: str, value: Any) -> None:
    """Raises a [`ConfigurationError`] for what is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} is {value!r}; it must be a whole number of at least 1.")


def check_techniques(name: str, techniques: Any) -> None:
    """Raises a [`ConfigurationError`] for what is no list of techniques, each named once."""
    valid = ", ".join(TECHNIQUES)
    if isinstance(techniques, str) or not isinstance(techniques, Sequence) or not techniques:
        raise ConfigurationError(f"{name} is {techniques!r}; it must be a list of one or more of {valid}.")
    for technique in techniques:
        if technique not in TECHNIQUES:
            raise ConfigurationError(
                f"{name}: there is no {technique!r}.{nearest(technique, TECHNIQUES)} Valid are {valid}."
            )
    if len(set(techniques)) < len(techniques):
        raise ConfigurationError(f"{name} is {list(techniques)}; name each technique once.")


def check_columns(available: list[str], columns: list[str], rows: int, where: str = "data") -> None:
    """
    See that rows can be augmented.

    Args:
        available (`list[str]`): Their columns.
        columns (`list[str]`): Those of the texts.
        rows (`int`): How many rows there are.
        where (`str`, *optional*, defaults to `"data"`): What messages begin with.

    Raises:
        DataError: If there are none, a column is missing or there twice, or they are augmented or answered already.
    """
    if not rows:
        raise DataError("data holds no rows to augment.")
    for name in columns:
        if name not in available:
            raise DataError(
                f"{where} has no column {name!r}.{nearest(name, available)} It has {', '.join(map(str, available))}; "
                "name the right one as text_column."
            )
        if available.count(name) > 1:
            raise DataError(f"{where} has several columns {name!r}; give each a name of its own.")
    taken = [name for name in ADDED_COLUMNS if name in available]
    if taken:
        raise DataError(
            f"{where} has {' and '.join(map(repr, taken))} already, as augmented rows have. Augment the originals "
            "alone (with a higher augmentation_factor for more copies), or rename your column."
        )
    if "teacher_logits" in available:
        raise DataError(
            f"{where} has the column 'teacher_logits', which holds answers to the texts as they are; edited copies "
            "would be given those of their originals. Augment first, and have the teacher answer afterwards."
        )


def check_texts(what: str, texts: Sequence[Any], rows: np.ndarray) -> None:
    """Raises a [`DataError`] for the first that is no string, or half a character, with the row's number in `rows`."""
    try:
        if all(map(str.isascii, texts)) or "".join(texts).encode():
            return
    except (TypeError, UnicodeEncodeError):
        pass
    for text, row in zip(texts, rows.tolist(), strict=True):
        if not isinstance(text, str):
            raise DataError(f"Row {row + 1}: {what} is {text!r}; it must be a string.")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError(f"Row {row + 1}: {what} holds half a character (a lone surrogate).")
