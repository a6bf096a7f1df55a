"""A Trainer's `compute_metrics`, from the modules of this package and a further one of the user's."""

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.calibration import Calibration, calibration_scores
from hf_ext.evaluation.metrics import METRIC_NAMES
from hf_ext.evaluation.out_of_scope import answer_scores
from hf_ext.evaluation.predictions import sigmoid, softmax
from hf_ext.evaluation.thresholds import decide
from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

# What the name of a metric without calibration begins with.
UNCALIBRATED = "uncalibrated_"
# What the Hub calls metrics that are always reported here: asking for one loads nothing.
COVERED_NAMES = {
    SINGLE_LABEL: {"f1", "precision", "recall", "matthews_correlation"},
    MULTI_LABEL: {"accuracy", "f1", "precision", "recall"},
    REGRESSION: {"pearsonr", "spearmanr", "r_squared"},
}


def build_compute_metrics(
    problem_type: str, metric_name: str | None = None, calibration: Calibration | None = None
) -> Callable[[Any], dict[str, float]]:
    """
    A Trainer's `compute_metrics`, from the `evaluate` modules of this package and, if named, one more.

    Args:
        problem_type (`str`): As in a model's configuration.
        metric_name (`str`, *optional*): A metric of the `evaluate` library: a Hub name or a local script. Names that
            are always reported (`accuracy`, `f1` ...) load nothing.
        calibration ([`Calibration`], *optional*): With it, the metrics are those of its probabilities and decisions,
            `ece`, `nll` and `brier` among them, and `uncalibrated_<metric>` those without it. With its threshold for
            texts out of scope also `coverage` and `in_scope_accuracy` ([`answer_scores`]); all others are of the
            class that is predicted whether the text is turned away or not.

    Returns:
        `Callable`: From an [`~transformers.EvalPrediction`] to a `dict[str, float]`.

    Raises:
        ConfigurationError: If the further metric cannot be loaded.
    """
    from hf_ext.evaluation.modules import MODULES, CalibrationError

    module = MODULES[problem_type](keep_in_memory=True)
    calibration_error = CalibrationError(keep_in_memory=True) if problem_type == SINGLE_LABEL else None
    further = _load_metric(metric_name, problem_type)

    def scores_of(probabilities, decisions, references) -> dict[str, float]:
        scores = module.compute(predictions=decisions, references=references)
        if calibration_error is not None:
            scores.update(calibration_error.compute(predictions=probabilities, references=references))
        if further is not None:
            scores.update(_compute_further(further, decisions, references, problem_type))
        return scores

    def compute_metrics(evaluation) -> dict[str, float]:
        logits = evaluation.predictions
        logits = np.asarray(logits[0] if isinstance(logits, tuple) else logits, dtype=np.float64)
        references = np.asarray(evaluation.label_ids)
        if problem_type == REGRESSION:
            return scores_of(None, logits.reshape(-1), references.astype(float).reshape(-1))
        references = references.astype(int)
        probabilities = sigmoid(logits) if problem_type == MULTI_LABEL else softmax(logits)
        scores = scores_of(probabilities, decide(probabilities, problem_type), references)
        if calibration is None:
            return scores
        before = {**scores, **calibration_scores(probabilities, references)}
        probabilities, decisions = calibration.apply(logits)
        after = {**scores_of(probabilities, decisions, references), **calibration_scores(probabilities, references)}
        outside = calibration.out_of_scope(probabilities)
        if outside is not None:
            after |= answer_scores(~outside, decisions == references)
        return {**after, **{f"{UNCALIBRATED}{name}": value for name, value in before.items()}}

    return compute_metrics


def possible_metric_names(compute_metrics: Callable, problem_type: str, num_labels: int) -> list[str]:
    """The names that an evaluation will yield, found by evaluating two made-up rows."""
    logits = np.eye(2, max(num_labels, 1))
    labels = {SINGLE_LABEL: np.array([0, 1]), MULTI_LABEL: np.eye(2, num_labels), REGRESSION: np.array([0.0, 1.0])}
    evaluation = SimpleNamespace(predictions=logits, label_ids=labels[problem_type])
    return ["loss", *sorted(compute_metrics(evaluation))]


# ---- Inside ----


def _load_metric(metric_name: str | None, problem_type: str):
    if metric_name is None or metric_name in COVERED_NAMES[problem_type] or metric_name in METRIC_NAMES[problem_type]:
        return None
    import evaluate

    config = "multilabel" if problem_type == MULTI_LABEL else None
    try:
        return evaluate.load(metric_name, config, keep_in_memory=True)
    except (FileNotFoundError, ConnectionError, OSError, ImportError, ValueError) as error:
        raise ConfigurationError(
            f"metric_name={metric_name} could not be loaded from the Hub or as a local script: {error}. Always "
            f"reported, without a network: {', '.join(METRIC_NAMES[problem_type])}."
        ) from error


def _compute_further(metric, predictions, references, problem_type) -> dict[str, float]:
    averaged = problem_type != REGRESSION and "average" in inspect.signature(metric._compute).parameters
    return metric.compute(predictions=predictions, references=references, **({"average": "macro"} if averaged else {}))
