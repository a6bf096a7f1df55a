import numpy as np
import pytest

from hf_ext.evaluation.calibration import expected_calibration_error


def calibration_error_by_hand(probabilities, labels, num_bins):
    """Equation 3 of Guo et al. (2017), a row at a time."""
    bins = [[] for _ in range(num_bins)]
    for row, label in zip(probabilities, labels, strict=True):
        confidence = max(row)
        index = next(i for i in range(num_bins) if i / num_bins < confidence <= (i + 1) / num_bins)
        bins[index].append((confidence, float(np.argmax(row) == label)))
    total = 0.0
    for rows in bins:
        if rows:
            confidences, hits = zip(*rows, strict=True)
            total += len(rows) / len(labels) * abs(sum(hits) / len(rows) - sum(confidences) / len(rows))
    return total


@pytest.mark.parametrize("num_bins", [1, 10, 15, 100])
@pytest.mark.parametrize("classes", [2, 5])
def test_against_a_loop(classes, num_bins):
    generator = np.random.default_rng(classes)
    probabilities = generator.dirichlet(np.full(classes, 0.7), size=700)
    labels = generator.integers(0, classes, 700)
    expected = calibration_error_by_hand(probabilities, labels, num_bins)
    assert expected_calibration_error(probabilities, labels, num_bins) == pytest.approx(expected, abs=1e-12)


def test_fifteen_bins_are_the_default():
    generator = np.random.default_rng(0)
    probabilities, labels = generator.dirichlet(np.ones(3), size=300), generator.integers(0, 3, 300)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(
        calibration_error_by_hand(probabilities, labels, 15), abs=1e-12
    )


def test_extremes():
    sure = np.eye(2)[[0, 1, 1, 0]]
    assert expected_calibration_error(sure, np.array([0, 1, 1, 0])) == 0.0
    assert expected_calibration_error(sure, np.array([1, 0, 0, 1])) == 1.0
    # Seven of ten right at a confidence of 0.7.
    probabilities = np.tile([0.7, 0.3], (10, 1))
    assert expected_calibration_error(probabilities, np.array([0] * 7 + [1] * 3)) == pytest.approx(0.0, abs=1e-12)
    assert expected_calibration_error(probabilities, np.array([0] * 2 + [1] * 8)) == pytest.approx(0.5)


def test_lists_are_taken_too():
    assert expected_calibration_error([[0.9, 0.1], [0.2, 0.8]], [0, 1]) == pytest.approx(0.15)
