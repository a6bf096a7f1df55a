"""
How much of an expected calibration error is chance.

It is a sum of absolute values, one a bin, and chance makes those larger: on the rows, and once more on resamples of
the rows. Percentiles of the resamples lie too high, at times above the error itself. Here what a bin adds is taken for
chance where that is the cautious view and possible, and for real where that is.
"""

import numpy as np


def calibration_interval(
    draws: np.ndarray, observed: np.ndarray, rows: int, confidence: float = 0.95
) -> tuple[float, float]:
    """
    Interval of the expected calibration error that a model has on endless rows.

    The error is `sum(abs(observed))`. How far resamples go astray is told by the directional derivative of that sum
    (Fang & Santos 2019, "Inference on Directionally Differentiable Functions"): a bin that is further than
    `sqrt(log(rows))` standard errors from 0 adds its change, any other bin the size of its change at the lower end (its
    error may be chance alone) and its change at the upper end (it may be real).

    Args:
        draws (`np.ndarray` of shape `(resamples, bins)`): Right answers less confidence, summed over the resampled rows
            of each bin, over the number of rows.
        observed (`np.ndarray` of shape `(bins,)`): The same of the rows themselves.
        rows (`int`): Their number.
        confidence (`float`, *optional*, defaults to `0.95`): Coverage of the interval.

    Returns:
        `tuple[float, float]`: Lower end, at least 0, and upper end; the error of the rows lies between.
    """
    moved, raised = _astray(draws, observed, rows)
    tail, error = 100 * (1 - confidence) / 2, np.abs(observed).sum()
    low, high = error - np.percentile(raised.sum(axis=1), 100 - tail), error - np.percentile(moved.sum(axis=1), tail)
    return max(float(low), 0.0), float(high)


def calibration_difference(
    draws: tuple[np.ndarray, np.ndarray], observed: tuple[np.ndarray, np.ndarray], rows: int, confidence: float = 0.95
) -> tuple[float, float, float]:
    """
    Interval and two-sided p value of the difference of two models' expected calibration errors on endless rows.

    As [`calibration_interval`]: for the lower end the first model's error may be chance and the second one's is real,
    for the upper end the other way round. p inverts the interval. Both are cautious: models of equal error are told
    apart less often than promised, and a real difference on few rows is found less often than it could be.

    Args:
        draws, observed (`tuple[np.ndarray, np.ndarray]`): As for [`calibration_interval`], of each model, on the same
            resampled rows.
        rows, confidence: As for [`calibration_interval`].

    Returns:
        `tuple[float, float, float]`: Lower end, upper end and p of the first error minus the second.
    """
    # Where two models answer alike, they differ by nothing, not by chance.
    other = ~(draws[0] == draws[1]).all(axis=0)
    (moved_a, raised_a), (moved_b, raised_b) = (
        _astray(part[:, other], own[other], rows) for part, own in zip(draws, observed, strict=True)
    )
    above, below = (raised_a - moved_b).sum(axis=1), (moved_a - raised_b).sum(axis=1)
    difference = float(np.abs(observed[0][other]).sum() - np.abs(observed[1][other]).sum())
    tail = 100 * (1 - confidence) / 2
    low, high = difference - np.percentile(above, 100 - tail), difference - np.percentile(below, tail)
    shares = (1 + np.array([(above >= difference).sum(), (below <= difference).sum()])) / (1 + len(above))
    return float(low), float(high), float(min(1.0, 2 * shares.min()))


def _astray(draws: np.ndarray, observed: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """What each bin of each resample adds to the error if all excess is real, and if what is not clear is chance."""
    change = draws - observed
    clear = np.abs(observed) > np.sqrt(np.log(rows)) * change.std(axis=0)
    moved = np.sign(observed) * change
    return moved, np.where(clear, moved, np.abs(change))
