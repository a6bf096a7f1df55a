"""How far probabilities can be believed."""

import numpy as np

from hf_ext.evaluation.predictions import reliability_bins


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """
    Mean distance between confidence and accuracy over bins of confidence (Guo et al. 2017, equation 3).

    Args:
        probabilities (`np.ndarray` of shape `(rows, classes)`): Rows that add up to 1.
        labels (`np.ndarray` of shape `(rows,)`): True class ids.
        num_bins (`int`, *optional*, defaults to `15`): Equal-width bins `(low, high]`.

    Returns:
        `float` in [0, 1]; 0 is perfect.
    """
    probabilities = np.asarray(probabilities)
    correct = probabilities.argmax(axis=1) == np.asarray(labels)
    rows, confidence, accuracy = reliability_bins(probabilities.max(axis=1), correct, num_bins)
    return float((rows * np.abs(accuracy - confidence)).sum() / rows.sum())
