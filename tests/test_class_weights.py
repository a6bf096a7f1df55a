import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from hf_ext import ConfigurationError, DataError, resolve_class_weights

NAMES = ["ham", "spam", "0"]


def single_labels(seed=0, rows=200):
    return np.random.default_rng(seed).choice(3, rows, p=[0.8, 0.15, 0.05])


def multi_labels(seed=0, rows=200):
    return (np.random.default_rng(seed).random((rows, 3)) < [0.5, 0.1, 0.02]).astype(float)


def test_balanced_is_scikit_learns():
    labels = single_labels()
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(resolve_class_weights("balanced", labels, NAMES), expected, rtol=1e-12)


def test_balanced_of_several_labels_is_scikit_learns_of_each_yes_or_no():
    labels = multi_labels()
    weights = resolve_class_weights("balanced", labels, NAMES)
    for index in range(3):
        expected = compute_class_weight("balanced", classes=np.array([0.0, 1.0]), y=labels[:, index])
        np.testing.assert_allclose(weights[:, index], expected, rtol=1e-12)
        present = labels[:, index].sum()
        assert weights[1, index] / weights[0, index] == pytest.approx((len(labels) - present) / present)


@pytest.mark.parametrize("wanted", ["balanced", [3.0, 0.5, 2], {"spam": 7, "0": 0.1}, {0: 4.0}])
def test_the_mean_over_the_rows_is_one(wanted):
    labels = single_labels()
    assert resolve_class_weights(wanted, labels, NAMES)[labels].mean() == pytest.approx(1.0, abs=1e-12)
    labels = multi_labels()
    weights = resolve_class_weights(wanted, labels, NAMES)
    of_decisions = np.take_along_axis(weights, labels.astype(int), axis=0)
    np.testing.assert_allclose(of_decisions.mean(axis=0), 1.0, rtol=1e-12)


def test_given_weights_keep_their_ratios():
    labels = single_labels()
    expected = compute_sample_weight({0: 1.0, 1: 7.0, 2: 0.5}, labels)
    for wanted in ({"spam": 7, "0": 0.5}, [1, 7, 0.5]):
        weights = resolve_class_weights(wanted, labels, NAMES)
        np.testing.assert_allclose(weights[labels], expected / expected.mean(), rtol=1e-12)
        absent, present = resolve_class_weights(wanted, multi_labels(), NAMES)
        np.testing.assert_allclose(present / absent, [1.0, 7.0, 0.5], rtol=1e-12)


def test_rows_without_a_label_do_not_count():
    labels = single_labels()
    with_others = np.concatenate([labels, np.full(50, -100)])
    expected = resolve_class_weights("balanced", labels, NAMES)
    np.testing.assert_array_equal(resolve_class_weights("balanced", with_others, NAMES), expected)
    labels = multi_labels()
    with_others = np.concatenate([labels, np.full((50, 3), np.nan)])
    expected = resolve_class_weights("balanced", labels, NAMES)
    np.testing.assert_array_equal(resolve_class_weights("balanced", with_others, NAMES), expected)


def test_a_class_without_rows_weighs_one_and_changes_nothing():
    labels = single_labels() % 2
    weights = resolve_class_weights("balanced", labels, NAMES)
    np.testing.assert_allclose(weights[:2], compute_class_weight("balanced", classes=np.arange(2), y=labels))
    assert weights[2] == 1
    labels = multi_labels()
    labels[:, 1], labels[:, 2] = 0, 1
    weights = resolve_class_weights("balanced", labels, NAMES)
    np.testing.assert_array_equal(weights[:, 1:], 1.0)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"spamm": 2.0, "eggs": 1.0}, "class_weights names spamm, eggs; the classes are ham, spam, 0"),
        ({}, "names no class"),
        ([1.0, 2.0], "has 2 weights, but there are 3 classes: ham, spam, 0"),
        ("heavy", "class_weights is 'heavy'; it must be 'balanced', a list"),
        (np.ones(3), "it must be 'balanced', a list"),
        (3, "class_weights is 3; it must be"),
        ({"spam": 0}, "the weight of spam is 0; it must be a number above 0"),
        ({"ham": -1.0}, "the weight of ham is -1.0"),
        ([1, float("nan"), 1], "the weight of spam is nan"),
        ([1, 2, "3"], "the weight of 0 is '3'"),
        ([1, 2, True], "the weight of 0 is True"),
    ],
)
def test_what_does_not_fit_is_named(wanted, said):
    with pytest.raises(ConfigurationError, match=said):
        resolve_class_weights(wanted, single_labels(), NAMES)


def test_labels_that_cannot_be_weighed():
    with pytest.raises(DataError, match="no training row has a label"):
        resolve_class_weights("balanced", np.full(5, -100), NAMES)
    with pytest.raises(DataError, match="has the label 3; class ids are 0 to 2"):
        resolve_class_weights("balanced", np.array([0, 1, 3]), NAMES)
