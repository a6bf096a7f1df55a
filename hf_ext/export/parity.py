"""Whether an exported model answers as the PyTorch model does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from hf_ext.errors import ConfigurationError, DataError, first_few
from hf_ext.evaluation.comparison import Comparison, compare_models
from hf_ext.evaluation.predictions import Predictions
from hf_ext.export.exported_model import ExportedModel, Texts
from hf_ext.problem_types import MULTI_LABEL, REGRESSION

PYTORCH = "pytorch"
# A number counts as another answer if it moves by more than this share of the answers' standard deviation.
REGRESSION_SHARE = 0.05
# Float32 graphs round their sums in another order. What differs by more, in units of the logits, is another graph.
ROUNDING = 1e-3
# Texts without a word, of one word (shorter than any filter), and longer than any that was traced.
PROBES = ("", "hello", "a", "the quick brown fox jumps over the lazy dog " * 40)
MAX_NAMED = 20


@dataclass(frozen=True)
class Parity:
    """
    One exported model beside the PyTorch model, on the same texts.

    Args:
        rows (`int`): Texts.
        max_difference, mean_difference (`float`): Greatest and mean absolute difference of the logits.
        flips (`list[dict]`): Every answer that is another one: `row`, `text`, `before` (PyTorch), `after`, and `label`
            where there is one.
    """

    rows: int
    max_difference: float
    mean_difference: float
    flips: list[dict[str, Any]]

    @property
    def flip_share(self) -> float:
        """Share of the texts whose answer is another one."""
        return len(self.flips) / self.rows

    @property
    def sentence(self) -> str:
        """In words."""
        return (
            f"{len(self.flips):,} of {self.rows:,} answers flip ({100 * self.flip_share:.2g} %); logits differ by at "
            f"most {self.max_difference:.2g}, {self.mean_difference:.2g} on average"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "flip_count": len(self.flips), "flip_share": self.flip_share}


def compare_exports(
    reference: ExportedModel,
    exported: dict[str, ExportedModel],
    texts: Texts,
    labels: np.ndarray | None = None,
    rows: Sequence[int] | None = None,
) -> tuple[dict[str, Parity], Comparison | None]:
    """
    Compare exported models with the PyTorch model on real texts.

    A text flips if its answer is another class or, of several labels, if that of any label is; with a calibration
    after it. A regression flips where the number moves by more than 5 % of the standard deviation of PyTorch's.

    Args:
        reference ([`ExportedModel`]): [`ExportedModel.of_pytorch`].
        exported (`dict[str, ExportedModel]`): Name -> exported model.
        texts (`list[str]` or `list[tuple[str, str]]`): Texts, or pairs of texts.
        labels (`np.ndarray`, *optional*): As [`Predictions`]; with them the models are tested against each other too.
        rows (`Sequence[int]`, *optional*): What the texts are called in `flips`; by default their numbers from 0.

    Returns:
        `tuple`: Name -> [`Parity`], and with labels [`compare_models`] of all (each exported one beside `"pytorch"`, by
        the exact McNemar test where the metric is an accuracy), else `None`.

    Raises:
        DataError: If there are no texts.
        ConfigurationError: If an exported model gives no finite logits of the right shape.
    """
    if not len(texts):
        raise DataError("There are no texts to compare on; give at least one.")
    before = reference(texts)
    answers = {PYTORCH: reference.decided(before, texts, labels)}
    found = {}
    for name, model in tqdm(exported.items(), desc="comparing exports", delay=2):
        after = model(texts)
        _check_logits(name, before, after)
        answers[name] = model.decided(after, texts, labels)
        found[name] = compare_outputs(before, after, answers[PYTORCH], answers[name], rows)
    comparison = None
    if labels is not None:
        comparison = compare_models(answers, [(name, PYTORCH) for name in exported])
    return found, comparison


def compare_outputs(
    before: np.ndarray,
    after: np.ndarray,
    answers_before: Predictions,
    answers_after: Predictions,
    rows: Sequence[int] | None = None,
) -> Parity:
    """
    Compare two outputs for the same texts.

    Args:
        before, after (`np.ndarray` of shape `(rows, classes)`): Logits.
        answers_before, answers_after ([`Predictions`]): What was made of them.
        rows (`Sequence[int]`, *optional*): What the texts are called; by default their numbers from 0.

    Returns:
        [`Parity`]
    """
    difference = np.abs(after.astype(np.float64) - before.astype(np.float64))
    given, made = answers_before.predictions, answers_after.predictions
    changed = given != made
    if answers_before.problem_type == REGRESSION:
        changed = np.abs(made - given) > max(REGRESSION_SHARE * given.std(), 1e-5 * np.abs(given).max())
    elif answers_before.problem_type == MULTI_LABEL:
        changed = changed.any(axis=1)
    places = np.flatnonzero(changed)
    names = {"before": answers_before.named(given[places]), "after": answers_after.named(made[places])}
    if answers_before.labels is not None:
        names["label"] = answers_before.named(answers_before.labels[places])
    flips = [
        {
            "row": int(place if rows is None else rows[place]),
            "text": answers_before.texts[place],
            **{key: values[index] for key, values in names.items()},
        }
        for index, place in enumerate(places)
    ]
    return Parity(len(before), float(difference.max()), float(difference.mean()), flips)


def check_shapes(name: str, reference: ExportedModel, model: ExportedModel, exact: bool) -> None:
    """
    See that an exported model takes batches and lengths other than the traced ones: texts without a word, of one word,
    and of as many as the tokenizer leaves, alone and together.

    Args:
        name (`str`): What the model is called.
        reference ([`ExportedModel`]): [`ExportedModel.of_pytorch`].
        model ([`ExportedModel`]): Exported.
        exact (`bool`): Whether the logits have to be equal but for rounding; those of an int8 model are not.

    Raises:
        ConfigurationError: If it fails at one of them, or answers otherwise.
    """
    for batch in (*([text] for text in PROBES), list(PROBES)):
        before = reference(batch)
        try:
            after = model(batch)
        # Each runtime has errors of its own.
        except Exception as error:
            raise ConfigurationError(_shape_message(name, batch, f"fails ({error})")) from error
        _check_logits(name, before, after)
        if exact and not np.allclose(after, before, rtol=ROUNDING, atol=ROUNDING):
            far = float(np.abs(after - before).max())
            raise ConfigurationError(_shape_message(name, batch, f"differs from PyTorch by {far:.2g}"))


def check_flips(name: str, parity: Parity, allowed: float, source: str) -> None:
    """
    Refuse an export that answers too many texts otherwise.

    Args:
        name (`str`): What the model is called.
        parity ([`Parity`]): From [`compare_exports`].
        allowed (`float`): The share of the texts that may flip.
        source (`str`): What the rows are rows of.

    Raises:
        ConfigurationError: With the rows.
    """
    if parity.flip_share <= allowed:
        return
    shown = [f"{flip['row']} ({flip['before']} -> {flip['after']})" for flip in parity.flips]
    raise ConfigurationError(
        f"{name} is refused: {parity.sentence}, and max_flips is {allowed:g}. {source}, rows "
        f"{first_few(shown, MAX_NAMED)}. Nothing is kept. Leave {name} out, allow more with --max_flips, or for int8 "
        "take fewer --int8_ops."
    )


# ---- Inside ----


def _shape_message(name: str, batch: list, what: str) -> str:
    kind = f"{len(batch)} texts" if len(batch) > 1 else f"the text {str(batch[0])[:40]!r}"
    return (
        f"{name}: the exported graph {what} for {kind}, so that it holds only for the shape that was traced. The "
        "model's code depends on the number of rows or tokens; use the model as it is."
    )


def _check_logits(name: str, before: np.ndarray, after: np.ndarray) -> None:
    if after.shape != before.shape:
        raise ConfigurationError(f"{name} gives logits of shape {after.shape}; the model gives {before.shape}.")
    bad = np.flatnonzero(~np.isfinite(after).all(axis=1))
    if len(bad) and np.isfinite(before).all():
        raise ConfigurationError(
            f"{name} gives logits that are not finite for {len(bad)} of {len(after)} texts (the first is number "
            f"{bad[0] + 1}), and the model does not. Leave it out, or for int8 take fewer --int8_ops."
        )
