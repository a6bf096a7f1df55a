"""Whether several models were asked the same."""

from collections.abc import Iterator
from typing import Any

from hf_ext.errors import DataError
from hf_ext.evaluation.predictions import Predictions


def check_same_rows(predictions: dict[str, Predictions]) -> None:
    """
    See that every model answered the same labelled rows as the first, in the same order.

    Args:
        predictions (`dict[str, Predictions]`): By the model's name.

    Raises:
        DataError: If there are no labels or no rows, or if problem types, classes, texts or labels differ; the message
            shows the first row that does.
    """
    for name, given in predictions.items():
        if given.labels is None or not len(given.texts):
            raise DataError(f"The predictions of {name} have no labelled rows; a comparison needs the true labels.")
    (reference, first), *others = predictions.items()
    for name, given in others:
        if given.problem_type != first.problem_type:
            raise DataError(
                f"The predictions of {reference} are {first.problem_type}, those of {name} {given.problem_type}; "
                "compare models of one task."
            )
        if given.label_names != first.label_names:
            raise DataError(
                f"The classes of {reference} are {_some(first.label_names)}; those of {name} are "
                f"{_some(given.label_names)}. Give both the same classes in the same order."
            )
        if len(given.texts) != len(first.texts):
            raise DataError(
                f"{reference} answered {len(first.texts):,} rows and {name} {len(given.texts):,}. Let both answer the "
                "same file."
            )
        for row, (mine, theirs) in enumerate(zip(_questions(first), _questions(given), strict=True)):
            for what, x, y in zip(("text", "label"), mine, theirs, strict=True):
                if x != y:
                    x, y = _where_they_differ(repr(x), repr(y))
                    raise DataError(
                        f"Row {row} (from 0) has the {what} {x} in the predictions of {reference} and {y} in those of "
                        f"{name}. Let both answer the same file, in the same order."
                    )


# ---- Inside ----


def _questions(given: Predictions) -> Iterator[tuple[Any, Any]]:
    """Text and label of each row; a pair of texts that was read from JSON is a list."""
    texts = (text if isinstance(text, str) else tuple(text) for text in given.texts)
    return zip(texts, given.labels.tolist(), strict=True)


def _where_they_differ(x: str, y: str) -> list[str]:
    shared = next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))
    start = max(0, shared - 40)
    return [
        ("…" if start else "") + text[start : start + 100] + ("…" if text[start + 100 :] else "") for text in (x, y)
    ]


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
