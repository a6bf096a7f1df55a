"""Means over folds against SciPy and the standard library."""

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from hf_ext import folds_table, summarize_folds
from hf_ext.evaluation.over_folds import draw_folds

VALUES = {"accuracy": [0.9, 0.85, 0.88, 0.91, 0.79], "loss": [0.3, 0.4, 0.35, 0.2, 0.5]}
FOLDS = [{name: values[index] for name, values in VALUES.items()} for index in range(5)]


def test_mean_spread_and_interval():
    summary = summarize_folds(FOLDS)
    for name, values in VALUES.items():
        assert summary.mean[name] == pytest.approx(statistics.mean(values), abs=1e-12)
        assert summary.std[name] == pytest.approx(statistics.stdev(values), abs=1e-12)
        interval = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert summary.ci95[name] == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_what_a_fold_lacks_is_left_out_and_what_is_undefined_is_said():
    folds = [{**fold, "own": 1.0, "mcc": math.nan if index == 2 else 0.5} for index, fold in enumerate(FOLDS)]
    del folds[3]["own"]
    summary = summarize_folds(folds)
    assert "own" not in summary.mean and math.isnan(summary.mean["mcc"])
    assert "undefined" in folds_table(summary)


def test_the_table_has_the_main_metrics():
    lines = folds_table(summarize_folds(FOLDS)).splitlines()
    assert lines[0].split() == ["metric", "mean", "sd", "95", "%", "interval"]
    assert lines[1].split()[:3] == ["accuracy", "0.8660", "0.0483"]
    assert len(lines) == 2


def test_the_picture_is_described(tmp_path):
    folds = [
        {"seed": seed, "repeat": 0, "fold": index, "metrics": FOLDS[index]} for seed in (1, 2) for index in range(5)
    ]
    summary = summarize_folds([fold["metrics"] for fold in folds])
    told = draw_folds(tmp_path / "kfold.png", folds, "accuracy", summary)
    assert "each of 10 folds" in told and "Accuracy 0.8660" in told
    assert (tmp_path / "kfold.png").read_bytes().startswith(b"\x89PNG")
    undefined = [{**fold, "metrics": {"accuracy": np.nan}} for fold in folds]
    nothing = summarize_folds([fold["metrics"] for fold in undefined])
    assert "undefined" in draw_folds(tmp_path / "kfold.png", undefined, "accuracy", nothing)
