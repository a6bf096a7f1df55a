"""Augmenters of other makers, one text at a time, with randomness that depends on the row alone."""

import importlib.util
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hf_ext.errors import ConfigurationError, DataError


def check_backend(backend: Any, augmenter: Any, native_settings: list[str]) -> None:
    """Refuse a backend that cannot work, and settings (the names of those given) that it would ignore."""
    if backend == "nlpaug":
        _check_nlpaug(augmenter)
    elif augmenter is not None:
        raise ConfigurationError(f'augmenter is given, but backend is {backend!r}; pass backend="nlpaug".')
    elif backend == "native":
        return
    elif not callable(backend):
        raise ConfigurationError(
            f'backend is {backend!r}; it must be "native", "nlpaug" or a function of a text and a random.Random that '
            "returns a text."
        )
    if native_settings:
        raise ConfigurationError(
            f'{", ".join(native_settings)}: only the backend "native" uses this; set it in the augmenter itself.'
        )


def _check_nlpaug(augmenter: Any) -> None:
    if importlib.util.find_spec("nlpaug") is None:
        raise ConfigurationError("backend=\"nlpaug\" needs the package nlpaug: pip install 'hf_ext[nlpaug]'.")
    from nlpaug.base_augmenter import Augmenter

    if not isinstance(augmenter, Augmenter):
        raise ConfigurationError(
            f'augmenter is {augmenter!r}; backend="nlpaug" needs an augmenter or a flow of nlpaug, such as '
            "nlpaug.augmenter.word.SynonymAug(aug_p=0.1)."
        )


def edit_by_nlpaug(augmenter: Any, texts: Sequence[str], keys: np.ndarray, rows: np.ndarray) -> list[str]:
    """
    Augment each text with nlpaug, which draws from `random` and from NumPy's global generator.

    Args:
        augmenter (`nlpaug.base_augmenter.Augmenter`): An augmenter or a flow.
        texts (`Sequence[str]`): Texts.
        keys (`np.ndarray` of shape (texts,), uint64): What each text's randomness is seeded with.
        rows (`np.ndarray` of shape (texts,)): Numbers of the rows, for messages.

    Returns:
        `list[str]`: As many texts; where nlpaug returns nothing, as for an empty one, the text itself.

    Raises:
        DataError: If nlpaug returns something else than a text.
    """
    states = random.getstate(), np.random.get_state()
    try:
        return [
            _augment_one(augmenter, text, key, row)
            for text, key, row in zip(texts, keys.tolist(), rows.tolist(), strict=True)
        ]
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _augment_one(augmenter: Any, text: str, key: int, row: int) -> str:
    random.seed(key)
    np.random.seed(key % 2**32)
    result = augmenter.augment(text)
    if isinstance(result, list):
        # nlpaug answers [] to what it cannot augment.
        result = result[0] if result else text
    return _checked(result, "nlpaug", row)


def edit_by_function(
    function: Callable[[str, random.Random], str], texts: Sequence[str], keys: np.ndarray, rows: np.ndarray
) -> list[str]:
    """Call a function with each text and a generator of its own; arguments, result and errors as above."""
    return [
        _checked(function(text, random.Random(key)), "the backend", row)
        for text, key, row in zip(texts, keys.tolist(), rows.tolist(), strict=True)
    ]


def _checked(result: Any, maker: str, row: int) -> str:
    if not isinstance(result, str):
        raise DataError(f"Row {row + 1}: {maker} returned {result!r}; it must return a string.")
    try:
        result.encode()
    except UnicodeEncodeError:
        raise DataError(f"Row {row + 1}: {maker} returned half a character (a lone surrogate).") from None
    return result
