"""Results of repeated runs (folds, seeds) -> which method is better, by the paired t test."""

import json
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from hf_ext.errors import DataError
from hf_ext.evaluation.equivalence import SIGNIFICANCE
from hf_ext.evaluation.prediction_files import find_file
from hf_ext.evaluation.significance import holm
from hf_ext.evaluation.t_test import TTest, paired_t_test
from hf_ext.evaluation.tables import METRIC_TITLES, aligned, format_p, p_value, signed
from hf_ext.finite import is_finite_number

SCORES_FILE = "kfold_results.json"
FOLDS, SEEDS = "folds", "seeds"
# Metrics that are shares, whose differences are told in points.
SHARES = ("accuracy", "subset_accuracy", "f1", "precision", "recall", "hamming_loss")


class Run(NamedTuple):
    """Which run it was, how many rows it trained and tested on, and its metrics."""

    seed: int
    repeat: int
    fold: int
    train_rows: int
    test_rows: int
    metrics: dict[str, float]

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"seed {self.seed}, repeat {self.repeat}, fold {self.fold}"


@dataclass(frozen=True)
class Scores:
    """What a file of results holds: the main metric, and the runs sorted by seed, repeat and fold."""

    path: Path
    metric: str
    runs: list[Run]


@dataclass(frozen=True)
class ScorePair:
    """
    A method beside its baseline, trained several times each.

    Args:
        model, baseline (`str`): Names.
        metric (`str`): The main metric.
        over (`str`): `"folds"` or `"seeds"`: what the runs differ in.
        runs (`int`): Pairs of scores.
        tests (`dict[str, TTest]`): Of every metric that all runs have, model minus baseline, as [`paired_t_test`].
        p_holm (`float`, *optional*): The main metric's p corrected for all pairs; `None` if this is the only one.
        family (`int`, *optional*, defaults to `1`): Pairs that it was corrected for.
    """

    model: str
    baseline: str
    metric: str
    over: str
    runs: int
    tests: dict[str, TTest]
    p_holm: float | None = None
    family: int = 1

    @property
    def sentence(self) -> str:
        """What the runs say about the two, in words."""
        test, title = self.tests[self.metric], METRIC_TITLES.get(self.metric, self.metric)
        title = title.lower() if self.metric in METRIC_TITLES else title
        runs = f"{self.runs} {self.over}"
        if not test.spread:
            amount = "nothing" if test.value == 0 else f"the same {self._amount(test.value, True)}"
            return (
                f"{self.model} and {self.baseline} differ by {amount} in {title} in each of {runs}: without spread "
                "there is nothing to judge chance by."
            )
        p = test.p if self.p_holm is None else self.p_holm
        corrected = "corrected t test" if self.over == FOLDS else "t test"
        found = f"{format_p(p)} by the {corrected} over {self.over}"
        if self.p_holm is not None:
            found += f", corrected for {self.family} comparisons"
        size = f"{self._amount(test.value, True)} ({self._amount(test.low)} to {self._amount(test.high)})"
        if p < SIGNIFICANCE:
            word, sign = ("higher", 1) if test.value > 0 else ("lower", -1)
            low, high = sorted((sign * test.low, sign * test.high))
            size = f"{self._amount(sign * test.value, True)} ({self._amount(low)} to {self._amount(high)})"
            return f"The {title} of {self.model} is {size} {word} than that of {self.baseline} over {runs}; {found}."
        return f"{runs} cannot tell {self.model} and {self.baseline} apart: {title} differs by {size}; {found}."

    def _amount(self, value: float, unit: bool = False) -> str:
        if self.metric.startswith(SHARES):
            return f"{round(100 * value, 1) + 0.0:.1f}" + (" points" if unit else "")
        return f"{round(value, 4) + 0.0:.4f}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON; an infinite t becomes `None`."""
        tests = {
            name: {key: None if key == "t" and math.isinf(value) else value for key, value in test._asdict().items()}
            for name, test in self.tests.items()
        }
        return {**vars(self), "tests": tests, "sentence": self.sentence}


def read_scores(path: str | os.PathLike) -> Scores:
    """
    Reads `kfold_results.json`.

    Args:
        path (`str` or `os.PathLike`):
            The file, or the folder that holds it: `metric`, and `folds`, each with `seed`, `repeat`, `fold`,
            `train_rows`, `test_rows` and `metrics`.

    Raises:
        DataError: If there is no such file, it is of another form, has a run twice, or lacks the main metric in one.
    """
    path = find_file(Path(path), SCORES_FILE, "A run of run_kfold.py makes one.")
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}.") from None
    if not isinstance(content, dict) or not isinstance(content.get("folds"), list) or not content["folds"]:
        raise DataError(f"{path} must hold an object with the key 'folds', a list of runs; it does not.")
    metric = content.get("metric")
    runs = [_run(item, f"{path}, folds[{place}]", metric) for place, item in enumerate(content["folds"])]
    runs.sort(key=lambda run: run[:3])
    for first, second in pairwise(runs):
        if first[:3] == second[:3]:
            raise DataError(f"{path} holds {first.name} twice; each run may occur once.")
    return Scores(path, metric, runs)


def compare_scores(scores: dict[str, Scores], pairs: Sequence[tuple[str, str]]) -> list[ScorePair]:
    """
    Compare methods that were trained on the same folds, or with the same seeds, by [`paired_t_test`].

    Where there are several folds (or repeats), each counts once, with the mean over its seeds, and the test is
    corrected for the training rows that folds share. Where all runs test on the same rows, the seeds are compared.

    Args:
        scores (`dict[str, Scores]`): By the method's name.
        pairs (`Sequence[tuple[str, str]]`): (model, baseline): which to test.

    Raises:
        DataError: If the methods were run on other folds, with other seeds or by another metric, or only once.
    """
    check_same_runs(scores)
    compared = []
    for model, baseline in pairs:
        over, ratio, series = _series(scores[model], scores[baseline])
        tests = {name: paired_t_test(a, b, ratio) for name, (a, b) in series.items()}
        count = len(next(iter(series.values()))[0])
        compared.append(ScorePair(model, baseline, scores[model].metric, over, count, tests))
    if len(compared) > 1:
        corrected = holm([pair.tests[pair.metric].p for pair in compared])
        compared = [replace(pair, p_holm=p, family=len(compared)) for pair, p in zip(compared, corrected, strict=True)]
    return compared


def check_same_runs(scores: dict[str, Scores]) -> None:
    """
    Raises:
        DataError: If the methods' runs differ in metric, seed, repeat, fold or rows (the message shows the first that
            does), or there is one run only.
    """
    (reference, first), *others = scores.items()
    if len(first.runs) < 2:
        raise DataError(f"{first.path} holds one run; a t test needs at least two folds or seeds.")
    for name, given in others:
        if given.metric != first.metric:
            raise DataError(
                f"{first.path} is about {first.metric}, {given.path} about {given.metric}; compare by one metric."
            )
        for mine, theirs in zip(first.runs, given.runs, strict=False):
            if mine[:5] != theirs[:5]:
                raise DataError(
                    f"The runs of {reference} and {name} are not the same: {mine.name} ({mine.train_rows:,} rows "
                    f"trained, {mine.test_rows:,} tested) stands in {first.path} where {theirs.name} "
                    f"({theirs.train_rows:,}, {theirs.test_rows:,}) stands in {given.path}. Give both the same "
                    "data, folds and seeds."
                )
        if len(given.runs) != len(first.runs):
            raise DataError(
                f"{first.path} holds {len(first.runs)} runs, {given.path} {len(given.runs)}. Give both the same folds "
                "and seeds."
            )


def score_rows(pairs: Sequence[ScorePair]) -> list[list[str]]:
    """Headings, and the cells of a row a pair."""
    corrected = any(pair.p_holm is not None for pair in pairs)
    rows = [["model", "baseline", "over", f"{pairs[0].metric} +/-", "95 % interval", "t", "p"]]
    rows[0] += ["Holm"] if corrected else []
    for pair in pairs:
        test = pair.tests[pair.metric]
        interval = f"[{signed(test.low)}, {signed(test.high)}]"
        cells = [pair.model, pair.baseline, f"{pair.runs} {pair.over}", signed(test.value), interval]
        cells += [f"{test.t:.3f}", p_value(test.p)]
        rows.append([*cells, *([p_value(pair.p_holm)] if corrected else [])])
    return rows


def score_table(pairs: Sequence[ScorePair]) -> str:
    """A row a pair for the console."""
    return aligned(score_rows(pairs), names=3)


# ---- Inside ----


def _run(item: Any, where: str, metric: Any) -> Run:
    if not isinstance(item, dict):
        raise DataError(f"{where} is {item!r}; it must be an object with {', '.join(Run._fields)}.")
    missing = [key for key in Run._fields if key not in item]
    if missing:
        raise DataError(f"{where} has no {missing[0]!r}; it has {', '.join(item) or 'nothing'}.")
    for key in Run._fields[:-1]:
        least = 1 if key.endswith("rows") else 0
        if type(item[key]) is not int or item[key] < least:
            raise DataError(f"{where}: {key} is {item[key]!r}; it must be a whole number from {least}.")
    metrics = item["metrics"]
    if not isinstance(metrics, dict) or metric not in metrics:
        held = ", ".join(metrics) if isinstance(metrics, dict) else repr(metrics)
        raise DataError(f"{where}: metrics lack {metric!r}, the file's metric; they are {held or 'empty'}.")
    if not is_finite_number(metrics[metric]):
        raise DataError(f"{where}: {metric} is {metrics[metric]!r}; it must be a finite number.")
    numbers = {name: float(value) for name, value in metrics.items() if is_finite_number(value)}
    return Run(*(item[key] for key in Run._fields[:-1]), numbers)


def _series(a: Scores, b: Scores) -> tuple[str, float, dict[str, tuple[list[float], list[float]]]]:
    """What the runs differ in, the ratio that the test is corrected by, and the two series of each metric."""
    parts: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, run in enumerate(a.runs):
        parts[run.repeat, run.fold].append(place)
    over = FOLDS if len(parts) > 1 else SEEDS
    groups = list(parts.values()) if over == FOLDS else [[place] for place in range(len(a.runs))]
    ratio = sum(run.test_rows for run in a.runs) / sum(run.train_rows for run in a.runs) if over == FOLDS else 0.0
    names = [name for name in a.runs[0].metrics if all(name in run.metrics for run in (*a.runs, *b.runs))]
    series = {
        name: tuple(
            [sum(given.runs[place].metrics[name] for place in group) / len(group) for group in groups]
            for given in (a, b)
        )
        for name in names
    }
    return over, ratio, series
