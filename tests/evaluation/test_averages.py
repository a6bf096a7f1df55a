"""Means over tasks, counted by hand."""

import pytest

from hf_ext.evaluation.averages import average_over_tasks

KINDS = {"a": "single_label_classification", "b": "multi_label_classification", "c": "regression"}


def test_means_are_of_what_all_tasks_have():
    metrics = {
        "a": {"loss": 1.0, "accuracy": 0.8, "f1_micro": 0.8},
        "b": {"loss": 0.5, "subset_accuracy": 0.1, "f1_micro": 0.5},
        "c": {"loss": 0.3, "spearman": -0.1, "mse": 0.3},
    }
    assert average_over_tasks(metrics, KINDS) == pytest.approx({"loss": 0.6, "score": 0.4})
    two = {task: metrics[task] for task in ("a", "b")}
    assert average_over_tasks(two, KINDS) == pytest.approx({"loss": 0.75, "f1_micro": 0.65, "score": 0.65})


def test_without_a_main_metric_there_is_no_score():
    metrics = {"a": {"loss": 1.0, "mine": 0.3}, "b": {"loss": 2.0, "f1_micro": 0.5}}
    assert average_over_tasks(metrics, KINDS) == {"loss": 1.5}
