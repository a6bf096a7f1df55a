"""Several models on the same rows: which is better, and whether that could be chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.calibration import expected_calibration_error, proper_scores
from hf_ext.evaluation.metrics import multi_label_metrics, regression_metrics, single_label_metrics
from hf_ext.evaluation.predictions import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Predictions
from hf_ext.evaluation.same_rows import check_same_rows
from hf_ext.evaluation.significance import Difference, exact_mcnemar, metric_intervals, paired_bootstrap
from hf_ext.evaluation.tables import (
    COST_TITLES,
    METRIC_TITLES,
    aligned,
    format_cost,
    format_interval,
    format_number,
    format_p,
)

Costs = dict[str, Any]
SIGNIFICANCE = 0.05
MAX_EXAMPLES = 10
# The share of rows that are right in this sense is the metric; any other metric is no mean of yes and no.
SHARE_OF_RIGHT_ROWS = {SINGLE_LABEL: "accuracy", MULTI_LABEL: "subset_accuracy"}
MCNEMAR, BOOTSTRAP = "the exact McNemar test", "the paired bootstrap"


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
class Flips:
    """
    Rows that one of two models has right and the other wrong.

    Args:
        count (`int`): How many there are.
        examples (`list[dict]`): Up to ten of them, evenly spread: `row` (from 0), `text`, `label`, and the answers of
            the `model` and the `baseline`.
    """

    count: int
    examples: list[dict[str, Any]]


@dataclass(frozen=True)
class Pair:
    """
    A model beside its baseline.

    Args:
        model, baseline (`str`): Names.
        rows (`int`): Rows that both answered.
        metric (`str`): The main metric: accuracy, subset accuracy, or Pearson's correlation.
        differences (`dict[str, Difference]`): Of every metric, model minus baseline, as [`paired_bootstrap`].
        p (`float`): Two-sided, of the main metric's difference; not corrected for the number of pairs.
        test (`str`): Where `p` comes from.
        agreement (`float`, *optional*): Share of rows with equal answers; `None` for regression.
        only_model, only_baseline ([`Flips`], *optional*): Rows that only one has right; `None` for regression.
    """

    model: str
    baseline: str
    rows: int
    metric: str
    differences: dict[str, Difference]
    p: float
    test: str
    agreement: float | None = None
    only_model: Flips | None = None
    only_baseline: Flips | None = None

    @property
    def sentence(self) -> str:
        """What the rows say about the two, in words."""
        rows = f"{self.rows:,} {'row' if self.rows == 1 else 'rows'}"
        title = METRIC_TITLES[self.metric]
        title = title if self.metric == "pearson" else title.lower()
        value, low, high, _ = self.differences[self.metric]
        if not math.isfinite(value):
            return f"{self.model} and {self.baseline} have no comparable {title} on {rows}: it is undefined for one."
        if self.agreement == 1:
            return f"{self.model} and {self.baseline} give the same answers on {rows}."
        found = f"{format_p(self.p)} by {self.test}"
        if self.p < SIGNIFICANCE:
            word, sign = ("better", 1) if value > 0 else ("worse", -1)
            low, high = sorted((sign * low, sign * high))
            size = f"{self._amount(sign * value, unit=True)} ({self._amount(low)} to {self._amount(high)})"
            return f"{self.model} is {size} {word} than {self.baseline} in {title} on {rows}; {found}."
        size = f"{self._amount(value, unit=True)} ({self._amount(low)} to {self._amount(high)})"
        return f"{rows} cannot tell {self.model} and {self.baseline} apart: {title} differs by {size}; {found}."

    def _amount(self, value: float, unit: bool = False) -> str:
        """Shares in percentage points, correlations as they are. Adding 0.0 turns -0.0 into 0.0."""
        if self.metric == "pearson":
            return f"{round(value, 3) + 0.0:.3f}"
        return f"{round(100 * value, 1) + 0.0:.1f}" + (" points" if unit else "")


@dataclass(frozen=True)
class Comparison:
    """
    Models on the same rows.

    Args:
        rows (`int`): How many.
        metric (`str`): The main metric.
        models (`dict[str, ModelResult]`): In the order given.
        pairs (`list[Pair]`): In the order given.
    """

    rows: int
    metric: str
    models: dict[str, ModelResult]
    pairs: list[Pair]

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

    def as_dict(self) -> dict[str, Any]:
        """For JSON; a number that is undefined becomes `None`."""
        models = {
            name: {"metrics": result.metrics, "intervals": result.intervals, "costs": result.costs}
            for name, result in self.models.items()
        }
        pairs = [
            {**vars(pair), "sentence": pair.sentence, "differences": differences}
            for pair in self.pairs
            for differences in [{name: item._asdict() for name, item in pair.differences.items()}]
        ]
        return _plain({"rows": self.rows, "metric": self.metric, "models": models, "pairs": pairs})


def compare_models(
    predictions: dict[str, Predictions],
    pairs: Sequence[tuple[str, str]],
    costs: dict[str, Costs] | None = None,
) -> Comparison:
    """
    Compare what several models said about the same labelled rows.

    Intervals are percentile bootstrap intervals over the rows, those of differences over rows drawn jointly. The main
    metric's p value comes from the exact McNemar test where the metric is the share of rows that are right (accuracy;
    subset accuracy of multi-label), and from the paired bootstrap for regression. Both speak of other rows like these,
    not of other seeds: a model trained again may differ by more.

    Args:
        predictions (`dict[str, Predictions]`): By the model's name.
        pairs (`Sequence[tuple[str, str]]`): (model, baseline): which differences to test.
        costs (`dict[str, dict]`, *optional*): By the model's name, such as
            `{**model_cost(model), **compare_speed(...)[name]}`. Models may be missing.

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
            compared.append(compare_pair(model, predictions[model], baseline, predictions[baseline]))
            bar.update()
    first = next(iter(predictions.values()))
    return Comparison(len(first.texts), main_metric(first.problem_type), models, compared)


def compare_pair(model: str, a: Predictions, baseline: str, b: Predictions) -> Pair:
    """
    Compare two models.

    Args:
        model, baseline (`str`): Their names.
        a, b ([`Predictions`]): What they said about the same rows.

    Returns:
        [`Pair`]
    """
    metric, differences = main_metric(a.problem_type), paired_bootstrap(a, b)
    common = {"model": model, "baseline": baseline, "rows": len(a.texts), "metric": metric, "differences": differences}
    if a.problem_type == REGRESSION:
        return Pair(**common, p=differences[metric].p, test=BOOTSTRAP)
    right_a, right_b = right_rows(a), right_rows(b)
    return Pair(
        **common,
        p=exact_mcnemar(right_a, right_b).p,
        test=MCNEMAR,
        agreement=float(_all_classes(a.predictions == b.predictions).mean()),
        only_model=_flips(a, b, right_a & ~right_b),
        only_baseline=_flips(a, b, right_b & ~right_a),
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
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Flips):
        return _plain(vars(value))
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
