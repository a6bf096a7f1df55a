"""Metrics by the kind of task, from arrays; scikit-learn computes them."""

import warnings

import numpy as np

from hf_ext.evaluation.predictions import MULTI_LABEL, REGRESSION, SINGLE_LABEL

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
# The Trainer knows only those that end in "loss".
LESS_IS_BETTER = {"loss", "ece", "mse", "rmse", "mae", "hamming_loss"}


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
