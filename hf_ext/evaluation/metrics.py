"""Metrics by the kind of task, from arrays; scikit-learn computes them."""

import warnings

import numpy as np

from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

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
    from sklearn.metrics import accuracy_score, matthews_corrcoef

    scores = {"accuracy": accuracy_score(labels, predictions)}
    scores |= _f1_scores(labels, predictions, ("macro", "micro", "weighted"))
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
    from sklearn.metrics import accuracy_score, hamming_loss

    labels, predictions = np.asarray(labels).astype(int), np.asarray(predictions).astype(int)
    scores = {"subset_accuracy": accuracy_score(labels, predictions)}
    scores |= _f1_scores(labels, predictions, ("macro", "micro", "weighted", "samples"))
    scores["hamming_loss"] = hamming_loss(labels, predictions)
    return {name: float(score) for name, score in scores.items()}


def _f1_scores(labels: np.ndarray, predictions: np.ndarray, averages: tuple[str, ...]) -> dict[str, float]:
    """F1 of each average, precision and recall of the first."""
    from sklearn.metrics import precision_recall_fscore_support

    found = [precision_recall_fscore_support(labels, predictions, average=name, zero_division=0) for name in averages]
    scores = {f"f1_{name}": f1 for name, (_, _, f1, _) in zip(averages, found, strict=True)}
    return scores | {f"precision_{averages[0]}": found[0][0], f"recall_{averages[0]}": found[0][1]}


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
