"""How much each class counts in a loss."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from hf_ext.errors import ConfigurationError, DataError
from hf_ext.problem_types import UNLABELLED

BALANCED = "balanced"


def check_class_weights(wanted: Any, label_names: Sequence[str]) -> None:
    """
    See that weights are of the classes that there are.

    Args:
        wanted (`str`, `list` or `dict`): `"balanced"`, a weight a class, or class name -> weight.
        label_names (`Sequence[str]`): The classes in the order of their ids.

    Raises:
        ConfigurationError: With the class or the value that does not fit.
    """
    known = ", ".join(label_names)
    if isinstance(wanted, Mapping):
        unknown = [str(name) for name in wanted if str(name) not in label_names]
        if unknown:
            raise ConfigurationError(f"class_weights names {', '.join(unknown)}; the classes are {known}.")
        if not wanted:
            raise ConfigurationError(f"class_weights names no class; the classes are {known}.")
        weights = {str(name): weight for name, weight in wanted.items()}
    elif isinstance(wanted, Sequence) and not isinstance(wanted, str):
        if len(wanted) != len(label_names):
            raise ConfigurationError(
                f"class_weights has {len(wanted)} weights, but there are {len(label_names)} classes: {known}. Give one "
                "a class in this order, or an object of names and weights."
            )
        weights = dict(zip(label_names, wanted, strict=True))
    elif isinstance(wanted, str) and wanted == BALANCED:
        return
    else:
        raise ConfigurationError(
            f"class_weights is {wanted!r}; it must be 'balanced', a list of a weight a class, or an object such as "
            f'{{"{label_names[-1]}": 2.0}}. The classes are {known}.'
        )
    for name, weight in weights.items():
        if not isinstance(weight, Real) or isinstance(weight, bool) or not math.isfinite(weight) or weight <= 0:
            raise ConfigurationError(
                f"class_weights: the weight of {name} is {weight!r}; it must be a number above 0. (To train without "
                "a class, leave its rows out.)"
            )


def resolve_class_weights(wanted: Any, labels: np.ndarray, label_names: Sequence[str]) -> np.ndarray:
    r"""
    Weights whose mean over the training rows is 1, so that the size of the loss and of a step stays what it was.

    Single label, $n_c$ rows of class $c$, $n$ in all, $k$ classes that occur:

    - `"balanced"`: $n / (k \, n_c)$, as scikit-learn's `compute_class_weight("balanced")`;
    - given weights $v$ (1 for a class that is not named): $v_c \, n / \sum_j n_j v_j$.

    Multi-label, $n_c^+$ rows with the class and $n_c^-$ without it:

    - `"balanced"`: $n / (2 n_c^+)$ where the class is present and $n / (2 n_c^-)$ where it is absent: scikit-learn's
      formula for each class's yes and no. Their ratio is the usual `pos_weight` $n_c^- / n_c^+$;
    - given weights $v$: those of torch's `pos_weight`, i.e. $v_c$ where present and 1 where absent, divided by their
      mean over the rows.

    A class (or a side of one) without training rows has the weight 1, which multiplies nothing.

    Args:
        wanted (`str`, `list` or `dict`): As for [`check_class_weights`].
        labels (`np.ndarray`):
            Of the training rows: class ids of shape `(rows,)`, of which -100 is no label, or 0 and 1 of shape
            `(rows, classes)`, of which a row with a NaN has no label.
        label_names (`Sequence[str]`): The classes in the order of their ids.

    Returns:
        `np.ndarray` of shape `(classes,)`, or `(2, classes)` (absent, present) for multi-label.

    Raises:
        ConfigurationError: As [`check_class_weights`].
        DataError: If no row has a label.
    """
    check_class_weights(wanted, label_names)
    labels, given = np.asarray(labels), _given_weights(wanted, label_names)
    if labels.ndim == 1:
        counts = np.bincount(_class_ids(labels, label_names), minlength=len(label_names))
        weights = _balanced(counts) if given is None else given
    else:
        labels = labels[~np.isnan(labels).any(axis=1)]
        present = labels.sum(axis=0)
        counts = np.stack([len(labels) - present, present])
        weights = _balanced(counts) if given is None else np.stack([np.ones_like(given), given])
    if not counts.sum():
        raise DataError("class_weights: no training row has a label, so no class can be weighed.")
    weights = weights * counts.sum(axis=0) / (weights * counts).sum(axis=0)
    return np.where(counts > 0, weights, 1.0)


# ---- Inside ----


def _given_weights(wanted: Any, label_names: Sequence[str]) -> np.ndarray | None:
    if isinstance(wanted, str):
        return None
    if isinstance(wanted, Mapping):
        named = {str(name): weight for name, weight in wanted.items()}
        wanted = [named.get(name, 1.0) for name in label_names]
    return np.asarray(wanted, dtype=np.float64)


def _class_ids(labels: np.ndarray, label_names: Sequence[str]) -> np.ndarray:
    ids = labels[labels != UNLABELLED].astype(np.int64)
    wrong = ids[(ids < 0) | (ids >= len(label_names))]
    if len(wrong):
        raise DataError(
            f"class_weights: a training row has the label {wrong[0]}; class ids are 0 to {len(label_names) - 1}."
        )
    return ids


def _balanced(counts: np.ndarray) -> np.ndarray:
    """In inverse proportion to the rows, along the first axis; the scale is set afterwards."""
    return 1 / np.maximum(counts, 1)
