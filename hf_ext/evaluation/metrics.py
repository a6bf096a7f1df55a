"""Metrics by the kind of task, from arrays; scikit-learn computes them."""

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.predictions import MULTI_LABEL, REGRESSION, SINGLE_LABEL, sigmoid, softmax

METRIC_NAMES = {
    SINGLE_LABEL: (
        "accuracy",
        "f1_macro",
        "f1_micro",
        "f1_weighted",
        "precision_macro",
        "recall_macro",
        "mcc",
        "ece",
    ),
    MULTI_LABEL: (
        "subset_accuracy",
        "f1_macro",
        "f1_micro",
        "f1_weighted",
        "f1_samples",
        "precision_macro",
        "recall_macro",
        "hamming_loss",
    ),
    REGRESSION: ("mse", "rmse", "mae", "r2", "pearson", "spearman"),
}
# What the Hub calls metrics that are always reported here: asking for one loads nothing.
COVERED_NAMES = {
    SINGLE_LABEL: {"f1", "precision", "recall", "matthews_correlation"},
    MULTI_LABEL: {"accuracy", "f1", "precision", "recall"},
    REGRESSION: {"pearsonr", "spearmanr", "r_squared"},
}


def single_label_metrics(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """
    Args:
        labels (`np.ndarray` of shape `(rows,)`): True class ids.
        predictions (`np.ndarray` of shape `(rows,)`): Predicted class ids.

    Returns:
        `dict[str, float]`: Accuracy, F1, precision, recall (0 for a class never predicted) and Matthews correlation.
        Averages are over the classes that occur among labels or predictions, as scikit-learn has it.
    """
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, precision_score, recall_score

    scores = {"accuracy": accuracy_score(labels, predictions)}
    for average in ("macro", "micro", "weighted"):
        scores[f"f1_{average}"] = f1_score(labels, predictions, average=average, zero_division=0)
    scores["precision_macro"] = precision_score(labels, predictions, average="macro", zero_division=0)
    scores["recall_macro"] = recall_score(labels, predictions, average="macro", zero_division=0)
    with warnings.catch_warnings():
        # A single class among labels and predictions makes the correlation 0; scikit-learn doubts that it is meant.
        warnings.simplefilter("ignore", UserWarning)
        scores["mcc"] = matthews_corrcoef(labels, predictions)
    return {name: float(score) for name, score in scores.items()}


def multi_label_metrics(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """
    Args:
        labels (`np.ndarray` of shape `(rows, classes)`): 0/1.
        predictions (`np.ndarray` of shape `(rows, classes)`): 0/1.

    Returns:
        `dict[str, float]`: Share of rows that are right in all classes, F1, precision, recall and Hamming loss.
    """
    from sklearn.metrics import accuracy_score, f1_score, hamming_loss, precision_score, recall_score

    labels, predictions = np.asarray(labels).astype(int), np.asarray(predictions).astype(int)
    scores = {"subset_accuracy": accuracy_score(labels, predictions)}
    for average in ("macro", "micro", "weighted", "samples"):
        scores[f"f1_{average}"] = f1_score(labels, predictions, average=average, zero_division=0)
    scores["precision_macro"] = precision_score(labels, predictions, average="macro", zero_division=0)
    scores["recall_macro"] = recall_score(labels, predictions, average="macro", zero_division=0)
    scores["hamming_loss"] = hamming_loss(labels, predictions)
    return {name: float(score) for name, score in scores.items()}


def regression_metrics(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """
    Args:
        labels (`np.ndarray` of shape `(rows,)`): True values.
        predictions (`np.ndarray` of shape `(rows,)`): Predicted values.

    Returns:
        `dict[str, float]`: Errors, share of variance explained and correlations (NaN where a side is constant).
    """
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    mse = mean_squared_error(labels, predictions)
    with warnings.catch_warnings():
        # A constant side has no correlation: NaN says so.
        warnings.simplefilter("ignore")
        enough = len(labels) > 1
        scores = {
            "mse": mse,
            "rmse": mse**0.5,
            "mae": mean_absolute_error(labels, predictions),
            "r2": r2_score(labels, predictions) if enough else float("nan"),
            "pearson": pearsonr(labels, predictions)[0] if enough else float("nan"),
            "spearman": spearmanr(labels, predictions)[0] if enough else float("nan"),
        }
    return {name: float(score) for name, score in scores.items()}


def build_compute_metrics(problem_type: str, metric_name: str | None = None) -> Callable[[Any], dict[str, float]]:
    """
    A Trainer's `compute_metrics`, from the `evaluate` modules of this package and, if named, one more.

    Args:
        problem_type (`str`): As in a model's configuration.
        metric_name (`str`, *optional*): A metric of the `evaluate` library: a Hub name or a local script. Names that
            are always reported (`accuracy`, `f1` ...) load nothing.

    Returns:
        `Callable`: From an [`~transformers.EvalPrediction`] to a `dict[str, float]`.

    Raises:
        ConfigurationError: If the further metric cannot be loaded.
    """
    from hf_ext.evaluation.modules import MODULES, CalibrationError

    module = MODULES[problem_type](keep_in_memory=True)
    calibration = CalibrationError(keep_in_memory=True) if problem_type == SINGLE_LABEL else None
    further = _load_metric(metric_name, problem_type)

    def compute_metrics(evaluation) -> dict[str, float]:
        logits = evaluation.predictions
        logits = np.asarray(logits[0] if isinstance(logits, tuple) else logits, dtype=np.float64)
        if problem_type == REGRESSION:
            decisions = logits.reshape(-1)
        elif problem_type == MULTI_LABEL:
            decisions = (sigmoid(logits) >= 0.5).astype(int)
        else:
            decisions = logits.argmax(axis=1)
        references = np.asarray(evaluation.label_ids)
        references = references.astype(float).reshape(-1) if problem_type == REGRESSION else references.astype(int)
        scores = module.compute(predictions=decisions, references=references)
        if calibration is not None:
            scores.update(calibration.compute(predictions=softmax(logits), references=references))
        if further is not None:
            scores.update(_compute_further(further, decisions, references, problem_type))
        return scores

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
    import inspect

    averaged = problem_type != REGRESSION and "average" in inspect.signature(metric._compute).parameters
    return metric.compute(predictions=predictions, references=references, **({"average": "macro"} if averaged else {}))
