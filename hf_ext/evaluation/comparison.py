"""Several models on the same rows: which is better, and whether that could be chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.calibration import expected_calibration_error, proper_scores
from hf_ext.evaluation.equivalence import (
    Equivalence,
    detectable_difference,
    detectable_from_interval,
    paired_equivalence,
)
from hf_ext.evaluation.metrics import multi_label_metrics, regression_metrics, single_label_metrics
from hf_ext.evaluation.pairs import Flips, Pair
from hf_ext.evaluation.permutation import paired_permutation
from hf_ext.evaluation.predictions import Predictions
from hf_ext.evaluation.same_rows import check_same_rows
from hf_ext.evaluation.significance import exact_mcnemar, holm, metric_intervals, paired_bootstrap
from hf_ext.evaluation.tables import (
    COST_TITLES,
    aligned,
    format_cost,
    format_interval,
    format_number,
    p_value,
    signed,
)
from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

Costs = dict[str, Any]
MAX_EXAMPLES = 10
# The share of rows that are right in this sense is the metric; any other metric is no mean of yes and no.
SHARE_OF_RIGHT_ROWS = {SINGLE_LABEL: "accuracy", MULTI_LABEL: "subset_accuracy"}
MCNEMAR, BOOTSTRAP = "the exact McNemar test", "the paired bootstrap"
MARGIN = 0.01


@dataclass(frozen=True)
class ModelResult:
    """
    One model's results.

    Args:
        metrics (`dict[str, float]`): As [`all_metrics`].
        intervals (`dict[str, tuple[float, float]]`): As [`metric_intervals`].
        costs (`dict[str, Any]`): Among others the keys of `COST_TITLES`; empty if nothing was measured.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    costs: Costs


@dataclass(frozen=True)
class Comparison:
    """
    Models on the same rows.

    Args:
        rows (`int`): How many.
        metric (`str`): The main metric.
        models (`dict[str, ModelResult]`): In the order given.
        pairs (`list[Pair]`): In the order given.
        group_column (`str`, *optional*, defaults to `""`): What the rows were grouped by.
        groups (`dict[str, Comparison]`): Group -> the same models on its rows.
    """

    rows: int
    metric: str
    models: dict[str, ModelResult]
    pairs: list[Pair]
    group_column: str = ""
    groups: dict[str, "Comparison"] = field(default_factory=dict)

    @property
    def sentences(self) -> list[str]:
        """One a pair."""
        return [pair.sentence for pair in self.pairs]

    def table(self) -> str:
        """A row a model for the console: main metric, its interval, calibration and costs where there are any."""
        results = self.models.values()
        shown = [self.metric, *(["ece"] if any("ece" in result.metrics for result in results) else [])]
        costs = [name for name in COST_TITLES if any(name in result.costs for result in results)]
        titles = [name if name != "ece" else "ECE" for name in shown]
        rows = [("model", titles[0], "95 % interval", *titles[1:], *(COST_TITLES[name] for name in costs))]
        for name, result in self.models.items():
            values = [format_number(result.metrics[metric]) for metric in shown]
            bounds = format_interval({name: result.intervals}, name, self.metric)
            rows.append((name, values[0], bounds, *values[1:], *(format_cost(c, result.costs.get(c)) for c in costs)))
        return aligned(rows)

    def pair_table(self) -> str:
        """A row a pair for the console: difference of the main metric, what the tests say of it, and of equivalence."""
        margins = {pair.equivalence.margin for pair in self.pairs if pair.equivalence is not None}
        corrected = any(pair.p_holm is not None for pair in self.pairs)
        titles = ["model", "baseline", f"{self.metric} +/-", "95 % interval", "p", *(["Holm"] if corrected else [])]
        titles += [f"equal to {100 * margin:g} pt: p" for margin in margins] + ["would show"]
        rows = [titles]
        for pair in self.pairs:
            value, low, high, _ = pair.differences[self.metric]
            cells = [pair.model, pair.baseline, signed(value), f"[{signed(low)}, {signed(high)}]", p_value(pair.p)]
            cells += [p_value(pair.p if pair.p_holm is None else pair.p_holm)] if corrected else []
            cells += [p_value(pair.equivalence.p)] if margins else []
            rows.append([*cells, "nothing" if pair.detectable is None else format_number(pair.detectable)])
        return aligned(rows, names=2)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; a number that is undefined becomes `None`."""
        models = {
            name: {"metrics": result.metrics, "intervals": result.intervals, "costs": result.costs}
            for name, result in self.models.items()
        }
        pairs = [{**vars(pair), "sentence": pair.sentence} for pair in self.pairs]
        facts = _plain({"rows": self.rows, "metric": self.metric, "models": models, "pairs": pairs})
        if self.groups:
            groups = {name: found.as_dict() for name, found in self.groups.items()}
            facts["groups"] = {"column": self.group_column, "values": groups}
        return facts


def compare_models(
    predictions: dict[str, Predictions],
    pairs: Sequence[tuple[str, str]],
    costs: dict[str, Costs] | None = None,
    margin: float = MARGIN,
) -> Comparison:
    """
    Compare what several models said about the same labelled rows.

    Intervals are those of [`metric_intervals`] and [`paired_bootstrap`]. The main metric's p value comes from the exact
    McNemar test where the metric is the share of rows that are right (accuracy; subset accuracy of multi-label), and
    from the paired bootstrap for regression. Both speak of other rows like these, not of other seeds: a model trained
    again may differ by more. Several pairs are corrected as [`holm`].

    Args:
        predictions (`dict[str, Predictions]`): By the model's name.
        pairs (`Sequence[tuple[str, str]]`): (model, baseline): which differences to test.
        costs (`dict[str, dict]`, *optional*): By the model's name, such as
            `{**model_cost(model), **compare_speed(...)[name]}`. Models may be missing.
        margin (`float`, *optional*, defaults to `0.01`): The difference in accuracy that would matter, as a share; see
            [`paired_equivalence`].

    Returns:
        [`Comparison`]

    Raises:
        ConfigurationError: If there are no models, or a pair or a cost names none of them.
        DataError: If the models were not asked the same: other classes, texts or labels, or none.
    """
    costs = costs or {}
    _check_names(predictions, pairs, costs)
    check_same_rows(predictions)
    models, compared = {}, []
    with tqdm(total=len(predictions) + len(pairs), desc="comparing", delay=2) as bar:
        for name, given in predictions.items():
            models[name] = ModelResult(all_metrics(given), metric_intervals(given), costs.get(name, {}))
            bar.update()
        for model, baseline in pairs:
            compared.append(compare_pair(model, predictions[model], baseline, predictions[baseline], margin))
            bar.update()
    if len(compared) > 1:
        corrected = holm([pair.p for pair in compared])
        family = sum(not math.isnan(p) for p in corrected)
        compared = [replace(pair, p_holm=p, family=family) for pair, p in zip(compared, corrected, strict=True)]
    first = next(iter(predictions.values()))
    return Comparison(len(first.texts), main_metric(first.problem_type), models, compared)


def compare_pair(model: str, a: Predictions, baseline: str, b: Predictions, margin: float = MARGIN) -> Pair:
    """
    Compare two models.

    Args:
        model, baseline (`str`): Their names.
        a, b ([`Predictions`]): What they said about the same rows.
        margin (`float`, *optional*, defaults to `0.01`): As [`compare_models`].

    Returns:
        [`Pair`]
    """
    metric, differences = main_metric(a.problem_type), paired_bootstrap(a, b)
    common = {"model": model, "baseline": baseline, "rows": len(a.texts), "metric": metric, "differences": differences}
    common["permutations"] = paired_permutation(a, b)
    if a.problem_type == REGRESSION:
        main = differences[metric]
        detectable = detectable_from_interval(main.low, main.high)
        return Pair(**common, p=main.p, test=BOOTSTRAP, detectable=detectable)
    right_a, right_b = right_rows(a), right_rows(b)
    return Pair(
        **common,
        p=exact_mcnemar(right_a, right_b).p,
        test=MCNEMAR,
        agreement=float(_all_classes(a.predictions == b.predictions).mean()),
        only_model=_flips(a, b, right_a & ~right_b),
        only_baseline=_flips(a, b, right_b & ~right_a),
        equivalence=paired_equivalence(right_a, right_b, margin),
        detectable=detectable_difference(len(right_a), float((right_a != right_b).mean())),
    )


def all_metrics(predictions: Predictions) -> dict[str, float]:
    """
    Every metric of a labelled split, computed from its predictions.

    Args:
        predictions ([`Predictions`]): Labelled.

    Returns:
        `dict[str, float]`: The metrics of the problem type and, of classification, `nll` and `brier` as
        [`probability_scores`].
    """
    labels, decisions = predictions.labels, predictions.predictions
    if predictions.problem_type == REGRESSION:
        return regression_metrics(labels, decisions)
    scores = probability_scores(predictions)
    if predictions.problem_type == MULTI_LABEL:
        return {**multi_label_metrics(labels, decisions), **scores}
    error = expected_calibration_error(predictions.probabilities, labels)
    return {**single_label_metrics(labels, decisions), "ece": error, **scores}


def probability_scores(predictions: Predictions) -> dict[str, float]:
    """
    Proper scores of the probabilities; lower is better.

    Args:
        predictions ([`Predictions`]): A labelled classification.

    Returns:
        `dict[str, float]`: `nll` and `brier`, as [`proper_scores`].
    """
    return proper_scores(predictions.probabilities, predictions.labels)


def right_rows(predictions: Predictions) -> np.ndarray:
    """`(rows,)` bool of a labelled classification: right, for multi-label in every class."""
    return _all_classes(predictions.predictions == predictions.labels)


def main_metric(problem_type: str) -> str:
    """The metric that models are ranked by."""
    return SHARE_OF_RIGHT_ROWS.get(problem_type, "pearson")


# ---- Inside ----


def _all_classes(equal: np.ndarray) -> np.ndarray:
    return equal if equal.ndim == 1 else equal.all(axis=1)


def _flips(a: Predictions, b: Predictions, flipped: np.ndarray) -> Flips:
    rows = np.flatnonzero(flipped)
    shown = rows[np.unique(np.linspace(0, len(rows) - 1, MAX_EXAMPLES).astype(int))] if len(rows) else rows
    answers = (a.named(a.labels[shown]), a.named(a.predictions[shown]), b.named(b.predictions[shown]))
    examples = [
        {"row": int(row), "text": a.texts[row], "label": label, "model": first, "baseline": second}
        for row, label, first, second in zip(shown, *answers, strict=True)
    ]
    return Flips(len(rows), examples)


def _check_names(predictions: dict, pairs: Sequence[tuple[str, str]], costs: dict) -> None:
    if not predictions:
        raise ConfigurationError("There are no models to compare: give predictions by the model's name.")
    known = ", ".join(predictions)
    for model, baseline in pairs:
        for name in (model, baseline):
            if name not in predictions:
                raise ConfigurationError(f"The pair ({model}, {baseline}) names {name!r}; the models are {known}.")
        if model == baseline:
            raise ConfigurationError(f"The pair ({model}, {baseline}) compares a model with itself; name two.")
    unknown = [name for name in costs if name not in predictions]
    if unknown:
        raise ConfigurationError(f"There are costs of {unknown[0]!r}; the models are {known}.")


def _plain(value: Any) -> Any:
    if isinstance(value, Equivalence):
        return _plain({**value._asdict(), "p": value.p})
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Flips):
        return _plain(vars(value))
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
