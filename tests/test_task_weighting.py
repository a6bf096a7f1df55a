"""Loss weights against the papers' formulas, written with NumPy and SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from hf_ext.errors import ConfigurationError
from hf_ext.task_weighting import dynamic_weight_average, normalized_weights, uncertainty_weighted


def test_weights_are_scaled_to_a_mean_of_one():
    assert normalized_weights({"b": 0.3, "a": 0.7}, ["a", "b"]) == pytest.approx({"a": 1.4, "b": 0.6})
    assert list(normalized_weights({"b": 0.3, "a": 0.7}, ["a", "b"])) == ["a", "b"]
    assert normalized_weights({"a": 5, "b": 0}, ["a", "b"]) == {"a": 2.0, "b": 0.0}
    assert normalized_weights(None, ["a", "b"]) == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"a": 1.0}, "no entry for 'b'"),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, "'c', which is no task"),
        ({"a": 1.0, "x": 1.0}, "no entry for 'b' and an entry for 'x'"),
        ({"a": -0.1, "b": 1.0}, "'a' -0.1"),
        ({"a": math.nan, "b": 1.0}, "'a' nan"),
        ({"a": math.inf, "b": 1.0}, "'a' inf"),
        ({"a": "0.5", "b": 1.0}, "'a' '0.5'"),
        ({"a": True, "b": 1.0}, "'a' True"),
        ({"a": 0, "b": 0.0}, "all 0"),
        ([0.5, 0.5], "mapping"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(weights, said):
    with pytest.raises(ConfigurationError, match=said):
        normalized_weights(weights, ["a", "b"])


def test_dynamic_weight_average_is_the_papers():
    generator = np.random.default_rng(0)
    for tasks in (1, 2, 5):
        before, last = generator.uniform(0.1, 3, (2, tasks))
        expected = tasks * softmax(last / before / 2.0)
        assert dynamic_weight_average(before, last) == pytest.approx(expected)
        assert dynamic_weight_average(before, last, 0.5) == pytest.approx(tasks * softmax(last / before / 0.5))


def test_dynamic_weight_average_of_extreme_losses():
    assert dynamic_weight_average([0.0, 1.0], [0.0, 1.0]) == [1.0, 1.0]
    weights = dynamic_weight_average([1e-9, 1.0], [10.0, 1.0])
    assert weights == pytest.approx([2.0, 0.0])


@pytest.mark.parametrize("regression", [False, True])
@pytest.mark.parametrize("loss", [0.05, 0.7, 3.0])
def test_the_best_log_variance_is_that_of_the_loss(loss, regression):
    """Kendall et al.: the minimum over s of L exp(-s) + s/2 is at s = log 2L, of L exp(-s) / 2 + s/2 at s = log L."""

    def objective(log_variance):
        return float(uncertainty_weighted(torch.tensor(loss), torch.tensor(log_variance), regression))

    found = minimize_scalar(objective, bracket=(-3, 3)).x
    assert found == pytest.approx(math.log(loss if regression else 2 * loss), abs=1e-2)


def test_uncertainty_weighs_gradients():
    loss = torch.tensor(0.8, requires_grad=True)
    log_variance = torch.tensor(0.5, requires_grad=True)
    uncertainty_weighted(loss, log_variance, regression=False).backward()
    assert loss.grad.item() == pytest.approx(math.exp(-0.5))
    assert log_variance.grad.item() == pytest.approx(0.5 - 0.8 * math.exp(-0.5), rel=1e-4)
